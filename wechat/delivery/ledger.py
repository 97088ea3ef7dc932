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
from typing import Any

from wechat.delivery.record import DONE, PROMISED, READY, RUNNING, Record, pack_record, unpack_record
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
MOST_FORGIVEN = 2  # starts of a message
PREFIX = "message:"
STATES = (RUNNING, PROMISED, READY, DONE)


class Entry:
    """A message in this process: its record as it was last read, and those who wait for it to move."""

    handler, kind, msg_id = "", "success", ""  # for the log
    raw: str | None = None  # what the store holds
    linked: frozenset[str] = frozenset()  # the indexes that it has there
    moved: threading.Event | None = None
    held = 0  # attempts of this process that are open
    whole: Reply | None = None  # of what was given directly, in case that it was promised where the store was not seen

    def __init__(self, key: str, record: Record, lock: threading.Lock) -> None:
        self.key, self.record, self.lock = key, record, lock

    @property
    def is_running(self) -> bool:
        """Whether it is neither answered nor promised."""
        return self.record.state == RUNNING


class Ledger:
    """The records of an account; `seconds` is how long the signature of a message can be used.

    Only where the store does not answer does a move count for this process alone.
    """

    def __init__(self, store: Store, owners: Owners, is_shared: bool, seconds: float, world: World = REAL) -> None:
        self._store, self._owners, self._is_shared, self._world = store, owners, is_shared, world
        self._seconds = max(seconds, DOCUMENT_KEPT)
        self._lock = world.lock()
        self._entries: dict[str, Entry] = {}
        self._unwritten: dict[str, Entry] = {}
        self._remembered = Remembered(self._seconds, world.monotonic)

    # The moves

    def begin(self, key: str, openid: str, is_slow: bool) -> tuple[Entry, bool]:
        """The message with this key, and whether the caller has to answer it."""
        with self._lock:
            entry = self._entries.get(key)
            document = None if entry else self._remembered.find(key)
            if document is not None:
                return Entry(key, Record(DONE, attempts=2, document=document), self._world.lock()), False
            if is_new := entry is None:
                record = Record(RUNNING, self._owners.me, 1, 0 if is_slow else 1, is_slow, False, openid)
                entry = self._entries[key] = Entry(key, record, self._world.lock())
                if self._is_shared or is_slow:
                    entry.lock.acquire()  # whoever comes now waits until it is known whose the message is
            entry.held += 1
        if not is_new:
            return entry, self._join(entry)
        if not (self._is_shared or is_slow):
            return entry, True
        try:
            is_ours = self._enter(entry)
        finally:
            entry.lock.release()
        return entry, is_ours or self._join(entry)

    def leave(self, entry: Entry) -> None:
        """Note that the caller of `begin` has answered. With the last one, what another process has is forgotten."""
        if self._is_shared:
            with self._lock:
                entry.held -= 1
                is_mine = entry.record.owner == self._owners.me
                if not (entry.held or is_mine) and self._entries.get(entry.key) is entry:
                    del self._entries[entry.key]

    def start(self, entry: Entry) -> bool:
        """Count a start of the handler. False where the message has gone to another process meanwhile."""
        return self._count(entry, 1, 0)

    def forgive(self, entry: Entry) -> bool:
        """Do not count the last start of the handler; a few times only, as it may be what ends the process."""
        return entry.record.forgiven < MOST_FORGIVEN and self._count(entry, -1, 1)

    def _count(self, entry: Entry, starts: int, forgiven: int) -> bool:
        def step(record: Record) -> Record | None:
            is_mine = record.owner == self._owners.me and record.state in (RUNNING, PROMISED)
            counted = record._replace(starts=record.starts + starts, forgiven=record.forgiven + forgiven)
            return counted if is_mine else None

        return bool(self._move(entry, step))

    def slow_down(self, entry: Entry) -> bool:
        """Note that a slow handler goes on with the message, which is counted when it starts."""
        return self._move_mine(entry, (RUNNING,), is_slow=True, starts=0)

    def promise(self, entry: Entry, content: str) -> Record:
        """Note that the answer comes later, unless it is there already; gives the record."""
        self._move(entry, lambda r: r._replace(state=PROMISED, content=content) if r.state == RUNNING else None)
        return entry.record

    def end(self, entry: Entry, document: bytes, rest: Reply | None, whole: Reply | None) -> str:
        """Note the answer: a document and what follows it or, where that was promised, the whole as a message.

        Gives the state it moved from; none where the message has gone to another process.
        """
        before = self._move(entry, _ended, self._owners.me, document, rest, whole)
        if before and before.state == RUNNING:
            entry.whole = whole
        return before.state if before else ""

    def send(self, entry: Entry) -> bool:
        """Claim the next part of the reply before it is sent. False where another process, or 继续, has it."""
        return self._move_mine(entry, (READY,), is_sending=True)

    def unsent(self, entry: Entry) -> bool:
        """Note that a part was not sent, and will be tried again."""
        return self._move_mine(entry, (READY,), is_sending=False)

    def keep(self, entry: Entry) -> bool:
        """Note that the reply waits for 继续, and belongs to nobody."""
        return self._move_mine(entry, (READY,), is_sending=False, owner="")

    def sent(self, entry: Entry, rest: Reply | None) -> bool:
        """Note that a part was sent, and what is left."""
        left = entry.record.ended(self._owners.me, entry.record.document, rest)
        return self._move_mine(entry, (READY,), state=left.state, reply=left.reply, is_sending=False)

    def fetch(self, entry: Entry, waiting: Entry, seen: Record, document: bytes, rest: Reply | None) -> bool:
        """Give what waits as the direct answer of another message, the 继续, in one step. Whether it did.

        `seen` is the record that the document was made of.
        """
        is_given = False
        try:
            with entry.lock, waiting.lock:
                if waiting.record is not seen or not entry.is_running:
                    return False
                moves = [(waiting, seen.ended("", seen.document, rest))]
                if self._is_shared:
                    moves.append((entry, entry.record.ended(entry.record.owner, document, None)))
                changes = [self._change(moved, record) for moved, record in moves]
                if not self._store.swap(*changes):
                    for moved, _ in moves:
                        self._read(moved)
                    return False
                for (moved, record), change in zip(moves, changes, strict=True):
                    moved.raw, moved.linked = change.new, record.indexes
                    self._put(moved, record)
                is_given = self._is_shared
        except StoreError as error:  # it is at hand, and may have left the store: it comes twice rather than never
            logger.warning("a reply may come twice: %s", error)
        return is_given or bool(self.end(entry, document, None, None))

    def adopt(self, entry: Entry, *states: str) -> bool:
        """Whether the caller goes on with a message whose owner is dead."""
        dead = entry.record.owner
        is_orphan = bool(dead) and self._is_shared and self._owners.is_dead(dead)
        return is_orphan and self._take(entry, dead, states)

    def _take(self, entry: Entry, owner: str, states: tuple[str, ...]) -> bool:
        def step(record: Record) -> Record | None:
            is_left = record.owner == owner and record.state in states
            return record._replace(owner=self._owners.me, is_sending=False) if is_left else None

        return bool(self._move(entry, step))

    # Who waits, and what can be found

    def wait(self, entry: Entry, seconds: float) -> bool:
        """Wait for the message to be answered or promised, or so long. Whether the caller has to answer it now."""
        if not self._is_shared or entry.record.owner == self._owners.me:
            with self._lock:  # for all who wait, one event
                entry.moved = entry.moved or self._world.event()
            if entry.is_running:
                entry.moved.wait(seconds)
            return False
        try:
            self._store.wait(PREFIX + entry.key, entry.raw, min(seconds, LOOK_AT_OWNER))
            with entry.lock:
                self._read(entry)
        except StoreError as error:
            logger.warning("a message may be answered twice: %s", error)
            return self._take(entry, entry.record.owner, (RUNNING,))
        return self.adopt(entry, RUNNING)

    def open_of(self, openid: str) -> list[Entry]:
        """What of the user's runs, is promised or waits, the oldest first; raises StoreError."""
        return list(self._found(f"user:{openid}"))

    def abandoned(self) -> Iterator[Entry]:
        """What processes that died have promised, and belongs to the caller now; raises StoreError."""
        yield from self._catch_up()
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
                entry = Entry(key, record, self._world.lock())
                entry.raw, entry.linked = raw, record.indexes
            elif entry.record.owner != self._owners.me:  # what this process owns it knows better
                with entry.lock:
                    self._read(entry)  # and not what was found: this process may have adopted it since
            if entry.record.is_open:
                yield entry

    # The one place where a record moves

    def _move(self, entry: Entry, step: Callable[..., Record | None], *arguments: Any) -> Record | None:
        """Move the record to what the step makes of it; gives what it was, or None where the step leaves it."""
        with entry.lock:
            while (new := step(record := entry.record, *arguments)) is not None:
                # In memory nobody else looks for a message that is neither slow nor open.
                is_private = not (self._is_shared or entry.raw or new.is_open)
                if is_private or self._write(entry, new):
                    self._put(entry, new)
                    return record
        return None

    def _move_mine(self, entry: Entry, states: tuple[str, ...], **fields: Any) -> bool:
        def step(record: Record) -> Record | None:
            is_mine = record.owner == self._owners.me and record.state in states
            return record._replace(**fields) if is_mine else None

        return bool(self._move(entry, step))

    def _write(self, entry: Entry, new: Record) -> bool:
        """Whether the store has the new record; else the entry has the one that was there."""
        change = self._change(entry, new)
        try:
            if self._store.swap(change):
                entry.raw, entry.linked = change.new, new.indexes
                return True
            self._read(entry)
        except StoreError as error:
            logger.warning("other processes do not see how a message stands: %s", error)
            self._unwritten[entry.key] = entry
            entry.linked |= new.indexes  # the write may have come through
            return True
        return False

    def _catch_up(self) -> Iterator[Entry]:
        """Write what the store did not take while it was away, unless another process has gone further with it.

        Gives what has to be sent.
        """
        for key, entry in list(self._unwritten.items()):
            with entry.lock:
                self._read(entry)
                if key in self._unwritten and self._store.swap(change := self._change(entry, entry.record)):
                    entry.raw, entry.linked = change.new, entry.record.indexes
                    del self._unwritten[key]
            if entry.record.state == READY and entry.record.owner == self._owners.me:
                yield entry

    def _change(self, entry: Entry, new: Record) -> Change:
        is_over = new.state == DONE
        packed = None if is_over and not self._is_shared else pack_record(new)
        gone = entry.linked - new.indexes
        ttl = self._seconds if is_over else KEPT
        return Change(PREFIX + entry.key, entry.raw, packed, ttl, tuple(new.indexes), tuple(gone))

    def _put(self, entry: Entry, record: Record) -> None:
        entry.record = record
        if entry.moved and record.state != RUNNING:
            entry.moved.set()
        with self._lock:
            if record.state == DONE or not record.owner:
                self._entries.pop(entry.key, None)
                self._remembered.add(entry.key, record.document)
            elif record.owner == self._owners.me or entry.held:
                self._entries[entry.key] = entry
            else:  # its end would not be seen here
                self._entries.pop(entry.key, None)

    def _read(self, entry: Entry) -> None:
        entry.raw = self._store.get(PREFIX + entry.key)
        record = unpack_record(entry.raw) if entry.raw else None
        if record:
            entry.linked = record.indexes
            if not self._is_ahead(entry, record):
                self._unwritten.pop(entry.key, None)
                self._put(entry, record)
            elif (
                record.state == PROMISED and entry.whole
            ):  # what was given here did not arrive: WeChat was told to wait
                self._put(entry, entry.record.ended(self._owners.me, b"", entry.whole))
                entry.whole = None

    def _is_ahead(self, entry: Entry, seen: Record) -> bool:
        """Whether this process went on with a message while the store was away, and what the store has is older."""
        if entry.key not in self._unwritten:
            return False
        here, there = STATES.index(entry.record.state), STATES.index(seen.state)
        return here >= there if seen.owner == self._owners.me else here > there == STATES.index(RUNNING)

    def _enter(self, entry: Entry) -> bool:
        """Whether the message is new to all processes; its lock is held."""
        record = entry.record
        while not self._write(entry, record):
            if entry.record is not record:  # else what is there is of another version
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


def _ended(record: Record, me: str, document: bytes, rest: Reply | None, whole: Reply | None) -> Record | None:
    if record.owner != me or record.state not in (RUNNING, PROMISED):
        return None
    return record.ended(me, document, rest) if record.state == RUNNING else record.ended(me, b"", whole)
