"""A store in an SQLite file."""

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from wechat.store.base import Change, Entries, Store
from wechat.system import take_name
from wechat.world import REAL, World

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_expires ON records (expires);
CREATE TABLE IF NOT EXISTS links (name TEXT, key TEXT, PRIMARY KEY (name, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_key ON links (key);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY, now REAL NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
DROP TABLE IF EXISTS entries;"""  # of the first version
GET = "SELECT value FROM records WHERE key = ? AND expires > ?"
LINKED = """
SELECT links.key, value FROM links JOIN records ON records.key = links.key
WHERE name = ? AND expires > ? ORDER BY links.key"""
EXPIRED = "SELECT key FROM records WHERE expires <= ? LIMIT ?"

PATIENCE = 0.5  # seconds to wait for another writer, in this process and in others


class SQLiteStore(Store):
    """A store in a file, for the processes of one machine. Its keys begin with the `account`.

    Entries expire by a clock in the file, which stands still while no process uses it: the wall clock may jump, and
    those of two processes differ.
    """

    name = "SQLite"
    advice = "the directory must exist, and the file be an SQLite database that this user may write"
    failures = (sqlite3.Error, OSError)
    look_again = 0.05  # nobody tells of changes by other processes
    tick_every = 1.0  # seconds
    swept = 256  # entries at once, so that no lock takes long; under load two for each that came

    def __init__(self, file: str, account: str = "", world: World = REAL) -> None:
        super().__init__(world)
        self._file, self._prefix = os.path.abspath(file), account + ":"
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._writing = threading.Lock()
        self._written = 0  # since the last sweep
        self._clock: tuple[float, float] = 0.0, -self.tick_every  # what the clock of the file was, and when that was

    def get(self, key: str) -> str | None:
        with self._doing("get"):
            return self._value(self._connection(), key)

    def linked(self, index: str) -> Entries:
        with self._doing("list"):
            rows = self._connection().execute(LINKED, (self._prefix + index, self._now()))
            return {key.removeprefix(self._prefix): value for key, value in rows}

    def close(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()

    def _swap(self, changes: tuple[Change, ...]) -> bool:
        connection = self._connection()
        # One writer of this process at a time: those that SQLite puts to sleep are not woken in turn.
        if not self._writing.acquire(timeout=PATIENCE):
            raise sqlite3.OperationalError("another thread is writing for too long")
        try:
            with connection:  # commits, or rolls back
                connection.execute("BEGIN IMMEDIATE")
                self._written += len(changes)
                self._keep_time(connection)
                for change in changes:
                    if change.old is not ... and self._value(connection, change.key) != change.old:
                        return False
                for change in changes:
                    self._make(connection, change)
                return True
        finally:
            self._writing.release()

    def _make(self, connection: sqlite3.Connection, change: Change) -> None:
        key = self._prefix + change.key
        if change.new is None:
            connection.execute("DELETE FROM records WHERE key = ?", (key,))
        else:
            connection.execute("REPLACE INTO records VALUES (?, ?, ?)", (key, change.new, self._now() + change.ttl))
        for index in change.link:
            connection.execute("INSERT OR IGNORE INTO links VALUES (?, ?)", (self._prefix + index, key))
        for index in change.unlink:
            connection.execute("DELETE FROM links WHERE name = ? AND key = ?", (self._prefix + index, key))

    def _reason(self, error: Exception) -> str:
        return str(error) if isinstance(error, sqlite3.Error) else super()._reason(error)

    def _value(self, connection: sqlite3.Connection, key: str) -> str | None:
        row: tuple[str] | None = connection.execute(GET, (self._prefix + key, self._now())).fetchone()
        return row and row[0]

    # Time

    def _now(self) -> float:
        """The clock of the file: what it was when this process last looked, and the time since by its own clock."""
        then, at = self._clock
        return then + self._world.monotonic() - at

    def _keep_time(self, connection: sqlite3.Connection) -> None:
        """Set the clock of the file forward, and sweep out what has expired, once a second."""
        if self._world.monotonic() - self._clock[1] < self.tick_every:
            return
        self._look_at_clock(connection, self._now())
        most, self._written = max(self.swept, 2 * self._written), 0
        for expired in connection.execute(EXPIRED, (self._clock[0], most)).fetchall():
            connection.execute("DELETE FROM records WHERE key = ?", expired)
            connection.execute("DELETE FROM links WHERE key = ?", expired)

    def _look_at_clock(self, connection: sqlite3.Connection, at_least: float) -> None:
        connection.execute("UPDATE clock SET now = max(now, ?)", (at_least,))
        (now,) = connection.execute("SELECT now FROM clock").fetchone()
        self._clock = float(now), self._world.monotonic()

    # Connections

    def _connection(self) -> sqlite3.Connection:
        """One for each thread: a connection that threads share loses updates."""
        thread = threading.current_thread()
        if thread not in self._connections:
            if not os.path.exists(self._file):
                self._create()
            connection = sqlite3.connect(self._file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                with self._lock:
                    self._prepare(connection)
                    self._connections[thread] = connection
            except sqlite3.Error:
                connection.close()
                raise
        return self._connections[thread]

    def _prepare(self, connection: sqlite3.Connection) -> None:
        for ended in [other for other in self._connections if not other.is_alive()]:
            self._connections.pop(ended).close()
        if not self._connections:
            connection.executescript(SCHEMA)
            self._look_at_clock(connection, 0.0)
        connection.execute("PRAGMA synchronous = NORMAL")

    def _create(self) -> None:
        # Processes that turn one new file to WAL at once lock each other out, so each makes its own and one is taken.
        with TemporaryDirectory(dir=os.path.dirname(self._file)) as folder, suppress(FileExistsError):
            new = Path(folder, "store.db")
            new.touch(0o600)  # it will hold access tokens
            with closing(sqlite3.connect(new)) as connection:
                connection.executescript(SCHEMA)
            take_name(new, self._file)
