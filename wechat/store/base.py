"""The interface of every store.

Keys and values are text, NUL included; a lone surrogate is a ValueError. A time to live is in seconds and above 0.
A backend that does not answer is a StoreError, which names the operation and the backend and nothing else.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import EllipsisType

from wechat.errors import StoreError


class Store(ABC):
    """Texts under keys, for many threads and, except in memory, many processes."""

    name = advice = ""  # in errors, and for the one whose store does not start
    failures: tuple[type[Exception], ...] = ()
    look_again = 1.0  # seconds after which a waiter looks by itself: an entry that expires wakes nobody

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiters: dict[threading.Event, str] = {}

    @abstractmethod
    def get(self, key: str) -> str | None:
        """The value, or None where there is none."""

    def set(self, key: str, value: str, ttl: float) -> None:
        """Stores the value for `ttl` seconds, whatever was there."""
        self._try_to("set", key, ..., value, ttl)

    def add(self, key: str, value: str, ttl: float) -> bool:
        """Stores the value where there is none. Whether it did: of many callers at once, one gets True."""
        return self._try_to("add", key, None, value, ttl)

    def replace(self, key: str, old: str, new: str | None, ttl: float) -> bool:
        """Stores the new value, or none, where the value is `old`. Whether it did."""
        return self._try_to("replace", key, old, new, ttl)

    def delete(self, key: str) -> None:
        """Takes the entry away, if there is one."""
        self._try_to("delete", key, ..., None, 0)

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, sorted."""

    def wait(self, key: str, seen: str | None, seconds: float) -> str | None:
        """The value as soon as it is not `seen`, or the one that is there when so many seconds are over."""
        end = time.monotonic() + seconds
        changed = threading.Event()
        self._waiters[changed] = key
        try:
            while (value := self.get(key)) == seen and (left := end - time.monotonic()) > 0:
                changed.wait(min(left, self.look_again))
                changed.clear()
            return value
        finally:
            del self._waiters[changed]

    def close(self) -> None:  # noqa: B027, memory has nothing to give back
        """Gives files and connections back. No thread may be using the store, or use it afterwards."""

    @abstractmethod
    def _change(self, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        """In one step: stores `new` where the value is `old`, which may be None, or `...` for whatever it is."""

    def _try_to(self, operation: str, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        with self._doing(operation):
            done = self._change(key, old, new, ttl)
        if done:
            self._wake(key)
        return done

    def _wake(self, key: str | None = None) -> None:
        """Lets those who wait for the key look again, or everyone."""
        for changed, waited in list(self._waiters.items()):
            if key in (None, waited):
                changed.set()

    @contextmanager
    def _doing(self, operation: str) -> Iterator[None]:
        try:
            yield
        except self.failures as error:
            raise StoreError(f"{self.name} did not {operation}: {self._reason(error)}") from error

    def _reason(self, error: Exception) -> str:
        # What redis-py says may quote the command with its value, and an OSError the file.
        return type(error).__name__
