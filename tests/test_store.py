"""The store: the same facts on all three backends, Redis being a real server."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wechat.store.sqlite
from tests.conftest import program
from wechat.errors import StartError, StoreError
from wechat.store.memory import MemoryStore
from wechat.store.opening import open_store
from wechat.store.redis import RedisStore
from wechat.store.sqlite import LINKED, SQLiteStore
from wechat.store.writes import Change
from wechat.workers import FEWEST, Workers
from wechat.world import World

PASSWORD = "hunter2"
LONG = 60.0  # seconds; nothing expires or wakes by itself within a test
THREADS, ROUNDS = 8, 200


class Server:
    """A redis-server of our own on a free port."""

    def __init__(self, directory):
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        options = {"port": self.port, "bind": "127.0.0.1", "requirepass": PASSWORD, "appendonly": "no", "save": ""}
        options |= {"dir": self.directory, "unixsocket": self.directory / "socket"}
        command = [program("redis-server"), *(str(part) for name in options for part in (f"--{name}", options[name]))]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self.answers)

    def answers(self):
        try:
            return self.ask("PING")
        except redis.RedisError:
            return False

    def ask(self, *command):
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            return client.execute_command(*command)

    def clients(self, kind):
        """How many connections there are, without the one that asks."""
        return len(self.ask("CLIENT", "LIST", "TYPE", kind).splitlines()) - (kind == "normal")

    def kill(self):
        self.process.kill()
        self.process.wait()


@dataclass
class Place:
    """A store under test: `open` gives another one in the same place, `rows` counts what is really there."""

    store: Any
    url: str
    open: Any
    rows: Any
    advance: Any  # by seconds


class Ahead(World):
    """The machine's time, and what a test adds to it."""

    ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead

    def advance(self, seconds):
        self.ahead += seconds


def eventually(is_so):
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def running_server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("redis"))
    yield running
    running.kill()


@pytest.fixture
def server(running_server):
    """The session's Redis, empty."""
    running_server.ask("FLUSHALL")
    return running_server


@pytest.fixture
def mortal_server(tmp_path):
    running = Server(tmp_path)
    yield running
    running.kill()


@pytest.fixture(scope="session")
def other_process():
    """Another process, that runs the functions given to its `submit`."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(os.getpid).result(20)
        yield pool


def memory_place(request):
    world = Ahead()
    store = MemoryStore(world)
    return Place(store, "memory:", None, lambda: len(store._entries), world.advance)


def sqlite_place(request):
    world = Ahead()
    file = request.getfixturevalue("tmp_path") / "store.db"

    def rows():
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute("SELECT count(*) FROM records").fetchone()[0]

    store = SQLiteStore(str(file), "", world)
    return Place(store, f"sqlite:{file}", lambda: SQLiteStore(str(file)), rows, world.advance)


def redis_place(request):
    server = request.getfixturevalue("server")
    url = server.url
    return Place(RedisStore(url), url, lambda: RedisStore(url), lambda: server.ask("DBSIZE"), time.sleep)


@pytest.fixture(params=[memory_place, sqlite_place, redis_place], ids=["memory", "sqlite", "redis"])
def place(request):
    made = request.param(request)
    yield made
    made.store.close()


@pytest.fixture
def store(place):
    return place.store


@pytest.fixture(params=[sqlite_place, redis_place], ids=["sqlite", "redis"])
def shared_place(request):
    made = request.param(request)
    yield made
    made.store.close()


@contextmanager
def waiting(store, key, seen, number=1):
    """So many threads that wait for the key, with nothing but a change of it to wake them; gives their futures."""
    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(timed_wait, store, key, seen) for _ in range(number)]
        eventually(lambda: len(store._waiters) == number)
        if isinstance(store, RedisStore):
            eventually(lambda: store.look_again == store.listening)
        yield futures


def timed_wait(store, key, seen):
    return store.wait(key, seen, 2), time.time()


# Single operations


def test_nothing_is_there_at_first(store):
    assert store.get("key") is None
    assert store.linked("index") == {}


def test_set_overwrites_what_was_there(store):
    store.set("key", "old", LONG)
    store.set("key", "new", LONG)
    assert store.get("key") == "new"


@pytest.mark.interpreter
def test_add_keeps_what_was_there(store):
    assert store.add("key", "first", LONG) is True
    assert store.add("key", "second", LONG) is False
    assert store.get("key") == "first"


def test_replace_changes_only_the_value_it_expects(store):
    assert store.replace("key", "old", "new", LONG) is False
    assert store.get("key") is None
    store.set("key", "old", LONG)
    assert store.replace("key", "other", "new", LONG) is False
    assert store.get("key") == "old"
    assert store.replace("key", "old", "new", LONG) is True
    assert store.get("key") == "new"


def test_replace_by_none_deletes(store):
    store.set("key", "old", LONG)
    assert store.replace("key", "other", None, LONG) is False
    assert store.replace("key", "old", None, LONG) is True
    assert store.get("key") is None
    assert store.add("key", "again", LONG) is True


def test_an_empty_value_is_not_an_absent_one(store):
    assert store.replace("key", "", "new", LONG) is False
    assert store.add("key", "", LONG) is True
    assert store.get("key") == ""
    assert store.add("key", "other", LONG) is False
    assert store.replace("key", "", "new", LONG) is True


def test_delete_takes_the_entry_away_and_minds_no_absence(store):
    store.set("key", "value", LONG)
    store.delete("key")
    store.delete("key")
    assert store.get("key") is None


# Several changes in one step, and indexes


def test_all_changes_are_made_in_one_step_or_none(store):
    store.set("a", "1", LONG)
    store.set("b", "1", LONG)
    assert store.swap(Change("a", "1", "2", LONG), Change("b", "1", None), Change("c", None, "2", LONG)) is True
    assert [store.get(key) for key in "abc"] == ["2", None, "2"]
    for changes in (
        (Change("a", "2", "3", LONG), Change("b", "1", "3", LONG)),
        (Change("b", None, "3", LONG), Change("a", "1", "3", LONG)),
        (Change("d", ..., "3", LONG, link=("index",)), Change("c", None, "3", LONG)),
        (Change("a", ..., None, unlink=("index",)), Change("c", "", "3", LONG)),
    ):
        assert store.swap(*changes) is False
        assert [store.get(key) for key in "abcd"] == ["2", None, "2", None]
        assert store.linked("index") == {}


def test_a_swap_of_many_keys_wakes_who_waits_for_any_of_them(store):
    store.look_again = store.listening = LONG
    with waiting(store, "b", None) as (future,):
        store.swap(Change("a", None, "1", LONG), Change("b", None, "2", LONG))
        assert future.result()[0] == "2"


def move_between(store):
    """Moves what is left of one number to another one, as often as it takes."""
    for _ in range(50):
        while True:
            a, b = store.get("a"), store.get("b")
            if store.swap(Change("a", a, str(int(a) - 1), LONG), Change("b", b, str(int(b) + 1), LONG)):
                break


def test_what_two_keys_hold_together_stays_the_same_under_many_swaps(place, other_process):
    place.store.set("a", "0", LONG)
    place.store.set("b", "0", LONG)
    crowds(place, move_between, other_process)
    assert (place.store.get("a"), place.store.get("b")) == (str(-50 * 2 * THREADS), str(50 * 2 * THREADS))


def test_an_index_holds_the_entries_that_were_linked_sorted_by_key(store):
    for key in ("m:2", "m:10", "m:é", "other"):
        store.swap(Change(key, None, "value " + key, LONG, link=("index", "second") if key != "other" else ()))
    assert list(store.linked("index").items()) == [(key, "value " + key) for key in ("m:10", "m:2", "m:é")]
    assert store.linked("index") == store.linked("second")
    assert store.linked("ind") == store.linked("index2") == {}


def test_a_key_enters_and_leaves_indexes_in_the_step_that_changes_it(store):
    store.swap(Change("key", None, "1", LONG, link=("a", "b")))
    assert store.swap(Change("key", "other", "2", LONG, unlink=("a",))) is False
    assert store.linked("a") == {"key": "1"}
    assert store.swap(Change("key", "1", "2", LONG, link=("c", "b"), unlink=("a",))) is True
    assert [store.linked(index) for index in "abc"] == [{}, {"key": "2"}, {"key": "2"}]
    store.set("key", "3", LONG)
    assert store.linked("b") == {"key": "3"}, "another write leaves it where it is"


def test_what_is_deleted_or_has_expired_is_in_no_index(place):
    store = place.store
    store.swap(Change("deleted", None, "1", LONG, link=("index",)))
    store.swap(Change("expires", None, "1", 0.2, link=("index",)))
    store.swap(Change("stays", None, "1", LONG, link=("index",)))
    store.delete("deleted")
    place.advance(0.21)
    assert store.linked("index") == {"stays": "1"}


def test_an_index_outlives_its_entry_that_lives_longest(place):
    store = place.store
    store.swap(Change("long", None, "1", LONG, link=("index",)))
    store.swap(Change("short", None, "1", 0.2, link=("index",)))
    place.advance(0.3)
    assert store.linked("index") == {"long": "1"}


def test_an_index_costs_what_is_in_it_and_not_what_else_there_is(place):
    """A scan of all keys took half a second at 500,000 keys of other programs in one Redis."""
    store = place.store
    for number in range(3):
        store.swap(Change(f"mine:{number}", None, "value", LONG, link=("mine",)))
    if isinstance(store, SQLiteStore):
        plan = store._connect().execute("EXPLAIN QUERY PLAN " + LINKED, ("mine", 0.0)).fetchall()
        assert not any("SCAN" in step[-1] for step in plan), plan
        return
    for number in range(100):
        for batch in range(20):
            store.swap(*(Change(f"{number}.{batch}.{one}", None, "v", LONG, link=(f"i{number}",)) for one in range(5)))
    if isinstance(store, RedisStore):
        with redis.Redis.from_url(place.url) as client:
            client.config_resetstat()
            assert len(store.linked("mine")) == 3
            calls = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
        assert not {"cmdstat_scan", "cmdstat_keys"} & set(calls)
        assert calls["cmdstat_get"] == 3
    else:
        looked = []
        store.get = lambda key: looked.append(key) or MemoryStore.get(store, key)
        assert len(store.linked("mine")) == 3
        assert len(looked) == 3


# What is written soon


def test_what_is_to_be_written_soon_goes_along_with_the_next_write(store, monkeypatch):
    monkeypatch.setattr("wechat.store.base.SOON", LONG)
    missed = []
    store.swap_soon(Change("a", None, "1", LONG), lambda: missed.append("a"))
    assert store.get("a") is None
    assert store.swap(Change("b", "not there", "2", LONG)) is False, "each for itself"
    assert (store.get("a"), store.get("b"), missed) == ("1", None, [])


def test_what_is_to_be_written_soon_is_written_in_20_ms_by_itself(store):
    store.swap_soon(Change("a", None, "1", LONG), lambda: None)
    eventually(lambda: store.get("a") == "1")


def test_where_the_host_gave_no_thread_for_that_the_next_one_is_asked_for(store, monkeypatch):
    def refuse(task, name):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(store._world, "start", refuse)
        store.swap_soon(Change("a", None, "1", LONG), lambda: None)
    store.swap_soon(Change("b", None, "2", LONG), lambda: None)
    eventually(lambda: (store.get("a"), store.get("b")) == ("1", "2"))


def test_who_wanted_it_soon_is_told_where_the_write_shows_a_fault_of_ours(store, monkeypatch):
    monkeypatch.setattr("wechat.store.base.SOON", LONG)
    told = threading.Event()

    def fail(groups):
        raise ValueError("a fault of ours")

    with monkeypatch.context() as faulty:
        faulty.setattr(store, "_swap_each", fail)
        store.swap_soon(Change("a", None, "1", LONG), told.set)
        with pytest.raises(ValueError, match="of ours"):
            store.set("b", "2", LONG)
    assert told.wait(5)


def test_who_wanted_it_soon_is_told_where_another_value_was_there(store):
    told = threading.Event()
    store.set("a", "other", LONG)
    store.swap_soon(Change("a", "old", "new", LONG), told.set)
    assert told.wait(5)
    assert store.get("a") == "other"


def test_the_end_writes_what_was_to_be_written_soon(shared_place, monkeypatch):
    monkeypatch.setattr("wechat.store.base.SOON", LONG)
    with closing(shared_place.open()) as other:
        other.swap_soon(Change("a", None, "1", LONG), lambda: None)
    assert shared_place.store.get("a") == "1"


# Accounts


def test_accounts_that_share_a_store_see_nothing_of_each_other(shared_place):
    url = shared_place.url
    with closing(open_store(url, "wx1")) as one, closing(open_store(url, "wx2")) as two:
        for store, value in ((one, "1"), (two, "2")):
            assert store.add("key", value, LONG)
            assert store.swap(Change("linked", None, value, LONG, link=("index",)))
        assert (one.get("key"), two.get("key")) == ("1", "2")
        assert (one.linked("index"), two.linked("index")) == ({"linked": "1"}, {"linked": "2"})
        two.delete("key")
        assert one.get("key") == "1"
        with waiting(one, "key", "1") as (future,):
            two.set("key", "3", LONG)
            one.set("key", "4", LONG)
            assert future.result()[0] == "4"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), key=st.text())
def test_any_text_comes_back_the_same(store, text, key):
    store.delete("k" + key)
    assert store.add("k" + key, text, LONG) is True
    assert store.get("k" + key) == text
    assert store.swap(Change("k" + key, text, text, LONG, link=("i" + key,))) is True
    assert store.linked("i" + key) == {"k" + key: text}
    assert store.replace("k" + key, text, text + "\0", LONG) is True
    assert store.get("k" + key) == text + "\0"


@pytest.mark.parametrize("operation", ["set", "add"])
def test_a_lone_surrogate_is_refused_and_harms_nothing(store, operation):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        getattr(store, operation)("key", "a\ud800", LONG)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        getattr(store, operation)("a\ud800", "value", LONG)
    store.set("key", "value", LONG)
    assert store.get("key") == "value"


# Time to live


@pytest.mark.interpreter
def test_an_entry_is_gone_after_its_time(place):
    store = place.store
    store.set("set", "value", 0.3)
    store.add("add", "value", 0.3)
    store.set("replace", "old", LONG)
    store.replace("replace", "old", "new", 0.3)
    assert None not in [store.get(key) for key in ("set", "add", "replace")]
    place.advance(0.31)
    assert [store.get(key) for key in ("set", "add", "replace")] == [None] * 3
    assert store.replace("set", "value", "new", LONG) is False
    assert store.add("add", "again", LONG) is True


def test_a_write_starts_the_time_anew(place):
    store = place.store
    for key in ("set", "replace"):
        store.set(key, "value", 0.1)
    store.set("set", "value", LONG)
    store.replace("replace", "value", "new", LONG)
    place.advance(0.11)
    assert (store.get("set"), store.get("replace")) == ("value", "new")


def test_what_has_expired_is_really_removed(place):
    for number in range(300):
        place.store.set(f"old:{number}", "value", 0.3)
    place.store.set("stays", "value", LONG)
    assert place.rows() > 0
    place.advance(0.31)
    for number in range(300):
        place.store.set(f"new:{number % 3}", "value", LONG)
    place.advance(1)
    place.store.set("new:0", "value", LONG)
    eventually(lambda: place.rows() == 4)


class Wall:
    """A wall clock that is set an hour forward, and back."""

    def __init__(self, monkeypatch):
        self.real, self.ahead = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: self.real() + self.ahead)


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_no_entry_minds_the_wall_clock(place, monkeypatch, ahead):
    wall, store = Wall(monkeypatch), place.store
    store.set("before", "value", LONG)
    wall.ahead = ahead
    store.set("after", "value", 0.3)
    assert (store.get("before"), store.get("after")) == ("value", "value")
    wall.ahead = 0.0
    place.advance(0.31)
    assert (store.get("before"), store.get("after")) == ("value", None)


def open_file(tmp_path, world):
    return SQLiteStore(str(tmp_path / "store.db"), "", world)


def test_the_clock_of_a_file_is_that_of_all_its_processes(tmp_path):
    """Their own clocks need not agree: those of two machines, or of two boots, begin anywhere."""
    one, two = Ahead(), Ahead()
    one.ahead, two.ahead = 10_000.0, -10_000.0
    with closing(open_file(tmp_path, one)) as ours, closing(open_file(tmp_path, two)) as theirs:
        ours.set("ours", "value", 100)
        theirs.set("theirs", "value", 100)
        for world in (one, two):
            world.advance(95)
        ours.set("tick", "", 1)
        theirs.set("tick", "", 1)
        assert [store.get(key) for store in (ours, theirs) for key in ("ours", "theirs")] == ["value"] * 4
        for world in (one, two):
            world.advance(10)
        assert [store.get(key) for store in (ours, theirs) for key in ("ours", "theirs")] == [None] * 4


def test_the_clock_of_a_file_stands_still_while_nobody_uses_it(tmp_path):
    """What was promised before the host was switched off is there when it is back."""
    world = Ahead()
    with closing(open_file(tmp_path, world)) as store:
        store.set("key", "value", 10)
    world.advance(1_000_000)
    with closing(open_file(tmp_path, world)) as store:
        assert store.get("key") == "value"
        world.advance(11)
        assert store.get("key") is None


def test_a_process_that_stood_still_sets_no_clock_back(tmp_path):
    one, two = Ahead(), Ahead()
    with closing(open_file(tmp_path, one)) as ours, closing(open_file(tmp_path, two)) as theirs:
        ours.set("key", "value", 50)
        theirs.set("tick", "", 1)
        one.advance(60)
        ours.set("tick", "", 1)
        theirs.set("tick", "", 1)
        two.advance(2)
        theirs.set("tick", "", 1)
        assert theirs.get("key") is None
        assert ours.get("key") is None


def test_a_file_does_not_grow_for_ever_under_load(tmp_path):
    """Each message leaves a record; what comes in at 1,000 a second has to go out as fast."""
    world = Ahead()
    with closing(open_file(tmp_path, world)) as store:
        for second in range(15):
            world.advance(1)
            for number in range(20):
                link = (f"index {number}",)
                store.swap(*(Change(f"{second}.{number}.{one}", None, "v", 2, link=link) for one in range(50)))
        rows = store._connect().execute("SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM links)")
        assert max(rows.fetchone()) <= 5_000


def test_links_of_what_expired_are_found_without_a_scan(tmp_path):
    with closing(open_file(tmp_path, Ahead())) as store:
        plan = store._connect().execute("EXPLAIN QUERY PLAN DELETE FROM links WHERE key = ?", ("k",)).fetchall()
    assert not any("SCAN" in step[-1] for step in plan), plan


def test_entries_of_the_first_version_go(tmp_path):
    with closing(sqlite3.connect(tmp_path / "store.db")) as old:
        old.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL)")
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store:
        store.set("key", "value", LONG)
        tables = store._connect().execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert "entries" not in {name for (name,) in tables}


def test_a_waiter_notices_that_an_entry_expires(store):
    store.set("key", "value", 0.2)
    assert store.wait("key", "value", 3) is None


# Many at once


def crowd(store, task, number=THREADS):
    """What so many threads get from the task, all started by the key `go`, which this sets."""

    def run():
        store.wait("go", None, 10)
        return task(store)

    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(run) for _ in range(number)]
        store.add("go", "1", LONG)
        return [future.result() for future in futures]


PATIENT = 30.0  # seconds: what a busy machine does slowly is no failure of the store here


def crowd_elsewhere(url, task):
    wechat.store.sqlite.PATIENCE = PATIENT
    with closing(open_store(url)) as store:
        store.set("ready", "1", LONG)
        store.wait("go", None, 10)
        return crowd(store, task)


def crowds(place, task, other_process):
    """What 16 threads get, 8 of them in another process where the backend allows it."""
    if place.open is None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # seconds; else each thread is done before the next one starts
        try:
            return crowd(place.store, task, 2 * THREADS)
        finally:
            sys.setswitchinterval(interval)
    future = other_process.submit(crowd_elsewhere, place.url, task)
    assert place.store.wait("ready", None, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wechat.store.sqlite, "PATIENCE", PATIENT)
        return crowd(place.store, task) + future.result(60)


def add_all(store):
    return [store.add(f"key:{number}", threading.current_thread().name, LONG) for number in range(20)]


def count_up(store):
    done = 0
    while done < ROUNDS:
        value = store.get("count")
        done += store.replace("count", value, str(int(value) + 1), LONG)


@pytest.mark.interpreter
def test_of_many_that_add_one_wins(place, other_process):
    won = crowds(place, add_all, other_process)
    assert len(won) == 2 * THREADS
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 20


class Distant(MemoryStore):
    """A store to which each write takes a while; it knows which write was the one of a key."""

    def __init__(self):
        self.writes, self.made = 0, {}
        super().__init__()

    def _swap_each(self, groups):
        self.writes += 1
        time.sleep(0.005)
        self.made |= {change.key: self.writes for changes in groups for change in changes}
        return super()._swap_each(groups)


def test_nobody_waits_for_the_writes_of_those_who_came_later():
    store, waited = Distant(), []

    def add_each(name):
        for number in range(30):
            store.add(f"{name} {number}", "1", LONG)
            waited.append(store.writes - store.made[f"{name} {number}"])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(add_each, range(20)))
    assert sorted(waited)[len(waited) * 3 // 4] < 3, "it went on writing after its own change was made"


def test_counting_by_compare_and_set_loses_nothing(place, other_process):
    place.store.set("count", "0", LONG)
    crowds(place, count_up, other_process)
    assert place.store.get("count") == str(2 * THREADS * ROUNDS)


@pytest.mark.interpreter
def test_processes_that_open_a_new_file_at_once_do_not_collide(tmp_path, other_process):
    for number in range(40):
        url = f"sqlite:{tmp_path}/{number}.db"
        future = other_process.submit(open_and_close, url)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(open_and_close, [url] * 4))
        future.result(10)


def open_and_close(url):
    open_store(url).close()


def test_where_the_host_gives_no_thread_to_copy_the_log_what_is_written_stays_written(tmp_path, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    world, url = Ahead(), f"sqlite:{tmp_path}/store.db"
    with closing(SQLiteStore(str(tmp_path / "store.db"), "", world)) as store, closing(open_store(url)) as other:
        store.set("a", "0", LONG)
        world.advance(SQLiteStore.tick_every + 1)
        with monkeypatch.context() as no_threads:
            no_threads.setattr(threading.Thread, "start", refuse)
            store.set("a", "1", LONG)
        store.set("b", "2", LONG)
        assert (other.get("a"), other.get("b")) == ("1", "2")


def test_threads_share_one_connection_to_the_file(tmp_path):
    with closing(SQLiteStore(str(tmp_path / "store.db"))) as store:
        seen = set()
        for _ in range(5):
            thread = threading.Thread(target=lambda: seen.add(store.set("key", "value", LONG) or store._connection))
            thread.start()
            thread.join()
        assert len(seen) == 1


# Waiting


def test_wait_gives_at_once_what_was_not_seen(store):
    store.set("key", "value", LONG)
    assert store.wait("key", None, LONG) == "value"
    assert store.wait("key", "other", LONG) == "value"
    assert store.wait("none", "other", LONG) is None


def test_wait_ends_with_its_time_and_gives_what_is_there(store):
    store.set("key", "value", LONG)
    started = time.monotonic()
    assert store.wait("key", "value", 0.15) == "value"
    assert store.wait("none", None, 0.15) is None
    assert 0.3 <= time.monotonic() - started < 0.6


CHANGES = {
    "set": (lambda store: store.set("key", "new", LONG), "new"),
    "replace": (lambda store: store.replace("key", "old", "new", LONG), "new"),
    "replace by none": (lambda store: store.replace("key", "old", None, LONG), None),
    "delete": (lambda store: store.delete("key"), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_by_another_thread_wakes_a_waiter(store, change):
    make, value = CHANGES[change]
    store.set("key", "old", LONG)
    store.look_again = store.listening = LONG
    with waiting(store, "key", "old") as (future,):
        changed = time.time()
        make(store)
        assert future.result()[0] == value
        assert future.result()[1] - changed < 0.3


def test_an_add_wakes_a_waiter_and_another_key_does_not(store):
    with waiting(store, "key", None) as (future,):
        store.set("other", "value", LONG)
        store.add("key", "value", LONG)
        assert future.result()[0] == "value"


def change_elsewhere(url):
    with closing(open_store(url)) as store:
        changed = time.time()
        store.replace("key", "old", "new", LONG)
        return changed


@pytest.mark.interpreter
def test_a_change_by_another_process_wakes_a_waiter(shared_place, other_process):
    shared_place.store.listening = LONG
    shared_place.store.set("key", "old", LONG)
    with waiting(shared_place.store, "key", "old") as (future,):
        changed = other_process.submit(change_elsewhere, shared_place.url).result(20)
        assert future.result()[0] == "new"
        assert future.result()[1] - changed < 0.3


def test_another_store_object_of_this_process_wakes_a_waiter(shared_place):
    with waiting(shared_place.store, "key", None) as (future,), closing(shared_place.open()) as other:
        other.set("key", "value", LONG)
        assert future.result()[0] == "value"


@pytest.mark.interpreter
def test_64_waiters_all_wake(store):
    store.look_again = store.listening = LONG
    with waiting(store, "key", None, 64) as futures:
        store.set("key", "value", LONG)
        assert {future.result()[0] for future in futures} == {"value"}
    assert not store._waiters


def test_64_waiters_share_one_redis_connection(server):
    with closing(RedisStore(server.url)) as store:
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(store.get, ["key"] * 640))
        for _ in range(2):  # the first makes connections for its looks, at most those that the pool allows
            before = server.clients("normal")
            with waiting(store, "key", None, 64):
                assert server.clients("pubsub") == 1
                assert server.clients("normal") <= max(before, 15)
                store.set("key", "value", LONG)
            store.delete("key")
    eventually(lambda: server.clients("pubsub") == 0 and server.clients("normal") == 0)


class Writing:
    """A request whose worker writes into the store."""

    def __init__(self, store, key):
        self.store, self.key, self.has_begun = store, key, threading.Event()

    def service(self):
        self.has_begun.set()
        self.store.set(self.key, "value", LONG)


def test_workers_that_wait_for_redis_make_room_for_others(server, monkeypatch):
    monkeypatch.setattr("wechat.workers.PATIENCE", LONG)
    with closing(RedisStore(server.url)) as store:
        workers, requests = Workers(8), [Writing(store, f"key {number}") for number in range(3 * FEWEST)]
        server.ask("CLIENT", "PAUSE", 300)  # milliseconds
        for request in requests:
            workers.add_task(request)
        assert all(request.has_begun.wait(0.2) for request in requests)
        eventually(lambda: store.get(requests[-1].key) == "value")


# Faults


def fault_of(url):
    with pytest.raises(StartError) as info:
        open_store(url)
    (fault,) = info.value.faults
    assert fault.startswith("WECHAT_STORE: ")
    assert "\n" not in fault
    assert PASSWORD not in fault
    return fault


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_redis_that_is_down_is_a_fault_at_the_start(scheme):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    fault = fault_of(f"{scheme}://user:{PASSWORD}@127.0.0.1:{port}/0?socket_timeout=1")
    assert fault == "WECHAT_STORE: Redis did not write: ConnectionError; " + RedisStore.advice


def test_a_wrong_password_is_a_fault_at_the_start(server):
    assert "AuthenticationError" in fault_of(server.url.replace(PASSWORD, PASSWORD + "x"))


@pytest.mark.parametrize(
    "url", ["file.db", f"redis://:{PASSWORD}/x@host", f"redis://:{PASSWORD}@host?what=1", "redis://h?socket_timeout=x"]
)
def test_what_is_no_url_is_a_fault_at_the_start(url):
    assert "redis://:password@host:port/db" in fault_of(url)


@pytest.mark.interpreter
def test_redis_is_reached_by_a_unix_socket(server):
    with closing(open_store(f"unix://:{PASSWORD}@{server.directory}/socket?db=3")) as store:
        assert store.add("key", "value", LONG)
        with waiting(store, "key", "value") as (future,):
            store.delete("key")
            assert future.result()[0] is None


@pytest.mark.interpreter
def test_a_directory_that_does_not_exist_is_a_fault_at_the_start(tmp_path):
    fault = fault_of(f"sqlite:{tmp_path}/none/store.db")
    assert fault == "WECHAT_STORE: SQLite did not write: FileNotFoundError; " + SQLiteStore.advice


def test_a_file_that_is_no_database_is_a_fault_at_the_start(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look like one\n" * 100)
    assert "file is not a database" in fault_of(f"sqlite:{tmp_path}/text")
    assert (tmp_path / "text").read_text().startswith("not a database")


def test_a_file_that_may_not_be_written_is_a_fault_at_the_start():
    directory = Path(tempfile.mkdtemp())  # not tmp_path, into which another user may not look
    open_store(f"sqlite:{directory}/store.db").close()
    (directory / "store.db").chmod(0o444)
    directory.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        assert SQLiteStore.advice in fault_of(f"sqlite:{directory}/store.db")
    finally:
        os.seteuid(user)
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_the_file_is_for_its_user_alone(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/store.db")):
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.interpreter
def test_a_file_keeps_its_entries_when_the_store_is_closed(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store:
        store.set("key", "value", LONG)
    assert {file.name for file in tmp_path.iterdir()} == {"store.db"}
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store:
        assert store.get("key") == "value"


def errors_of(store):
    """What each operation says when the backend does not answer."""
    calls = [
        lambda: store.get("secretkey"),
        lambda: store.set("secretkey", "secretvalue", LONG),
        lambda: store.add("secretkey", "secretvalue", LONG),
        lambda: store.replace("secretkey", "secretvalue", None, LONG),
        lambda: store.delete("secretkey"),
        lambda: store.swap(Change("secretkey", None, "secretvalue", LONG, link=("secretindex",))),
        lambda: store.linked("secretindex"),
        lambda: store.wait("secretkey", None, 1),
    ]
    texts = []
    for call in calls:
        store._rests_until = 0.0  # each one is to try
        with pytest.raises(StoreError) as info:
            call()
        assert isinstance(info.value.__cause__, store.failures)
        texts.append(str(info.value))
    store._rests_until = 0.0
    assert not any(secret in text for text in texts for secret in (PASSWORD, "secret", "127.0.0.1", "store.db"))
    return texts


@pytest.mark.interpreter
def test_a_file_that_breaks_later_is_a_store_error(tmp_path):
    world = Ahead()
    with closing(open_file(tmp_path, world)) as store:
        store.set("key", "value", LONG)
        Path(store._file).unlink()
        Path(store._file).write_text("not a database, but long enough to look like one\n" * 1000)
        world.advance(store.tick_every)
        texts = errors_of(store)
    assert texts[0] == "SQLite did not get: file is not a database"
    assert [text.split()[3] for text in texts] == ["get:", *["write:"] * 5, "list:", "get:"]


def test_a_value_of_a_wrong_kind_is_a_store_error_that_does_not_quote(server):
    server.ask("LPUSH", "wxserver::secretkey", "secretvalue")
    with closing(RedisStore(server.url)) as store:
        for call in (lambda: store.get("secretkey"), lambda: store.replace("secretkey", "x", None, LONG)):
            store._rests_until = 0.0
            with pytest.raises(StoreError, match=r"^Redis did not (get|write): ResponseError$"):
                call()


def test_bytes_that_are_no_text_are_a_store_error_that_does_not_quote(server):
    """A UnicodeDecodeError would cost each user the answer, until somebody looks."""
    with closing(RedisStore(server.url)) as store, redis.Redis.from_url(server.url) as client:
        client.set("wxserver::key", b"\xff")
        client.sadd("wxserver::index", "wxserver::key")
        for call in (lambda: store.get("key"), lambda: store.linked("index")):
            store._rests_until = 0.0
            with pytest.raises(StoreError, match=r"^Redis did not (get|list): UnicodeDecodeError$"):
                call()


class Broken(MemoryStore):
    """Fails while it is told to, and counts how often it was asked."""

    name, failures, is_broken, asked = "Broken", (ConnectionError,), True, 0

    def _swap(self, changes):
        self.asked += 1
        if self.is_broken:
            raise ConnectionError
        return super()._swap(changes)


def test_a_store_that_failed_is_left_alone_for_a_moment(world):
    """Each try may cost half a second, and WeChat's five go on."""
    store = Broken(world)
    with pytest.raises(StoreError, match="did not write: ConnectionError"):
        store.set("key", "value", LONG)
    store.is_broken = False
    for _ in range(100):
        with pytest.raises(StoreError, match="is left alone for a moment"):
            store.set("key", "value", LONG)
    assert store.asked == 1
    world.now += store.rest
    store.set("key", "value", LONG)
    assert store.get("key") == "value"


def test_a_file_that_another_process_locks_costs_half_a_second_once(tmp_path):
    """As when a process is frozen in the midst of a write."""
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store, closing(sqlite3.connect(store._file)) as other:
        store.set("key", "value", LONG)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        for _ in range(50):
            with pytest.raises(StoreError):
                store.set("key", "other", LONG)
        assert time.monotonic() - started < 5  # fifty times half a second would be 25
        store._rests_until = 0.0
        assert store.get("key") == "value", "one can still read"
        other.rollback()
        store.set("key", "other", LONG)
        assert store.get("key") == "other"


def test_threads_that_write_while_the_file_is_locked_do_not_queue_up(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store, closing(sqlite3.connect(store._file)) as other:
        store.get("key")
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with ThreadPoolExecutor(32) as pool:
            futures = [pool.submit(store.set, f"{number}", "x", LONG) for number in range(32)]
            assert all(isinstance(future.exception(), StoreError) for future in futures)
        assert time.monotonic() - started < 5  # one after the other: 16
        other.rollback()


def test_a_redis_that_is_killed_is_a_store_error_and_works_again_after_its_restart(mortal_server, capfd):
    with closing(open_store(mortal_server.url)) as store:
        with waiting(store, "key", None) as (future,):
            mortal_server.kill()
            with pytest.raises(StoreError):
                future.result()
        texts = errors_of(store)
        assert texts[0] == "Redis did not get: ConnectionError"
        eventually(lambda: store.look_again == store.deaf)
        mortal_server.start()
        assert store.add("key", "1", LONG)
        assert store.replace("key", "1", "2", LONG)
        store.listening = LONG
        with waiting(store, "key", "2") as (future,), closing(open_store(mortal_server.url)) as other:
            other.set("key", "3", LONG)
            assert future.result()[0] == "3"
    assert capfd.readouterr().err == ""


def test_a_write_whose_answer_a_redis_loses_is_an_error_and_may_have_been_made(mortal_server):
    """It must not be tried again by itself: the second `add` would find the first one's value, and nobody would win."""
    with closing(open_store(mortal_server.url)) as store:
        mortal_server.ask("CONFIG", "SET", "busy-reply-threshold", "0")
        store.add("warm", "x", LONG)
        mortal_server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreError, match=r"^Redis did not write: TimeoutError$"):
            store.add("key", "value", LONG)
        mortal_server.process.send_signal(signal.SIGCONT)
        store._rests_until = 0.0
        eventually(lambda: store.get("key") == "value")


def test_while_the_listener_is_down_a_waiter_looks_by_itself(server):
    with closing(RedisStore(server.url)) as store, closing(RedisStore(server.url)) as other:
        store._listener = threading.Thread()  # one that never listens
        store._listener.start()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(timed_wait, store, "quiet", None)
            eventually(lambda: store._waiters)
            changed = time.time()
            other.set("quiet", "value", LONG)
            assert future.result()[0] == "value"
            assert future.result()[1] - changed < 0.5


def test_noise_in_the_channel_does_not_end_the_listening(server):
    with closing(RedisStore(server.url)) as store, waiting(store, "key", None) as (future,):
        server.ask("PUBLISH", "wxserver::key", b"\xff\xfe")
        server.ask("PUBLISH", "wxserver::key", json.dumps({}))
        server.ask("PUBLISH", "wxserver:", "noise")
        assert store._listener.is_alive()
        store.set("key", "value", LONG)
        assert future.result()[0] == "value"
