"""The records that this process knows, and the one place where a record moves."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from wechat.delivery.answering import NOBODY, Answer
from wechat.errors import StoreError
from wechat.packing import Pieces, pack
from wechat.reply import Reply
from wechat.store.base import Change, Store
from wechat.store.owners import Owners
from wechat.store.remembered import KEPT as DOCUMENT_KEPT
from wechat.store.remembered import Remembered
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

RUNNING, PROMISED, READY, DONE = STATES = ("running", "promised", "ready", "done")
KEPT = 86_400.0  # seconds for every state but done
PREFIX = "message:"
COUNTS = frozenset({"attempts", "starts", "forgiven"})


@dataclass(slots=True)
class Record:
    """Where a message stands. A record never changes: the ledger puts another one in its place."""

    state: str
    owner: str = ""  # the process that has it; nobody has a reply that waits for 继续
    attempts: int = 1  # of WeChat's
    starts: int = 0  # of its handler
    is_slow: bool = False
    is_sending: bool = False  # whether a part of the reply is on its way to the platform
    openid: str = ""
    document: bytes = b""  # the direct answer
    content: str = ""  # the message as it came, once it may have to be answered by another process
    reply: str = ""  # what is left to send, packed
    forgiven: int = 0  # starts that do not count
    is_told: bool = False  # whether the user was told to ask for it by 继续

    @property
    def is_open(self) -> bool:
        """Whether the user can ask for it by 继续, and another process goes on with it."""
        return self.state != DONE and (self.is_slow or self.state != RUNNING)

    @property
    def is_late(self) -> bool:
        """Whether the answer was promised, and is not the direct one."""
        return self.state in (PROMISED, READY) and not self.document

    def moved(self, **fields: Any) -> "Record":
        """The record with these fields; what it counts goes up by so many."""
        for name in COUNTS.intersection(fields):
            fields[name] += getattr(self, name)
        return replace(self, **fields)

    def ended(self, document: bytes, reply: Reply | None) -> "Record":
        """The record with its answer: ready where there is a reply left to send, else done."""
        state, left = (READY, pack(reply)) if reply else (DONE, "")
        values = state, self.owner, self.attempts, self.starts, self.is_slow, False, self.openid, document, "", left
        return Record(*values, is_told=self.is_told)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Where it can be found: among its user's messages, and its owner's."""
        if not self.is_open:
            return ()
        return (f"user:{self.openid}", *([f"owned:{self.owner}"] if self.owner else ()))


def pack_record(record: Record) -> str:
    """The record as JSON, for the store: what it has beside its defaults."""
    own = {field.name: value for field in fields(record) if (value := getattr(record, field.name)) != field.default}
    return json.dumps({**own, "openid": record.openid}, ensure_ascii=False, default=bytes.decode)


def unpack_record(packed: str) -> Record | None:
    """The record that was packed; None for one of another version, which goes after a day."""
    try:
        own = json.loads(packed)
        return Record(**{**own, "openid": own["openid"], "document": own.get("document", "").encode()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class Entry:
    """A message in this process: its record as it was last read, and those who wait for it to move."""

    handler, kind = "", NOBODY.kind  # of what this process answers, for the log
    pieces: Pieces | None = None  # of a handler of this process that yields
    msg_id = ""  # for the log
    raw: str | None = None  # what the store holds
    linked: tuple[str, ...] = ()  # the indexes that it has there
    moved: threading.Event | None = None
    tries, ends = 0, 0.0  # how often it was sent in vain, and until when that goes on
    is_told, parts = False, 0  # whether the user knows of 继续; customer messages that went out
    held = 0  # attempts of this process that are open
    whole: Reply | None = None  # of what was given directly, in case that it was promised where the store was not seen

    def __init__(self, key: str, record: Record, lock: threading.Lock) -> None:
        self.key, self.record, self.lock = key, record, lock

    def note(self, answer: Answer) -> None:
        """Note for the log who answers, and with what kind of reply; that itself is kept as long as it is owed."""
        self.handler, self.kind = answer.handler, answer.kind

    @property
    def is_running(self) -> bool:
        """Whether it is neither answered nor promised."""
        return self.record.state == RUNNING

    def is_over(self) -> bool:
        """Whether its handler has ended."""
        return self.record.state not in (RUNNING, PROMISED)

    def has_ended(self) -> bool:
        """Whether it is done, or waits for 继续."""
        return self.record.state == DONE or not self.record.owner


class Entries:
    """The records of an account; `seconds` is how long the signature of a message can be used.

    Only where the store does not answer does a move count for this process alone.
    """

    def __init__(self, store: Store, owners: Owners, is_shared: bool, seconds: float, world: World = REAL) -> None:
        self._store, self._owners, self._is_shared, self._world = store, owners, is_shared, world
        self._seconds = max(seconds, DOCUMENT_KEPT)
        self._lock = world.lock()
        self._known: Remembered[Entry] = Remembered(self._seconds, world.monotonic, Entry.has_ended)
        self._unwritten: dict[str, Entry] = {}

    def _found(self, index: str) -> Iterator[Entry]:
        for name, raw in self._store.linked(index).items():
            key, record = name.removeprefix(PREFIX), unpack_record(raw)
            if not record:
                continue
            with self._lock:
                entry = self._known.get(key)
            if not entry:
                entry = Entry(key, record, self._world.lock())
                entry.raw, entry.linked = raw, record.indexes
            elif entry.record.owner != self._owners.me:  # what this process owns it knows better
                with entry.lock:
                    self._read(entry)  # and not what was found: this process may have adopted it since
            if entry.record.is_open:
                yield entry

    # The one place where a record moves

    def _move(self, entry: Entry, states: tuple[str, ...], of: str | None, /, **fields: Any) -> bool:
        """Move the record where it is in one of the states, and `of` that owner if one is named. Whether it was."""
        with entry.lock:
            while (record := entry.record).state in states and of in (None, record.owner):
                if self._settle(entry, record.moved(**fields)):
                    return True
        return False

    def _settle(self, entry: Entry, new: Record, *others: tuple[Entry, Record]) -> bool:
        """Make the moves in one step. False where the store had another record; the entries have what is there now.

        Whoever calls has the locks of the entries.
        """
        # In memory nobody else looks for a message that is neither slow nor open.
        is_seen = self._is_shared or entry.raw or new.is_open or others
        if is_seen and not self._write((entry, new), *others):
            return False
        for moved, record in ((entry, new), *others):
            self._put(moved, record)
        return True

    def _write(self, *moves: tuple[Entry, Record]) -> bool:
        try:
            changes = [self._changes(*move) for move in moves]
            if not self._store.swap(*(change for each in changes for change in each)):
                for entry, _ in moves:
                    self._read(entry)
                return False
            for (entry, _), (change, *_) in zip(moves, changes, strict=True):
                entry.raw, entry.linked = change.new, change.link
        except StoreError as error:
            logger.warning("other processes do not see how a message stands: %s", error)
            for entry, record in moves:
                self._unwritten[entry.key] = entry
                entry.linked = tuple({*entry.linked, *record.indexes})  # the write may have come through
        return True

    def _catch_up(self) -> Iterator[Entry]:
        """Write what the store did not take while it was away, unless another process has gone further with it.

        Gives what has to be sent.
        """
        for key, entry in list(self._unwritten.items()):
            with entry.lock:
                self._read(entry)
                changes = self._changes(entry, entry.record) if key in self._unwritten else []
                if changes and self._store.swap(*changes):
                    entry.raw, entry.linked = changes[0].new, changes[0].link
                    del self._unwritten[key]
            if entry.record.state == READY and entry.record.owner == self._owners.me:
                yield entry

    def _changes(self, entry: Entry, new: Record) -> list[Change]:
        links = new.indexes
        links = entry.linked if links == entry.linked else links  # the same strings, for thousands that wait
        gone = tuple(index for index in entry.linked if index not in links)
        ttl = self._seconds if new.state == DONE else KEPT
        change = Change(PREFIX + entry.key, entry.raw, self._packed(new), ttl, links, gone)
        if new.is_open and new.owner not in ("", self._owners.me):  # which may have died long ago, and be forgotten
            return [change, self._owners.recall(new.owner)]
        return [change]

    def _packed(self, record: Record) -> str | None:
        return None if record.state == DONE and not self._is_shared else pack_record(record)

    def _put(self, entry: Entry, record: Record) -> None:
        entry.record = record
        if record.state == DONE:
            entry.raw = None  # it never moves again
        if record.state != RUNNING and (moved := entry.moved):
            entry.moved = None  # thousands that are promised need none
            moved.set()
        if self._is_shared:
            with self._lock:
                self._keep_or_drop(entry)

    def _keep_or_drop(self, entry: Entry) -> None:
        """Know the message for as long as its moves are seen here; the ledger's lock is held."""
        is_known = self._known.get(entry.key) is entry
        if entry.held or entry.has_ended() or entry.record.owner == self._owners.me:
            if not is_known:
                self._known.add(entry.key, entry)
        elif is_known:
            self._known.drop(entry.key)

    def _read(self, entry: Entry) -> None:
        entry.raw = self._store.get(PREFIX + entry.key)
        record = unpack_record(entry.raw) if entry.raw else None
        if record:
            entry.linked = record.indexes
            if not self._is_ahead(entry, record):
                self._unwritten.pop(entry.key, None)
                self._put(entry, record)
            elif record.state == PROMISED and entry.whole:
                # What was given here did not arrive: WeChat was told to wait.
                self._put(entry, entry.record.ended(b"", entry.whole))
                entry.whole = None

    def _is_ahead(self, entry: Entry, seen: Record) -> bool:
        """Whether this process went on with a message while the store was away, and what the store has is older."""
        if entry.key not in self._unwritten:
            return False
        here, there = STATES.index(entry.record.state), STATES.index(seen.state)
        return here >= there if seen.owner == self._owners.me else here > there == STATES.index(RUNNING)
