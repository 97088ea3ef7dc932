"""Threads for what may take long: who is served when."""

import threading
import time
from contextvars import ContextVar

import pytest

from tests.test_promises import wait_until
from wechat.delivery.lanes import LATER, Lanes
from wechat.errors import Left
from wechat.world import World

LONG = 60.0  # seconds; longer than any test


class Gate:
    """A task that waits until it is let go on; notes its start and its end in `done`."""

    def __init__(self, done, name):
        self.done, self.name, self.has_begun, self.may_end = done, name, threading.Event(), threading.Event()

    def __call__(self):
        self.has_begun.set()
        self.may_end.wait(LONG)
        self.done.append(self.name)


@pytest.fixture
def make():
    """A function that makes lanes with so many threads."""
    made, gates = [], []

    def lanes(threads, world=None):
        made.append(Lanes(threads, "test", world or World()))
        return made[-1]

    lanes.gate = lambda done, name: gates.append(Gate(done, name)) or gates[-1]
    yield lanes
    for gate in gates:
        gate.may_end.set()
    for one in made:
        one.close()


def note(done, name):
    return lambda: done.append(name)


def test_tasks_of_a_lane_run_one_after_the_other_in_the_order_they_came(make):
    lanes, done, running = make(8), [], []

    def task(number):
        running.append(number)
        assert len(running) == 1
        time.sleep(0.001)
        running.remove(number)
        done.append(number)

    for number in range(50):
        lanes.submit("a", lambda number=number: task(number))
    assert wait_until(lambda: not len(lanes))
    assert done == list(range(50))


def test_a_lane_may_have_any_name(make):
    """That of a message that has ended is empty: its typing was never done, and the end waited for it for ever."""
    lanes, done = make(2), []
    lanes.submit("", note(done, "typing"))
    assert wait_until(lambda: done and not len(lanes))


def test_nobody_waits_for_another_ones_lane(make):
    lanes, done = make(2), []
    gate = make.gate(done, "a1")
    lanes.submit("a", gate)
    for number in range(5):
        lanes.submit("a", note(done, f"a{number + 2}"))
    lanes.submit("b", note(done, "b"))
    assert wait_until(lambda: done == ["b"])
    assert len(lanes) == 1
    gate.may_end.set()
    assert wait_until(lambda: done == ["b", "a1", "a2", "a3", "a4", "a5", "a6"])


def test_threads_go_round_the_lanes(make):
    """Whoever writes ten messages at once keeps nobody from his first answer."""
    lanes, done = make(1), []
    first = make.gate(done, "first")
    lanes.submit("first", first)
    for number in range(3):
        lanes.submit("a", note(done, f"a{number}"))
    for lane in "bc":
        lanes.submit(lane, note(done, lane))
    first.may_end.set()
    assert wait_until(lambda: not len(lanes))
    assert done == ["first", "a0", "b", "c", "a1", "a2"]


def test_there_are_no_more_threads_than_allowed_and_they_end_after_a_while(make, monkeypatch):
    monkeypatch.setattr("wechat.delivery.lanes.IDLE", 0.05)
    lanes, done = make(3), []
    gates = [make.gate(done, number) for number in range(5)]
    for number, gate in enumerate(gates):
        lanes.submit(str(number), gate)
    assert all(gate.has_begun.wait(5) for gate in gates[:3])
    assert lanes._alive == 3
    assert not gates[3].has_begun.wait(0.05)
    for gate in gates:
        gate.may_end.set()
    assert wait_until(lambda: lanes._alive == 0)
    lanes.submit("again", note(done, "again"))
    assert wait_until(lambda: done[-1] == "again")


# Pauses


def test_a_task_that_asks_for_it_is_called_again_before_its_lane_goes_on(make):
    lanes, done, answers = make(2), [], iter([0.01, 0.01, None])

    def task():
        done.append("try")
        return next(answers)

    lanes.submit("a", task)
    lanes.submit("a", note(done, "next"))
    assert wait_until(lambda: not len(lanes))
    assert done == ["try", "try", "try", "next"]


def test_a_lane_that_pauses_holds_no_thread(make):
    lanes, done = make(1), []
    for number in range(20):
        lanes.submit(f"paused {number}", note(done, "late"), LONG)
    lanes.submit("a", note(done, "a"))
    assert wait_until(lambda: done == ["a"])
    assert len(lanes) == 20


def test_a_task_that_is_to_wait_runs_after_its_time_and_what_comes_later_behind_it(make):
    lanes, done, started = make(2), [], time.monotonic()
    lanes.submit("a", lambda: done.append(time.monotonic() - started), 0.2)
    lanes.submit("a", note(done, "next"))
    assert wait_until(lambda: not len(lanes))
    assert done[0] >= 0.2
    assert done[1:] == ["next"]


def test_a_short_pause_is_not_held_up_by_a_longer_one(make):
    lanes, done, answers = make(2), [], iter([0.05, None])
    lanes.submit("long", note(done, "long"), LONG)
    gate = make.gate(done, "gate")

    def task():
        if not done:
            gate()
        return next(answers)

    lanes.submit("short", task)
    lanes.submit("other", note([], ""))
    assert gate.has_begun.wait(5)
    gate.may_end.set()
    started = time.monotonic()
    assert wait_until(lambda: len(lanes) == 1)
    assert time.monotonic() - started < 5  # not the ten seconds for which a thread is idle


# What is resumed after a crash


def test_what_is_resumed_gets_half_of_the_threads(make):
    lanes, done = make(4), []
    gates = [make.gate(done, number) for number in range(6)]
    for number, gate in enumerate(gates):
        lanes.submit(f"old {number}", gate, is_resumed=True)
    assert all(gate.has_begun.wait(5) for gate in gates[:2])
    fresh = make.gate(done, "fresh")
    lanes.submit("new", fresh)
    assert fresh.has_begun.wait(5)
    assert not any(gate.has_begun.is_set() for gate in gates[2:])
    gates[0].may_end.set()
    assert gates[2].has_begun.wait(5)


def test_a_single_thread_resumes_too(make):
    lanes, done = make(1), []
    lanes.submit("old", note(done, "old"), is_resumed=True)
    assert wait_until(lambda: done == ["old"])


def test_a_message_of_a_user_whose_old_one_is_resumed_comes_behind_it(make):
    lanes, done = make(4), []
    gate = make.gate(done, "old")
    lanes.submit("a", gate, is_resumed=True)
    lanes.submit("a", note(done, "new"))
    gate.may_end.set()
    assert wait_until(lambda: done == ["old", "new"])
    assert lanes._resuming == 0


# What hangs


def hang(lanes, lane, gate, instead, is_resumed=False):
    """Has the gate in the lane for a moment, then something else instead; gives what comes of the gate's end."""
    came = []

    def task():
        try:
            with lanes.limit(lane, "hang", 0.1, instead):
                gate()
        except Left as left:
            came.append(left)

    lanes.submit(lane, task, is_resumed=is_resumed)
    return came


def test_a_lane_goes_on_with_another_task_instead_of_one_that_hangs_in_another_thread(make):
    lanes, done = make(1), []
    gate = make.gate(done, "came back")
    came = hang(lanes, "a", gate, note(done, "instead"))
    lanes.submit("a", note(done, "next"))
    lanes.submit("b", note(done, "b"))
    assert wait_until(lambda: len(done) == 3)
    assert done == ["b", "instead", "next"]
    assert (len(lanes), lanes._alive) == (0, 1)
    gate.may_end.set()
    assert wait_until(lambda: came)
    assert done[3:] == ["came back"]


def test_what_comes_back_too_late_takes_nobodys_turn(make):
    lanes, done = make(2), []
    gates = [make.gate(done, name) for name in ("hung", "instead", "next")]
    came = hang(lanes, "a", gates[0], gates[1])
    lanes.submit("a", gates[2])
    assert gates[1].has_begun.wait(5)
    gates[0].may_end.set()
    assert wait_until(lambda: came)
    assert not gates[2].has_begun.wait(0.05)
    gates[1].may_end.set()
    assert gates[2].has_begun.wait(5)


def test_what_ends_in_its_time_is_left_alone(make):
    lanes, done = make(1), []
    gate = make.gate(done, "gate")
    gate.may_end.set()
    came = hang(lanes, "a", gate, note(done, "instead"))
    assert wait_until(lambda: done and not len(lanes))
    time.sleep(0.15)
    assert (done, came) == (["gate"], [])


def test_what_is_resumed_and_hangs_makes_room_for_another_one(make):
    lanes, done = make(2), []
    gates = [make.gate(done, number) for number in range(2)]
    hang(lanes, "old", gates[0], note(done, "instead"), is_resumed=True)
    lanes.submit("old 2", gates[1], is_resumed=True)
    assert gates[1].has_begun.wait(5)
    assert lanes._resuming == 1


def test_close_waits_for_nobody_who_was_left(make):
    lanes, done = make(1), []
    hang(lanes, "a", make.gate(done, "hung"), note(done, "instead"))
    assert close_in_time(lanes)
    assert done == ["instead"]


# Failures, and the end


def test_a_task_that_fails_ends_neither_its_lane_nor_its_thread(make, log):
    lanes, done = make(1), []

    def fail():
        raise SystemExit("a user's words")

    lanes.submit("a", fail)
    lanes.submit("a", note(done, "next"))
    assert wait_until(lambda: done == ["next"])
    assert "test: a task failed" in log.text


def test_a_task_runs_in_the_context_in_which_it_was_handed_in(make):
    variable, lanes, done = ContextVar("variable", default="none"), make(1), []
    gate = make.gate(done, "gate")
    lanes.submit("a", gate)
    for value in ("one", "two"):
        variable.set(value)
        lanes.submit("a", lambda: done.append(variable.get()))
    gate.may_end.set()
    assert wait_until(lambda: done == ["gate", "one", "two"])


class Threadless(World):
    """An interpreter that ends: https://docs.python.org/3/library/threading.html#threading.Thread.start"""

    def start(self, task, name):
        raise RuntimeError("can't create new thread at interpreter shutdown")


def test_where_no_thread_can_be_started_the_caller_does_it_itself(make):
    lanes, done = make(2, Threadless()), []
    lanes.submit("a", note(done, "a"))
    assert done == ["a"]
    assert not len(lanes)


def test_where_one_thread_more_cannot_be_started_those_there_are_do_it(make):
    world = World()
    lanes, done = make(2, world), []
    gate = make.gate(done, "gate")
    lanes.submit("a", gate)
    assert gate.has_begun.wait(5)
    world.start = Threadless().start
    lanes.submit("b", note(done, "b"))
    gate.may_end.set()
    assert wait_until(lambda: done == ["gate", "b"])


def close_in_time(lanes):
    thread = threading.Thread(target=lanes.close, daemon=True)
    thread.start()
    thread.join(5)
    return not thread.is_alive()


def test_close_waits_for_what_runs_and_what_is_ready_and_drops_what_is_paused(make):
    lanes, done = make(1), []
    gate = make.gate(done, "a")
    lanes.submit("a", gate)
    lanes.submit("a", note(done, "a2"))
    lanes.submit("b", note(done, "b"))
    lanes.submit("paused", note(done, "never"), LONG)
    threading.Timer(0.1, gate.may_end.set).start()
    assert close_in_time(lanes)
    assert sorted(done) == ["a", "a2", "b"]
    assert not len(lanes)


def test_close_waits_for_no_second_try_and_lets_what_is_behind_it_run(make):
    lanes, done = make(1), []
    gate = make.gate(done, "tried")
    lanes.submit("a", lambda: gate() or LONG)
    lanes.submit("a", note(done, "behind"))
    assert gate.has_begun.wait(5)
    threading.Timer(0.1, gate.may_end.set).start()
    assert close_in_time(lanes)
    assert done == ["tried", "behind"]


def test_lanes_of_nobody_close_at_once(make):
    assert close_in_time(make(4))


def test_a_forked_process_begins_with_no_lanes(make):
    lanes, done = make(1), []
    lanes.submit("paused", note(done, "of the parent"), LONG)
    lanes.begin()
    assert not len(lanes)
    lanes.submit("paused", note(done, "of the child"))
    assert wait_until(lambda: done == ["of the child"])


# A pool that is full


@pytest.fixture
def fill(make, monkeypatch):
    """A function that makes lanes of which all threads are busy, and gives the gates of those."""
    monkeypatch.setattr("wechat.delivery.lanes.FULL", 0.2)
    monkeypatch.setattr("wechat.trouble.EVERY", 0.1)

    def run(threads, waiting):
        lanes, gates = make(threads), []
        for number in range(threads):
            gates.append(make.gate([], number))
            hang_in(lanes, number, gates[-1])
            assert gates[-1].has_begun.wait(5)
        for number in range(waiting):
            lanes.submit(f"waiting {number}", note([], ""))
        return lanes, gates

    return run


def hang_in(lanes, number, gate):
    def task():
        with lanes.limit(f"lane {number}", f"handler{number}", LONG, gate):
            gate()

    lanes.submit(f"lane {number}", task)


def test_a_pool_that_is_full_for_a_while_is_said_once_and_so_is_its_end(fill, log):
    lanes, gates = fill(4, waiting=7)
    assert wait_until(lambda: "all 4 threads" in log.text)
    assert (
        "test: all 4 threads are busy, 7 users wait; the oldest: handler0 for 0 s, handler1 for 0 s, handler2"
        in log.text
    )
    lanes.submit("one more", note([], ""))
    time.sleep(0.3)
    for gate in gates:
        gate.may_end.set()
    assert wait_until(lambda: not len(lanes))
    assert wait_until(lambda: "over: test: all 4 threads are busy: 8 in " in log.text)
    assert log.text.count("users wait") == 1


def test_a_pool_that_is_full_for_a_moment_is_not_said(fill, log):
    lanes, gates = fill(2, waiting=3)
    gates[0].may_end.set()
    assert wait_until(lambda: len(lanes) == 1)
    time.sleep(0.3)
    assert "WARNING" not in log.text


def test_a_pool_in_which_nobody_waits_is_not_full(fill, log):
    fill(2, waiting=0)
    time.sleep(0.3)
    assert "WARNING" not in log.text


def test_a_pool_that_is_full_again_is_said_again(fill, log):
    lanes, gates = fill(1, waiting=1)
    for number in (1, 2):
        assert wait_until(lambda number=number: log.text.count("all 1 threads are busy, 1 users wait") == number)
        gates[-1].may_end.set()
        assert wait_until(lambda number=number: log.text.count("over: test: all 1 threads are busy: 1 in ") == number)
        gates.append(Gate([], ""))
        hang_in(lanes, number, gates[-1])
        assert gates[-1].has_begun.wait(5)
        lanes.submit("waiting", note([], ""))
    gates[-1].may_end.set()


def test_a_task_that_is_to_wait_does_so_behind_another_one_too(make):
    """The rest of a long text must not arrive before its beginning, whatever else is sent to the user."""
    lanes, done = make(2), []
    begun = time.monotonic()
    lanes.submit("a", note(done, "first"))
    lanes.submit("a", lambda: done.append(time.monotonic() - begun), after=0.2)
    assert wait_until(lambda: len(done) == 2)
    assert 0.2 <= done[1] < 1


# Tasks that are resumed


@pytest.mark.parametrize("is_early", [False, True], ids=["resumed later", "resumed before it gave LATER"])
def test_a_task_that_gives_later_is_called_again_once_it_is_resumed(make, is_early):
    lanes, done, answers = make(1), [], iter([LATER, LATER, None])

    def task():
        done.append("called")
        if is_early and len(done) < 3:
            lanes.resume("a")
        return next(answers)

    lanes.submit("a", task)
    lanes.submit("a", note(done, "next"))
    for number in (1, 2) if not is_early else ():
        assert wait_until(lambda number=number: len(done) == number and "a" in lanes._left)
        lanes.submit("b", note([], "b"))
        assert wait_until(lambda: len(lanes) == 1)  # the one thread is free meanwhile
        lanes.resume("a")
    assert wait_until(lambda: not len(lanes))
    assert done == ["called", "called", "called", "next"]


def test_the_end_waits_for_a_task_that_gave_later(make):
    lanes, done = make(2), []
    lanes.submit("a", lambda: done.append("called") if done else done.append("first") or LATER)
    assert wait_until(lambda: done == ["first"])
    closing = threading.Thread(target=lanes.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    lanes.resume("a")
    closing.join(5)
    assert done == ["first", "called"]
