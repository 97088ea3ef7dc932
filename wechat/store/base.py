"""The interface of every store.

Keys and values are text, NUL included; a lone surrogate is a ValueError. A time to live is in seconds and above 0.
A backend that does not answer is a StoreError, which names the operation and the backend and nothing else.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from math import inf
from typing import Any, TypeVar

from wechat.errors import StoreError
from wechat.store.writes import Change, Changes, Write, Writes
from wechat.trouble import troubles
from wechat.world import REAL, World

Entries = dict[str, str]  # key to value
T = TypeVar("T")

SOON = 0.02  # seconds


class Store(ABC):
    """Texts under keys, for many threads and, except in memory, many processes."""

    name = advice = ""  # in errors, and for the one whose store does not start
    failures: tuple[type[Exception], ...] = ()
    look_again = 1.0  # seconds after which a waiter looks by itself: an entry that expires wakes nobody
    rest = 1.0  # seconds for which a store that failed is left alone: WeChat's five seconds go on
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext  # around a write

    def __init__(self, world: World = REAL) -> None:
        self._world, self.troubles = world, troubles(world)
        self._waiters: dict[threading.Event, str] = {}
        self._rests_until, self._away = -inf, f"{self.name} is away, messages are answered without it"
        self._prepare()

    def _prepare(self) -> None:
        self._lock, self._writing = threading.Lock(), self._world.lock()
        self._writes = Writes(self._write, self._world)
        self._is_due = False  # whether a thread is about to write what is to be made soon

    def begin(self) -> None:
        """Begin anew in a process that was forked: locks, connections and what is unwritten are those of its parent."""
        self._prepare()

    @abstractmethod
    def get(self, key: str) -> str | None:
        """The value, or None where there is none."""

    @abstractmethod
    def linked(self, index: str) -> Entries:
        """The entries of an index, sorted by key. It costs what they are, however many others there are."""

    def set(self, key: str, value: str, ttl: float) -> None:
        """Store the value for `ttl` seconds, whatever was there."""
        self.swap(Change(key, ..., value, ttl))

    def add(self, key: str, value: str, ttl: float) -> bool:
        """Store the value where there is none. Whether it did: of many callers at once, one gets True."""
        return self.swap(Change(key, None, value, ttl))

    def replace(self, key: str, old: str, new: str | None, ttl: float) -> bool:
        """Store the new value, or none, where the value is `old`. Whether it did."""
        return self.swap(Change(key, old, new, ttl))

    def delete(self, key: str) -> None:
        """Take the entry away, if there is one."""
        self.swap(Change(key, ..., None))

    def swap(self, *changes: Change) -> bool:
        """Make all the changes in one step, or, where one of the values is not `old`, none. Whether it did."""
        return self.finish(self.queue(*changes))

    def queue(self, *changes: Change) -> Write:
        """Have the changes made with the next write; whoever wants to know of them calls `finish`."""
        for change in changes:
            (change.key + (change.new or "")).encode()  # a lone surrogate is an error before others share the write
        return self._writes.add(Write(changes))

    def finish(self, write: Write) -> bool:
        """Whether the changes were made, which they are now if not before; raises StoreError."""
        if write.is_made is None:
            with self.waiting():
                self._writes.finish(write)
        if write.error:
            raise write.error
        return bool(write.is_made)

    def swap_soon(self, change: Change, missed: Callable[[], None]) -> None:
        """Make the change with the next write, in 20 ms at most; `missed` is called where it could not be made.

        For what nobody else waits for: a write of its own would cost as much as all else that a message takes.
        """
        self._writes.add(Write((change,), missed))
        if not self._is_due:
            self._is_due = True
            if not self._start(self._flush_soon):
                self._is_due = False  # the next one may have a thread

    def flush(self) -> None:
        """Make the changes that are queued by now, or to be made soon."""
        self._writes.flush()

    def ask(self, consequence: str, otherwise: T, step: Callable[..., T], *arguments: Any) -> T:
        """What a step gives; where the store does not answer, `otherwise` and a warning of what that costs."""
        try:
            return step(*arguments)
        except StoreError as error:
            self.troubles.note(consequence, f": {error}")
            return otherwise

    def wait(self, key: str, seen: str | None, seconds: float) -> str | None:
        """The value as soon as it is not `seen`, or the one that is there when so many seconds are over."""
        if self._writes:
            self.flush()
        end = self._world.monotonic() + seconds
        changed = self._world.event()
        self._waiters[changed] = key
        try:
            while (value := self.get(key)) == seen and (left := end - self._world.monotonic()) > 0:
                changed.wait(min(left, self.look_again))
                changed.clear()
            return value
        finally:
            del self._waiters[changed]

    def close(self) -> None:  # noqa: B027, memory has nothing to give back
        """Give files and connections back. No thread may be using the store, or use it afterwards."""

    @abstractmethod
    def _swap_each(self, groups: list[Changes]) -> list[bool]:
        """Make each group of changes in one step, or none of it: which were made. One call at a time."""

    def _write(self, batch: list[Write]) -> None:
        try:
            with self._writing, self._doing("write"):
                made = self._swap_each([write.changes for write in batch])
        except BaseException as error:
            for write in batch:
                write.is_made, write.error = False, _copy(error)
            if not isinstance(error, StoreError):
                raise
        else:
            for write, is_made in zip(batch, made, strict=True):
                write.is_made = is_made
                for change in write.changes if is_made and self._waiters else ():
                    self._wake(change.key)
        finally:
            for write in batch:
                if write.missed and not write.is_made:
                    self._start(write.missed)  # without the locks of whoever writes

    def _start(self, task: Callable[[], None]) -> bool:
        with suppress(RuntimeError):  # the interpreter ends, or the host gives no more threads
            self._world.start(task, "store")
            return True
        return False

    def _flush_soon(self) -> None:
        self._world.sleep(SOON)
        self._is_due = False
        self.flush()

    def _wake(self, key: str | None = None) -> None:
        """Let those who wait for the key look again, or everyone."""
        for changed, waited in list(self._waiters.items()):
            if key in (None, waited):
                changed.set()

    @contextmanager
    def _doing(self, operation: str) -> Iterator[None]:
        if self._rests_until and self._world.monotonic() < self._rests_until:
            self.troubles.note(self._away, lasts=inf)
            raise StoreError(f"{self.name} is left alone for a moment, after a failure")
        try:
            yield
        except self.failures as error:
            is_open, self._rests_until = self._rests_until > -inf, self._world.monotonic() + self.rest
            self._recover(error)
            failed = StoreError(f"{self.name} did not {operation}: {self._reason(error)}")
            if is_open:  # one that does not open stops the start, which says so
                self.troubles.note(self._away, f": {failed}", inf)
            raise failed from error
        if self._rests_until and self._world.monotonic() >= self._rests_until:
            self._rests_until = 0.0
            self.troubles.end(self._away)

    def _recover(self, error: Exception) -> None:  # noqa: B027, not every store has something half done
        """Take back what a failed operation has left half done."""

    def _reason(self, error: Exception) -> str:
        # What redis-py says may quote the command with its value, and an OSError the file.
        return type(error).__name__


def _copy(error: BaseException) -> StoreError:
    """The error for another thread; a fault of ours may quote a value."""
    copy = StoreError(str(error) if isinstance(error, StoreError) else f"a write failed: {type(error).__name__}")
    copy.__cause__ = error.__cause__
    return copy
