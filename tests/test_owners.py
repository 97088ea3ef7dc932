"""Which process is alive, and whose a lock is."""

import os
import subprocess
import sys
import threading

import pytest

import wechat.store.owners
from tests.conftest import ROOT, FaultyStore, Machine
from wechat.errors import StoreError
from wechat.store.owners import LIFE, REMEMBERED, RENEW, Heartbeat, Identity

HERE = Identity()


@pytest.fixture
def store(world):
    return FaultyStore(world)


@pytest.fixture
def machine(store, world):
    return Machine(store, world)


@pytest.fixture
def owners(machine):
    return machine.start("me")


@pytest.fixture
def other(machine):
    return machine.start("elsewhere")


def watch(owners, world, seconds, *living):
    """Lets the time pass in the steps of a heart; those that live show it."""
    for _ in range(round(seconds / RENEW)):
        world.now += RENEW
        for process in living:
            process.show_life()
        owners.look()


# Who can be looked at


def name_of(pid, started, place=HERE.namespace):
    return f"{place}/{pid}/{started}/abc"


def started(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def test_two_processes_are_never_taken_for_one():
    assert Identity().name != Identity().name


def test_this_process_is_alive(owners):
    assert not owners.is_dead(owners.me)
    assert not HERE.has_ended(HERE.name)


def test_a_process_here_is_alive_until_it_ends():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = name_of(child.pid, started(child.pid))
    assert not HERE.has_ended(name)
    child.stdin.close()
    child.wait()
    assert HERE.has_ended(name)


def test_a_zombie_has_ended():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = name_of(child.pid, started(child.pid))
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it ends, and nobody has asked for its status
    assert HERE.has_ended(name)
    child.wait()


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["ours", "another's"])
def test_a_number_that_went_to_a_later_process_is_no_sign_of_life(pid):
    """As in a container, where every process is number 1."""
    assert HERE.has_ended(name_of(pid, int(started(pid)) - 1))


def test_a_program_may_be_called_what_it_likes(tmp_path):
    """The name stands between brackets in the midst of the numbers."""
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z (1 2'); print(); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    assert not HERE.has_ended(name_of(child.pid, started(child.pid)))
    child.communicate(b"\n")


@pytest.mark.parametrize(
    "place", ["another-boot/4026531836", HERE.namespace + "1", HERE.namespace.split("/")[0] + "/1", ""]
)
def test_a_process_of_another_boot_or_namespace_cannot_be_looked_at(place):
    """Two containers may have one host name, and the same numbers."""
    assert not HERE.has_ended(name_of(os.getpid(), "1", place))


def test_where_the_system_does_not_say_where_a_process_runs_nobody_can_be_looked_at():
    identity = Identity()
    identity.namespace = ""
    assert not identity.has_ended(name_of(os.getpid(), "1", ""))


@pytest.mark.parametrize("name", ["", "host/1/2", HERE.namespace, f"{HERE.namespace}/", f"{HERE.namespace}/x"])
def test_a_name_of_another_version_ends_nothing(name, owners):
    owners._identity = Identity()
    assert not owners.is_dead(name)


def test_a_process_that_may_not_be_looked_at_has_not_ended(monkeypatch):
    """`/proc` mounted with hidepid=2 shows no process of another user."""

    def hide(path, *_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(wechat.store.owners.Path, "read_text", hide)
    assert not HERE.has_ended(name_of(os.getppid(), "1"))
    assert HERE.has_ended(name_of(2**22, "1"))  # no process has a number as high


# Signs of life


def test_of_another_place_15_seconds_without_a_sign_of_life_say_that_it_is_dead(owners, other, world):
    owners.look()
    watch(owners, world, LIFE - RENEW)
    assert not owners.is_dead(other.me)
    watch(owners, world, RENEW)
    assert owners.is_dead(other.me)
    assert owners.dead() == [other.me]


def test_who_shows_life_lives(owners, other, world):
    watch(owners, world, 3600, other)
    assert not owners.is_dead(other.me)
    assert owners.dead() == []


def test_who_shows_life_again_lives_again(owners, other, world):
    watch(owners, world, 60)
    assert owners.is_dead(other.me)
    watch(owners, world, RENEW, other)
    assert not owners.is_dead(other.me)


def test_who_never_showed_life_is_dead_15_seconds_after_it_was_first_asked_for(owners, world):
    assert not owners.is_dead("never seen")
    watch(owners, world, LIFE - RENEW)
    assert not owners.is_dead("never seen")
    watch(owners, world, RENEW)
    assert owners.is_dead("never seen")


def test_a_process_that_stood_still_itself_holds_that_against_nobody(owners, other, world):
    watch(owners, world, 2 * RENEW, other)
    for pause in (40.0, 3600.0):
        world.now += pause
        owners.look()
        assert not owners.is_dead(other.me)
        watch(owners, world, RENEW, other)


def test_who_stood_still_before_it_saw_the_others_holds_that_against_nobody(owners, other, store, world, monkeypatch):
    """Seed 30482 of the first simulation with yields: two waits for the store in one look counted twice."""
    linked = store.linked

    def stand_still(index):
        world.now += 20.0
        other.show_life()
        return linked(index)

    watch(owners, world, RENEW, other)
    with monkeypatch.context() as patch:
        patch.setattr(store, "linked", stand_still)
        owners.look()
    watch(owners, world, LIFE - RENEW)
    assert not owners.is_dead(other.me), "it showed life 12 s ago"
    watch(owners, world, RENEW)
    assert owners.is_dead(other.me)


def test_while_the_store_is_away_nobody_dies(owners, other, store, world):
    watch(owners, world, RENEW, other)
    store.fault = "away"
    for _ in range(20):
        world.now += RENEW
        with pytest.raises(StoreError):
            owners.look()
    store.fault = ""
    owners.look()
    assert not owners.is_dead(other.me)
    watch(owners, world, LIFE - 2 * RENEW)
    assert not owners.is_dead(other.me)


def test_clocks_of_processes_need_not_agree(store, machine, world):
    """The counter is watched by the watcher's own clock; nothing in the store is a time."""
    theirs = machine.start("skewed")
    theirs._world = type(world)()
    theirs._world.now = 10**9
    ours = machine.start("ours")
    watch(ours, world, 60, theirs)
    theirs._world.now = 0
    watch(ours, world, 60, theirs)
    assert not ours.is_dead("skewed")
    assert [float(value) < 100 for value in store.linked("owners").values()] == [True, True]


def test_a_dead_process_is_forgotten_once_nobody_can_still_ask_for_what_it_had(owners, other, store, world):
    watch(owners, world, REMEMBERED)
    owners.forget(other.me)
    assert owners.dead() == [other.me], "WeChat's attempts may go on, and who waits for its locks is to see it dead"
    watch(owners, world, RENEW)
    owners.forget(other.me)
    assert owners.dead() == []
    assert list(store.linked("owners")) == ["alive:me"]


def test_a_process_that_is_recalled_is_looked_at_again(owners, other, store, world):
    watch(owners, world, REMEMBERED + RENEW)
    owners.forget(other.me)
    store.swap(owners.recall(other.me))
    watch(owners, world, LIFE + RENEW)
    assert owners.dead() == [other.me]


def test_a_process_that_is_recalled_just_now_is_not_forgotten(owners, other, store, world):
    watch(owners, world, REMEMBERED + RENEW)
    store.swap(owners.recall(other.me))
    owners.forget(other.me)
    assert "alive:elsewhere" in store.linked("owners")


# Locks


def test_a_lock_is_one_process_s_until_it_is_given_back(owners, other):
    assert owners.take("lock", 30)
    assert not other.take("lock", 30)
    other.release("lock")
    assert not other.take("lock", 30)
    owners.release("lock")
    assert other.take("lock", 30)


def test_a_lock_ends_with_its_time(owners, other, world):
    assert owners.take("lock", 30)
    world.now += 31
    assert other.take("lock", 30)
    owners.release("lock")
    assert not owners.take("lock", 30)


def test_of_two_threads_with_tickets_of_their_own_one_has_the_lock(owners):
    assert owners.take("lock", 30, "one")
    assert not owners.take("lock", 30, "two")
    owners.release("lock", "two")
    assert not owners.take("lock", 30, "two")
    owners.release("lock", "one")
    assert owners.take("lock", 30, "two")


def test_who_gives_a_lock_back_does_not_give_back_those_of_others_meanwhile(owners, store, monkeypatch):
    """Of 40 threads that did, each asked a distant Redis 40 times."""
    given = []
    replace = store.replace

    def replacing(key, *arguments):
        given.append(key)
        if given == ["one"]:  # while that is on its way
            owners.release("two")
        return replace(key, *arguments)

    assert owners.take("one", 60)
    assert owners.take("two", 60)
    monkeypatch.setattr(store, "replace", replacing)
    owners.release("one")
    assert given == ["one", "two"]


def test_a_lock_of_a_dead_process_is_taken_over_once(owners, other, machine):
    third = machine.start("third")
    assert other.take("lock", 3600)
    machine.ended.add(other.me)
    assert owners.take("lock", 30)
    assert not third.take("lock", 30)


def test_of_many_who_would_take_a_lock_of_a_dead_process_one_gets_it(machine):
    for number in range(30):
        dead = machine.start(f"dead-{number}")
        dead.take(f"lock {number}", 3600)
        machine.ended.add(dead.me)
        takers, taken = [machine.start(f"{number}.{place}") for place in range(4)], []
        threads = [
            threading.Thread(target=lambda o=owners, n=number, t=taken: t.append(o.take(f"lock {n}", 30)))
            for owners in takers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False, False, False, True]


def test_a_lock_is_had_though_the_store_lost_the_answer(owners, other, store):
    store.fault, store.times = "lost", 1
    with pytest.raises(StoreError):
        owners.take("lock", 30)
    assert not other.take("lock", 30)
    assert owners.take("lock", 30)
    owners.release("lock")
    assert other.take("lock", 30)


def test_a_lock_that_the_store_takes_late_is_given_back(owners, other, store):
    """The write stood in a buffer while its process gave up: seed 72464 of the simulation waited for an hour."""
    store.fault, store.times = "away", 1
    with pytest.raises(StoreError):
        owners.take("lock", 3600)
    owners.release("lock")
    store.set("lock", f"{owners.me} ", 3600)
    assert not other.take("lock", 30)
    owners.show_life()
    assert other.take("lock", 30)


def test_a_lock_that_a_store_could_not_give_is_no_lock(owners, other, store):
    store.fault = "away"
    with pytest.raises(StoreError):
        owners.take("lock", 30)
    store.fault = ""
    assert other.take("lock", 30)


# The heart


class Impatient(threading.Event):
    """An event that nobody waits for long."""

    def wait(self, timeout=None):
        return super().wait(0.01)


def test_the_heartbeat_shows_life_and_does_its_task(owners):
    done = []
    heartbeat = Heartbeat(owners, lambda: done.append(1) or heartbeat.stop(), done.clear)
    heartbeat.start()
    heartbeat._thread.join(5)
    assert done == [1]
    assert int(owners._store.get("alive:me")) > 1


def test_for_a_forked_process_the_one_it_comes_from_is_another():
    code = "import os, time; from wechat.store.memory import MemoryStore; from wechat.store.owners import Owners\n"
    code += "owners = Owners(MemoryStore()); parent = owners.me\n"
    code += "if os.fork(): os._exit(0)\n"
    code += "owners.take_name(); time.sleep(0.2); print(owners.is_dead(parent), owners.me != parent)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"


@pytest.mark.parametrize("failure", [KeyError("a record of another version"), StoreError("away")])
def test_a_heart_goes_on_after_a_failure_of_any_kind(owners, log, failure):
    beats = []

    def task():
        beats.append(1)
        if len(beats) == 3:
            heartbeat.stop()
        raise failure

    heartbeat = Heartbeat(owners, task, beats.clear)
    heartbeat._ended = Impatient()
    heartbeat.start()
    heartbeat._thread.join(5)
    assert len(beats) == 3
    said, times = ("the heartbeat goes on", 3) if isinstance(failure, KeyError) else ("cannot be looked after", 1)
    assert log.text.count(said) == times, "a store that is away is said once a minute"


def test_who_stops_a_heart_waits_until_it_stands_still(owners):
    at_work, may_end, is_over = threading.Event(), threading.Event(), []
    heartbeat = Heartbeat(owners, lambda: at_work.set() or (may_end.wait(5) and is_over.append(1)), is_over.clear)
    heartbeat.start()
    at_work.wait(5)
    threading.Timer(0.1, may_end.set).start()
    heartbeat.stop()
    assert is_over
