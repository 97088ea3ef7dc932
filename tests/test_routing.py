import re

import pytest

from wechat.errors import RoutingError, SettingsError
from wechat.message import Message
from wechat.routing import Router, describe, load, on, prepare

HEAD = "import re\nfrom wechat.routing import on\n"


@pytest.fixture
def folder(tmp_path):
    """A function that writes modules by name and gives the folder."""

    def write(**modules):
        for name, source in modules.items():
            (tmp_path / f"{name}.py").write_text(HEAD + source, encoding="utf-8")
        return tmp_path

    return write


def faults(folder, environ=None):
    with pytest.raises(RoutingError) as caught:
        load(folder, environ or {})
    return caught.value.faults


def text(content):
    return Message({"MsgType": "text", "Content": content})


def event(event, key=""):
    return Message({"MsgType": "event", "Event": event, "EventKey": key})


def who(router, message):
    found = router.find(message)
    return found and found.handler.function.__name__


def test_on_returns_the_function_as_it_was():
    def answer(msg):
        return msg

    assert on("text")(answer) is answer
    assert answer(1) == 1


def test_load_collects_a_plain_dict_from_path_to_function(folder):
    routes = load(
        folder(a='@on("text", "帮助")\n@on("text", "?")\ndef help(msg): pass\n@on("default")\ndef rest(msg): pass\n')
    )
    assert type(routes) is dict
    assert [(path, function.__name__) for path, function in routes.items()] == [
        (("text", "?"), "help"),
        (("text", "帮助"), "help"),
        (("default",), "rest"),
    ]


def test_modules_are_loaded_in_name_order_and_those_with_an_underscore_are_not(folder):
    line = 'LOADED = __name__\n@on("text", re.compile("{}"))\ndef {}(msg): pass\n'
    routes = load(folder(b=line.format("b", "b"), a=line.format("a", "a"), _c="1 / 0"))
    assert [function.__name__ for function in routes.values()] == ["a", "b"]


def test_modules_import_one_another_and_what_is_imported_is_no_second_claim(folder):
    routes = load(folder(a="from handlers.b import hello\n", b='@on("text")\ndef hello(msg): pass\n'))
    assert len(routes) == 1


def test_a_folder_is_loaded_afresh_each_time(folder):
    load(folder(a='@on("text")\ndef old(msg): pass\n'))
    routes = load(folder(a='@on("image")\ndef newer(msg): pass\n'))
    assert list(routes) == [("image",)]


ROUTES = """
@on("text", "exact")
def exact(msg): pass
@on("text", re.compile("ex.*"))
def pattern(msg): pass
@on("text", re.compile("exa.*"))
def later_pattern(msg): pass
@on("text")
def any_text(msg): pass
@on("event", "CLICK", "Key")
def key(msg): pass
@on("event", "CLICK", re.compile(r"Key_(\\d+)"))
def key_pattern(msg, match): pass
@on("event", "CLICK")
def click(msg): pass
@on("event", re.compile("card_.*"))
def card(msg): pass
@on("event")
def any_event(msg): pass
@on(re.compile("short.*"))
def short(msg): pass
@on("default")
def rest(msg): pass
@on("error")
def failed(msg): pass
@on("busy")
def turned_away(msg): pass
"""


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (text("exact"), "exact"),
        (text(" EXACT\n"), "exact"),
        (text("\u3000exact"), "exact"),
        (text("exacter"), "pattern"),
        (text("  exam "), "pattern"),
        (text("EXAM"), "any_text"),
        (text("an example"), "any_text"),
        (text(""), "any_text"),
        (Message({"MsgType": "text"}), "any_text"),
        (event("CLICK", "Key"), "key"),
        (event("click", "Key"), "key"),
        (event("CLICK", "key"), "click"),
        (event("CLICK", "Key_7"), "key_pattern"),
        (event("CLICK", "Key_7x"), "click"),
        (event("CLICK"), "click"),
        (event("card_pass_check"), "card"),
        (event("VIEW"), "any_event"),
        (Message({"MsgType": "event"}), "any_event"),
        (Message({"MsgType": "shortvideo"}), "short"),
        (Message({"MsgType": "TEXT", "Content": "exact"}), "exact"),
        (Message({"MsgType": "image"}), "rest"),
        (Message({"MsgType": "default"}), "rest"),
        (Message({"MsgType": "error"}), "rest"),
        (Message({"MsgType": "busy"}), "rest"),
    ],
)
def test_the_longest_path_answers_exact_before_pattern_before_general(folder, message, name):
    assert who(Router(load(folder(a=ROUTES))), message) == name


def test_the_order_in_a_file_never_decides_between_exact_and_general(folder):
    backwards = "\n@".join(reversed(ROUTES.strip().removeprefix("@").split("\n@")))
    routers = Router(load(folder(a=ROUTES))), Router(load(folder(a="@" + backwards + "\n")))
    for message in (text("exact"), text("x"), event("CLICK", "Key"), event("CLICK", "z"), event("VIEW")):
        assert len({who(router, message) for router in routers}) == 1


def test_nobody_is_found_where_nobody_claims_and_there_is_no_default(folder):
    assert Router(load(folder(a='@on("text")\ndef t(msg): pass\n'))).find(event("VIEW")) is None


def test_a_pattern_hands_its_match_on(folder):
    router = Router(load(folder(a='@on("text", re.compile("bind (.*)"))\ndef bind(msg, match): return match[1]\n')))
    found = router.find(text("bind 42"))
    assert found.handler(text("bind 42"), match=found.match, error=None) == "42"


def test_a_handler_gets_what_it_names_and_nothing_else(folder):
    source = (
        '@on("text")\ndef one(msg): return msg\n'
        '@on("image")\ndef two(msg, *, match, error): return (match, error)\n'
        '@on("voice")\ndef three(msg, error=None): return error\n'
    )
    router = Router(load(folder(a=source)))

    def call(kind):
        message = Message({"MsgType": kind, "Content": ""})
        return router.find(message).handler(message, match="m", error="e")

    assert call("text").MsgType == "text"
    assert call("image") == ("m", "e")
    assert call("voice") == "e"


def test_slow_belongs_to_the_path(folder):
    router = Router(load(folder(a='@on("text", "a", slow=True)\n@on("text", "b")\ndef f(msg): pass\n')))
    assert router.find(text("a")).handler.slow
    assert not router.find(text("b")).handler.slow


def test_two_handlers_for_one_path_are_both_named(folder):
    (fault,) = faults(
        folder(a='@on("text", "Help")\ndef one(msg): pass\n', b='\n@on("text", "help")\ndef two(msg): pass\n')
    )
    assert "@on('text', 'help') is claimed twice" in fault
    assert re.search(r"handlers\.a\.one \(.*/a\.py:3\)", fault)
    assert re.search(r"handlers\.b\.two \(.*/b\.py:4\)", fault)


def test_a_handler_that_hides_another_of_the_same_name_is_named(folder):
    (fault,) = faults(folder(a='@on("text", "a")\ndef f(msg): pass\n@on("text", "b")\ndef f(msg): pass\n'))
    assert re.search(r"handlers\.a\.f \(.*/a\.py:5\) hides handlers\.a\.f \(.*/a\.py:3\)", fault)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [("msg, mach", "mach"), ("msg, *args", "*args"), ("msg, **more", "*more"), ("msg, match, user", "user")],
)
def test_an_unknown_parameter_stops_the_start_with_its_place(folder, parameters, named):
    (fault,) = faults(folder(a=f'@on("text")\ndef f({parameters}): pass\n'))
    assert re.search(rf"handlers\.a\.f \(.*/a\.py:3\) asks for {re.escape(named)}", fault)
    assert "match, session, api, error" in fault


def test_a_busy_handler_may_not_wait_for_the_session_that_others_have(folder):
    (fault,) = faults(folder(a='@on("busy")\ndef f(msg, session): pass\n'))
    assert fault.endswith("asks for session: after the message there are only match, api, error")


def test_a_handler_without_a_parameter_is_refused(folder):
    (fault,) = faults(folder(a='@on("text")\ndef f(): pass\n'))
    assert "the first one is the message" in fault


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("\n\n1 / 0\n", 5, "ZeroDivisionError"),
        ("def f(:\n", 3, "SyntaxError"),
        ("import nowhere\n", 3, "nowhere"),
        ("raise SystemExit(1)\n", 3, "SystemExit"),
        ("class Panic(BaseException): pass\nraise Panic\n", 4, "Panic"),
        ('@on("image", "x")\ndef f(msg): pass\n', 3, "at most 1 parts"),
        ('@on("text", re.compile("x"), "y")\ndef f(msg): pass\n', 3, "at most 2 parts"),
        ('@on("event", re.compile("x"), "y")\ndef f(msg): pass\n', 3, "a pattern can only come last"),
        ('@on("text", 5)\ndef f(msg): pass\n', 3, "part 2 is a int"),
        ('@on("default", "x")\ndef f(msg): pass\n', 3, "at most 1 parts"),
    ],
)
def test_a_module_that_does_not_import_stops_the_start_with_file_and_line(folder, source, line, said):
    (fault,) = faults(folder(a=source))
    assert f"/a.py:{line}: the module does not import" in fault
    assert said in fault


def test_every_fault_is_said_at_once(folder):
    assert len(faults(folder(a="1 / 0\n", b="import nowhere\n", c='@on("text")\ndef f(): pass\n'))) == 3


def test_a_missing_folder_is_named(tmp_path):
    (fault,) = faults(tmp_path / "none")
    assert str(tmp_path / "none") in fault


def test_a_module_refuses_its_own_settings_like_the_core(folder):
    source = "from wechat.errors import SettingsError\nfrom wechat.settings import own\n"
    source += "if own('MINE') != 'good':\n    raise SettingsError(['MINE is wrong'])\n"
    assert faults(folder(a=source), {"MINE": "bad"}) == ("MINE is wrong",)
    assert load(folder(a=source), {"MINE": "good"}) == {}


def test_faults_of_settings_and_handlers_are_said_together(folder):
    with pytest.raises(Exception, match="WECHAT_TOKEN") as caught:
        prepare({}, folder(a="1 / 0\n"))
    assert not isinstance(caught.value, SettingsError)
    assert len(caught.value.faults) == 2


def test_a_path_is_described_as_one_would_write_it():
    path = ("event", "click", re.compile(r"A_\d", re.DOTALL))
    assert describe(path) == r"'event', 'click', re.compile('A_\\d', re.DOTALL)"


@pytest.mark.parametrize("head", ["def", "async def"])
def test_a_busy_handler_that_would_wait_itself_is_a_fault(folder, head):
    body = "yield 'wait'" if head == "def" else "return 'wait'"
    source = f"from wechat.routing import on\n@on('busy')\n{head} busy(msg):\n    {body}\n"
    with pytest.raises(RoutingError, match=r"busy .* answers at once"):
        load(folder(a=source))
