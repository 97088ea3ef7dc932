"""Changes on their way to a store: one thread writes at a time, for all that wait, as each write costs a round trip."""

import threading
from collections import deque
from collections.abc import Callable
from types import EllipsisType
from typing import NamedTuple

from wechat.world import World

MOST_AT_ONCE = 256  # groups of changes in one write: no lock of a file is held for long


class Change(NamedTuple):
    """Store `new` where the value is `old`: None stands for no value, and `...` as `old` for whatever there is.

    `link` and `unlink` name indexes that the key enters or leaves in the same step.
    """

    key: str
    old: str | EllipsisType | None
    new: str | None
    ttl: float = 0
    link: tuple[str, ...] = ()
    unlink: tuple[str, ...] = ()


Changes = tuple[Change, ...]  # which are made in one step, or none of them


class Write:
    """Changes on their way to the store. `missed` is called where they were not made, and nobody waits for them."""

    __slots__ = ("changes", "error", "is_made", "missed")

    def __init__(self, changes: Changes, missed: Callable[[], None] | None = None) -> None:
        self.changes, self.missed = changes, missed
        self.is_made: bool | None = None  # until it is known
        self.error: Exception | None = None


class Writes:
    """Those that wait, in the order they came. `make` sees to it that it is known of each whether it was made."""

    def __init__(self, make: Callable[[list[Write]], None], world: World) -> None:
        self._make, self._world = make, world
        self._lock = world.lock()
        self._waiting: deque[Write] = deque()
        self._taken: Write | None = None  # the last one that is made, or being made
        self._is_writing = False
        self._held_up: dict[threading.Event, Write] = {}  # threads that wait meanwhile, and for what

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, write: Write) -> Write:
        """Have the changes made with the next write."""
        self._waiting.append(write)
        return write

    def flush(self) -> None:
        """Have all made that were added by now."""
        try:
            last: Write | None = self._waiting[-1]
        except IndexError:
            last = self._taken
        if last:
            self.finish(last)

    def finish(self, write: Write) -> None:
        """Have the changes made, by this thread or the one that is at it; goes on as soon as they are."""
        while write.is_made is None:
            if moved := self._stand_in_line(write):
                moved.wait()
                continue
            try:
                self._make(self._take())
            finally:
                self._hand_on()

    def _stand_in_line(self, write: Write) -> threading.Event | None:
        """What to wait for; None where the caller has to write."""
        with self._lock:
            if write.is_made is None and not self._is_writing:
                self._is_writing = True
                return None
            moved = self._world.event()
            if write.is_made is None:
                self._held_up[moved] = write
            else:
                moved.set()
            return moved

    def _take(self) -> list[Write]:
        count = min(len(self._waiting), MOST_AT_ONCE)
        self._taken = self._waiting[count - 1]  # before it leaves: `flush` looks there second
        return [self._waiting.popleft() for _ in range(count)]

    def _hand_on(self) -> None:
        """Let those go on whose changes are made, and the first of the others write."""
        with self._lock:
            self._is_writing = False
            unmade = [moved for moved, write in self._held_up.items() if write.is_made is None]
            for moved in self._held_up.keys() - unmade[1:]:
                del self._held_up[moved]
                moved.set()
