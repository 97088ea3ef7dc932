"""The moves of a message: what each one leaves, who wins where two race, and what a store that fails costs."""

import json
import threading
import time
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FaultyStore, Machine
from tests.conftest import begin as begin_for
from tests.test_reply_properties import ARTICLES, REPLIES
from wechat.delivery.entries import DONE, PROMISED, READY, RUNNING, Record
from wechat.delivery.ledger import KEPT, Ledger, unpack_record
from wechat.errors import StoreError
from wechat.message import KEPT as DOCUMENT_KEPT
from wechat.packing import pack, unpack
from wechat.reply import Image, News, Text
from wechat.store.owners import REMEMBERED, RENEW
from wechat.store.writes import Change
from wechat.world import World

REPLY, REST = Text("the reply"), Text("the rest")
SECONDS = 600.0


@pytest.fixture
def store(world):
    return FaultyStore(world)


@pytest.fixture
def machine(store, world):
    return Machine(store, world)


@pytest.fixture
def start(machine, store, world):
    """A function that starts a process; gives its ledger."""

    def run(name, is_shared=True):
        return Ledger(store, machine.start(name), is_shared, SECONDS, world)

    return run


@pytest.fixture(params=[False, True], ids=["memory", "shared"])
def ledger(start, request):
    return start("me", request.param)


@pytest.fixture
def ours(start):
    return start("ours")


@pytest.fixture
def theirs(start):
    return start("theirs")


def begin(ledger, key="key", is_slow=True):
    return begin_for(ledger, key, "o", is_slow)


def read(store, key="key"):
    """What the store holds of a message."""
    raw = store.get(f"message:{key}")
    return raw and unpack_record(raw)


def ready(ledger, key="key", reply=REPLY):
    """A message whose reply was promised, and is there."""
    entry, _ = begin(ledger, key)
    ledger.promise(entry, "<xml/>")
    ledger.end(entry, b"", None, reply)
    return entry


def at_once(*tasks):
    """What the tasks give, each in a thread of its own."""
    given, threads = [None] * len(tasks), []

    def run(place, task):
        given[place] = task()

    for place, task in enumerate(tasks):
        threads.append(threading.Thread(target=run, args=(place, task)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return given


# A message and its attempts


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_the_first_attempt_has_to_answer_and_the_others_get_its_document(ledger, is_slow):
    entry, is_ours = begin(ledger, is_slow=is_slow)
    assert is_ours
    again, is_ours = begin(ledger, is_slow=is_slow)
    assert (again, is_ours, again.record.attempts) == (entry, False, 2)
    assert ledger.end(entry, "你好".encode(), None, None) == RUNNING
    again, is_ours = begin(ledger, is_slow=is_slow)
    assert (again.record.state, again.record.document, is_ours) == (DONE, "你好".encode(), False)
    assert begin(ledger, "another")[1]


def test_a_fast_message_in_memory_does_not_touch_the_store(start, store):
    ledger = start("me", is_shared=False)
    store.fault = "away"
    entry, _ = begin(ledger, is_slow=False)
    begin(ledger, is_slow=False)
    assert ledger.end(entry, b"x", None, None) == RUNNING
    assert begin(ledger, is_slow=False)[0].record.document == b"x"


@pytest.mark.parametrize("is_shared", [False, True])
def test_of_messages_that_are_done_or_kept_only_a_digest_stays_in_the_process(start, is_shared, world):
    ledger = start("me", is_shared)
    ledger.end(begin(ledger, "done")[0], b"", None, None)
    ledger.keep(ready(ledger, "kept"))
    for number in range(3):
        world.now += DOCUMENT_KEPT
        begin(ledger, str(number))
    for key in ("done", "kept"):
        assert ledger._known.get(key) is None
        assert not begin(ledger, key)[1]


def test_a_done_message_in_memory_leaves_nothing_in_the_store(start, store):
    ledger = start("me", is_shared=False)
    ledger.end(begin(ledger)[0], b"x", None, None)
    assert store.get("message:key") is None


def test_a_done_message_is_remembered_by_all_processes_until_its_signature_is_stale(ours, theirs, start, world, store):
    ours.end(begin(ours)[0], b"x", None, None)
    world.now += SECONDS - 1
    assert not begin(theirs)[1]
    assert not begin(start("third"))[1]
    world.now += 2
    assert begin(start("fourth"))[1]


def test_an_open_message_is_kept_for_a_day(ours, theirs, world, store):
    ours.promise(begin(ours)[0], "<xml/>")
    world.now += KEPT - 1
    assert read(store).state == PROMISED
    world.now += 2
    assert read(store) is None


def test_attempts_are_counted_across_processes(start):
    assert [begin(start(str(number)))[0].record.attempts for number in range(4)] == [1, 2, 3, 4]


def test_many_attempts_at_once_in_many_processes_have_one_that_answers(start):
    ledgers = [start(str(number)) for number in range(4)]
    for key in map(str, range(50)):
        begun = at_once(*(lambda one=one, key=key: begin(one, key) for one in ledgers * 2))
        assert [is_ours for _, is_ours in begun].count(True) == 1
        assert {entry.record.attempts for entry, _ in begun if entry.record.owner} <= set(range(1, 9))
        assert read(ledgers[0]._store, key).attempts == 8


# Promised, or answered directly


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_what_was_promised_goes_out_as_a_message_and_is_no_direct_answer(ledger, store, is_slow):
    entry, _ = begin(ledger, is_slow=is_slow)
    assert ledger.promise(entry, "<xml/>").state == PROMISED
    assert read(store).content == ("<xml/>" if ledger._is_shared else "")  # whom else would it be for?
    assert entry.record.is_late
    assert ledger.end(entry, b"document", REST, REPLY) == PROMISED
    assert (entry.record.state, entry.record.document, entry.record.content) == (READY, b"", "")
    assert unpack(read(store).reply) == REPLY
    assert entry.record.is_late


def test_what_was_answered_cannot_be_promised_any_more(ledger):
    entry, _ = begin(ledger)
    ledger.end(entry, b"document", None, REPLY)
    assert ledger.promise(entry, "<xml/>") == entry.record
    assert (entry.record.state, entry.record.document) == (DONE, b"document")
    assert not entry.record.is_late


def test_the_rest_of_a_long_text_is_ready_behind_its_direct_beginning(ledger, store):
    entry, _ = begin(ledger)
    assert ledger.end(entry, b"beginning", REST, REPLY) == RUNNING
    assert unpack(read(store).reply) == REST
    assert not entry.record.is_late
    assert begin(ledger)[0].record.document == b"beginning"


def test_a_promise_without_a_reply_is_done(ledger):
    entry, _ = begin(ledger)
    ledger.promise(entry, "<xml/>")
    assert ledger.end(entry, b"", None, None) == PROMISED
    assert entry.record.state == DONE


def test_of_a_promise_and_an_end_at_once_the_first_decides_and_the_other_sees_it(ours, theirs):
    for number in range(40):
        entry, _ = begin(ours, str(number))
        other, _ = begin(theirs, str(number))
        _, promised, before = at_once(
            lambda entry=entry: ours.promise(entry, ""),
            lambda other=other: theirs.promise(other, ""),
            lambda entry=entry: ours.end(entry, b"document", None, REPLY),
        )
        assert promised.is_late == (before == PROMISED) == (entry.record.state == READY)
        assert (entry.record.document == b"document") == (before == RUNNING)
        if before == RUNNING:
            assert promised.document == b"document"


def test_a_message_ends_once(ledger):
    entry, _ = begin(ledger)
    assert sorted(at_once(*[lambda: ledger.end(entry, b"x", None, None)] * 4)) == ["", "", "", RUNNING]


def test_what_is_handed_on_to_a_slow_handler_is_not_counted_twice_though_it_was_promised_meanwhile(ledger):
    """Seed 250386 of the simulation gave a message up after two starts."""
    entry, _ = begin(ledger, is_slow=False)
    ledger.promise(entry, "")
    assert ledger.slow_down(entry)
    assert ledger.start(entry)
    assert entry.record.starts == 1


def test_what_is_yielded_as_its_message_ends_is_dropped(ledger, store):
    """A thread that hung came back just then: seed 600134 of the simulation."""
    entry, _ = begin(ledger)
    ledger.promise(entry, "")
    late = ledger.further(entry, [REPLY], 1)
    assert ledger.end(entry, b"", None, None) == PROMISED
    late += ledger.further(entry, [REPLY], 1)
    assert not any(ledger.add(entry, further) for further in late)
    assert not store.linked("user:o")
    assert not store.linked("user:")


# The reply on its way


def test_a_reply_is_claimed_before_each_part_and_done_after_the_last(ledger, store):
    entry = ready(ledger)
    assert ledger.send(entry)
    assert read(store).is_sending
    assert ledger.sent(entry, REST)
    assert (entry.record.state, entry.record.is_sending, unpack(entry.record.reply)) == (READY, False, REST)
    assert ledger.send(entry)
    assert ledger.sent(entry, None)
    assert entry.record.state == DONE
    assert not ledger.send(entry)
    assert not ledger.sent(entry, None)


def test_a_part_that_was_not_sent_is_ready_again(ledger):
    entry = ready(ledger)
    ledger.send(entry)
    assert ledger.unsent(entry)
    assert (entry.record.state, entry.record.is_sending, unpack(entry.record.reply)) == (READY, False, REPLY)
    assert ledger.send(entry)


def test_a_reply_that_waits_for_continue_is_nobodys_and_is_not_sent(ledger, store):
    entry = ready(ledger)
    assert ledger.keep(entry)
    assert read(store).owner == ""
    assert not ledger.send(entry)
    assert store.linked("owned:me") == {}
    assert [found.key for found in ledger.open_of("o")] == ["key"]


@pytest.mark.parametrize("move", ["send", "sent", "unsent", "keep", "start", "end"])
def test_a_process_that_stood_still_does_not_go_on_with_what_another_one_has(ours, theirs, machine, store, move):
    entry = begin(ours)[0] if move in ("start", "end") else ready(ours)
    if move in ("start", "end"):
        ours.promise(entry, "<xml/>")
    machine.ended.add("ours")  # so it seemed
    theirs._owners.look()
    (taken,) = theirs.abandoned()
    before = read(store)
    arguments = {"sent": (None,), "end": (b"document", None, REPLY)}.get(move, ())
    assert not getattr(ours, move)(entry, *arguments)
    assert read(store) == before == taken.record
    assert entry.record.owner == "theirs"


def test_a_process_takes_back_what_it_lost_while_it_stood_still(ours, theirs, machine):
    """It does not know yet that it lost it: in seed 17339 of the simulation the user waited until its handler ended."""
    ours.promise(begin(ours)[0], "<xml/>")
    machine.ended.add("ours")  # so it seemed
    theirs._owners.look()
    assert len(list(theirs.abandoned())) == 1
    machine.ended.remove("ours")
    machine.ended.add("theirs")
    ours._owners.look()
    (taken,) = ours.abandoned()
    assert taken.record.owner == "ours"


# 继续


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "tried again"])
def test_a_reply_that_waits_is_fetched_in_one_step(ledger, store, is_kept):
    waiting = ready(ledger)
    if is_kept:
        ledger.keep(waiting)
    (found,) = ledger.open_of("o")
    asked, _ = begin(ledger, "asked", is_slow=False)
    assert ledger.fetch(asked, found, found.record, b"document", None)
    assert (asked.record.state, asked.record.document) == (DONE, b"document")
    assert ledger.open_of("o") == []
    assert not ledger.send(waiting), "it is not sent too"
    assert begin(ledger, "asked", is_slow=False)[0].record.document == b"document"


def test_what_is_left_of_a_fetched_reply_waits_for_the_next_continue(ledger):
    ledger.keep(ready(ledger))
    (found,) = ledger.open_of("o")
    assert ledger.fetch(begin(ledger, "asked", False)[0], found, found.record, b"beginning", REST)
    (found,) = ledger.open_of("o")
    assert (found.record.owner, unpack(found.record.reply)) == ("", REST)


def test_of_many_who_fetch_a_reply_at_once_one_gets_it(start):
    ledgers = [start(str(number)) for number in range(4)]
    for number in range(20):
        key = str(number)
        ledgers[0].keep(ready(ledgers[0], key))

        def fetch(ledger, key, ready_to_go):
            (found,) = (entry for entry in ledger.open_of("o") if entry.key == key)
            asked = begin(ledger, f"{id(ledger)} {key}", False)[0]
            ready_to_go.wait(5)
            return ledger.fetch(asked, found, found.record, b"document", None)

        ready_to_go = threading.Barrier(4)
        fetches = [partial(fetch, one, key, ready_to_go) for one in ledgers]
        assert sorted(at_once(*fetches)) == [False] * 3 + [True]


@pytest.mark.parametrize("meanwhile", ["send", "sent"])
def test_a_reply_that_went_out_between_the_look_and_the_fetch_is_not_given_too(ledger, meanwhile):
    waiting = ready(ledger)
    (found,) = ledger.open_of("o")
    seen = found.record
    asked, _ = begin(ledger, "asked", False)
    ledger.send(waiting)
    if meanwhile == "sent":
        ledger.sent(waiting, None)
    assert not ledger.fetch(asked, found, seen, b"document", None)
    assert asked.is_running
    assert found.record.state == (READY if meanwhile == "send" else DONE)


def test_a_continue_that_was_promised_meanwhile_takes_nothing(ledger):
    """Its answer would reach nobody: WeChat has hung up."""
    ledger.keep(ready(ledger))
    (found,) = ledger.open_of("o")
    asked, _ = begin(ledger, "asked", False)
    ledger.promise(asked, "<xml/>")
    assert not ledger.fetch(asked, found, found.record, b"document", None)
    assert [entry.record.state for entry in ledger.open_of("o") if entry.key == "key"] == [READY]


def test_only_the_users_own_open_messages_are_found_the_oldest_first(ledger):
    for key in ("o 1", "o 3", "o 2"):
        begin(ledger, key)
    begin(ledger, "o 0", is_slow=False)  # its answer is the direct one
    begin_for(ledger, "p 1", "p", True)
    begin_for(ledger, "ox 1", "ox", True)
    ledger.end(begin(ledger, "o 4")[0], b"x", None, None)
    assert [entry.key for entry in ledger.open_of("o")] == ["o 1", "o 2", "o 3"]


# What a dead process left


def test_the_promises_of_a_dead_process_are_found_by_one_other_each_with_its_message(start, machine, store, world):
    dead, ours, theirs = start("dead"), start("ours"), start("theirs")
    dead.promise(begin(dead, "promised")[0], "<xml/>")
    ready(dead, "ready")
    dead.send(ready(dead, "half sent"))
    dead.keep(ready(dead, "kept"))
    begin(dead, "running")
    dead.end(begin(dead, "done")[0], b"x", None, None)
    assert list(ours.abandoned()) == []
    machine.ended.add("dead")
    for ledger in (ours, theirs):
        ledger._owners.look()
    taken = at_once(lambda: list(ours.abandoned()), lambda: list(theirs.abandoned()))
    found = [entry for some in taken for entry in some]
    assert sorted(entry.key for entry in found) == ["half sent", "promised", "ready"]
    assert not any(entry.record.is_sending for entry in found)
    assert {entry.record.content for entry in found if entry.record.state == PROMISED} == {"<xml/>"}
    for _ in range(round(2 * REMEMBERED / RENEW) + 3):  # once its sign of life goes, the other one begins to count anew
        world.now += RENEW
        for ledger in (ours, theirs):
            ledger._owners.show_life()
            ledger._owners.look()
            assert list(ledger.abandoned()) == []
    assert ours._owners.dead() == theirs._owners.dead() == []
    assert store.linked("owned:dead") == {}
    assert "alive:dead" not in store.linked("owners")


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_what_is_promised_for_a_process_that_is_long_forgotten_is_found(start, machine, world, is_slow):
    """An attempt may stand still with its process meanwhile: seed 13470 of the simulation."""
    dead, ours, theirs = start("dead"), start("ours"), start("theirs")
    begin(dead, is_slow=is_slow)
    entry, _ = begin(theirs, is_slow=is_slow)
    for _ in range(round(REMEMBERED / RENEW) + 2):
        world.now += RENEW
        for ledger in (ours, theirs):
            ledger._owners.show_life()
        ours._owners.look()
        assert list(ours.abandoned()) == []
    theirs.promise(entry, "<xml/>")
    machine.ended |= {"dead", "theirs"}
    ours._owners.look()
    assert [found.key for found in ours.abandoned()] == ["key"]


def test_an_attempt_at_what_a_process_ran_that_is_long_forgotten_leaves_nothing_open(start, machine, world):
    """The attempt stood still, and its process ended then: seed 79147 of the simulation."""
    dead, ours, theirs = start("dead"), start("ours"), start("theirs")
    begin(dead)
    for _ in range(round(REMEMBERED / RENEW) + 2):
        world.now += RENEW
        for ledger in (ours, theirs):
            ledger._owners.show_life()
        ours._owners.look()
        assert list(ours.abandoned()) == []
    begin(theirs)
    machine.ended |= {"dead", "theirs"}
    ours._owners.look()
    assert list(ours.abandoned()) == []
    assert ours.open_of("o") == []


def test_the_fewer_starts_a_message_had_the_sooner_it_goes_on(start, machine):
    dead, ours = start("dead"), start("ours")
    for key, starts in (("a", 3), ("b", 0), ("c", 1)):
        entry, _ = begin(dead, key)
        for _ in range(starts):
            dead.start(entry)
        dead.promise(entry, "")
    machine.ended.add("dead")
    ours._owners.look()
    assert [entry.key for entry in ours.abandoned()] == ["b", "c", "a"]


def test_starts_are_counted_across_processes(start, machine, store):
    for number in range(3):
        ledger = start(str(number))
        ledger._owners.look()
        entry = begin(ledger)[0] if number == 0 else next(iter(ledger.abandoned()))
        assert ledger.start(entry)
        assert read(store).starts == entry.record.starts == number + 1
        ledger.promise(entry, "")
        machine.ended.add(str(number))


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_what_a_dead_process_ran_is_the_next_attempts_and_nobody_elses(start, machine, is_slow):
    dead, *others = (start(name) for name in ("dead", "ours", "theirs"))
    begin(dead, is_slow=is_slow)
    machine.ended.add("dead")
    for ledger in others:
        ledger._owners.look()
        assert list(ledger.abandoned()) == []
    begun = [begin(ledger, is_slow=is_slow) for ledger in others]
    assert [is_ours for _, is_ours in begun] == [True, False]
    assert [entry.record.attempts for entry, _ in begun] == [2, 3]


def test_in_memory_nothing_is_ever_taken_over(start, machine):
    ledger = start("me", is_shared=False)
    begin(ledger)
    machine.ended.add("me")
    assert not begin(ledger)[1]


# Waiting


@pytest.fixture
def waiting_ledgers():
    """Two processes, in real time."""
    store = FaultyStore()
    machine = Machine(store)
    return machine, [Ledger(store, machine.start(name), True, SECONDS) for name in ("theirs", "ours")]


def test_every_waiter_is_woken(waiting_ledgers):
    _, (ledger, _) = waiting_ledgers
    entry, _ = begin(ledger)
    threads = [threading.Thread(target=ledger.wait, args=(entry, 60)) for _ in range(20)]
    for thread in threads:
        thread.start()
    ledger.end(entry, b"x", None, None)
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_two_who_begin_to_wait_at_once_are_both_woken():
    class Slow(World):
        def event(self):
            event = threading.Event()
            time.sleep(0.05 if len(threads) == 2 else 0)
            return event

    world, threads = Slow(), []
    ledger = Ledger(FaultyStore(), Machine(FaultyStore()).start("me"), False, SECONDS, world)
    entry, _ = begin(ledger, is_slow=False)
    threads += [threading.Thread(target=ledger.wait, args=(entry, 60), daemon=True) for _ in range(2)]
    threads[0].start()
    time.sleep(0.02)
    threads[1].start()
    time.sleep(0.3)
    ledger.end(entry, b"x", None, None)
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def test_a_message_of_another_process_is_followed_in_the_store(waiting_ledgers):
    _, (theirs, ours) = waiting_ledgers
    entry, _ = begin(theirs)
    followed, is_ours = begin(ours)
    assert not is_ours
    assert not ours.wait(followed, 0.01)
    assert followed.is_running
    threading.Timer(0.05, theirs.end, [entry, "你好".encode(), None, None]).start()
    while followed.is_running:
        assert not ours.wait(followed, 5)
    assert followed.record.document == "你好".encode()


def test_who_waits_for_a_process_that_dies_has_to_answer_and_only_one(waiting_ledgers):
    machine, (theirs, ours) = waiting_ledgers
    third = Ledger(machine.store, machine.start("third"), True, SECONDS)
    begin(theirs)
    waiters = [(ledger, begin(ledger)[0]) for ledger in (ours, third)]
    assert [ledger.wait(entry, 0.01) for ledger, entry in waiters] == [False, False]
    machine.ended.add("theirs")
    took = at_once(*(lambda one=one, entry=entry: one.wait(entry, 5) for one, entry in waiters))
    assert sorted(took) == [False, True]


def test_without_its_store_a_process_that_waits_answers_itself(waiting_ledgers, log):
    machine, (theirs, ours) = waiting_ledgers
    begin(theirs)
    followed, _ = begin(ours)
    machine.store.fault = "away"
    assert ours.wait(followed, 5)
    assert ours.end(followed, b"x", None, None) == RUNNING
    assert "a message may be answered twice" in log.text


# A store that is away, or loses an answer


def go_through(ledger, move):
    """A message up to its end; the move with this name meets the fault. Gives what the user gets."""
    store, fault, seen = ledger._store, ledger._store.fault, []
    store.fault, entry = "", None

    def step(name, make):
        store.fault, store.times = (fault, 1) if name == move else ("", 0)
        given = make()
        store.fault = ""
        return given

    entry, is_ours = step("begin", lambda: begin(ledger))
    assert is_ours
    assert step("start", lambda: ledger.start(entry))
    assert step("promise", lambda: ledger.promise(entry, "<xml/>")).is_late
    assert step("end", lambda: ledger.end(entry, b"document", REST, REPLY)) == PROMISED
    for rest in (REST, None):
        assert step("send", lambda: ledger.send(entry))
        seen.append(unpack(entry.record.reply))
        assert step("sent", lambda rest=rest: ledger.sent(entry, rest))
    return entry, seen


MOVES = ["begin", "start", "promise", "end", "send", "sent"]


@pytest.mark.parametrize("fault", ["away", "lost"])
@pytest.mark.parametrize("move", MOVES)
def test_a_store_that_fails_at_a_move_costs_nothing_and_is_told_at_the_next_one(ledger, store, move, fault, log):
    store.fault = fault
    entry, seen = go_through(ledger, move)
    assert (entry.record.state, seen) == (DONE, [REPLY, REST])
    assert not begin(ledger)[1]
    if move != "sent":
        assert ledger.open_of("o") == []
    assert "other processes do not see how a message stands" in log.text


def test_what_is_to_change_beside_a_kept_reply_is_written_once_the_store_is_back(ours, store):
    entry = ready(ours)
    store.fault = "away"
    assert ours.keep(entry, Change("untold:o", ..., "1", 99))
    store.fault = ""
    list(ours.abandoned())
    assert store.get("untold:o") == "1"


@pytest.mark.parametrize("move", MOVES)
def test_a_store_that_goes_away_for_good_costs_no_reply(ledger, store, move):
    class Ending(FaultyStore):
        """Goes away at a fault, and stays away."""

        def _fail(self, key, fault):
            if self.fault == "away":
                self.is_gone = True
            if getattr(self, "is_gone", False):
                raise StoreError("gone")

    store.__class__ = Ending
    store.fault = "away"
    entry, seen = go_through(ledger, move)
    assert (entry.record.state, seen) == (DONE, [REPLY, REST])
    assert not begin(ledger)[1]


@pytest.mark.parametrize("fault", ["away", "lost"])
def test_a_reply_is_fetched_though_the_store_fails_at_it(ledger, store, fault):
    """It is at hand; at worst it comes again with the next 继续. Without it, a lost answer would lose the reply."""
    ledger.keep(ready(ledger))
    (found,) = ledger.open_of("o")
    asked, _ = begin(ledger, "asked", False)
    store.fault = fault
    assert ledger.fetch(asked, found, found.record, b"document", None)
    assert asked.record.document == b"document"
    store.fault = ""
    assert len(ledger.open_of("o")) == (1 if fault == "away" else 0)


@pytest.mark.parametrize("ask", [lambda ledger: ledger.open_of("o"), lambda ledger: list(ledger.abandoned())])
def test_what_cannot_be_found_is_a_store_error(ours, start, machine, store, ask):
    start("dead")
    ours._owners.look()
    machine.ended.add("dead")
    store.fault = "away"
    with pytest.raises(StoreError):
        ask(ours)


def test_a_message_that_the_store_forgot_goes_on(ours, theirs, store):
    entry, _ = begin(ours)
    store.delete("message:key")
    ours.promise(entry, "<xml/>")
    assert read(store).state == PROMISED
    store.delete("message:key")
    assert begin(theirs)[1], "nobody knows of it"


def test_a_slow_store_holds_up_no_other_message(start, store):
    at_it, may_go_on = threading.Event(), threading.Event()

    class Slow(FaultyStore):
        def finish(self, write):
            if write.changes[0].key == "message:slow":
                at_it.set()
                may_go_on.wait(10)
            return super().finish(write)

    store.__class__ = Slow
    ledger = start("me")
    thread = threading.Thread(target=begin, args=(ledger, "slow"))
    thread.start()
    at_it.wait(5)
    assert begin(ledger, "another")[1]
    may_go_on.set()
    thread.join()


# Records of another version

STRANGE = ['{"version": 2}', "[]", "null", "no JSON", '{"state": "ready"}', '{"state": "ready", "document": 1}']


@pytest.mark.parametrize("raw", STRANGE)
def test_a_record_of_another_version_is_passed_over(start, machine, store, raw):
    dead, ours = start("dead"), start("ours")
    ready(dead, "b")
    for key in ("a", "c"):
        ready(dead, key)
        store.set(f"message:{key}", raw, 999)
    machine.ended.add("dead")
    ours._owners.look()
    assert [entry.key for entry in ours.open_of("o")] == ["b"]
    assert [entry.key for entry in ours.abandoned()] == ["b"]


@pytest.mark.parametrize("raw", STRANGE)
def test_a_message_of_which_there_is_a_record_of_another_version_is_new(ours, store, raw):
    store.set("message:key", raw, 999)
    entry, is_ours = begin(ours)
    assert is_ours
    assert ours.end(entry, b"x", None, None) == RUNNING


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("is_promised", [False, True])
def test_the_heartbeat_does_not_wait_for_a_retry_that_no_worker_has_taken(
    start, machine, store, is_promised, is_flushed
):
    dead, ours = start("dead"), start("ours")
    left, _ = begin(dead)
    if is_promised:
        dead.promise(left, "<xml/>")
    machine.ended.add("dead")
    ours._owners.look()
    retry, is_ours = ours.announce("key", "o", True)
    if is_flushed:
        store.flush()
    found = list(ours.abandoned())
    assert found == ([retry] if is_promised else [])
    assert not is_ours
    assert ours.attend(retry) is not is_promised, "what was promised goes on as the heartbeat found it"
    assert (read(store).owner, read(store).attempts) == ("ours", 2)


@pytest.mark.parametrize("is_first", [False, True])
def test_of_two_attempts_that_are_announced_the_first_that_is_attended_to_answers(ledger, is_first):
    attempts = [ledger.announce("key", "o", True) for _ in range(2)]
    if not is_first:
        attempts.reverse()
    assert [is_ours or ledger.attend(entry) for entry, is_ours in attempts] == [True, False]


TEXTS, FLAGS, COUNTS = st.text(max_size=9), st.booleans(), st.integers(0, 5)


@given(
    st.builds(
        Record,
        st.sampled_from([RUNNING, PROMISED, READY, DONE]),
        owner=TEXTS,
        attempts=COUNTS,
        starts=COUNTS,
        is_slow=FLAGS,
        is_sending=FLAGS,
        openid=TEXTS,
        document=TEXTS.map(str.encode),
        content=TEXTS,
        reply=TEXTS,
        forgiven=COUNTS,
        is_told=FLAGS,
    )
    | st.builds(Record, st.sampled_from([RUNNING, DONE]), owner=TEXTS, openid=TEXTS, document=TEXTS.map(str.encode))
)
def test_a_record_comes_out_of_the_store_as_it_went_in(record):
    assert unpack_record(record.packed()) == record
    assert isinstance(json.loads(record.packed()), dict)


@given(REPLIES)
def test_a_reply_comes_out_of_the_store_as_it_went_in(reply):
    """But for halves of surrogate pairs, which are no text."""
    assert pack(unpack(pack(reply))) == pack(reply)


@given(st.lists(ARTICLES, min_size=1, max_size=8))
def test_news_come_out_of_the_store_with_all_their_articles(articles):
    assert unpack(pack(News(articles))) == News(articles)


def test_a_picture_that_waits_is_found_as_a_picture(ledger):
    ledger.keep(ready(ledger, reply=Image("m")))
    (found,) = ledger.open_of("o")
    assert unpack(found.record.reply) == Image("m")
