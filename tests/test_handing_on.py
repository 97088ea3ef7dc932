"""A handler that returns a Message: another one answers that, in the way that it asks for itself."""

import threading

import pytest

from sandbox.messages import USER, text_message
from sandbox.testing import APPID, SECRET
from tests.conftest import is_taken
from tests.test_promises import wait_until

HEAD = """
import threading, time
from wechat.message import Message

def typed(msg, text):
    return Message({**msg, "MsgType": "text", "Content": text})

def thread():
    return threading.current_thread().name

"""
TO_SLOW = (
    HEAD
    + """
calls = []

@on("voice")
def voice(msg):
    calls.append("fast in " + thread())
    return typed(msg, msg.Recognition)

@on("text", "slow", slow=True)
def slow(msg):
    calls.append("slow")
    time.sleep(0.3)
    return thread()

@on("text", "quick")
def quick(msg):
    return thread()

@on("text", "calls")
def seen(msg):
    return " ".join(calls)
"""
)


@pytest.fixture
def speaks(make_account):
    """A function that makes an account and lets a user say something to it."""

    def make(source, **environ):
        account = make_account(source, **environ)
        return account, lambda heard: account.push(MsgType="voice", MediaId="m", Recognition=heard).get("Content")

    return make


def test_a_fast_handler_that_hands_on_to_a_slow_one_holds_no_worker_with_it(speaks):
    account, say = speaks(TO_SLOW)
    here = threading.current_thread().name
    assert say("slow").startswith("slow")  # a thread of the pool
    assert account.say("slow")["Content"].startswith("slow")  # as where it is asked directly
    assert say("quick") == here
    assert account.say("calls")["Content"] == f"fast in {here} slow slow fast in {here}"


def test_each_handler_runs_once_however_often_the_message_comes(make_account):
    account = make_account(TO_SLOW)
    body = (
        text_message("x")
        .replace("<![CDATA[text]]>", "voice")
        .replace("</xml>", "<Recognition>slow</Recognition></xml>")
    )
    attempts = []
    threads = [threading.Thread(target=lambda: attempts.append(account.post(body).body)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(attempts)) == 1
    assert account.say("calls")["Content"].split()[-1] == "slow"
    assert account.say("calls")["Content"].count("slow") == 1


def test_what_is_late_is_acknowledged_and_follows_as_a_customer_message(speaks, cloud):
    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    account, say = speaks(TO_SLOW, WECHAT_REPLY_WITHIN="0.1", **credentials)
    assert say("slow") is None
    (message,) = cloud.messages_to(USER, 1, 10)
    assert message["text"]["content"].startswith("slow")
    assert wait_until(account.app.delivery.is_idle)


def test_a_session_that_is_in_use_is_waited_for_in_the_pool_too(speaks):
    source = (
        HEAD
        + '@on("voice")\ndef voice(msg): return typed(msg, "busy")\n'
        + '@on("text", "busy")\ndef busy(msg, session):\n    session["n"] = session.get("n", 0) + 1\n'
        + "    time.sleep(0.3)\n    return f\"{session['n']} {thread()}\"\n"
    )
    account, say = speaks(source)
    first = threading.Thread(target=account.say, args=("busy",))
    first.start()
    assert wait_until(lambda: is_taken(account.app.store, USER))
    assert say("busy").startswith("2 slow")
    first.join()


CHAIN = (
    HEAD
    + """
@on("text", re.compile(r"fast (\\d+)"))
def fast(msg, match):
    left = int(match[1])
    return typed(msg, f"fast {left - 1}") if left else thread()

@on("text", re.compile(r"slow (\\d+)"), slow=True)
def slow(msg, match):
    left = int(match[1])
    return typed(msg, f"slow {left - 1}") if left else thread()

@on("text", re.compile(r"in turn (\\d+)"))
def in_turn(msg, match):
    return typed(msg, f"and back {match[1]}")

@on("text", re.compile(r"and back (\\d+)"), slow=True)
def and_back(msg, match):
    left = int(match[1])
    return typed(msg, f"in turn {left - 1}") if left else thread()

@on("text", "circle")
def circle(msg):
    return msg

@on("error")
def error(msg, error):
    return type(error).__name__
"""
)


@pytest.mark.parametrize(("text", "thread"), [("fast 7", "MainThread"), ("slow 7", "slow"), ("in turn 3", "slow")])
def test_a_message_may_be_handed_on_seven_times(make_account, text, thread):
    assert make_account(CHAIN).say(text)["Content"].startswith(thread)


@pytest.mark.parametrize("text", ["fast 8", "slow 8", "in turn 4", "circle"])
def test_what_is_handed_on_more_often_or_in_a_circle_is_an_error_that_names_the_handlers(make_account, text, log):
    account = make_account(CHAIN)
    assert account.say(text)["Content"] == "RecursionError"
    (line,) = [record.message for record in log.records if record.levelname == "ERROR"]
    assert line.startswith("a message was handed on too often: handlers.mine.")
    assert line.count(" -> ") == 7
    assert wait_until(account.app.delivery.is_idle)


@pytest.mark.parametrize(
    "returned",
    [
        "Message()",
        'Message({"MsgType": 5})',
        'Message({"MsgType": "text", "Content": ["x"]})',
    ],
)
def test_what_is_no_message_counts_as_an_error_and_the_user_is_told(make_account, returned, log):
    source = (
        HEAD
        + f'@on("image")\ndef image(msg): return {returned}\n@on("error")\ndef error(msg): return "sorry"\n'
        + '@on("text", "session")\ndef session(msg, session): return "x"\n'
    )
    account = make_account(source)
    assert account.push(MsgType="image", MediaId="m")["Content"] == "sorry"
    assert "failed" in log.text


OWN_KINDS = """
from dataclasses import dataclass
from wechat.reply import Reply, Text, Video

class Bare(Reply):
    pass

@dataclass(frozen=True)
class Page(Reply):
    kind = "miniprogrampage"
    xml = "<Title>%(title)s</Title>"
    title: str = "t"

@dataclass(frozen=True)
class Clip(Video):
    length: str = "5"

class Greeting(Text):
    def __init__(self, name):
        super().__init__(f"hello {name}")
"""


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
@pytest.mark.parametrize("returned", ["Bare()", "Page()", 'Clip("m")'])
def test_a_reply_of_a_kind_that_the_store_cannot_give_back_is_an_error(make_account, returned, is_slow):
    source = f"""
@on("text", slow={is_slow})
def own(msg): return {returned}
@on("text", "greet")
def greet(msg): return Greeting("Ann")
@on("error")
def error(msg, error): return type(error).__name__
"""
    account = make_account(OWN_KINDS + source)
    assert account.say("x")["Content"] == "TypeError"
    assert account.say("greet")["Content"] == "hello Ann"


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_a_message_that_names_no_user_is_handed_on_for_the_one_who_wrote(make_account, is_slow):
    account = make_account(
        f"""
from wechat.message import Message
@on("text", "begin", slow={is_slow})
def begin(msg): return Message(MsgType="text", Content="count")
@on("text", "count", slow={is_slow})
def count(msg, session):
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])
@on("error")
def sorry(msg, error, session): return "sorry"
"""
    )
    assert [account.say(text)["Content"] for text in ("count", "begin", "count")] == ["1", "2", "3"]
