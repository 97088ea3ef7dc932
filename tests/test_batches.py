"""Messages that wait together: one write stores their records, and each is answered as if it were alone."""

import gc
import sqlite3
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from webob import Request

from sandbox.messages import text_message
from sandbox.platform import signed_query
from tests.conftest import TOKEN, nodes
from wechat.store.writes import Change

HANDLERS = """
import re
runs = []

@on("text")
def count(msg):
    runs.append(msg.Content)
    return f"{msg.Content} {runs.count(msg.Content)}"

@on("text", "slow", slow=True)
def slow(msg):
    return "slow, and done"

@on("text", re.compile("again .*"))
def again(msg, session):
    session["times"] = session.get("times", 0) + 1
    return str(session["times"])
"""


@pytest.fixture
def make_process(make_account, tmp_path):
    """Makes processes that share a store."""
    made = []

    def make():
        made.append(make_account(HANDLERS, WECHAT_STORE=f"sqlite:{tmp_path}/store.db"))
        return made[-1]

    yield make
    for each in made:
        each.app.close()


@pytest.fixture
def account(make_process):
    return make_process()


def environ(content, query=None, path="/weixin", method="POST", openid=None):
    body = content if isinstance(content, bytes) else text_message(content, openid or f"o_{content}").encode()
    request = Request.blank(path, method=method, body=body if method == "POST" else None)
    request.environ["QUERY_STRING"] = signed_query(TOKEN) if query is None else query
    return request.environ


def answers(account, *environs):
    return [Request(each).send(account.app) for each in environs]


def answer_alone(account, one):
    """The answer to one of the requests, while no worker takes another."""
    said = []
    thread = threading.Thread(target=lambda: said.extend(answers(account, one)), daemon=True)
    thread.start()
    thread.join(4)
    assert said, "it waits for a message that no worker has taken"
    return said[0]


def test_nothing_is_read_for_those_who_ask_for_a_session_before_they_are_answered(account, monkeypatch):
    """One after the other, 16 of them would take 32 round trips."""
    read = []
    get = account.app.store.get
    monkeypatch.setattr(account.app.store, "get", lambda key: read.append(key) or get(key))
    pushes = [environ(f"again {number}", openid="o_one") for number in range(5)]
    account.app.open_all(pushes)
    assert read == []
    assert [nodes(response)["Content"] for response in answers(account, *pushes)] == ["1", "2", "3", "4", "5"]


def test_the_records_of_all_are_one_write(account, monkeypatch):
    writes = []
    swap_each = account.app.store._swap_each
    monkeypatch.setattr(account.app.store, "_swap_each", lambda groups: writes.append(len(groups)) or swap_each(groups))
    pushes = [environ(f"message {number}") for number in range(20)]
    account.app.open_all(pushes)
    assert writes == [20]
    said = [nodes(response)["Content"] for response in answers(account, *pushes)]
    assert said == [f"message {number} 1" for number in range(20)]
    assert writes == [20], "what was answered goes along with the next write"


def test_a_batch_waits_for_nothing_that_others_queue_meanwhile(account, monkeypatch):
    """Each write is a round trip to Redis: with ten clients, an answer took ten of them."""
    store, writes = account.app.store, []
    swap_each = store._swap_each

    def swap_while_others_come(groups):
        writes.append(len(groups))
        if len(writes) < 5:
            store.queue(Change(f"another {len(writes)}", None, "1", 60))
        return swap_each(groups)

    monkeypatch.setattr(store, "_swap_each", swap_while_others_come)
    account.app.open_all([environ("one"), environ("two")])
    assert writes == [2]


def test_what_is_refused_or_no_message_is_answered_as_alone(account):
    def make():
        return [
            environ("unsigned", query="timestamp=1"),
            environ(b"<xml>"),
            environ(b"x" * 300_000),
            environ("elsewhere", path="/nowhere"),
            environ("", query=signed_query(TOKEN) + "&echostr=echo", method="GET"),
            environ(b'{"action": "CheckContainerPath"}', query=""),
            environ("slow"),
            environ("hello"),
        ]

    alone, together = make(), make()
    account.app.open_all(together)
    for one, other in zip(answers(account, *alone), answers(account, *together), strict=True):
        assert (one.status, one.headers["Content-Type"]) == (other.status, other.headers["Content-Type"])


def test_a_message_and_its_retry_run_once(account):
    push = text_message("twice").encode()
    attempts = [environ(push) for _ in range(3)]
    account.app.open_all(attempts)
    with ThreadPoolExecutor(2) as pool:  # fewer than attempts: they are taken in the order in which they came
        said = list(pool.map(lambda each: nodes(Request(each).send(account.app)), attempts))
    assert [each["Content"] for each in said] == ["twice 1"] * 3


def test_where_the_store_is_away_each_is_answered_all_the_same(account, monkeypatch):
    def fail(groups):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(account.app.store, "_swap_each", fail)
    pushes = [environ(f"away {number}") for number in range(3)]
    account.app.open_all(pushes)
    assert [nodes(response)["Content"] for response in answers(account, *pushes)] == [f"away {n} 1" for n in range(3)]


def test_a_retry_waits_for_no_attempt_that_nobody_has_taken(account):
    """Two workers may prepare at a time: the retry may be taken first, by the last worker that is free."""
    push = text_message("twice").encode()
    first, retry = environ(push), environ(push)
    account.app.open_all([first, retry])
    assert nodes(answer_alone(account, retry))["Content"] == "twice 1"
    assert nodes(answers(account, first)[0])["Content"] == "twice 1"


def test_what_asks_for_a_reply_waits_for_no_message_that_nobody_has_taken(account, make_process):
    push, asking = text_message("slow", "o_user").encode(), environ("继续", openid="o_user")
    other = environ(push)
    make_process().app.open_all([other])
    retry = environ(push)
    account.app.open_all([asking, retry])
    assert answer_alone(account, asking).status_code == 200


def test_what_was_refused_is_given_back_at_once(account):
    """Beside 256 KB that nobody signed, the error would keep all that was prepared with it."""
    refused = [environ(b"x" * 1000, query="timestamp=1") for _ in range(3)]
    account.app.open_all(refused)
    errors = [weakref.ref(each["wxserver.opened"]) for each in refused]
    gc.disable()
    try:
        answers(account, *refused)
        assert [error() for error in errors] == [None] * 3
    finally:
        gc.enable()
