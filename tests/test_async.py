"""Handlers that are `async def`: real pushes, a loop in its own thread, and whatever they do there."""

import os
import threading
import time

import pytest

from sandbox.messages import USER, text_message
from sandbox.testing import APPID, SECRET
from tests.conftest import nodes
from tests.test_promises import SERVE, say, wait_until
from wechat.loop import Call, Loop
from wechat.routing import load

API = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
HEAD = """
import asyncio, threading, time
from contextvars import ContextVar
from wechat.message import Message

def thread():
    return threading.current_thread().name

"""
ORDER = (
    HEAD
    + """
running, ended = [], []

@on("text", re.compile(r"wait ([\\d.]+)"))
async def wait(msg, match):
    running.append(msg.FromUserName)
    assert running.count(msg.FromUserName) == 1
    await asyncio.sleep(float(match[1]))
    running.remove(msg.FromUserName)
    ended.append(match[1])
    return f"waited {match[1]} in {thread()}"

@on("text", "ended")
def seen(msg):
    return " ".join(ended)
"""
)


def says(account, content, openid=USER):
    return nodes(account.post(text_message(content, openid))).get("Content", "")


def meanwhile(task, *arguments):
    thread = threading.Thread(target=task, args=arguments, daemon=True)
    thread.start()
    return thread


def test_a_coroutine_is_awaited_and_answers(make_account):
    account = make_account(ORDER)
    assert account.say("wait 0.05")["Content"] == "waited 0.05 in loop"


def test_messages_of_one_user_run_in_order_and_others_do_not_wait(make_account):
    account = make_account(ORDER)
    first = meanwhile(says, account, "wait 0.4")
    time.sleep(0.05)
    second = meanwhile(says, account, "wait 0.01")
    time.sleep(0.05)
    assert "waited 0.02" in says(account, "wait 0.02", "o-another")
    first.join()
    second.join()
    assert account.say("ended")["Content"] == "0.02 0.4 0.01"


def test_no_thread_waits_for_a_coroutine(make_account, cloud):
    account = make_account(ORDER, **API, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.1", WECHAT_SLOW_THREADS="4")
    begun = time.monotonic()
    for number in range(40):
        meanwhile(says, account, "wait 1", f"o{number}")
    assert wait_until(lambda: len({openid for openid, _ in cloud.sent}) == 40)
    assert time.monotonic() - begun < 5
    assert account.app.delivery.lanes._alive <= 4


def test_a_coroutine_has_what_it_asks_for(make_account):
    account = make_account(
        HEAD
        + """
@on("text", re.compile("add (.+)"))
async def add(msg, match, session, api):
    before = list(session.get("seen", []))
    await asyncio.sleep(0.01)
    session["seen"] = [*before, match[1]]
    return f"{before} {type(api).__name__}"
"""
    )
    assert account.say("add a")["Content"] == "[] Awaited"
    assert account.say("add b")["Content"].startswith("['a']")
    assert account.app.store.get(f"lock:{USER}") is None


def test_the_api_is_awaited_and_its_calls_are_made_in_other_threads(make_account, cloud):
    account = make_account(
        HEAD
        + """
@on("text", "tell")
async def tell(msg, api):
    await asyncio.gather(api.send("o-boss", "one"), api.send("o-friend", "two"))
    return str(len(await api.token()) > 0)
""",
        **API,
        WECHAT_API_URL=cloud.url,
    )
    assert account.say("tell")["Content"] == "True"
    assert sorted(openid for openid, _ in cloud.sent) == ["o-boss", "o-friend"]


def test_the_store_and_the_platform_are_never_touched_on_the_loop(make_account, cloud, shared_store, monkeypatch):
    account = make_account(
        HEAD
        + """
@on("text", "all")
async def all_of_it(msg, session, api):
    session["seen"] = session.get("seen", 0) + 1
    await api.send("o-boss", "hello")
    await asyncio.sleep(0.3)
    return "done" * 600

@on("error")
async def error(msg, error):
    return "sorry"
""",
        **API,
        WECHAT_API_URL=cloud.url,
        WECHAT_STORE=shared_store,
        WECHAT_REPLY_WITHIN="0.1",
    )
    touched = set()

    def note_calls(part, name):
        call = getattr(part, name)

        def noted(*arguments, **more):
            touched.add(threading.current_thread().name)
            return call(*arguments, **more)

        monkeypatch.setattr(part, name, noted)

    for name in ("get", "finish", "linked"):
        note_calls(account.app.store, name)
    for name in ("send_message", "token"):
        note_calls(account.app.api, name)
    says(account, "all")
    assert wait_until(lambda: len(cloud.sent) == 3)
    account.app.close()
    assert "loop" not in touched
    assert len(touched) > 2


def test_a_message_keeps_its_context(make_account):
    account = make_account(
        HEAD
        + """
TRACE = ContextVar("trace", default="none")

@on("text", "hand on")
def hand_on(msg):
    TRACE.set(msg.MsgId)
    return Message({**msg, "Content": "trace"})

@on("text", "trace")
async def trace(msg):
    await asyncio.sleep(0.01)
    return f"{TRACE.get() == msg.MsgId} {await asyncio.to_thread(TRACE.get) == msg.MsgId}"
"""
    )
    assert account.say("hand on")["Content"] == "True True"
    assert account.say("trace")["Content"] == "False False"


def test_a_coroutine_may_hand_on_to_any_handler(make_account):
    account = make_account(
        HEAD
        + """
@on("text", "a")
async def a(msg):
    return Message({**msg, "Content": "b"})

@on("text", "b")
async def b(msg):
    return Message({**msg, "Content": "c"})

@on("text", "c")
def c(msg):
    return f"c in {thread()}"

@on("text", "round")
async def round(msg):
    return msg

@on("error")
async def error(msg, error):
    return f"{type(error).__name__} in {thread()}"
"""
    )
    assert account.say("a")["Content"] == "c in slow"
    assert account.say("round")["Content"] == "RecursionError in loop"


# Errors and time


FAILING = (
    HEAD
    + """
@on("text", "raise")
async def fail(msg, session):
    session["never"] = "saved"
    await asyncio.sleep(0.01)
    raise ValueError("no")

@on("text", "exit")
async def leave(msg):
    raise SystemExit(3)

@on("text", "a task exits")
async def leave_by_a_task(msg):
    async def leave():
        raise SystemExit(3)
    task = asyncio.create_task(leave())
    try:
        await task
    except SystemExit:
        return "it exited"

@on("text", "fast")
def fast(msg):
    raise KeyError("fast")

@on("text", "cancel")
async def cancel(msg):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)

@on("text", "odd")
async def odd(msg):
    return 5

@on("text", "fine")
async def fine(msg, session):
    return f"fine {session}"

@on("error")
async def error(msg, error, session, api):
    await asyncio.sleep(0.01)
    if "worse" in session: raise RuntimeError("worse")
    return f"{type(error).__name__} in {thread()}"
"""
)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("raise", "ValueError"),
        ("exit", "SystemExit"),
        ("fast", "KeyError"),
        ("cancel", "CancelledError"),
        ("odd", "TypeError"),
    ],
)
def test_whatever_is_raised_the_error_handler_answers_and_the_loop_goes_on(make_account, said, kind):
    account = make_account(FAILING)
    assert account.say(said)["Content"] == f"{kind} in loop"
    assert account.say("fine")["Content"] == "fine {}"


def test_a_task_that_exits_does_not_end_the_loop(make_account, log):
    account = make_account(FAILING)
    assert account.say("a task exits")["Content"] == "it exited"
    assert account.say("fine")["Content"] == "fine {}"


def test_without_an_answer_of_the_error_handler_there_is_silence(make_account, log):
    account = make_account(FAILING)
    account.app.store.set(f"session:{USER}", '{"worse": 1}', 60)
    assert account.say("raise") == {}
    assert "the error handler, failed" in log.text
    assert "nobody is waited for" not in log.text
    assert not len(account.app.delivery.lanes)


TIMED = (
    HEAD
    + """
seen = []

@on("text", "late", timeout=0.2)
async def late(msg, session):
    session["never"] = "saved"
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise

@on("text", "stubborn", timeout=0.2)
async def stubborn(msg):
    for _ in range(5):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("not now")
            await asyncio.sleep(0.5)

@on("text", "seen")
def what(msg):
    return " ".join(seen)

@on("error")
def error(msg, error):
    return f"{type(error).__name__}: {error}"
"""
)


def test_a_coroutine_that_takes_too_long_is_cancelled_and_the_error_handler_answers(make_account, log):
    account = make_account(TIMED)
    begun = time.monotonic()
    assert account.say("late")["Content"] == "TimeoutError: no answer within 0.2 s"
    assert time.monotonic() - begun < 2
    assert wait_until(lambda: account.say("seen").get("Content") == "cancelled")
    assert account.app.store.get(f"lock:{USER}") is None
    assert account.app.store.get(f"session:{USER}") is None
    assert "late failed on text" in log.text


def test_nobody_waits_for_a_coroutine_that_puts_off_its_end(make_account):
    account = make_account(TIMED)
    begun = time.monotonic()
    assert account.say("stubborn")["Content"] == "TimeoutError: no answer within 0.2 s"
    assert time.monotonic() - begun < 0.45


def test_a_coroutine_out_of_a_def_is_an_error_that_says_so(make_account, caplog):
    account = make_account(
        HEAD
        + """
async def think():
    return "never"

@on("text", "forgot")
def forgot(msg):
    return think()

@on("error")
def error(msg, error):
    return str(error)
"""
    )
    assert account.say("forgot")["Content"] == (
        "a handler returned a coroutine: await it, in a handler that is an `async def` itself"
    )


def test_who_blocks_the_loop_is_named_once(make_account, log):
    account = make_account(
        HEAD
        + """
@on("text", "block")
async def block(msg):
    time.sleep(0.4)
    return "blocked"

@on("text", re.compile("wait .*"))
async def wait(msg):
    await asyncio.sleep(0.5)
    return "waited"
"""
    )
    other = meanwhile(says, account, "wait 1", "o-another")
    time.sleep(0.05)
    assert account.say("block")["Content"] == "blocked"
    other.join()
    lines = [line for line in log.messages if "holds up all other async handlers" in line]
    assert len(lines) == 1
    assert lines[0].startswith("handlers.mine.block holds up")
    assert "mine.py:" in lines[0]


def test_who_blocks_the_loop_for_ever_holds_up_nobody_else(make_account, monkeypatch):
    monkeypatch.setattr("wechat.loop.STUCK", 0.2)
    account = make_account(
        HEAD
        + """
GATE = threading.Event()

@on("text", "block", timeout=0.5)
async def block(msg):
    GATE.wait(30)
    return "too late"

@on("text", re.compile("wait (.*)"))
async def wait(msg, match):
    await asyncio.sleep(float(match[1]))
    return "waited"

@on("text", "open")
def open_gate(msg):
    GATE.set()

@on("error")
def error(msg, error):
    return str(error)
""",
        WECHAT_REPLY_WITHIN="4",
    )
    said = []
    others = [meanwhile(lambda: said.append(says(account, "wait 0.1", "o-before")))]
    time.sleep(0.05)
    others.append(meanwhile(lambda: said.append(says(account, "block"))))
    time.sleep(0.1)
    others.append(meanwhile(lambda: said.append(says(account, "wait 0", "o-behind"))))
    time.sleep(0.3)
    assert says(account, "wait 0", "o-another") == "waited"
    assert wait_until(lambda: said == ["no answer within 0.5 s"])
    says(account, "open", "o-another")
    for other in others:
        other.join()
    assert said == ["no answer within 0.5 s", "waited", "waited"]
    assert wait_until(lambda: [thread.name for thread in threading.enumerate()].count("loop") == 1)


def test_many_short_steps_are_nobodys_fault(make_account, log):
    account = make_account(
        HEAD
        + """
@on("text", "count")
async def count(msg):
    for _ in range(2000):
        await asyncio.sleep(0)
        sum(range(2000))
    return "counted"
"""
    )
    assert account.say("count")["Content"] == "counted"
    assert "holds up" not in log.text


# The end, a fork, a reload


def test_the_end_waits_for_coroutines(make_account, cloud):
    account = make_account(ORDER, **API, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.1")
    says(account, "wait 0.5")
    assert not account.app.delivery.is_idle()
    account.app.close()
    assert [message["text"]["content"] for _, message in cloud.sent] == ["waited 0.5 in loop"]
    assert "loop" not in {thread.name for thread in threading.enumerate()}


def test_what_is_promised_stays_written_where_the_drain_ends_first(serve, tmp_path, cloud, shared_store):
    (tmp_path / "handlers").mkdir()
    source = "@on('text')\nasync def long(msg):\n    await asyncio.sleep(1)\n    return 'answered'\n"
    (tmp_path / "handlers/mine.py").write_text("from wechat.routing import on\n" + HEAD + source)
    environ = {**API, "WECHAT_API_URL": cloud.url, "WECHAT_STORE": shared_store, "WECHAT_REPLY_WITHIN": "0.1"}
    first = serve("-c", SERVE, str(tmp_path / "handlers"), **environ, WECHAT_DRAIN="0")
    assert say(first, "a question") == (1, "")
    first.process.terminate()
    assert first.process.wait(10) == 0
    assert not cloud.sent
    serve("-c", SERVE, str(tmp_path / "handlers"), **environ)
    assert wait_until(lambda: len(cloud.sent) == 1)
    assert cloud.sent[0][1]["text"]["content"] == "answered"


def test_a_process_that_was_forked_has_a_loop_of_its_own():
    loop, ended = Loop(), threading.Event()

    async def name():
        return threading.current_thread().name

    first = Call("first", name(), 5, threading.Lock())
    loop.start(first, lambda _: ended.set(), "")
    assert ended.wait(5)
    pid = os.fork()
    if not pid:
        loop.begin()
        ended = threading.Event()
        second = Call("second", name(), 5, threading.Lock())
        loop.start(second, lambda _: ended.set(), "")
        os._exit(0 if ended.wait(5) and second.result() == "loop" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    loop.close()


def test_handlers_that_were_loaded_anew_answer_the_next_message(make_account, tmp_path):
    account = make_account(ORDER)
    old = meanwhile(says, account, "wait 0.3")
    time.sleep(0.1)
    (tmp_path / "mine.py").write_text(
        "import asyncio\nfrom wechat.routing import on\n"
        "@on('text')\nasync def new(msg):\n    await asyncio.sleep(0)\n    return 'new'\n"
    )
    account.app.use(load(tmp_path))
    assert "new" in says(account, "wait 0.3", "o-another")
    old.join()
