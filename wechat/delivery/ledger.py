"""One record for each message, moved in one place.

            begin            end: a direct answer
    (none) ------> running ---------------------------> done
                      | promise                          ^
                      v          end                     | sent, fetched
                  promised ------------> ready ----------+    (a long text: running -> ready with the rest)

A record moves only from what it was read as: of two who race for it, the first moves it, and the other reads it again.
Where the owner of a record is dead, another process puts itself in its place, and goes on from the state.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

from wechat.delivery.entries import DONE, KEPT, PREFIX, PROMISED, READY, RUNNING, Entries, Entry, Record
from wechat.errors import StoreError
from wechat.reply import Reply
from wechat.store.base import Change

logger = logging.getLogger("wxserver")

LOOK_AT_OWNER = 0.5  # seconds between two looks at whether the process that has a message still lives
MOST_FORGIVEN = 2  # starts of a message
UNDER_WAY, OPEN = (RUNNING, PROMISED), (RUNNING, PROMISED, READY)


class Ledger(Entries):
    """The moves of the records of an account."""

    def begin(self, key: str, openid: str, is_slow: bool) -> tuple[Entry, bool]:
        """The message with this key, and whether the caller has to answer it."""
        with self._lock:
            entry = self._known.get(key)
            if entry:
                entry.held += 1
            elif self._known.is_over(key):
                return Entry(key, Record(DONE, attempts=2), self._world.lock()), False
            else:
                record = Record(RUNNING, self._owners.me, 1, 0 if is_slow else 1, is_slow, False, openid)
                new = Entry(key, record, self._world.lock())
                self._known.add(key, new)
                if not (self._is_shared or is_slow):
                    return new, True
                new.held = 1
                new.lock.acquire()  # whoever comes now waits until it is known whose the message is
        if entry:
            return entry, self._join(entry)
        try:
            is_ours = self._enter(new)
        finally:
            new.lock.release()
        return new, is_ours or self._join(new)

    def leave(self, entry: Entry) -> None:
        """Note that the caller of `begin` has answered. With the last one, what another process has is forgotten."""
        if self._is_shared:
            with self._lock:
                entry.held -= 1
                self._keep_or_drop(entry)

    def start(self, entry: Entry) -> bool:
        """Count a start of the handler. False where the message has gone to another process meanwhile."""
        return self._move(entry, UNDER_WAY, self._owners.me, starts=1)

    def forgive(self, entry: Entry) -> bool:
        """Do not count the last start of the handler; a few times only, as it may be what ends the process."""
        is_one_of_few = entry.record.forgiven < MOST_FORGIVEN
        return is_one_of_few and self._move(entry, UNDER_WAY, self._owners.me, starts=-1, forgiven=1)

    def slow_down(self, entry: Entry) -> bool:
        """Note that a slow handler goes on with the message, which is counted when it starts."""
        return self._move(entry, (RUNNING,), self._owners.me, is_slow=True, starts=-1)

    def promise(self, entry: Entry, content: str, is_told: bool = False, document: bytes = b"") -> Record:
        """Note that the answer, or all but its beginning, the document, comes later; gives the record.

        Unless the answer is there already.
        """
        content = content if self._is_shared else ""  # in memory nobody takes a message over
        self._move(entry, (RUNNING,), None, state=PROMISED, content=content, is_told=is_told, document=document)
        return entry.record

    def add(self, entry: Entry, number: int, reply: Reply) -> Entry | None:
        """A further reply to the message, ready to be sent; None where that has gone to another process."""
        record = entry.record
        if record.owner != self._owners.me:
            return None
        added = Entry(f"{entry.key}/{record.starts}.{number}", record.ended(b"", reply), self._world.lock())
        with self._lock:
            self._known.add(added.key, added)
        with added.lock:
            self._settle(added, added.record)
        return added

    def end(self, entry: Entry, document: bytes, rest: Reply | None, whole: Reply | None) -> str:
        """Note the answer: a document and what follows it or, where that was promised, the whole as a message.

        Gives the state it moved from; none where the message has gone to another process.
        """
        with entry.lock:
            while (before := entry.record).owner == self._owners.me and before.state in UNDER_WAY:
                is_direct = before.state == RUNNING
                now, left = (document, rest) if is_direct else (before.document, whole)
                if self._settle(entry, before.ended(now, left)):
                    entry.whole = whole if is_direct and entry.key in self._unwritten else None
                    return before.state
        return ""

    def send(self, entry: Entry) -> bool:
        """Claim the next part of the reply before it is sent. False where another process, or 继续, has it."""
        return self._move(entry, (READY,), self._owners.me, is_sending=True)

    def unsent(self, entry: Entry) -> bool:
        """Note that a part was not sent, and will be tried again."""
        return self._move(entry, (READY,), self._owners.me, is_sending=False)

    def keep(self, entry: Entry) -> bool:
        """Note that the reply waits for 继续, and belongs to nobody."""
        return self._move(entry, (READY,), self._owners.me, is_sending=False, owner="")

    def sent(self, entry: Entry, rest: Reply | None) -> bool:
        """Note that a part was sent, and what is left."""
        left = entry.record.ended(entry.record.document, rest)
        return self._move(entry, (READY,), self._owners.me, state=left.state, reply=left.reply, is_sending=False)

    def fetch(self, entry: Entry, waiting: Entry, seen: Record, document: bytes, rest: Reply | None) -> bool:
        """Give what waits as the direct answer of another message, the 继续, in one step. Whether it did.

        `seen` is the record that the document was made of.
        """
        with entry.lock, waiting.lock:
            if waiting.record is not seen or not entry.is_running:
                return False
            left = replace(seen.ended(seen.document, rest), owner="")
            return self._settle(waiting, left, (entry, entry.record.ended(document, None)))

    def adopt(self, entry: Entry, *states: str) -> bool:
        """Whether the caller goes on with a message whose owner is dead."""
        dead = entry.record.owner
        is_orphan = bool(dead) and self._is_shared and self._owners.is_dead(dead)
        return is_orphan and self._take(entry, dead, states)

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
            logger.warning("a message may be answered twice: %s", error)
            return self._take(entry, entry.record.owner, (RUNNING,))
        return self.adopt(entry, RUNNING)

    def open_of(self, openid: str) -> list[Entry]:
        """What of the user's runs, is promised or waits, the oldest first; raises StoreError."""
        return list(self._found(f"user:{openid}"))

    def is_running(self, openid: str, but: Entry) -> bool:
        """Whether another message of the user's runs in this process; no other one knows what is not slow."""
        with self._lock:
            known = self._known.current()
        return any(entry.is_running and entry.record.openid == openid and entry is not but for entry in known)

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

    def _enter(self, entry: Entry) -> bool:
        """Whether the message is new to all processes; its lock is held."""
        record = entry.record
        while not self._write((entry, record)):
            if entry.record is not record:  # else what is there is of another version
                return False
        return True

    def _join(self, entry: Entry) -> bool:
        """Count another attempt; whether its caller has to answer the message, since its owner is dead."""
        if not self._move(entry, OPEN, None, attempts=1):  # it is done, and this process alone counts
            entry.record = entry.record.moved(attempts=1)
            return False
        if moved := entry.moved:  # the attempt before it need not wait any more
            entry.moved = None
            moved.set()
        return self.adopt(entry, RUNNING)

    def _unlink(self, entry: Entry) -> None:
        self._store.swap(Change(PREFIX + entry.key, entry.raw, entry.raw, KEPT, unlink=entry.record.indexes))
