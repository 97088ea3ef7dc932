import os
import threading
import time

import pytest

from wechat.delivery.owners import Owners
from wechat.delivery.runs import GENERATION, REMEMBERED, Runs
from wechat.errors import StoreError
from wechat.store.memory import MemoryStore


class Silent(MemoryStore):
    """A store that has gone away."""

    def get(self, key):
        raise StoreError("away")

    def keys(self, prefix):
        raise StoreError("away")

    def _change(self, *_):
        raise StoreError("away")


def runs_on(store):
    return Runs(store, Owners(store), is_shared=True)


def test_the_first_attempt_has_the_run_and_the_others_its_document():
    runs = Runs(MemoryStore(), Owners(MemoryStore()), is_shared=False)
    run, attempt, is_ours = runs.begin("key")
    assert (attempt, is_ours) == (1, True)
    assert runs.begin("key") == (run, 2, False)
    assert not run.wait(0)
    runs.end(run, b"document")
    assert runs.begin("key")[0].document == b"document"
    assert runs.begin("other")[2]


def test_every_waiter_is_woken():
    runs, woken = Runs(MemoryStore(), Owners(MemoryStore()), is_shared=False), []
    run, _, _ = runs.begin("key")
    threads = [threading.Thread(target=lambda: woken.append(run.wait(10))) for _ in range(20)]
    for thread in threads:
        thread.start()
    runs.end(run, b"x")
    for thread in threads:
        thread.join()
    assert woken == [True] * 20


def test_a_run_is_forgotten_a_minute_after_it_ended():
    runs = Runs(MemoryStore(), Owners(MemoryStore()), is_shared=False)
    run, _, _ = runs.begin("key")
    runs.end(run, b"")
    run.ended = time.monotonic() - REMEMBERED - 1
    assert runs.begin("key")[2]


def test_a_run_that_has_not_ended_is_never_forgotten_and_the_last_ones_that_have_are_not():
    runs = Runs(MemoryStore(), Owners(MemoryStore()), is_shared=False)
    unended = [runs.begin(f"slow {number}")[0] for number in range(GENERATION * 2)]
    for number in range(GENERATION * 6):
        runs.end(runs.begin(str(number))[0], b"")
    assert [runs.begin(run.key)[0] for run in unended] == unended
    assert not any(runs.begin(str(number))[2] for number in range(GENERATION * 5, GENERATION * 6))
    assert len(runs._runs) + len(runs._older) <= GENERATION * 2 + len(unended) * 4


def test_however_many_runs_are_open_to_begin_one_looks_at_few():
    runs = Runs(MemoryStore(), Owners(MemoryStore()), is_shared=False)
    looks = []
    runs._forget_older = lambda: looks.append(len(runs._older)) or Runs._forget_older(runs)
    for number in range(GENERATION * 8):
        runs.begin(str(number))
    assert sum(looks) <= GENERATION * 8


def test_a_run_of_another_process_is_followed_in_the_store():
    store = MemoryStore()
    ours, theirs = runs_on(store), runs_on(store)
    run, _, is_ours = theirs.begin("key")
    assert is_ours
    followed, attempt, is_ours = ours.begin("key")
    assert (attempt, is_ours) == (2, False)
    assert not followed.wait(0.01)
    threading.Timer(0.05, theirs.end, [run, "你好".encode()]).start()
    assert followed.wait(5)
    assert followed.document == "你好".encode()
    assert ours.begin("key")[0].document == "你好".encode()


def test_attempts_are_counted_across_processes():
    store = MemoryStore()
    processes = [runs_on(store) for _ in range(4)]
    assert [runs.begin("key")[1] for runs in processes] == [1, 2, 3, 4]


def test_many_attempts_at_once_in_many_processes_have_one_run():
    store, begun = MemoryStore(), []
    processes = [runs_on(store) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda runs=runs, key=key: begun.append((key, runs.begin(key)[2])))
        for key in map(str, range(50))
        for runs in processes * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for key, is_ours in begun if is_ours) == sorted(map(str, range(50)))


def test_the_run_of_a_process_that_died_is_taken_over_once():
    store = MemoryStore()
    theirs = runs_on(store)
    theirs._owners.me = f"{theirs._owners.me.split('/')[0]}/{os.getpid()}/dead"
    theirs.begin("key")
    processes = [runs_on(store) for _ in range(3)]
    assert [runs.begin("key")[2] for runs in processes] == [True, False, False]


def test_without_its_store_a_process_runs_the_message_itself():
    runs = runs_on(Silent())
    run, _, is_ours = runs.begin("key")
    assert is_ours
    runs.end(run, b"x")
    assert run.wait(0)


def test_a_store_that_goes_away_is_an_error_for_who_follows():
    store = MemoryStore()
    runs_on(store).begin("key")
    followed, _, _ = runs_on(store).begin("key")
    followed.follow(Silent())
    with pytest.raises(StoreError):
        followed.wait(1)


def test_the_attempt_that_takes_a_run_over_keeps_its_number():
    """It may be the last one, which has to be told of 继续."""
    store = MemoryStore()
    theirs = runs_on(store)
    theirs.begin("key")
    assert runs_on(store).begin("key")[1:] == (2, False)
    store.set("run:key", f"running:{theirs._owners.me.split('/')[0]}/{os.getpid()}/dead", 1000)
    assert runs_on(store).begin("key")[1:] == (3, True)


def test_a_run_is_taken_over_while_it_is_followed_and_only_once_its_process_is_dead():
    store = MemoryStore()
    theirs, ours = runs_on(store), runs_on(store)
    theirs.begin("key")
    followed, _, _ = ours.begin("key")
    assert not ours.take_over(followed)
    store.set("run:key", f"running:{theirs._owners.me.split('/')[0]}/{os.getpid()}/dead", 1000)
    assert ours.take_over(followed)
    assert not ours.take_over(followed)
    ours.end(followed, b"x")
    assert theirs.begin("key")[1:] == (3, False)


def test_a_store_that_is_slow_holds_up_no_other_message():
    class Slow(MemoryStore):
        def add(self, key, value, ttl):
            if key.startswith("try:"):
                time.sleep(0.5)
            return super().add(key, value, ttl)

    runs = runs_on(Slow())
    runs.begin("one")
    retry = threading.Thread(target=runs.begin, args=["one"])
    retry.start()
    time.sleep(0.1)
    started = time.monotonic()
    runs.begin("other")
    assert time.monotonic() - started < 0.3
    retry.join()


def test_a_run_that_the_store_forgot_is_ones_own_again():
    store = MemoryStore()
    ours, theirs = runs_on(store), runs_on(store)
    theirs.begin("key")
    assert not ours.begin("key")[2]
    store.delete("run:key")
    run, _, is_ours = ours.begin("key")
    assert is_ours
    assert run.followed is None
