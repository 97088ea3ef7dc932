"""One record for each message, moved in one place.

            begin            end: a direct answer
    (none) ------> running ---------------------------> done
                      | promise                          ^
                      v          end                     | sent, fetched
                  promised ------------> ready ----------+    (a long text: running -> ready with the rest)

A record moves only from what it was read as: of two who race for it, the first moves it, and the other reads it again.
Where the owner of a record is dead, another process puts itself in its place, and goes on from the state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from wechat.delivery.record import DONE, PROMISED, READY, RUNNING, Record, pack, pack_record, unpack_record
from wechat.delivery.remembered import KEPT as DOCUMENT_KEPT
from wechat.delivery.remembered import Remembered
from wechat.errors import StoreError
from wechat.reply import Reply
from wechat.store.base import Change, Store
from wechat.store.owners import Owners
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

KEPT = 86_400.0  # seconds for every state but done
LOOK_AT_OWNER = 0.5  # seconds between two looks at whether the process that has a message still lives
PREFIX = "message:"

Step = Callable[[Record], Record | None]  # what a record becomes; None where it stays as it is


class Entry:
    """A message in this process: its record as it was last read, and those who wait for it to move."""

    def __init__(self, key: str, record: Record, world: World, raw: str | None = None) -> None:
        self.key, self.record, self.raw = key, record, raw  # `raw` is what the store holds
        self.lock = world.lock()
        self.handler, self.kind = "", "success"  # for the log
        self._world = world
        self._moved: threading.Event | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is neither answered nor promised."""
        return self.record.state == RUNNING

    @property
    def document(self) -> bytes:
        """The direct answer, as UTF-8."""
        return self.record.document.encode()

    def put(self, record: Record) -> None:
        """Let those who wait see the record."""
        self.record = record
        if self._moved and record.state != RUNNING:
            self._moved.set()

    def wait(self, seconds: float) -> None:
        """Wait until this process moves it, or so long."""
        self._moved = self._moved or self._world.event()
        if self.is_running:
            self._moved.wait(seconds)


class Ledger:
    """The records of an account; `seconds` is how long the signature of a message can be used.

    Only where the store does not answer does a move count for this process alone.
    """

    def __init__(self, store: Store, owners: Owners, is_shared: bool, seconds: float, world: World = REAL) -> None:
        self._store, self._owners, self._is_shared, self._world = store, owners, is_shared, world
        self._seconds = max(seconds, DOCUMENT_KEPT)
        self._lock = world.lock()
        self._entries: dict[str, Entry] = {}
        self._remembered = Remembered(self._seconds, world.monotonic)

    # The moves

    def begin(self, key: str, openid: str, is_slow: bool) -> tuple[Entry, bool]:
        """The message with this key, and whether the caller has to answer it."""
        with self._lock:
            entry = self._entries.get(key)
            document = None if entry else self._remembered.find(key)
            if document is not None:
                return Entry(key, Record(DONE, attempts=2, document=document.decode()), self._world), False
            if is_new := entry is None:
                record = Record(RUNNING, self._owners.me, 1, 0 if is_slow else 1, is_slow, False, openid)
                entry = self._entries[key] = Entry(key, record, self._world)
                if self._is_shared or is_slow:
                    entry.lock.acquire()  # whoever comes now waits until it is known whose the message is
        if not is_new:
            return entry, self._join(entry)
        if not (self._is_shared or is_slow):
            return entry, True
        try:
            is_ours = self._enter(entry)
        finally:
            entry.lock.release()
        return entry, is_ours or self._join(entry)

    def start(self, entry: Entry) -> bool:
        """Count a start of the handler. False where the message has gone to another process meanwhile."""
        return self._move(
            entry, lambda record: record._replace(starts=record.starts + 1) if self._is_mine(record) else None
        )

    def promise(self, entry: Entry, content: str) -> Record:
        """Note that the answer comes later, unless it is there already; gives the record."""
        self._move(
            entry, lambda record: record._replace(state=PROMISED, content=content) if record.state == RUNNING else None
        )
        return entry.record

    def end(self, entry: Entry, document: bytes, rest: Reply | None, whole: Reply | None) -> str:
        """Note the answer: a document and what follows it or, where that was promised, the whole as a message.

        Gives the state it moved from; none where the message has gone to another process.
        """
        before = ""

        def step(record: Record) -> Record | None:
            nonlocal before
            before = record.state if self._is_mine(record) and record.state in (RUNNING, PROMISED) else ""
            if not before:
                return None
            answer, reply = (document.decode(), rest) if before == RUNNING else ("", whole)
            state = READY if reply else DONE
            return record._replace(state=state, document=answer, content="", reply=pack(reply) if reply else "")

        self._move(entry, step)
        return before

    def send(self, entry: Entry) -> bool:
        """Claim the next part of the reply before it is sent. False where another process, or 继续, has it."""
        return self._move(entry, lambda record: record._replace(is_sending=True) if self._is_ready(record) else None)

    def sent(self, entry: Entry, rest: Reply | None) -> bool:
        """Note that a part was sent, and what is left."""

        def step(record: Record) -> Record | None:
            if not self._is_ready(record):
                return None
            return record._replace(state=READY if rest else DONE, is_sending=False, reply=pack(rest) if rest else "")

        return self._move(entry, step)

    def keep(self, entry: Entry, is_final: bool) -> bool:
        """Note that the part was not sent; where that is final, it waits for 继续, and belongs to nobody."""
        owner = "" if is_final else self._owners.me
        return self._move(
            entry, lambda record: record._replace(is_sending=False, owner=owner) if self._is_ready(record) else None
        )

    def fetch(self, entry: Entry, waiting: Entry, document: bytes, rest: Reply | None) -> bool:
        """Give what waits as the direct answer of another message, the 继续, in one step. Whether it did.

        Raises StoreError.
        """
        with entry.lock, waiting.lock:
            left = waiting.record._replace(state=READY if rest else DONE, owner="", reply=pack(rest) if rest else "")
            moves = [(waiting, left)]
            if self._is_shared:
                moves.append((entry, entry.record._replace(state=DONE, document=document.decode())))
            changes = [self._change(moved, record) for moved, record in moves]
            if not self._store.swap(*changes):
                for moved, _ in moves:
                    self._read(moved)
                return False
            for (moved, record), change in zip(moves, changes, strict=True):
                moved.raw = change.new
                self._put(moved, record)
        return self._is_shared or bool(self.end(entry, document, None, None))

    def adopt(self, entry: Entry, *states: str) -> bool:
        """Whether the caller goes on with a message whose owner is dead."""
        dead = entry.record.owner
        if not dead or not self._is_shared or not self._owners.is_dead(dead):
            return False

        def step(record: Record) -> Record | None:
            is_left = record.owner == dead and record.state in states
            return record._replace(owner=self._owners.me, is_sending=False) if is_left else None

        return self._move(entry, step)

    # Who waits, and what can be found

    def wait(self, entry: Entry, seconds: float) -> bool:
        """Wait for the message to be answered or promised, or so long. Whether the caller has to answer it now."""
        if not self._is_shared or self._is_mine(entry.record):
            entry.wait(seconds)
            return False
        try:
            self._store.wait(PREFIX + entry.key, entry.raw, min(seconds, LOOK_AT_OWNER))
            with entry.lock:
                self._read(entry)
        except StoreError as error:
            logger.warning("a message may be answered twice: %s", error)
            return self._move(entry, lambda r: r._replace(owner=self._owners.me) if r.state == RUNNING else None)
        return self.adopt(entry, RUNNING)

    def open_of(self, openid: str) -> list[Entry]:
        """What of the user's runs, is promised or waits, the oldest first; raises StoreError."""
        return list(self._found(f"user:{openid}"))

    def abandoned(self) -> Iterator[Entry]:
        """What processes that died have promised, and belongs to the caller now; raises StoreError."""
        for dead in self._owners.dead():
            found = sorted(self._found(f"owned:{dead}"), key=lambda entry: entry.record.starts)
            for entry in found:
                if entry.record.state == RUNNING:  # nobody was told anything: it is left to WeChat's next attempt
                    self._unlink(entry)
                elif self.adopt(entry, PROMISED, READY):
                    yield entry
            if not found:
                self._owners.forget(dead)

    def _found(self, index: str) -> Iterator[Entry]:
        for name, raw in self._store.linked(index).items():
            key, record = name.removeprefix(PREFIX), unpack_record(raw)
            if not record:
                continue
            with self._lock:
                entry = self._entries.get(key)
            if not entry:
                entry = Entry(key, record, self._world, raw)
            elif not self._is_mine(entry.record):  # what this process owns it knows better
                with entry.lock:
                    entry.raw = raw
                    self._put(entry, record)
            yield entry

    # The one place where a record moves

    def _move(self, entry: Entry, step: Step) -> bool:
        with entry.lock:
            while (new := step(entry.record)) is not None:
                if self._write(entry, new):
                    self._put(entry, new)
                    return True
        return False

    def _write(self, entry: Entry, new: Record) -> bool:
        """Whether the store has the new record; else the entry has the one that was there."""
        if not (self._is_shared or entry.raw or new.is_open):
            return True  # nobody else looks for it
        change = self._change(entry, new)
        try:
            if self._store.swap(change):
                entry.raw = change.new
                return True
            self._read(entry)
        except StoreError as error:
            logger.warning("other processes do not see how a message stands: %s", error)
            return True
        return False

    def _change(self, entry: Entry, new: Record) -> Change:
        is_over = new.state == DONE
        packed = None if is_over and not self._is_shared else pack_record(new)
        gone = entry.record.indexes - new.indexes
        ttl = self._seconds if is_over else KEPT
        return Change(PREFIX + entry.key, entry.raw, packed, ttl, tuple(new.indexes), tuple(gone))

    def _put(self, entry: Entry, record: Record) -> None:
        entry.put(record)
        is_left = record.state == DONE or not record.owner
        with self._lock:
            if is_left:
                self._entries.pop(entry.key, None)
                self._remembered.add(entry.key, entry.document)
            else:
                self._entries[entry.key] = entry

    def _read(self, entry: Entry) -> None:
        raw = self._store.get(PREFIX + entry.key)
        record = unpack_record(raw) if raw else None
        entry.raw = raw
        if record:
            self._put(entry, record)

    def _enter(self, entry: Entry) -> bool:
        """Whether the message is new to all processes; its lock is held."""
        record = entry.record
        while not self._write(entry, record):
            if entry.raw:
                return False
        return True

    def _join(self, entry: Entry) -> bool:
        """Count another attempt; whether its caller has to answer the message, since its owner is dead."""
        self._move(
            entry, lambda record: record._replace(attempts=record.attempts + 1) if record.state != DONE else None
        )
        return self.adopt(entry, RUNNING)

    def _unlink(self, entry: Entry) -> None:
        self._store.swap(Change(PREFIX + entry.key, entry.raw, entry.raw, KEPT, unlink=tuple(entry.record.indexes)))

    def _is_mine(self, record: Record) -> bool:
        return record.owner == self._owners.me

    def _is_ready(self, record: Record) -> bool:
        return record.state == READY and self._is_mine(record)
