"""The interface of every store.

Keys and values are text, NUL included; a lone surrogate is a ValueError. A time to live is in seconds and above 0.
A backend that does not answer is a StoreError, which names the operation and the backend and nothing else.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, NamedTuple, TypeVar

from wechat.errors import StoreError
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

Entries = dict[str, str]  # key to value
T = TypeVar("T")


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


class Store(ABC):
    """Texts under keys, for many threads and, except in memory, many processes."""

    name = advice = ""  # in errors, and for the one whose store does not start
    failures: tuple[type[Exception], ...] = ()
    look_again = 1.0  # seconds after which a waiter looks by itself: an entry that expires wakes nobody
    rest = 1.0  # seconds for which a store that failed is left alone: WeChat's five seconds go on

    def __init__(self, world: World = REAL) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._waiters: dict[threading.Event, str] = {}
        self._rests_until = 0.0

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
        with self._doing("write"):
            is_done = self._swap(changes)
        if is_done:
            for change in changes:
                self._wake(change.key)
        return is_done

    def wait(self, key: str, seen: str | None, seconds: float) -> str | None:
        """The value as soon as it is not `seen`, or the one that is there when so many seconds are over."""
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
    def _swap(self, changes: tuple[Change, ...]) -> bool:
        """Make all the changes in one step, or none."""

    def _wake(self, key: str | None = None) -> None:
        """Let those who wait for the key look again, or everyone."""
        for changed, waited in list(self._waiters.items()):
            if key in (None, waited):
                changed.set()

    @contextmanager
    def _doing(self, operation: str) -> Iterator[None]:
        if self._rests_until and self._world.monotonic() < self._rests_until:
            raise StoreError(f"{self.name} is left alone for a moment, after a failure")
        try:
            yield
        except self.failures as error:
            self._rests_until = self._world.monotonic() + self.rest
            raise StoreError(f"{self.name} did not {operation}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        # What redis-py says may quote the command with its value, and an OSError the file.
        return type(error).__name__


def ask(consequence: str, otherwise: T, step: Callable[..., T], *arguments: Any) -> T:
    """What a step of a store gives; where the store does not answer, `otherwise` and a warning of what that costs."""
    try:
        return step(*arguments)
    except StoreError as error:
        logger.warning("%s: %s", consequence, error)
        return otherwise
