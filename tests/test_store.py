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

from tests.conftest import program
from wechat.errors import StartError, StoreError
from wechat.store.memory import MemoryStore
from wechat.store.opening import open_store
from wechat.store.redis import RedisStore
from wechat.store.sqlite import SQLiteStore

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


class Clock:
    ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead

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
    clock = Clock()
    store = MemoryStore(clock)
    return Place(store, "memory:", None, lambda: len(store._entries), clock.advance)


def sqlite_place(request):
    clock = Clock()
    file = request.getfixturevalue("tmp_path") / "store.db"

    def rows():
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute("SELECT count(*) FROM entries").fetchone()[0]

    return Place(SQLiteStore(str(file), clock), f"sqlite:{file}", lambda: SQLiteStore(str(file)), rows, clock.advance)


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
    assert store.keys("") == []


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


@pytest.mark.interpreter
def test_keys_are_those_that_begin_so_in_order(store):
    for key in ("job:2", "job:10", "job", "jobs", "other", "job:é", "job:*", "j*b:1"):
        store.set(key, "value", LONG)
    assert store.keys("job:") == ["job:*", "job:10", "job:2", "job:é"]
    assert store.keys("j*") == ["j*b:1"]
    assert store.keys("none") == []
    assert len(store.keys("")) == 8


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), key=st.text())
def test_any_text_comes_back_the_same(store, text, key):
    store.delete("k" + key)
    assert store.add("k" + key, text, LONG) is True
    assert store.get("k" + key) == text
    assert store.keys("k" + key)[0] == "k" + key
    assert store.replace("k" + key, text, text + "\0", LONG) is True
    assert store.get("k" + key) == text + "\0"


@pytest.mark.parametrize("operation", ["set", "add"])
def test_a_lone_surrogate_is_refused_and_harms_nothing(store, operation):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        getattr(store, operation)("key", "a\ud800", LONG)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        getattr(store, operation)("a\ud800", "value", LONG)
    store.set("key", "value", LONG)
    assert store.keys("") == ["key"]


# Time to live


@pytest.mark.interpreter
def test_an_entry_is_gone_after_its_time(place):
    store = place.store
    store.set("set", "value", 0.1)
    store.add("add", "value", 0.1)
    store.set("replace", "old", LONG)
    store.replace("replace", "old", "new", 0.1)
    assert store.keys("") == ["add", "replace", "set"]
    place.advance(0.11)
    assert [store.get(key) for key in ("set", "add", "replace")] == [None] * 3
    assert store.keys("") == []
    assert store.replace("set", "value", "new", LONG) is False
    assert store.add("add", "again", LONG) is True


def test_a_write_starts_the_time_anew(place):
    store = place.store
    for key in ("set", "replace"):
        store.set(key, "value", 0.1)
    store.set("set", "value", LONG)
    store.replace("replace", "value", "new", LONG)
    place.advance(0.11)
    assert store.keys("") == ["replace", "set"]


def test_what_has_expired_is_really_removed(place):
    for number in range(300):
        place.store.set(f"old:{number}", "value", 0.3)
    place.store.set("stays", "value", LONG)
    assert place.rows() > 0
    place.advance(0.31)
    for number in range(300):
        place.store.set(f"new:{number % 3}", "value", LONG)
    eventually(lambda: place.rows() == 4)


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


def crowd_elsewhere(url, task):
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
    return crowd(place.store, task) + future.result(30)


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


@pytest.mark.interpreter
def test_the_connections_of_ended_threads_are_closed(tmp_path):
    with closing(SQLiteStore(str(tmp_path / "store.db"))) as store:
        for _ in range(5):
            thread = threading.Thread(target=store.set, args=("key", "value", LONG))
            thread.start()
            thread.join()
        assert len(store._connections) == 1


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
    assert fault == "WECHAT_STORE: Redis did not delete: ConnectionError; " + RedisStore.advice


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
    assert fault == "WECHAT_STORE: SQLite did not delete: FileNotFoundError; " + SQLiteStore.advice


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
        lambda: store.keys("secretkey"),
        lambda: store.wait("secretkey", None, 1),
    ]
    texts = []
    for call in calls:
        with pytest.raises(StoreError) as info:
            call()
        assert isinstance(info.value.__cause__, store.failures)
        texts.append(str(info.value))
    assert not any(secret in text for text in texts for secret in (PASSWORD, "secret", "127.0.0.1", "store.db"))
    return texts


@pytest.mark.interpreter
def test_a_file_that_breaks_later_is_a_store_error(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/store.db")) as store, closing(sqlite3.connect(store._file)) as other:
        other.execute("DROP TABLE entries")
        texts = errors_of(store)
    assert texts[0] == "SQLite did not get: no such table: entries"
    assert [text.split()[3] for text in texts] == ["get:", "set:", "add:", "replace:", "delete:", "list", "get:"]


def test_a_value_of_a_wrong_kind_is_a_store_error_that_does_not_quote(server):
    server.ask("LPUSH", "wxserver:secretkey", "secretvalue")
    with closing(RedisStore(server.url)) as store:
        for call in (lambda: store.get("secretkey"), lambda: store.add("secretkey", "x", LONG)):
            with pytest.raises(StoreError, match=r"^Redis did not (get|add): ResponseError$"):
                call()


def test_a_redis_that_is_killed_is_a_store_error_and_works_again_after_its_restart(mortal_server, capfd):
    with closing(open_store(mortal_server.url)) as store:
        with waiting(store, "key", None) as (future,):
            mortal_server.kill()
            with pytest.raises(StoreError):
                future.result()
        started = time.monotonic()
        texts = errors_of(store)
        assert time.monotonic() - started < 1
        assert texts[0] == "Redis did not get: ConnectionError"
        assert store.look_again == store.deaf
        mortal_server.start()
        assert store.add("key", "1", LONG)
        assert store.replace("key", "1", "2", LONG)
        store.listening = LONG
        with waiting(store, "key", "2") as (future,), closing(open_store(mortal_server.url)) as other:
            changed = time.time()
            other.set("key", "3", LONG)
            assert future.result()[0] == "3"
            assert future.result()[1] - changed < 0.3
    assert capfd.readouterr().err == ""


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
        server.ask("PUBLISH", "wxserver:changes", b"\xff\xfe")
        server.ask("PUBLISH", "wxserver:changes", json.dumps({}))
        assert store._listener.is_alive()
        store.set("key", "value", LONG)
        assert future.result()[0] == "value"


def test_a_redis_that_hangs_holds_a_thread_for_two_seconds(mortal_server):
    with closing(open_store(mortal_server.url)) as store:
        mortal_server.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(StoreError, match=r"^Redis did not add: TimeoutError$"):
            store.add("key", "value", LONG)
        assert 1.9 < time.monotonic() - started < 2.5
        mortal_server.process.send_signal(signal.SIGCONT)
