"""What the server remembers for a while: in memory, in an SQLite file or in Redis."""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import EllipsisType
from typing import Any

from wechat.errors import StartError, StoreError
from wechat.memory_store import MemoryStore, Store

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires);"""
SWEEP = "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires <= ? LIMIT 256)"  # no long lock

PREFIX = "wxserver:"  # of each key in Redis
CHANGES = "wxserver:changes"  # the Redis channel that carries the name of each key that changes
LIMITS = {"max_connections": 16, "timeout": 2, "socket_timeout": 2, "socket_connect_timeout": 2}  # seconds
CHANGE = """
local value = redis.call('GET', KEYS[1])
if ARGV[1] == 'absent' and value or ARGV[1] == 'equal' and value ~= ARGV[2] then return 0 end
if ARGV[5] then redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4]) else redis.call('DEL', KEYS[1]) end
redis.call('PUBLISH', ARGV[3], KEYS[1])
return 1"""


def open_store(url: str) -> Store:
    """The store at `memory:`, `sqlite:FILE` or a URL that redis-py takes. A StartError where it does not answer."""
    scheme, _, rest = url.partition(":")
    try:
        store = MemoryStore() if scheme == "memory" else SQLiteStore(rest) if scheme == "sqlite" else RedisStore(url)
        store.delete("")
    except StoreError as error:
        store.close()
        raise StartError([f"WECHAT_STORE: {error}; {store.advice}"]) from error
    except (ImportError, TypeError, ValueError):  # whose text may quote a part of the password
        fault = "WECHAT_STORE: needs the package redis, and a URL that it takes: redis://:password@host:port/db"
        raise StartError([fault]) from None
    return store


class SQLiteStore(Store):
    """A store in a file, for the processes of one machine."""

    name = "SQLite"
    advice = "the directory must exist, and the file be an SQLite database that this user may write"
    failures = (sqlite3.Error, OSError)
    look_again = 0.05  # nobody tells of changes by other processes
    sweep_every = 64  # writes

    def __init__(self, file: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._file = os.path.abspath(file)
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._writes = itertools.count(1)

    def get(self, key: str) -> str | None:
        with self._doing("get"):
            return self._value(key)

    def keys(self, prefix: str) -> list[str]:
        with self._doing("list keys"):
            query = "SELECT key FROM entries WHERE key >= ? AND expires > ? ORDER BY key"
            rows = self._connection().execute(query, (prefix, self._clock()))
            return list(itertools.takewhile(lambda key: key.startswith(prefix), (key for (key,) in rows)))

    def close(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()

    def _change(self, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        with self._connection() as connection:  # commits, or rolls back
            connection.execute("BEGIN IMMEDIATE")
            if next(self._writes) % self.sweep_every == 0:
                connection.execute(SWEEP, (self._clock(),))
            if old is not ... and self._value(key) != old:
                return False
            if new is None:
                connection.execute("DELETE FROM entries WHERE key = ?", (key,))
            else:
                connection.execute("REPLACE INTO entries VALUES (?, ?, ?)", (key, new, self._clock() + ttl))
            return True

    def _value(self, key: str) -> str | None:
        query = "SELECT value FROM entries WHERE key = ? AND expires > ?"
        row: tuple[str] | None = self._connection().execute(query, (key, self._clock())).fetchone()
        return row and row[0]

    def _connection(self) -> sqlite3.Connection:
        """One for each thread: a connection that threads share loses updates."""
        thread = threading.current_thread()
        if thread not in self._connections:
            if not os.path.exists(self._file):
                self._create()
            connection = sqlite3.connect(self._file, timeout=5.0, isolation_level=None, check_same_thread=False)
            with self._lock:
                for ended in [other for other in self._connections if not other.is_alive()]:
                    self._connections.pop(ended).close()
                self._connections[thread] = connection
            connection.executescript(SCHEMA)
        return self._connections[thread]

    def _create(self) -> None:
        # Processes that turn one new file to WAL at once lock each other out, so each makes its own and one is taken.
        with TemporaryDirectory(dir=os.path.dirname(self._file)) as folder, suppress(FileExistsError):
            new = Path(folder, "store.db")
            new.touch(0o600)  # it will hold access tokens
            with closing(sqlite3.connect(new)) as connection:
                connection.executescript(SCHEMA)
            os.link(new, self._file)


class RedisStore(Store):
    """A store for many machines. From the first `wait` on, one thread listens for changes."""

    name = "Redis"
    advice = "is the server up, and are host, port and password right?"
    listening, deaf = 1.0, 0.1  # seconds to look again, with and without the listener

    def __init__(self, url: str) -> None:
        import redis  # the package is optional

        super().__init__()
        self.failures = (redis.RedisError, OSError)
        self.look_again = self.deaf
        # A second try of an `add` whose answer got lost would find the first one's value, and nobody would win.
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        pool = redis.BlockingConnectionPool.from_url(url, decode_responses=True, protocol=2, retry=retry, **LIMITS)
        self._client: Any = redis.Redis.from_pool(pool)  # Any: redis-py types most answers for asyncio, too
        self._script: Any = self._client.register_script(CHANGE)
        self._listener: threading.Thread | None = None
        self._closed = threading.Event()

    def get(self, key: str) -> str | None:
        with self._doing("get"):
            value: str | None = self._client.get(PREFIX + key)
            return value

    def keys(self, prefix: str) -> list[str]:
        pattern = PREFIX + re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        with self._doing("list keys"):
            return sorted({name.removeprefix(PREFIX) for name in self._client.scan_iter(pattern, 1000)})

    def wait(self, key: str, seen: str | None, seconds: float) -> str | None:
        with self._lock:
            if self._listener is None:
                self._listener = threading.Thread(target=self._listen, name="redis", daemon=True)
                self._listener.start()
        return super().wait(key, seen, seconds)

    def close(self) -> None:
        self._closed.set()
        if self._listener:
            with suppress(*self.failures):
                self._client.publish(CHANGES, "")  # the listener wakes, and ends
            self._listener.join()
        self._client.close()

    def _change(self, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        rule, wanted = ("any", "") if old is ... else ("absent", "") if old is None else ("equal", old)
        arguments = [rule, wanted, CHANGES, max(1, round(ttl * 1000)), *([] if new is None else [new])]
        return bool(self._script([PREFIX + key], arguments))

    def _listen(self) -> None:
        while not self._closed.is_set():
            with suppress(Exception):  # whatever happens to the connection, a new one follows
                self._follow()
            self.look_again = self.deaf
            self._wake()
            self._closed.wait(0.5)  # seconds

    def _follow(self) -> None:
        with self._client.pubsub() as pubsub:
            pubsub.subscribe(CHANGES)
            while not self._closed.is_set():
                message = pubsub.get_message(timeout=1.0)
                if message and message["type"] == "message":
                    self._wake(message["data"].removeprefix(PREFIX))
                elif message:
                    self.look_again = self.listening
                    self._wake()  # what changed before the subscription was not heard
