"""Many slow messages at once: which are turned away, which are held open, and what is said of a pool that is full."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.messages import text_message
from sandbox.testing import APPID, SECRET
from tests.conftest import nodes
from tests.test_promises import wait_until
from wechat.texts import Texts

BUSY, CONTINUE, NOT_READY = Texts.busy, Texts.next, Texts.not_ready

SLOW = """
import threading
RUNS, GATE = [], threading.Event()
@on("text", re.compile("slow.*"), slow=True)
def slow(msg):
    RUNS.append(msg.Content)
    GATE.wait(30)
    return "done " + msg.Content
@on("text", re.compile("hand.*"))
def hand(msg):
    RUNS.append(msg.Content)
    return type(msg)({**msg, "Content": "slow"})
@on("text")
def fast(msg): return "fast " + msg.Content
"""
ON_BUSY = '@on("busy")\ndef wait(msg): return f"one moment, {msg.Content}"\n'
WITHIN = {"WECHAT_REPLY_WITHIN": "0.05"}
PUSHING = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}


@pytest.fixture
def make_crowd(make_account, monkeypatch):
    """An account whose slow handler waits until the test is over, or says `module().GATE.set()`."""
    monkeypatch.setattr("wechat.delivery.delivery.GRACE", 0.1)
    made = []

    def make(source=SLOW, **more):
        made.append(make_account(source, **{**WITHIN, **more}))
        return made[-1]

    yield make
    if made:
        module().GATE.set()


def module():
    return sys.modules["handlers.mine"]


def send(account, content, openid="o"):
    return nodes(account.post(text_message(content, openid))).get("Content", "success")


def fill(account, number, openid="o"):
    """Lets so many slow messages of the user wait or run; gives their bodies."""
    bodies = [text_message(f"slow {count}", openid).encode() for count in range(number)]
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(account.post, bodies))
    return bodies


# Limits


def test_a_user_may_have_so_many_waiting_behind_the_one_that_runs(make_crowd, cloud):
    account = make_crowd(WECHAT_WAITING_PER_USER="2", WECHAT_API_URL=cloud.url, **PUSHING)
    fill(account, 3)
    assert send(account, "slow") == BUSY
    assert send(account, "quick") == "fast quick"
    assert send(account, "slow", "another") == "success", "others wait for nobody"
    module().GATE.set()
    assert wait_until(lambda: len(cloud.sent) == 4)
    assert send(account, "slow again") == "done slow again"


def test_all_users_together_may_have_so_many(make_crowd, cloud):
    account = make_crowd(WECHAT_WAITING="3", WECHAT_SLOW_THREADS="1", WECHAT_API_URL=cloud.url, **PUSHING)
    assert [send(account, "slow", openid) for openid in "abcd"] == ["success"] * 3 + [BUSY]
    assert module().RUNS == ["slow"], "and run in so many threads"
    module().GATE.set()
    assert wait_until(lambda: len(cloud.sent) == 3)
    assert send(account, "slow again", "d") == "done slow again"


def test_who_may_have_none_waiting_may_have_one_that_runs(make_crowd, cloud):
    account = make_crowd(WECHAT_WAITING_PER_USER="0", WECHAT_API_URL=cloud.url, **PUSHING)
    assert [send(account, "slow") for _ in range(2)] == ["success", BUSY]


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/store.db"])
def test_who_is_turned_away_gets_the_same_at_each_attempt(make_crowd, tmp_path, store):
    account = make_crowd(SLOW + ON_BUSY, WECHAT_WAITING_PER_USER="0", WECHAT_STORE=store.format(tmp_path))
    send(account, "slow 1")
    body = text_message("slow 2", "o").encode()
    answers = [account.post(body).body for _ in range(2)]
    module().GATE.set()
    answers.append(account.post(body).body)
    assert b"one moment, slow 2" in answers[0]
    assert len(set(answers)) == 1
    assert module().RUNS == ["slow 1"]
    account.app.close()


def test_a_message_that_is_handed_on_to_a_slow_handler_is_turned_away_too(make_crowd):
    account = make_crowd(WECHAT_WAITING_PER_USER="0")
    send(account, "slow")
    assert send(account, "hand") == BUSY
    assert module().RUNS == ["slow", "hand"]


def test_who_was_turned_away_waits_for_nothing(make_crowd):
    account = make_crowd(WECHAT_WAITING_PER_USER="0")
    assert send(account, "slow") == "success"
    assert send(account, "slow 2") == BUSY
    assert send(account, CONTINUE) == NOT_READY
    module().GATE.set()
    assert wait_until(lambda: send(account, CONTINUE) == "done slow")
    assert send(account, CONTINUE) == "fast 继续"


def test_a_busy_handler_that_fails_is_answered_by_the_error_handler(make_crowd, log):
    failing = '@on("busy")\ndef wait(msg): raise KeyError\n@on("error")\ndef sorry(msg, error): return repr(error)\n'
    account = make_crowd(SLOW + failing, WECHAT_WAITING_PER_USER="0")
    send(account, "slow")
    assert send(account, "slow 2") == "KeyError()"
    assert "handlers.mine.wait failed on text from …o, MsgId" in log.text
    assert "-> handlers.mine.sorry: text, direct" in log.text


def test_an_error_handler_that_wants_a_session_in_use_holds_no_worker(make_crowd):
    source = """
@on("text", "slow", slow=True)
def slow(msg, session): return f"done {GATE.wait(30)}"
@on("error")
def sorry(msg, error, session): return threading.current_thread().name
@on("busy")
def busy(msg): raise KeyError
@on("text")
def fail(msg): raise KeyError
"""
    account = make_crowd("import threading\nGATE = threading.Event()\n" + source, WECHAT_WAITING_PER_USER="1")
    begun = time.monotonic()
    assert [send(account, content) for content in ("slow", "fail", "slow")] == ["success", "success", BUSY]
    assert time.monotonic() - begun < 3
    module().GATE.set()
    assert wait_until(account.app.delivery.is_idle)
    assert {send(account, CONTINUE).split()[0] for _ in range(2)} == {"done", "slow"}


def test_a_mini_programs_user_is_told_by_a_customer_message(make_crowd, cloud):
    mini = {"WECHAT_ACCOUNT": "miniprogram", "WECHAT_API_URL": cloud.url, **PUSHING}
    account = make_crowd(WECHAT_WAITING_PER_USER="0", **mini)
    assert [send(account, "slow") for _ in range(2)] == ["success"] * 2
    assert wait_until(lambda: [message["text"]["content"] for _, message in cloud.sent] == [BUSY])


def test_of_many_that_come_at_once_as_many_are_turned_away_as_are_too_many(make_crowd):
    account, said = make_crowd(WECHAT_WAITING_PER_USER="4"), []
    together = threading.Barrier(12)

    def one(number):
        together.wait()
        said.append(send(account, f"slow {number}"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.count(BUSY) == 12 - 5


# Handlers that take too long

HANGING = """
import threading, time
GATE, RUNS = threading.Event(), []
@on("text", re.compile("hang.*"), slow=True, timeout=0.2)
def hang(msg, session):
    session["is_lost"] = True
    GATE.wait(30)
    if msg.Content == "hang and raise":
        raise KeyError
    return "too late"
@on("text", "hand on", slow=True)
def hand_on(msg): return type(msg)({**msg, "Content": "hang"})
@on("text", "quick", timeout=60)
def quick(msg, session):
    RUNS.append(dict(session))
    return "quick"
"""
SORRY = '@on("error")\ndef sorry(msg, error): return f"{type(error).__name__}: {error}"\n'
LATE = "TimeoutError: no answer after 0.2 s"
ERRORS = "handlers.mine.hang on text from …o, MsgId "


def wait_for(log, text):
    assert wait_until(lambda: text in log.text)


@pytest.mark.parametrize("content", ["hang", "hand on"])
def test_after_its_time_the_user_of_a_handler_that_hangs_gets_what_the_error_handler_says(make_crowd, log, content):
    account = make_crowd(HANGING + SORRY, WECHAT_REPLY_WITHIN="4")
    assert send(account, content) == LATE
    assert ERRORS in log.text
    assert log.text.count(": no answer after 0.2 s, its thread is left to itself") == 1


@pytest.mark.parametrize("store", ["memory:", "sqlite:{}/store.db"])
@pytest.mark.parametrize("content", ["hang", "hang and raise"])
def test_what_a_handler_says_after_its_time_is_dropped(make_crowd, log, tmp_path, store, content):
    account = make_crowd(HANGING + SORRY, WECHAT_REPLY_WITHIN="4", WECHAT_STORE=store.format(tmp_path))
    body = text_message(content, "o").encode()
    said = account.post(body).body
    assert LATE.encode() in said
    module().GATE.set()
    wait_for(log, ": it came back too late, what it says is dropped")
    assert account.post(body).body == said
    assert send(account, "quick") == "quick"
    assert module().RUNS == [{}], "nor does it save its session"
    assert log.text.count("ERROR") == 1
    account.app.close()


def test_a_handler_that_hangs_holds_up_neither_its_user_nor_its_thread_nor_the_session(make_crowd):
    account = make_crowd(HANGING, WECHAT_REPLY_WITHIN="4", WECHAT_SLOW_THREADS="1")
    assert [send(account, "hang") for _ in range(3)] == ["success"] * 3
    assert [send(account, "quick", openid) for openid in ("o", "another")] == ["quick"] * 2
    assert wait_until(account.app.delivery.is_idle)


def test_without_an_error_handler_the_message_ends_without_a_reply(make_crowd, cloud, log):
    account = make_crowd(HANGING, WECHAT_API_URL=cloud.url, **PUSHING)
    assert send(account, "hang") == "success"
    wait_for(log, "is left to itself")
    assert wait_until(account.app.delivery.is_idle)
    assert cloud.sent == []
    assert account.app.store.linked("user:o") == {}


def test_who_was_told_to_wait_gets_the_error_handlers_reply_as_a_customer_message(make_crowd, cloud):
    account = make_crowd(HANGING + SORRY, WECHAT_API_URL=cloud.url, **PUSHING)
    assert send(account, "hang") == "success"
    assert wait_until(lambda: [message["text"]["content"] for _, message in cloud.sent] == [LATE])


def test_a_handler_with_all_the_time_in_the_world_takes_nobody_elses_end(make_crowd):
    """A thread waits for 292 years at most: threading.TIMEOUT_MAX."""
    endless = '@on("text", re.compile("(inf|1e10)"), timeout={})\ndef endless(msg): return "done"\n'
    for seconds in ("float('inf')", "1e10"):
        account = make_crowd(HANGING + SORRY + endless.format(seconds), WECHAT_REPLY_WITHIN="4")
        assert [send(account, content) for content in ("inf", "1e10", "hang")] == ["done", "done", LATE]


def test_an_error_handler_that_hangs_too_ends_after_its_time(make_crowd, log):
    hanging = '@on("error", timeout=0.2)\ndef sorry(msg, error): GATE.wait(30)\n'
    account = make_crowd(HANGING + hanging, WECHAT_REPLY_WITHIN="4")
    assert send(account, "hang") == "success"
    assert log.text.count("is left to itself") == 2
    assert send(account, "quick") == "quick"


def test_a_slow_handler_has_five_minutes_unless_it_says_something_else(make_crowd, monkeypatch):
    """Here they are 0.2 s."""
    monkeypatch.setattr("wechat.delivery.answering.TIMEOUT", 0.2)
    account = make_crowd(SLOW + SORRY, WECHAT_REPLY_WITHIN="4")
    assert send(account, "slow") == LATE
