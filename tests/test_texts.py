"""The words that the server itself says, and how a user fetches what waits."""

import threading
import time

import pytest

from sandbox.messages import USER
from sandbox.testing import APPID, SECRET
from tests.test_promises import wait_until
from wechat.errors import RoutingError
from wechat.routing import load
from wechat.store.base import Store
from wechat.texts import Texts

ENGLISH = """
from wechat.texts import Texts
TEXTS = Texts(
    next="Next", waiting="wait", not_ready="not yet", more="more: next", nothing="no answer", announce="there is one"
)
"""
HANDLERS = """
import time

@on("text", re.compile("slow (.*)"), slow=True)
def slow(msg, match):
    time.sleep(float(match[1]))
    return "the reply"

@on("text", "unmarked")
def unmarked(msg):
    time.sleep(0.5)
    return "the reply"

@on("text", "silent", slow=True)
def silent(msg):
    time.sleep(0.3)

@on("text", "long")
def long(msg):
    return "长" * 1000

@on("text", "low")
def low(msg):
    return "\\n" * 2100 + "down"

@on("text", "nearly full")
def nearly_full(msg):
    return "。" * 682

ASKED = []

@on("event")
def event(msg):
    return None

@on("voice", slow=True)
@on("text", slow=True)
def model(msg):
    import threading
    ASKED.append(threading.current_thread().name)
    return "the model"
"""
UNABLE = {"WECHAT_THREADS": "1"}  # to push, and full at once: the first attempt is told to wait
PUSHING = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}


def test_the_usual_words_are_those_of_the_design():
    usual = Texts()
    assert (usual.next, usual.busy) == ("继续", "前面的消息还在处理，请稍候再发")
    assert usual.announce == "有一条回复在等你，回复“继续”查看"


def test_the_words_of_a_module_are_said_everywhere(make_account):
    account = make_account(ENGLISH + HANDLERS, **UNABLE)
    assert account.say("slow 0.3")["Content"] == "wait"
    assert account.say("next")["Content"] == "not yet"
    assert wait_until(lambda: account.say("NEXT")["Content"] == "the reply")
    assert account.say("silent")["Content"] == "wait"
    assert wait_until(lambda: account.say("next")["Content"] == "no answer")
    assert account.say("long")["Content"].endswith("长\n\nmore: next")
    assert account.say("next")["Content"].startswith("长")


def test_the_words_of_another_language_leave_the_usual_one_to_the_handlers(make_account):
    account = make_account(ENGLISH + HANDLERS, **UNABLE)
    assert account.say("slow 0.3")["Content"] == "wait"
    account.say("继续")
    assert wait_until(lambda: account.say("next")["Content"].startswith("the reply"))


def test_the_usual_words_name_the_accounts_own_word():
    texts = Texts(next="more", busy="One moment")
    assert {texts.waiting, texts.not_ready, texts.more, texts.announce} == {
        "还在处理，稍后回复“more”获取结果",
        "还没好，请稍后再回复“more”",
        "回复“more”查看下文",
        "有一条回复在等你，回复“more”查看",
    }
    assert (texts.busy, texts.nothing) == ("One moment", Texts.nothing)


def test_words_are_loaded_anew_with_the_handlers(make_account, tmp_path):
    account = make_account(HANDLERS, **UNABLE)
    assert account.say("slow 0.1")["Content"] == Texts.waiting
    (tmp_path / "words.py").write_text(ENGLISH, "utf-8")
    account.app.use(load(tmp_path))
    assert wait_until(lambda: account.say("next")["Content"] == "the reply")


def faults(folder):
    with pytest.raises(RoutingError) as caught:
        load(folder)
    return caught.value.faults


def test_two_modules_with_other_words_stop_the_start_and_are_both_named(tmp_path):
    (tmp_path / "a.py").write_text("# TEXTS\n" + ENGLISH, "utf-8")
    (tmp_path / "b.py").write_text(ENGLISH, "utf-8")
    load(tmp_path)
    (tmp_path / "b.py").write_text("from wechat.texts import Texts\nTEXTS = Texts(next='more')\n", "utf-8")
    (fault,) = faults(tmp_path)
    assert f"TEXTS is defined twice: at {tmp_path.name}/a.py:4 and at {tmp_path.name}/b.py:2" in fault


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("\nTEXTS = 'x'\n", 2, "TEXTS takes a wechat.texts.Texts, not str"),
        ("from wechat.texts import Texts\nTEXTS = Texts(more=5)\n", 2, "more takes a text, not int"),
        ("from wechat.texts import Texts\nTEXTS = Texts(next=' “”。')\n", 2, "next is empty"),
        ("from wechat.texts import Texts\nTEXTS = Texts(announce='')\n", 2, "announce is empty"),
        ("from wechat.texts import Texts\nTEXTS = Texts(busy=' \\x01')\n", 2, "busy is empty"),
        ("from wechat.texts import Texts\nTEXTS = Texts(mroe='x')\n", 2, "mroe"),
        ("from wechat.texts import Texts\nTEXTS = Texts(more='长' * 201)\n", 2, "more has more than 600 bytes"),
    ],
)
def test_words_that_are_none_stop_the_start_with_their_line(tmp_path, source, line, said):
    (tmp_path / "a.py").write_text(source, "utf-8")
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"{tmp_path.name}/a.py:{line}: ")
    assert said in fault


# How it is asked for


@pytest.mark.parametrize(
    "said",
    [
        " 继续\n",
        "“继续”",
        "「继续」",
        '"继续"',
        "继续。",
        "『继续.』",
        "\u3000《继续》 。",
        "继续！",
        "，继续？",
        "继续…~",
    ],
)
def test_what_stands_around_the_word_does_not_count_typed_or_spoken(make_account, said):
    account = make_account(HANDLERS, **UNABLE)
    for ask in (account.say, lambda heard: account.push(MsgType="voice", MediaId="m", Recognition=heard)):
        account.say("slow 0.1")
        assert wait_until(lambda ask=ask: ask(said)["Content"] == "the reply", 5)


@pytest.mark.parametrize("kind", ["slow 0.5", "unmarked"])
def test_who_asks_before_the_first_acknowledgement_is_told_to_wait_and_asks_no_model(make_account, kind):
    account = make_account(HANDLERS)
    direct = []
    thread = threading.Thread(target=lambda: direct.append(account.say(kind)["Content"]))
    thread.start()
    time.sleep(0.2)
    assert account.say("继续")["Content"] == Texts.not_ready
    thread.join()
    assert direct == ["the reply"]
    assert asked(account) == []


def asked(account):
    """The threads in which the model was asked."""
    found = account.app.answering.router.exact[("text",)]
    return found.handler.function.__globals__["ASKED"]


@pytest.mark.parametrize(
    "fields", [{"MsgType": "text", "Content": "继续"}, {"MsgType": "voice", "Recognition": "继续。"}]
)
def test_where_nothing_waits_it_is_a_message_like_any_other(make_account, fields):
    account = make_account(HANDLERS)
    assert account.push(**fields)["Content"] == "the model"
    (thread,) = asked(account)
    assert thread.startswith("slow"), "a slow handler holds no worker, whatever the message says"


def test_who_asks_for_a_reply_that_was_none_is_told_so(make_account):
    account = make_account(HANDLERS, **UNABLE)
    assert account.say("silent")["Content"] == Texts.waiting
    assert wait_until(lambda: account.say("继续")["Content"] == Texts.nothing)
    assert account.say("继续")["Content"] == Texts.waiting, "then it goes to the model, in a server with one thread"


@pytest.mark.parametrize("reply", ["Transfer()", "Raw('<xml/>')"])
def test_who_asks_for_what_could_only_be_the_direct_answer_is_told_that_nothing_came(make_account, reply):
    human = f"""
from wechat.reply import Raw, Transfer

@on("text", "human", slow=True)
def human(msg):
    time.sleep(0.3)
    return {reply}
"""
    account = make_account(HANDLERS + human, **UNABLE)
    assert account.say("human")["Content"] == Texts.waiting
    assert wait_until(lambda: account.say("继续")["Content"] == Texts.nothing)
    assert asked(account) == []


# What is not sent to its end


LONG = """
import time
@on("text", "go", slow=True)
def go(msg):
    time.sleep(0.9)
    return "长" * 5000

@on("text")
def other(msg):
    return "other"
"""


def test_the_last_piece_that_a_user_can_get_says_how_to_get_the_rest(make_account, cloud):
    account = make_account(ENGLISH + LONG, **PUSHING, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.2")
    assert account.say("go") == {}
    assert wait_until(lambda: len(cloud.sent) == 5)
    pieces = [message["text"]["content"] for _, message in cloud.sent]
    assert [piece.endswith("more: next") for piece in pieces] == [False, False, False, False, True]
    assert all(len(piece.encode()) <= 2047 for piece in pieces)
    assert wait_until(account.app.delivery.is_idle)
    assert account.say("hi")["Content"] == "other", "the user knows already"
    while (piece := account.say("next")["Content"]) != "other":
        pieces.append(piece)
    assert "".join(piece.removesuffix("\n\nmore: next") for piece in pieces) == "长" * 5000
    assert len(cloud.sent) == 5


# Who waits without knowing


@pytest.fixture
def refusing(make_account, cloud):
    """A function that makes an account whose customer messages are shown as typed, and refused when they are sent."""

    def make(**environ):
        cloud.fail("/cgi-bin/message/custom/send", "code:45015", times=None)
        return make_account(
            ENGLISH + HANDLERS, **PUSHING, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.2", **environ
        )

    return make


def let_wait(account):
    """Has a reply wait for `next` of which the user was told nothing."""
    assert account.say("slow 1") == {}
    assert wait_until(lambda: account.app.delivery._outbox.untold)


def test_the_next_text_says_once_that_a_reply_waits(refusing):
    account = refusing()
    let_wait(account)
    assert account.event("CLICK", "x") == {}, "only a text can say so"
    assert account.say("hi")["Content"] == "the model\n\nthere is one"
    assert account.say("hi")["Content"] == "the model"
    assert account.say("next")["Content"] == "the reply"


def test_that_a_user_does_not_know_is_noted_in_the_step_in_which_the_reply_is_nobodys(refusing, monkeypatch):
    """Where a process ends in between, or stands still, nobody says it: seeds 32533 and 911666 of the simulation."""
    swaps = []
    finish = Store.finish
    monkeypatch.setattr(Store, "finish", lambda self, write: swaps.append(write.changes) or finish(self, write))
    let_wait(refusing())
    assert [len(changes) for changes in swaps if any(change.key == f"untold:{USER}" for change in changes)] == [2]


def test_who_was_told_to_ask_is_not_told_again(make_account):
    account = make_account(ENGLISH + HANDLERS, **UNABLE)
    assert account.say("slow 0.1")["Content"] == "wait"
    assert wait_until(account.app.delivery.is_idle)
    assert "there is one" not in account.say("long")["Content"]
    assert account.app.delivery._outbox.untold == set()


def test_who_has_asked_meanwhile_is_not_told(refusing):
    account = refusing()
    let_wait(account)
    assert account.say("next")["Content"] == "the reply"
    assert account.say("hi")["Content"] == "the model"


def test_nobody_is_told_to_ask_for_a_rest_of_blanks(make_account):
    assert make_account(HANDLERS).say("low")["Content"].strip() == "down"


def test_what_is_announced_has_room_in_a_long_text(refusing, cloud):
    account = refusing()
    let_wait(account)
    said = account.say("nearly full")["Content"]
    assert said.endswith("。\n\nthere is one")
    assert len(said.encode()) <= 2047


@pytest.mark.parametrize("is_back", [False, True])
def test_a_reply_that_was_tried_in_vain_is_announced_until_it_was_sent(refusing, cloud, monkeypatch, is_back):
    monkeypatch.setattr("wechat.delivery.outbox.IN_VAIN", 0.5)
    account = refusing()
    cloud.heal()
    cloud.fail("/cgi-bin/message/custom/send", "status:502", times=None)
    let_wait(account)
    if is_back:
        cloud.heal()
        assert wait_until(lambda: len(cloud.sent) == 1)
    assert account.say("hi")["Content"] == ("the model" if is_back else "the model\n\nthere is one")


def test_other_processes_know_at_their_next_heartbeat(refusing, tmp_path):
    shared = {"WECHAT_STORE": f"sqlite:{tmp_path}/store.db"}
    one, other = refusing(**shared), refusing(**shared)
    let_wait(one)
    other.app.delivery.look_after()
    assert other.say("hi")["Content"] == "the model\n\nthere is one"
    assert wait_until(lambda: not other.app.store.linked("untold")), "it is noted just behind the answer"
    assert one.say("hi")["Content"] == "the model"


def test_where_nobody_waits_nothing_is_read_for_it(make_account):
    account = make_account(HANDLERS + '@on("text", "fast")\ndef fast(msg): return "fast"\n')
    account.app.store.get = account.app.store.linked = account.app.store.finish = None  # whoever calls them fails
    assert account.say("fast")["Content"] == "fast"
