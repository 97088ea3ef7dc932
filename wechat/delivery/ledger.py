"""One record for each message, moved in one place.

            begin            end: a direct answer
    (none) ------> running ---------------------------> done
                      | promise                          ^
                      v          end                     | sent, fetched
                  promised ------------> ready ----------+    (a long text: running -> ready with the rest)

A record moves only from what it was read as: of two who race for it, the first moves it, and the other reads it again.
Where the owner of a record is dead, another process puts itself in its place, and goes on from the state.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import starmap

from wechat.delivery.entries import DONE, PROMISED, READY, RUNNING, UNDER_WAY, Entries, Entry, Record, unpack_record
from wechat.errors import StoreError
from wechat.reply import Reply
from wechat.store.writes import Change, Changes, Write

KEPT = 86_400.0  # seconds for every state but done
PREFIX = "message:"
UNSEEN = "other processes do not see how a message stands"
LOOK_AT_OWNER = 0.5  # seconds between two looks at whether the process that has a message still lives
MOST_FORGIVEN = 2  # starts of a message
OPEN = RUNNING, PROMISED, READY
STATES = (*OPEN, DONE)


class Ledger(Entries):
    """The moves of the records of an account."""

    def start(self, entry: Entry) -> bool:
        """Count a start of the handler. False where the message has gone to another process meanwhile."""
        return self._move(entry, UNDER_WAY, self._owners.me, starts=1)

    def forgive(self, entry: Entry) -> bool:
        """Do not count the last start of the handler; a few times only, as it may be what ends the process."""
        is_one_of_few = entry.record.forgiven < MOST_FORGIVEN
        return is_one_of_few and self._move(entry, UNDER_WAY, self._owners.me, starts=-1, forgiven=1)

    def slow_down(self, entry: Entry) -> bool:
        """Note that a slow handler goes on with the message, which is counted when it starts."""
        return self._move(entry, UNDER_WAY, self._owners.me, is_slow=True, starts=-1)

    def promise(self, entry: Entry, content: str, is_told: bool = False, document: bytes = b"") -> Record:
        """Note that the answer, or all but its document, comes later, unless it is there already; gives the record."""
        content = content if self._is_shared else ""  # in memory nobody takes a message over
        self._move(entry, (RUNNING,), None, state=PROMISED, content=content, is_told=is_told, document=document)
        return entry.record

    def further(self, entry: Entry, replies: list[Reply], first: int) -> list[Entry]:
        """Further replies to the message, for `add` or `end`, with numbers from the `first` on."""
        made, record = [], entry.record
        for number, reply in enumerate(replies, first):
            # Another process may be at the same start: a handler goes on where its process stood still meanwhile.
            key = f"{entry.key}/{record.starts}.{number}.{self._owners.me[-6:]}"
            made.append(Entry(key, record.ended(b"", reply), self._world.lock()))
            with self._lock:
                self._known.add(key, made[-1])
        return made

    def add(self, entry: Entry, further: Entry) -> bool:
        """Note that a further reply is ready to be sent. False where the message has gone on without its handler."""
        with entry.lock, further.lock:
            is_ours = entry.record.owner == self._owners.me and entry.record.state in UNDER_WAY
            if not (is_ours and self._settle(further, further.record)):  # which an earlier run may have given
                self._forget(further)
            return is_ours

    def _end_soon(self, entry: Entry, after: Record, whole: Reply | None) -> None:
        change = self._change(entry, after)
        self._put(entry, after)
        self._store.swap_soon(change, lambda: self._end_again(entry, after.document, whole))

    def _end_again(self, entry: Entry, document: bytes, whole: Reply | None) -> None:
        """Note the answer once more: another process has counted a retry meanwhile, or the store failed."""
        try:
            with entry.lock:
                self._read(entry)
            is_promised = self.end(entry, document, None, whole) == PROMISED
        except StoreError as error:
            self._store.troubles.note(UNSEEN, f": {error}")
            self._unwritten[entry.key], entry.whole = entry, whole
        else:
            if is_promised:
                self._unwritten[entry.key] = entry  # the heartbeat has it sent

    def send(self, entry: Entry) -> bool:
        """Claim the next part of the reply before it is sent. False where another process, or 继续, has it."""
        return self._move(entry, (READY,), self._owners.me, is_sending=True)

    def unsent(self, entry: Entry) -> bool:
        """Note that a part was not sent, and will be tried again."""
        return self._move(entry, (READY,), self._owners.me, is_sending=False)

    def keep(self, entry: Entry, *beside: Change) -> bool:
        """Note that the reply waits for 继续, and belongs to nobody; with the changes `beside` in one step."""
        return self._move(entry, (READY,), self._owners.me, beside, is_sending=False, owner="")

    def sent(self, entry: Entry, rest: Reply | None) -> bool:
        """Note that a part was sent, and what is left."""
        left = entry.record.ended(b"", rest)
        return self._move(entry, (READY,), self._owners.me, state=left.state, reply=left.reply, is_sending=False)

    def fetch(self, entry: Entry, waiting: Entry, seen: Record, document: bytes, rest: Reply | None) -> bool:
        """Answer a 继续 with what waits, in one step, if that is still what was seen. Whether it did."""
        with entry.lock, waiting.lock:
            if waiting.record is not seen or not entry.is_running:
                return False
            left = replace(seen.ended(seen.document, rest), owner="")
            return self._settle(waiting, left, [(entry, entry.record.ended(document, None))])

    def adopt(self, entry: Entry, *states: str) -> bool:
        """Whether the caller goes on with a message whose owner is dead."""
        dead = self._is_shared and entry.record.owner
        return bool(dead and self._owners.is_dead(dead) and self._take(entry, dead, states))

    def _take(self, entry: Entry, owner: str, states: tuple[str, ...]) -> bool:
        return self._move(entry, states, owner, owner=self._owners.me, is_sending=False)

    # Who waits, and what can be found

    def wait(self, entry: Entry, seconds: float) -> bool:
        """Wait for the message to be answered or promised, or so long. Whether the caller has to answer it now."""
        if not self._is_shared or entry.record.owner == self._owners.me:
            with self._lock:  # for all who wait, one event
                moved = entry.moved = entry.moved or self._world.event()
            if entry.is_running:
                moved.wait(seconds)
            return False
        try:
            self._store.wait(PREFIX + entry.key, entry.raw, min(seconds, LOOK_AT_OWNER))
            with entry.lock:
                self._read(entry)
        except StoreError as error:
            self._store.troubles.note("a message may be answered twice", f": {error}")
            return self._take(entry, entry.record.owner, (RUNNING,))
        return self.adopt(entry, RUNNING)

    def open_of(self, openid: str) -> list[Entry]:
        """What of the user's runs, is promised or waits, the oldest first; raises StoreError."""
        return list(self._found(f"user:{openid}"))

    def is_running(self, openid: str, but: Entry) -> bool:
        """Whether another message of the user's runs in this process; no other one knows what is not slow."""
        with self._lock:
            mine = [entry for entry in self._known.messages.values() if entry.record.openid == openid]
        return any(entry.is_running and entry is not but for entry in mine)

    def abandoned(self) -> Iterator[Entry]:
        """What processes that died have promised, and belongs to the caller now; raises StoreError."""
        yield from self._catch_up()
        for dead in self._owners.dead():
            found = sorted(self._found(f"owned:{dead}"), key=lambda entry: entry.record.starts)
            for entry in found:
                if entry.record.state == RUNNING:  # nobody was told anything: it is left to WeChat's next attempt
                    links = entry.record.indexes
                    self._store.swap(Change(PREFIX + entry.key, entry.raw, entry.raw, KEPT, unlink=links))
                elif self.adopt(entry, PROMISED, READY):
                    yield entry
            if not found:
                self._owners.forget(dead)

    def attend(self, entry: Entry) -> bool:
        """Whether the caller of `announce`, who did not have it already, has to answer the message."""
        with entry.lock:
            write, entry.write, record = entry.write, None, entry.record
            is_new = write is not None
            while is_new and entry.record is record:  # as long as what is there is of another version
                if self._write((entry, record), write=write):
                    return True
                write = None
        if not self._move(entry, OPEN, None, attempts=1):  # it is done, and this process alone counts
            entry.record = replace(entry.record, attempts=entry.record.attempts + 1)
            return False
        if moved := entry.moved:  # the attempt before it need not wait any more
            entry.moved = None
            moved.set()
        return self.adopt(entry, RUNNING)

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
            elif not entry.record.owner == record.owner == self._owners.me:  # what this process owns it knows better
                with entry.lock:
                    self._read(entry)  # and not what was found: this process may have adopted it since
            if entry.record.is_open:
                yield entry

    def _write(self, *moves: tuple[Entry, Record], beside: Changes = (), write: Write | None = None) -> bool:
        try:
            return self._swap(*moves, beside=beside, write=write)
        except StoreError as error:
            self._store.troubles.note(UNSEEN, f": {error}")
            for entry, record in moves:
                self._unwritten[entry.key], entry.beside = entry, beside
                entry.linked = tuple({*entry.linked, *record.indexes})  # the write may have come through
        return True

    def _swap(self, *moves: tuple[Entry, Record], beside: Changes = (), write: Write | None = None) -> bool:
        if not write:
            # Another owner than this process may have died long ago, and be forgotten.
            others = {each.owner for _, each in moves if each.owner not in ("", self._owners.me) and each.is_open}
            write = self._store.queue(*starmap(self._change, moves), *beside, *map(self._owners.recall, others))
        is_done = self._store.finish(write)
        for (entry, _), change in zip(moves, write.changes, strict=False):
            if is_done:
                entry.raw, entry.linked = change.new, change.link
            else:
                self._read(entry)
        return is_done

    def _catch_up(self) -> Iterator[Entry]:
        """Write what the store did not take, unless another process has gone further; gives what has to be sent."""
        for key, entry in list(self._unwritten.items()):
            with entry.lock:
                self._read(entry)
                if key in self._unwritten and self._swap((entry, entry.record), beside=entry.beside):
                    del self._unwritten[key]
            if entry.record.state == READY and entry.record.owner == self._owners.me:
                yield entry

    def _change(self, entry: Entry, new: Record) -> Change:
        links = new.indexes
        links = entry.linked if links == entry.linked else links  # the same strings, for thousands that wait
        packed = new.packed() if self._is_shared or new.state != DONE else None
        ttl = self._seconds if new.state == DONE else KEPT
        gone = tuple(index for index in entry.linked if index not in links) if entry.linked else ()
        return Change(PREFIX + entry.key, entry.raw, packed, ttl, links, gone)

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
                self._put(entry, record.ended(b"", entry.whole))
                entry.whole = None

    def _is_ahead(self, entry: Entry, seen: Record) -> bool:
        """Whether this process went on with a message while the store was away, and what the store has is older."""
        here, there = STATES.index(entry.record.state), STATES.index(seen.state)
        is_older = here >= there if seen.owner == self._owners.me else here > there == STATES.index(RUNNING)
        return is_older and entry.key in self._unwritten
