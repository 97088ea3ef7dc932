"""`@around`: what wraps the handlers of a path, in which order, and what it sees."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN
from tests.test_async import says
from wechat.errors import RoutingError
from wechat.message import Message
from wechat.platform.menu import unhandled_keys
from wechat.routing import Router, load
from wechat.settings import read
from wxserver import Application

HEAD = "import re\nfrom wechat.routing import around, on\n"


@pytest.fixture
def make(make_account):
    """An account whose module may use `around`."""
    return lambda source, **environ: make_account(HEAD + source, **environ)


HELLO = """
@on("text", "hello")
def hello(msg): return "hello"
@on("text")
def rest(msg): return None
@on("event", "CLICK", "KEY")
def key(msg): return "key"
@on("default")
def default(msg): return "default"
"""


def marked(path, name="outer"):
    body = f"reply = answer(); return f'{name}({{reply and reply.content}})'"
    return f"@around({path})\ndef {name}(msg, answer): {body}\n"


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [
        ("", {"hello", "rest", "key", "default", "image"}),
        ('"text"', {"hello", "rest"}),
        ('"TEXT", " Hello "', {"hello"}),
        ('"text", re.compile("he.*")', {"hello"}),
        ('"text", re.compile("he")', set()),
        ('re.compile("t.*|image")', {"hello", "rest", "image"}),
        ('"event"', {"key", "default"}),
        ('"event", "click"', {"key"}),
        ('"event", "CLICK", "KEY"', {"key"}),
        ('"event", "CLICK", "key"', set()),
        ('"event", "CLICK", re.compile("K.*")', {"key"}),
        ('"default"', {"default", "image"}),
        ('"image"', {"image"}),
    ],
)
def test_it_wraps_the_handlers_of_all_messages_that_its_path_fits(make, path, wrapped):
    account = make(HELLO + marked(path))
    said = {
        "hello": account.say("hello"),
        "rest": account.say("other"),
        "key": account.event("CLICK", "KEY"),
        "default": account.event("VIEW"),
        "image": account.push(MsgType="image"),
    }
    assert {name for name, reply in said.items() if reply.get("Content", "").startswith("outer(")} == wrapped


def test_shorter_paths_are_outside_of_longer_ones_and_then_load_order_counts(make):
    account = make(
        HELLO + marked('"text", "hello"', "a") + marked('"text"', "b") + marked('"text"', "c") + marked("", "d")
    )
    assert account.say("hello")["Content"] == "d(b(c(a(hello))))"


@pytest.mark.parametrize(("inner", "outer"), [(", timeout=0.2", ""), ("", ", timeout=0.2")])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_async_handler_inside_is_cancelled_where_its_time_is_over(make, kind, inner, outer):
    source = f"""
import asyncio
said = []
@on("text", "said")
def what(msg): return str(said)
@on("text"{inner})
async def hang(msg):
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        said.append("cancelled")
        raise
@on("error")
def failed(msg, error): return type(error).__name__
@around("text", "x"{outer})
{kind} outer(msg, answer): return {"await " if kind == "async def" else ""}answer()
"""
    account = make(source)
    assert account.say("x")["Content"] == "TimeoutError"
    deadline = time.monotonic() + 5
    while account.say("said")["Content"] == "[]" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert account.say("said")["Content"] == "['cancelled']"


def test_defs_that_hang_within_an_async_one_hold_up_no_other_handler(make):
    source = """
import asyncio, threading
end = threading.Event()
@on("text", re.compile("hang.*"), timeout=0.3)
def hang(msg): end.wait(20)
@on("text", "other")
async def other(msg): return await asyncio.to_thread(lambda: "answered")
@on("error")
def failed(msg, error): return type(error).__name__
@around("text", re.compile("hang.*"))
async def outer(msg, answer): return await answer()
@on("text", "end")
def let_go(msg): end.set()
"""
    account = make(source, WECHAT_THREADS="200")
    with ThreadPoolExecutor(80) as users:
        said = users.map(lambda user: says(account, "hang", f"user{user}"), range(80))
        assert set(said) == {"TimeoutError"}
    began = time.monotonic()
    assert account.say("other")["Content"] == "answered"
    assert time.monotonic() - began < 2
    account.say("end")
    assert account.say("other")["Content"] == "answered"


def test_a_menu_has_no_handler_for_a_key_because_something_wraps_all(tmp_path):
    (tmp_path / "a.py").write_text(HEAD + "@on('event')\ndef f(msg): pass\n@around()\ndef o(msg): pass\n")
    menu = {"button": [{"type": "click", "name": "a", "key": "K"}]}
    assert len(list(unhandled_keys(menu, Router(load(tmp_path))))) == 1


def test_what_a_handler_does_not_say_is_none(make):
    assert make(HELLO + marked('"text"')).say("other")["Content"] == "outer(None)"


def test_a_string_comes_as_a_text_and_an_article_as_news(make):
    source = """
from wechat.reply import Article
@on("text", "a")
def a(msg): return "a"
@on("text", "b")
def b(msg): return Article("b")
@around("text")
def outer(msg, answer): return repr(answer())
"""
    account = make(source)
    assert account.say("a")["Content"] == "Text(content='a')"
    assert account.say("b")["Content"].startswith("News(articles=(Article(title='b'")


def test_it_can_answer_by_itself_and_the_handler_does_not_run(make):
    account = make(
        'ran = []\n@on("text")\ndef hello(msg): ran.append(1)\n@around()\ndef closed(msg): return f"closed {ran}"'
    )
    assert [account.say(text)["Content"] for text in "ab"] == ["closed []", "closed []"]


def test_a_message_that_nobody_answers_is_seen_too_and_still_named(make, caplog):
    caplog.set_level(logging.INFO)
    source = """
seen = []
@on("text", "seen")
def f(msg): return str(seen)
@around("image")
def note(msg, answer): seen.append(answer())
"""
    account = make(source)
    assert account.push(MsgType="image") == {}
    assert account.say("seen")["Content"] == "[None]"
    assert "-> nobody in handlers.mine.note: success" in caplog.text
    assert "to answer these: @on('image')" in caplog.text


def test_the_log_names_the_handler_and_what_it_is_in(make, caplog):
    caplog.set_level(logging.INFO)
    make(HELLO + marked('"text"')).say("hello")
    assert "-> handlers.mine.hello in handlers.mine.outer: text, direct" in caplog.text


def test_it_gets_what_it_names(make):
    source = """
@on("text", re.compile("say (.*)"))
def say(msg, match, session): return f"{match[1]} {session}"
@around("text", re.compile("(s).*"))
def outer(msg, session, answer, match, api):
    session["n"] = session.get("n", 0) + 1
    return f"{match[1]} {answer().content} {type(api).__name__}"
@around("text")
def outmost(msg, answer, match): return answer().content + match[1]
"""
    account = make(source)
    assert account.say("say x")["Content"] == "s x {'n': 1} Apix"
    assert account.say("say y")["Content"] == "s y {'n': 2} Apiy"


KINDS = {
    "def": "def {name}(msg{asks}): {body}",
    "async def": "async def {name}(msg{asks}): {body}",
}


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("middle", KINDS)
@pytest.mark.parametrize("outer", KINDS)
def test_a_def_and_an_async_def_wrap_one_another(make, inner, middle, outer):
    def wrapping(kind, name):
        call = "await answer()" if kind == "async def" else "answer()"
        body = f"session['{name}'] = 1; return '{name}(' + ({call}).content + ')'"
        return f"@around('text')\n{KINDS[kind].format(name=name, asks=', answer, session', body=body)}\n"

    body = "return str(sorted(session)) + type(api).__name__"
    source = wrapping(outer, "o") + wrapping(middle, "m")
    source += f"@on('text')\n{KINDS[inner].format(name='f', asks=', session, api', body=body)}\n"
    account = make(source)
    api = "Awaited" if inner == "async def" else "Api"
    assert account.say("x")["Content"] == f"o(m(['m', 'o']{api}))"
    assert account.say("x")["Content"] == f"o(m(['m', 'o']{api}))"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_raised_inside_can_be_caught_and_else_reaches_the_error_handler(make, kind):
    source = f"""
@on("text")
{kind} fails(msg): raise OSError("gone")
@on("error")
def failed(msg, error): return f"error: {{error}}"
@around("text", "caught")
def catch(msg, answer):
    try:
        return answer()
    except OSError as error:
        return f"caught {{error}}"
@around("text")
def pass_on(msg, answer): return answer()
"""
    account = make(source)
    assert account.say("caught")["Content"] == "caught gone"
    assert account.say("x")["Content"] == "error: gone"


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("outer", KINDS)
def test_who_looks_for_what_is_not_there_is_not_waited_for(make, inner, outer):
    source = f"""
@on("text", timeout=5)
{inner} first(msg): return next(iter(()))
@on("error")
def failed(msg, error): return type(error).__name__
@around("text")
{outer} pass_on(msg, answer): return {"await " if outer == "async def" else ""}answer()
"""
    assert make(source).say("x")["Content"] in ("StopIteration", "RuntimeError")


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("outer", KINDS)
def test_a_result_that_is_no_reply_is_an_error_of_the_handler(make, caplog, inner, outer):
    call = "await answer()" if outer == "async def" else "answer()"
    account = make(f"@on('text')\n{inner} f(msg): return 5\n@around()\n{outer} o(msg, answer): return {call}\n")
    assert account.say("x") == {}
    assert "handlers.mine.f in handlers.mine.o failed on text from" in caplog.text


@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
def test_a_message_that_is_handed_on_is_wrapped_where_it_arrives(make, inner, outer):
    call = "await answer()" if outer == "async def" else "answer()"
    source = f"""
from wechat.message import Message
seen = []
@on("voice")
{inner} voice(msg, session):
    session["voice"] = 1
    return Message({{**msg, "MsgType": "text", "Content": "hello"}})
@on("text")
def hello(msg, session): return f"{{msg.Content}} {{session}} {{seen}}"
@around()
{outer} note(msg, answer):
    reply = {call}
    seen.append(msg.MsgType)
    return reply.content + " noted " + str(seen)
"""
    account = make(source)
    assert account.push(MsgType="voice")["Content"] == "hello {'voice': 1} [] noted ['text']"


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("outer", KINDS)
def test_what_a_handler_yields_goes_out_as_it_comes(make, cloud, inner, outer):
    call = "await answer()" if outer == "async def" else "answer()"
    source = f"""
@on("text")
{inner} story(msg):
    yield "once"
    yield "upon"
    yield "a time"
@around()
{outer} note(msg, answer):
    reply = {call}
    return f"the end: {{reply}}"
"""
    account = make(source, WECHAT_APPID=APPID, WECHAT_SECRET=SECRET, WECHAT_API_URL=cloud.url)
    assert account.say("x")["Content"] == "once"
    sent = [message["text"]["content"] for message in cloud.messages_to("o9AgO5Kd5ggOC-bXrbNODIiE3bGY", 3, 10)]
    assert sent == ["upon", "a time", "the end: None"]


def test_the_fast_handlers_of_a_slow_one_around_are_slow(make):
    router = make(
        "@on('text')\ndef f(msg): return 'x'\n@around('text', 'slow', slow=True)\ndef o(msg, answer): return answer()"
    ).app.answering.router

    def find(text):
        return router.find(Message({"MsgType": "text", "Content": text})).handler

    assert find("slow").slow
    assert not find("other").slow
    assert find("other").is_plain


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@around()\ndef f(): pass", "takes no parameter"),
        (
            "@around()\ndef f(msg, anwser): pass",
            "asks for anwser: after the message there are only answer, match, session, api",
        ),
        ("@around()\ndef f(msg, error): pass", "asks for error"),
        ("@around()\ndef f(msg, answer):\n    yield answer()", "it cannot yield"),
        ("@around()\nasync def f(msg, answer):\n    yield 'x'", "it cannot yield"),
        ("@around\ndef f(msg, answer): pass", "@around needs parentheses"),
        ("@around('error')\ndef f(msg, answer): pass", "nothing wraps the error handler"),
        ("@around('busy')\ndef f(msg, answer): pass", "nothing wraps the error handler"),
        ("@around('image', 'x')\ndef f(msg, answer): pass", "at most 1 parts"),
        ("@on('text')\ndef f(msg, answer): pass", "asks for answer"),
        ("@around()\ndef f(msg): pass\n@around()\ndef f(msg): pass", "hides handlers.mine.f"),
    ],
)
def test_what_is_wrong_stops_the_start(tmp_path, source, said):
    (tmp_path / "mine.py").write_text(HEAD + source)
    with pytest.raises(RoutingError) as caught:
        load(tmp_path, {})
    (fault,) = caught.value.faults
    assert said in fault


def test_the_word_that_fetches_the_busy_handler_and_the_error_handler_are_not_wrapped(make):
    source = """
@on("text")
def fails(msg): raise OSError
@on("error")
def failed(msg, error): return "sorry"
@around()
def outer(msg, answer): return "outer " + answer().content
"""
    assert make(source).say("x")["Content"] == "sorry"


def test_without_any_a_handler_is_called_as_before():
    app = Application(read({"WECHAT_TOKEN": TOKEN}), load(ROOT / "handlers"))
    found = app.answering.router.find(Message({"MsgType": "text", "Content": "帮助"}))
    assert found is app.answering.router.exact["text", "帮助"]


def test_a_busy_user_is_told_so_by_no_other(make):
    """`Router.busy` is the bare handler."""
    router = make(
        "@on('busy')\ndef busy(msg): return 'x'\n@around()\ndef o(msg, answer): return answer()"
    ).app.answering.router
    assert router.busy.name == "handlers.mine.busy"


def test_marks_are_loaded_afresh(tmp_path):
    (tmp_path / "a.py").write_text(HEAD + "@on('text')\ndef f(msg): pass\n@around()\ndef o(msg): pass\n")
    assert len(Router(load(tmp_path)).arounds) == 1
    (tmp_path / "a.py").write_text(HEAD + "@on('text')\ndef f(msg): pass\n\n")
    assert Router(load(tmp_path)).arounds == []
