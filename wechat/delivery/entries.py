"""The messages that this process knows, and the one place where a record moves."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wechat.delivery.answering import NOBODY, Answer
from wechat.masking import printable, shorten
from wechat.message import KEPT, Remembered
from wechat.packing import Pieces, pack
from wechat.reply import Reply
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.store.writes import Change, Changes, Write
from wechat.world import REAL, World

RUNNING, PROMISED, READY, DONE = "running", "promised", "ready", "done"
UNDER_WAY = RUNNING, PROMISED
quote: Callable[[str], str] = json.encoder.encode_basestring
COUNTS = frozenset({"attempts", "starts", "forgiven"})  # to which a move adds


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

    def ended(self, document: bytes, reply: Reply | None) -> "Record":
        """The record with its answer: ready where there is a reply left to send, else done."""
        if reply:
            left = pack(reply)
            return replace(self, state=READY, document=document, reply=left, is_sending=False, content="", forgiven=0)
        return Record(DONE, self.owner, self.attempts, self.starts, self.is_slow, False, self.openid, document)

    def packed(self) -> str:
        """As JSON, for the store: what it has beside its defaults."""
        more = self.is_slow or self.is_sending or self.content or self.reply or self.forgiven or self.is_told
        if not more:  # as of every fast message, twice: a twentieth of what one costs on Redis
            who = f'"owner": {quote(self.owner)}, "openid": {quote(self.openid)}'
            what = f'"attempts": {self.attempts}, "starts": {self.starts}, "document": {quote(self.document.decode())}'
            return f'{{"state": "{self.state}", {who}, {what}}}'
        declared = Record.__dataclass_fields__.items()  # fields() takes longer than all else here
        own = {name: value for name, field in declared if (value := getattr(self, name)) != field.default}
        return json.dumps({**own, "openid": self.openid}, ensure_ascii=False, default=bytes.decode)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Where it can be found: among its user's messages, and its owner's."""
        if not self.is_open:
            return ()
        return (f"user:{self.openid}", *([f"owned:{self.owner}"] if self.owner else ()))


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
    write: Write | None = None  # of its first record, until an attempt, whichever it is, attends to it
    moved: threading.Event | None = None
    tries, ends = 0, 0.0  # how often it was sent in vain, and until when that goes on
    is_told, parts = False, 0  # whether the user knows of 继续; customer messages that went out
    held = 0  # attempts of this process that are open
    is_quick = False  # whether it is answered before another process can have promised that
    beside: Changes = ()  # what the store did not take along with the last move
    whole: Reply | None = None  # of what was given directly, in case that it was promised where the store was not seen

    def __init__(self, key: str, record: Record, lock: threading.Lock) -> None:
        self.key, self.record, self.lock = key, record, lock

    def note(self, answer: Answer) -> None:
        """Note for the log who answers, and with what kind of reply; that itself is kept as long as it is owed."""
        self.handler, self.kind = answer.handler, answer.kind

    @property
    def label(self) -> str:
        """Whose reply it is, for the log."""
        said = f"{self.handler or 'a process that died'} for {shorten(self.record.openid)}"
        return f"{said}, MsgId {printable(self.msg_id)}" if self.msg_id else said

    @property
    def is_running(self) -> bool:
        """Whether it is neither answered nor promised."""
        return self.record.state == RUNNING

    def has_ended(self) -> bool:
        """Whether it is done, or waits for 继续."""
        return self.record.state == DONE or not self.record.owner


Move = tuple[Entry, Record]


class Entries(ABC):
    """The records of an account; `seconds` is how long the signature of a message can be used.

    Only where the store does not answer does a move count for this process alone.
    """

    def __init__(self, store: Store, owners: Owners, is_shared: bool, seconds: float, world: World = REAL) -> None:
        self._store, self._owners, self._is_shared, self._world = store, owners, is_shared, world
        self._seconds = max(seconds, KEPT)
        self._lock = world.lock()
        self._known: Remembered[Entry] = Remembered(self._seconds, world.monotonic, Entry.has_ended)
        self._unwritten: dict[str, Entry] = {}

    @abstractmethod
    def _write(self, *moves: Move, beside: Changes = (), write: Write | None = None) -> bool:
        """Store the moves. False where the store had another record; the entries have what is there now."""

    @abstractmethod
    def _end_soon(self, entry: Entry, after: Record, whole: Reply | None) -> None:
        """Have the end written with what is written next: until then, for others, the message runs."""

    @abstractmethod
    def _change(self, entry: Entry, new: Record) -> Change:
        """What puts the record into the store, in place of what the entry has there."""

    def announce(self, key: str, openid: str, is_slow: bool) -> tuple[Entry, bool]:
        """The message with this key, and whether the caller has it already; else its record is queued for `attend`."""
        with self._lock:
            entry, is_ours = self._known.get(key), False
            if not entry:
                if self._known.is_over(key):
                    return Entry(key, Record(DONE), self._world.lock()), False
                record = Record(RUNNING, self._owners.me, 1, 0 if is_slow else 1, is_slow, False, openid)
                entry = Entry(key, record, self._world.lock())
                is_ours = not (self._is_shared or is_slow)
                if not is_ours:
                    entry.write = self._store.queue(self._change(entry, record))
                self._known.add(key, entry)
            entry.held += 1
        return entry, is_ours

    def leave(self, entry: Entry) -> None:
        """Note that the caller of `announce` has answered. With the last one, what another process has is forgotten."""
        if self._is_shared:
            with self._lock:
                entry.held -= 1
                self._keep_or_drop(entry)

    def end(
        self, entry: Entry, document: bytes, rest: Reply | None, whole: Reply | None, further: Sequence[Entry] = ()
    ) -> str:
        """Note the answer: a document and what follows it or, where that was promised, the whole as a message.

        In the same step all further replies are ready to be sent: from now on others may send what is left. Gives the
        state it moved from; none where the message has gone to another process.
        """
        moves: Sequence[Move] = [(other, other.record) for other in further] if further else ()
        with entry.lock:
            while (before := entry.record).owner == self._owners.me and before.state in UNDER_WAY:
                is_direct = before.state == RUNNING
                after = before.ended(document, rest) if is_direct else before.ended(before.document, whole)
                is_first = entry.raw and entry.is_quick and before.attempts == 1
                if is_first and after.state == DONE and not (moves or before.is_open):
                    self._end_soon(entry, after, whole)
                    return before.state
                if self._settle(entry, after, moves):
                    entry.whole = whole if is_direct and entry.key in self._unwritten else None
                    return before.state
        self._forget(*further)
        return ""

    def _forget(self, *entries: Entry) -> bool:
        with self._lock:
            for entry in entries:
                self._known.drop(entry.key)
        return False

    # The one place where a record moves

    def _move(
        self, entry: Entry, states: tuple[str, ...], of: str | None, beside: Changes = (), /, **fields: Any
    ) -> bool:
        """Move the record where it is in one of the states, and `of` that owner if one is named. Whether it was."""
        with entry.lock:
            while (record := entry.record).state in states and of in (None, record.owner):
                counted = {name: fields[name] + getattr(record, name) for name in COUNTS.intersection(fields)}
                if self._settle(entry, replace(record, **{**fields, **counted}), beside=beside):
                    return True
        return False

    def _settle(self, entry: Entry, new: Record, others: Sequence[Move] = (), beside: Changes = ()) -> bool:
        """Make the moves in one step. False where the store had another record; the entries have what is there now.

        Whoever calls has the locks of the entries.
        """
        # In memory nobody else looks for a message that is neither slow nor open.
        is_seen = self._is_shared or entry.raw or others or (new.state != DONE and new.is_open)
        if is_seen and not self._write((entry, new), *others, beside=beside):
            return False
        self._put(entry, new)
        for moved, record in others:
            self._put(moved, record)
        return True

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
