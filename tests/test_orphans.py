"""Two processes on one store, as two applications: what a dead one left, and who answers it, once."""

import json
import socket
import threading
import time

import pytest
from wechat.delivery.debts import pack, unpack

import wechat.delivery.delivery
from sandbox.messages import text_message
from tests.conftest import TOKEN
from wechat.errors import StoreError
from wechat.message import delivery_key
from wechat.protocol.parser import parse, read_fields
from wechat.reply import Text
from wechat.routing import on
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wxserver import Application

DEAD = f"{socket.gethostname()}/4194304/dead"  # no process has a number as high


@pytest.fixture
def serving(monkeypatch):
    """A function that gives an application on the store, which it takes for one that processes share."""
    monkeypatch.setattr(wechat.delivery.delivery, "GRACE", 0.3)
    apps = []

    def start(store, handler, within="0.5"):
        environ = {"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": "sqlite:/of/no/use", "WECHAT_REPLY_WITHIN": within}
        path = ("text", "work")
        apps.append(Application(read(environ), {path: on(*path, slow=True)(handler)}, store=store))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


def working(seconds):
    """A handler that takes so long, and how often it ran."""
    ran = []

    def work(msg):
        ran.append(msg)
        time.sleep(seconds)
        return "the answer"

    return work, ran


def said(document):
    return read_fields(document).get("Content") if document else ""


def leave_debt(store, content, with_run=True):
    """What stands in the store after a process acknowledged the message, and was killed."""
    message = parse(content)
    if with_run:
        store.set(f"run:{delivery_key(message, content)}", f"running:{DEAD}", 999)
    debt = {"owner": DEAD, "content": content.decode(), "is_being_paid": False}
    store.set(f"debt:{message.FromUserName}:1", json.dumps(debt), 999)


def wait_until(is_so):
    deadline = time.monotonic() + 10
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_so()


def test_a_store_that_hiccups_has_no_handler_run_twice(serving):
    class Hiccuping(MemoryStore):
        def get(self, key):
            if key.startswith("try:"):
                raise StoreError("away for a moment")
            return super().get(key)

    work, ran = working(1.5)
    app = serving(Hiccuping(), work)
    started = time.monotonic()
    assert app.delivery.answer(text_message("work").encode()) == b""
    assert time.monotonic() - started < 1.4
    wait_until(app.delivery.is_idle)
    assert len(ran) == 1


def test_a_server_is_not_idle_while_it_answers_for_a_dead_process(serving):
    work, ran = working(0.5)
    store = MemoryStore()
    leave_debt(store, text_message("work").encode())
    app = serving(store, work)
    wait_until(lambda: ran)
    assert not app.delivery.is_idle()
    wait_until(app.delivery.is_idle)
    assert len(store.keys("kept:")) == 1
    assert store.keys("debt:") == []


def test_a_reply_goes_out_once_where_the_attempts_are_with_two_processes(serving):
    work, ran = working(1.2)
    store = MemoryStore()
    one, two = serving(store, work), serving(store, work)
    content = text_message("work").encode()
    first, second = one.delivery.answer(content), two.delivery.answer(content)
    wait_until(lambda: one.delivery.is_idle() and two.delivery.is_idle())
    assert len(ran) == 1
    answers = [said(first), said(second)].count("the answer") + len(store.keys("kept:"))
    assert answers == 1


def test_one_process_answers_for_a_dead_one_though_two_notice(serving):
    work, ran = working(0.6)
    store = MemoryStore()
    one, two = serving(store, work, "3"), serving(store, work, "3")
    content = text_message("work").encode()
    leave_debt(store, content)
    notice = threading.Thread(target=one.heartbeat._task)
    notice.start()
    wait_until(lambda: ran)
    second = two.delivery.answer(content)  # WeChat's next attempt
    notice.join()
    wait_until(lambda: one.delivery.is_idle() and two.delivery.is_idle())
    assert len(ran) == 1
    assert (said(second) == "the answer") + len(store.keys("kept:")) == 1
    assert store.keys("debt:") == []


def test_what_was_done_and_never_sent_is_answered_again(serving):
    work, ran = working(0)
    store = MemoryStore()
    content = text_message("work").encode()
    leave_debt(store, content, with_run=False)
    store.set(f"run:{delivery_key(parse(content), content)}", "done:", 60)
    app = serving(store, work)
    wait_until(lambda: ran and app.delivery.is_idle())
    assert len(store.keys("kept:")) == 1


def test_of_a_long_text_one_process_sends_the_rest_and_no_handler_runs_again(serving):
    work, ran = working(0)
    store = MemoryStore()
    content = text_message("work").encode()
    debt = {"owner": DEAD, "content": content.decode(), "is_being_paid": True, "rest": pack(Text("the rest"))}
    store.set("rest:o6:1", json.dumps(debt), 999)
    one, two = serving(store, work), serving(store, work)
    wait_until(lambda: not store.keys("rest:") and one.delivery.is_idle() and two.delivery.is_idle())
    assert [unpack(store.get(key)) for key in store.keys("kept:")] == [Text("the rest")]
    assert ran == []


def test_a_long_text_that_comes_late_as_a_whole_leaves_no_rest(serving):
    store = MemoryStore()
    app = serving(store, lambda msg: time.sleep(4) or "长" * 1000)
    content = text_message("work").encode()
    assert [said(app.delivery.answer(content)) for _ in range(3)][-1].startswith("还在处理")
    wait_until(app.delivery.is_idle)
    assert [unpack(store.get(key)) for key in store.keys("kept:")] == [Text("长" * 1000)]
    assert store.keys("debt:") == store.keys("rest:") == []


def test_a_rest_is_not_sent_whose_beginning_never_went_out(serving):
    store = MemoryStore()
    content = text_message("work").encode()
    leave_debt(store, content)  # acknowledged, and killed after it owed the rest, before the run ended
    debt = {"owner": DEAD, "content": content.decode(), "is_being_paid": True, "rest": pack(Text("an older rest"))}
    store.set("rest:o6:1", json.dumps(debt), 999)
    work, ran = working(0)
    apps = serving(store, work), serving(store, work)
    wait_until(lambda: ran and all(app.delivery.is_idle() for app in apps))
    assert [unpack(store.get(key)) for key in store.keys("kept:")] == [Text("the answer")]
    assert store.keys("debt:") == store.keys("rest:") == []


def test_a_run_that_ends_while_its_attempt_is_acknowledged_loses_no_reply(serving):
    class Slow(MemoryStore):
        """As slow as it takes for either side to come first."""

        def add(self, key, value, ttl):
            done = super().add(key, value, ttl)
            if key.startswith("debt:"):
                owed.set()
                time.sleep(0.1)
            return done

        def set(self, key, value, ttl):
            if value == "done:":
                time.sleep(0.3)
            super().set(key, value, ttl)

    owed, store = threading.Event(), Slow()
    app = serving(store, lambda msg: owed.wait(5) and "the answer", within="0.3")
    app.delivery._outbox.can_push = lambda: True  # so that the attempt is acknowledged at once
    app.delivery._outbox.show_typing = lambda openid: None
    document = app.delivery.answer(text_message("work").encode())
    wait_until(app.delivery.is_idle)
    assert (said(document) == "the answer") + len(store.keys("kept:")) == 1
    assert store.keys("debt:") == []


UNREADABLE = json.dumps({"owner": DEAD, "content": "no message", "is_being_paid": False})


@pytest.mark.parametrize(
    "debt", ['{"version": 2}', "[]", "null", '{"owner": "", "content": "", "rest": "[]"}', UNREADABLE]
)
def test_a_debt_of_another_version_is_passed_over(serving, debt):
    store = MemoryStore()
    store.set("debt:a_user:1", debt, 999)  # the first of all
    work, ran = working(0)
    leave_debt(store, text_message("work").encode())
    app = serving(store, work)
    wait_until(lambda: ran and app.delivery.is_idle())
