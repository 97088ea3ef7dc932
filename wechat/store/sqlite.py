"""A store in an SQLite file."""

import logging
import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from wechat.store.base import Entries, Store
from wechat.store.writes import Change, Changes
from wechat.system import take_name
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

SCHEMA = """
PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 8000;
CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (name TEXT, key TEXT, PRIMARY KEY (name, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_key ON links (key);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY, now REAL NOT NULL);
INSERT OR IGNORE INTO clock VALUES (1, 0);
DROP TABLE IF EXISTS entries; DROP INDEX IF EXISTS records_expires;"""  # of older versions
GET = "SELECT value FROM records WHERE key = ? AND expires > ?"
LINKED = """
SELECT links.key, value FROM links JOIN records ON records.key = links.key
WHERE name = ? AND expires > ? ORDER BY links.key"""
# An index by time would cost each write two pages more.
END_OF_SWEEP = "SELECT max(key), count(*) FROM (SELECT key FROM records WHERE key > ? ORDER BY key LIMIT ?)"
SWEEP = (
    "DELETE FROM links WHERE key IN (SELECT key FROM records WHERE key > ? AND key <= ? AND expires <= ?)",
    "DELETE FROM records WHERE key > ? AND key <= ? AND expires <= ?",
)

SET = "REPLACE INTO records VALUES (:key, :new, :ends)"
ADD = """
INSERT INTO records VALUES (:key, :new, :ends)
ON CONFLICT (key) DO UPDATE SET value = :new, expires = :ends WHERE expires <= :now"""
REPLACE = "UPDATE records SET value = :new, expires = :ends WHERE key = :key AND value = :old AND expires > :now"
DELETE = "DELETE FROM records WHERE key = :key"
LINK, UNLINK = "INSERT OR IGNORE INTO links VALUES (?, ?)", "DELETE FROM links WHERE name = ? AND key = ?"

PATIENCE = 0.5  # seconds to wait for a writer in another process
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

ABANDONED: list[sqlite3.Connection] = []  # never closed: that would delete what their successors write


class SQLiteStore(Store):
    """A store in a file, for the processes of one machine. Its keys begin with the `account`.

    Entries expire by a clock in the file, which stands still while no process uses it: the wall clock may jump, and
    those of two processes differ. A process has one connection, which its threads use in turn: threads that SQLite
    puts to sleep while they wait for one another are woken in no order.
    """

    name = "SQLite"
    advice = "the directory must exist, and the file be an SQLite database that this user may write"
    failures = (sqlite3.Error, OSError)
    look_again = 0.05  # nobody tells of changes by other processes
    tick_every = 1.0  # seconds
    swept = 256  # entries looked at in a sweep, so that no lock takes long; under load four for each that came

    def __init__(self, file: str, account: str = "", world: World = REAL) -> None:
        super().__init__(world)
        self._file, self._prefix = os.path.abspath(file), account + ":"
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] = ()  # of the file
        self._looked = 0.0  # at that, by the monotonic clock
        self._written, self._swept = 0, ""  # changes since the last sweep, and the key at which that ended
        self._clock: tuple[float, float] = 0.0, -self.tick_every  # what the clock of the file was, and when that was

    def get(self, key: str) -> str | None:
        with self._writing, self._doing("get"):
            return self._value(self._connect(), key)

    def linked(self, index: str) -> Entries:
        with self._writing, self._doing("list"):
            rows = self._connect().execute(LINKED, (self._prefix + index, self._now()))
            return {key.removeprefix(self._prefix): value for key, value in rows}

    def begin(self) -> None:
        super().begin()
        self._abandon()

    def close(self) -> None:
        self.flush()
        if self._connection:
            self._connection.close()
            self._connection = None

    def _swap_each(self, groups: list[Changes]) -> list[bool]:
        connection = self._connect()
        is_time = self._world.monotonic() - self._clock[1] >= self.tick_every
        self._written += sum(map(len, groups))
        if len(groups) == 1 and not is_time and _is_simple(groups[0]):
            return [self._make(connection, groups[0][0])]  # one statement is a transaction of its own
        connection.execute("BEGIN IMMEDIATE")
        if is_time:
            self._keep_time(connection)
        made = [self._swap(connection, changes) for changes in groups]
        connection.execute("COMMIT")
        return made

    def _swap(self, connection: sqlite3.Connection, changes: Changes) -> bool:
        if not _is_simple(changes):
            for change in changes:
                if change.old is not ... and self._value(connection, change.key) != change.old:
                    return False
        return [self._make(connection, change) for change in changes] == [True] * len(changes)

    def _make(self, connection: sqlite3.Connection, change: Change) -> bool:
        """Make the change, where the old value is there. Whether it was."""
        key, old, new, now = self._prefix + change.key, change.old, change.new, self._now()
        statement = DELETE if new is None else SET if old is ... else ADD if old is None else REPLACE
        values = {"key": key, "old": old, "new": new, "ends": now + change.ttl, "now": now}
        is_made = connection.execute(statement, values).rowcount > 0 or new is None
        for index in change.link:
            connection.execute(LINK, (self._prefix + index, key))
        for index in change.unlink:
            connection.execute(UNLINK, (self._prefix + index, key))
        return is_made

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
        """Set the clock of the file forward, and sweep out what has expired."""
        self._look_at_clock(connection, self._now())
        most, self._written = max(self.swept, 4 * self._written), 0
        end, count = connection.execute(END_OF_SWEEP, (self._swept, most)).fetchone()
        for statement in SWEEP if count else ():
            connection.execute(statement, (self._swept, end, self._clock[0]))
        self._swept = end if count == most else ""
        with suppress(RuntimeError):  # the host gives no more threads: the next time does for both
            threading.Thread(target=self._checkpoint, name="checkpoint", daemon=True).start()

    def _checkpoint(self) -> None:
        """Copy what was written from the log into the file, so that no write has to wait for the disk."""
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(f"{Path(self._file).as_uri()}?mode=rw", uri=True)) as other,
        ):
            other.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _look_at_clock(self, connection: sqlite3.Connection, at_least: float) -> None:
        connection.execute("UPDATE clock SET now = max(now, ?)", (at_least,))
        (now,) = connection.execute("SELECT now FROM clock").fetchone()
        self._clock = float(now), self._world.monotonic()

    # The connection and the file

    def _connect(self) -> sqlite3.Connection:
        """The connection to the file; whoever asks has the lock of all writes."""
        now = self._world.monotonic()
        if self._connection and now - self._looked >= self.tick_every:
            self._looked = now
            if self._identify() != self._identity:
                logger.warning("the file of WECHAT_STORE was deleted or replaced: what only the old one held is lost")
                self._abandon()
        if not self._connection:
            self._identity = self._identify() or self._create()
            self._looked = now
            connection = sqlite3.connect(self._file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                connection.executescript(SCHEMA)
                self._look_at_clock(connection, 0.0)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _identify(self) -> tuple[int, ...]:
        """Which file it is; nothing where there is none."""
        with suppress(FileNotFoundError):
            found = os.stat(self._file)
            return found.st_dev, found.st_ino
        return ()

    def _abandon(self) -> None:
        if self._connection:
            ABANDONED.append(self._connection)
            self._connection = None

    def _recover(self, error: Exception) -> None:
        """Take back what was half done; after what is no lock of another process, connect anew."""
        if not self._connection:
            return
        is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY
        try:
            self._connection.rollback()
        except sqlite3.Error:
            is_busy = False
        if not is_busy:
            self._connection.close()
            self._connection = None

    def _create(self) -> tuple[int, ...]:
        beside = [Path(self._file + ending) for ending in ("-wal", "-shm")]
        left = {file: file.stat().st_ino for file in beside if file.exists()}
        if found := self._identify():
            return found
        # Processes that turn one new file to WAL at once lock each other out, so each makes its own and one is taken.
        with TemporaryDirectory(dir=os.path.dirname(self._file)) as folder, suppress(FileExistsError):
            new = Path(folder, "store.db")
            new.touch(0o600)  # it will hold access tokens
            with closing(sqlite3.connect(new)) as connection:
                connection.executescript(SCHEMA)
            for file, inode in left.items():  # of a file that was deleted: SQLite would write them into this one
                if file.exists() and file.stat().st_ino == inode:
                    file.unlink(missing_ok=True)
            take_name(new, self._file)
        return self._identify()


def _is_simple(changes: Changes) -> bool:
    """Whether one statement makes the change, and knows whether the old value was there."""
    change, *others = changes
    return not (others or change.link or change.unlink or change.new is None)
