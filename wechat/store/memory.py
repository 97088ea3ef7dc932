"""A store in the memory of its process."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from types import EllipsisType

from wechat.store.base import Store


class MemoryStore(Store):
    """A store that ends with its process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def get(self, key: str) -> str | None:
        value, expires = self._entries.get(key, (None, 0.0))
        return value if expires > self._clock() else None

    def keys(self, prefix: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self._entries if key.startswith(prefix) and self.get(key) is not None)

    def _change(self, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        (key + (new or "")).encode()  # a lone surrogate is an error here as in the other stores
        with self._lock:
            self._sweep()
            if old is not ... and self.get(key) != old:
                return False
            if new is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = new, self._clock() + ttl
            return True

    def _sweep(self) -> None:
        # At two entries a write it comes round, however many are added meanwhile, and no write takes long.
        for key in list(itertools.islice(self._entries, 2)):
            self._entries.move_to_end(key)
            if self.get(key) is None:
                del self._entries[key]
