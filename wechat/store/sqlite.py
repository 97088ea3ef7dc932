"""A store in an SQLite file."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import EllipsisType

from wechat.store.base import Store
from wechat.system import take_name

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires);"""
SWEEP = "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires <= ? LIMIT 256)"  # no long lock


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

    def _reason(self, error: Exception) -> str:
        return str(error) if isinstance(error, sqlite3.Error) else super()._reason(error)

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
            take_name(new, self._file)
