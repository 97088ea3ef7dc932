"""Processes on one store, as applications: what a dead one left, and who answers it, once."""

import threading
import time

import pytest

import wechat.delivery.delivery
import wechat.delivery.outbox
import wechat.delivery.runner
from sandbox.messages import USER, text_message
from sandbox.testing import APPID, SECRET
from tests.conftest import TOKEN, FaultyStore, Known, begin
from tests.test_ledger import STRANGE
from tests.test_promises import wait_until
from wechat.delivery.delivery import MOST_STARTS
from wechat.delivery.entries import READY
from wechat.delivery.ledger import Ledger, unpack_record
from wechat.delivery.outbox import NOTHING
from wechat.errors import GivenUp
from wechat.message import delivery_key
from wechat.packing import unpack
from wechat.protocol.parser import parse, read_fields
from wechat.reply import Text
from wechat.routing import on
from wechat.settings import read
from wechat.store.owners import Identity, Owners
from wechat.texts import Texts
from wxserver import Application

MORE = f"\n\n{Texts.more}"

DEAD = f"{Identity().namespace}/4194304/1/dead"  # no process has a number as high
WORK = text_message("work").encode()


@pytest.fixture
def store():
    return FaultyStore()


@pytest.fixture
def serving(monkeypatch, store):
    """A function that gives an application on the store, which it takes for one that processes share."""
    monkeypatch.setattr(wechat.delivery.delivery, "GRACE", 0.3)
    monkeypatch.setattr(wechat.delivery.runner, "FOLLOW_UP_AFTER_CRASH", 0.1)
    apps = []

    def start(handler, within="0.5", **more):
        environ = {"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": "sqlite:/of/no/use", "WECHAT_REPLY_WITHIN": within, **more}
        path = ("text", "work")
        routes = {path: on(*path, slow=True)(handler), ("error",): on("error")(sorry)}
        apps.append(Application(read(environ), routes, store=store))
        return apps[-1]

    yield start
    for app in apps:
        app.close()


def sorry(msg, error):
    return "given up" if isinstance(error, GivenUp) else "another error"


def working(seconds=0.0):
    """A handler that takes so long, and how often it ran."""
    ran = []

    def work(msg):
        ran.append(msg)
        time.sleep(seconds)
        return "the answer"

    return work, ran


def said(document):
    return read_fields(document).get("Content") if document else ""


def dead_ledger(store):
    """The ledger of a process that has ended."""
    owners = Owners(store, identify=lambda: Known(DEAD, set()))
    owners.show_life()
    return Ledger(store, owners, True, 600)


def leave(store, content=WORK, starts=1):
    """What stands in the store after a process promised an answer, and was killed; gives its ledger and the entry."""
    message, ledger = parse(content), dead_ledger(store)
    entry, _ = begin(ledger, delivery_key(message, content), message.FromUserName, True)
    for _ in range(starts):
        ledger.start(entry)
    ledger.promise(entry, content.decode())
    return ledger, entry


def kept(store, openid=USER):
    """The replies of a user that wait, the oldest first."""
    records = [unpack_record(raw) for raw in store.linked(f"user:{openid}").values()]
    return [unpack(record.reply).content for record in records if record and record.state == READY]


def fetch(app, number=1):
    """What the user gets by 继续, once there is something."""
    content = text_message("继续").encode()
    return said(app.delivery.answer(content))


def are_idle(*apps):
    return wait_until(lambda: all(app.delivery.is_idle() for app in apps))


# What was promised


def test_what_a_dead_process_promised_is_answered_at_the_start_and_fetched_by_continue(serving, store):
    leave(store)
    work, ran = working(0.3)
    app = serving(work)
    assert wait_until(lambda: ran)
    assert not app.delivery.is_idle(), "it is at work"
    assert are_idle(app)
    assert kept(store) == ["the answer"]
    assert fetch(app) == "the answer"
    assert (len(ran), kept(store)) == (1, [])


def test_one_process_answers_for_a_dead_one_though_two_notice(serving, store):
    work, ran = working(0.6)
    one, two = serving(work, "3"), serving(work, "3")
    leave(store)
    for app in (one, two):
        app.heartbeat._owners.look()
    threads = [threading.Thread(target=app.heartbeat._task) for app in (one, two)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: ran)
    late = two.delivery.answer(WORK)  # WeChat's next attempt
    for thread in threads:
        thread.join()
    assert are_idle(one, two)
    assert len(ran) == 1
    assert [said(late) == "the answer", *kept(store)].count("the answer") + (said(late) == "the answer") == 1


def test_a_reply_goes_out_once_where_the_attempts_are_with_two_processes(serving, store):
    work, ran = working(1.2)
    one, two = serving(work), serving(work)
    documents = [one.delivery.answer(WORK), two.delivery.answer(WORK), two.delivery.answer(WORK)]
    assert are_idle(one, two)
    assert len(ran) == 1
    assert [said(document) for document in documents].count("the answer") + len(kept(store)) == 1


@pytest.mark.parametrize("starts", [0, 1, 2])
def test_a_message_whose_process_died_is_run_again_up_to_three_times(serving, store, starts):
    leave(store, starts=starts)
    work, ran = working()
    assert are_idle(serving(work))
    assert wait_until(lambda: kept(store) == ["the answer"])
    assert len(ran) == 1


def test_a_message_that_ended_its_process_three_times_is_given_up_and_the_user_told(serving, store, log):
    """It would take the server down at every start, and other users' answers with it."""
    leave(store, starts=MOST_STARTS)
    work, ran = working()
    serving(work)
    assert wait_until(lambda: kept(store) == ["given up"])
    assert ran == []
    assert "its process ended at each of 3 starts, the message is given up" in log.text


def test_messages_under_suspicion_run_one_at_a_time(serving, store):
    """Whichever ends the process takes no other one along."""
    for number in range(4):
        leave(store, text_message("work", f"user{number}").encode(), starts=2)
    leave(store, text_message("work", "healthy").encode(), starts=0)
    running, most = [], []

    def work(msg):
        running.append(msg.FromUserName)
        most.append([user for user in running if user != "healthy"])
        time.sleep(0.1)
        running.remove(msg.FromUserName)
        return "the answer"

    app = serving(work)
    assert wait_until(lambda: len(most) == 5)
    assert are_idle(app)
    assert max(map(len, most)) == 1
    assert kept(store, "healthy") == ["the answer"]


def test_a_promised_continue_of_a_dead_process_ends(serving, store):
    """Open for ever, it would have each later 继续 told to wait."""
    ledger, entry = leave(store)
    ledger.end(entry, b"", None, Text("waits"))
    ledger.keep(entry)
    leave(store, text_message("继续").encode())
    app = serving(working()[0])
    assert are_idle(app)
    assert wait_until(lambda: "waits" in kept(store) and len(store.linked(f"owned:{DEAD}")) == 0)
    states = {unpack_record(raw).state for raw in store.linked(f"user:{USER}").values()}
    assert states == {READY}
    assert fetch(app).startswith("waits")


# What was ready


def test_a_reply_that_was_ready_is_sent_or_kept_and_no_handler_runs_again(serving, store):
    ledger, entry = leave(store)
    ledger.end(entry, b"", None, Text("the whole"))
    ledger.send(entry)
    work, ran = working()
    apps = serving(work), serving(work)
    assert wait_until(lambda: unpack_record(store.get(f"message:{entry.key}")).owner == "")
    assert are_idle(*apps)
    assert (kept(store), ran) == (["the whole"], [])


def test_of_a_long_text_one_process_sends_the_rest_behind_its_beginning(serving, store):
    ledger = dead_ledger(store)
    entry, _ = begin(ledger, delivery_key(parse(WORK), WORK), USER, True)
    ledger.end(entry, b"<xml>beginning</xml>", Text("the rest"), None)
    work, ran = working()
    apps = serving(work), serving(work)
    assert apps[0].delivery.answer(WORK) == b"<xml>beginning</xml>", "WeChat may not have had it yet"
    assert wait_until(lambda: unpack_record(store.get(f"message:{entry.key}")).owner == "")
    assert are_idle(*apps)
    assert (kept(store), ran) == (["the rest"], [])


def test_what_was_never_promised_is_left_to_wechats_next_attempt(serving, store):
    ledger = dead_ledger(store)
    begin(ledger, delivery_key(parse(WORK), WORK), USER, True)
    work, ran = working()
    apps = serving(work), serving(work)
    assert wait_until(lambda: store.linked(f"owned:{DEAD}") == {})
    assert ran == []
    assert said(apps[0].delivery.answer(WORK)) == "the answer"
    assert said(apps[1].delivery.answer(WORK)) == "the answer"
    assert len(ran) == 1


# Records that cannot be gone on with


@pytest.mark.parametrize("raw", STRANGE)
def test_a_record_of_another_version_holds_up_no_other_one(serving, store, raw):
    _, entry = leave(store, text_message("work", "a_user").encode())
    store.set(f"message:{entry.key}", raw, 999)
    leave(store)
    serving(working()[0])
    assert wait_until(lambda: kept(store) == ["the answer"])


def test_a_message_that_cannot_be_read_is_ended_and_holds_up_no_other_one(serving, store):
    ledger = dead_ledger(store)
    entry, _ = begin(ledger, "a key", USER, True)
    ledger.promise(entry, "no message")
    leave(store)
    app = serving(working()[0])
    assert wait_until(lambda: sorted(kept(store)) == sorted([NOTHING.content, "the answer"]))
    assert are_idle(app)


# Races and failures


def test_a_store_that_hiccups_has_no_handler_run_twice(serving, store):
    work, ran = working(1.0)
    app = serving(work)
    store.fault, store.only, store.times = "away", "message:", 3
    documents = [app.delivery.answer(WORK) for _ in range(3)]
    assert are_idle(app)
    assert len(ran) == 1
    assert [said(document) for document in documents].count("the answer") + len(kept(store)) == 1


def test_an_attempt_that_begins_with_a_message_twice_begins_anew(serving, store):
    """First without the store, then as its process had died: seed 418173 of the simulation had two runs in one push."""
    app, pushes, message = serving(working()[0]), [], parse(WORK)
    begin(dead_ledger(store), delivery_key(message, WORK), message.FromUserName, True)
    app.delivery.do_in_lane = lambda entry, push: pushes.append(push) or app.delivery.look_after()
    store.fault, store.only, store.times = "away", "message:", 1
    app.delivery.answer(WORK)
    first, second = pushes
    assert first is not second


@pytest.mark.parametrize("slow_at", ["promised", "done", "ready"])
def test_a_run_that_ends_while_its_attempt_is_acknowledged_loses_no_reply(serving, store, slow_at):
    """Whichever is written first decides, and the other one sees it."""

    class Slow(FaultyStore):
        def finish(self, write):
            if write.changes[0].new and f'"state": "{slow_at}"' in write.changes[0].new:
                time.sleep(0.4)
            return super().finish(write)

    store.__class__ = Slow
    app = serving(working(0.3)[0], within="0.3")
    app.delivery._outbox.can_push = lambda *since: True  # so that the attempt is acknowledged at once
    app.delivery._outbox.show_typing = lambda entry: threading.Event()
    sent = []
    app.api.send_message = lambda openid, message: sent.append(message["text"]["content"])
    document = app.delivery.answer(WORK)
    assert are_idle(app)
    assert [said(document), *sent].count("the answer") == 1


def test_an_attempt_that_is_listened_to_gets_the_answer_though_another_one_came_out_of_order(serving, monkeypatch):
    """WeChat sent the other one earlier, to a process that stood still: it hangs up on that, and not on this one."""
    monkeypatch.setattr(wechat.delivery.delivery, "GRACE", 2.0)
    app = serving(working(0.7)[0], within="0.3")
    documents = {}

    def attempt(number):
        documents[number] = app.delivery.answer(WORK)

    attempts = [threading.Thread(target=attempt, args=[number]) for number in (2, 1)]
    for thread in attempts:
        thread.start()
        time.sleep(0.1)
    for thread in attempts:
        thread.join()
    assert {number: said(document) for number, document in documents.items()} == {1: "the answer", 2: "the answer"}
    assert are_idle(app)


@pytest.mark.parametrize("rest", [None, Text("the rest")], ids=["short", "long"])
def test_a_beginning_that_came_too_late_is_sent_with_the_rest(serving, store, rest):
    """Another process had promised it, which could not be read: seeds 10736 and 101024 of the simulation lost it."""
    app = serving(working()[0])
    ours, outbox, sent = app.delivery._ledger, app.delivery._outbox, []
    theirs = Ledger(store, Owners(store, identify=lambda: Known("other", set())), True, 600)
    outbox._has_credentials = True
    app.api.send_message = lambda openid, message: sent.append(message["text"]["content"])
    entry, _ = begin(ours, "key", USER, False)
    theirs.promise(begin(theirs, "key", USER, False)[0], "")
    store.fault = "away"
    ours.end(entry, b"the beginning", rest, Text("the whole"))
    store.fault = ""
    app.delivery.look_after()
    assert wait_until(lambda: sent)
    assert are_idle(app)
    assert sent == ["the whole"]


def test_a_long_text_that_comes_late_is_kept_as_a_whole(serving, store):
    app = serving(lambda msg: time.sleep(2.5) or "长" * 1000)
    assert [said(app.delivery.answer(WORK)) for _ in range(3)][-1] == Texts.waiting
    assert are_idle(app)
    assert kept(store) == ["长" * 1000]


def test_the_rest_of_a_text_that_was_fetched_is_announced_though_customer_messages_are_allowed(serving, store, cloud):
    """The platform refused this reply, and nobody sends its rest."""
    cloud.fail("/cgi-bin/message/custom/send", "code:45047", times=None)
    push = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    app = serving(lambda msg: time.sleep(0.4) or "长" * 1000, "0.2", **push)
    assert app.delivery.answer(WORK) == b""
    assert wait_until(lambda: kept(store) and are_idle(app))
    beginning = fetch(app)
    assert beginning.endswith(MORE)
    assert beginning.removesuffix(MORE) + fetch(app) == "长" * 1000
