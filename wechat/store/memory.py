"""A store in the memory of its process."""

import itertools
from collections import OrderedDict

from wechat.store.base import Entries, Store
from wechat.store.writes import Change, Changes
from wechat.world import REAL, World

ABSENT: tuple[None, float, tuple[str, ...]] = None, 0.0, ()


class MemoryStore(Store):
    """A store that ends with its process."""

    def __init__(self, world: World = REAL) -> None:
        super().__init__(world)
        self._entries: OrderedDict[str, tuple[str, float, tuple[str, ...]]] = OrderedDict()  # with its indexes
        self._indexes: dict[str, set[str]] = {}  # the keys in each index

    def get(self, key: str) -> str | None:
        value, expires, _ = self._entries.get(key, ABSENT)
        return value if expires > self._world.monotonic() else None

    def linked(self, index: str) -> Entries:
        with self._lock:
            found = {key: self.get(key) for key in sorted(self._indexes.get(index, ()))}
            return {key: value for key, value in found.items() if value is not None}

    def _swap_each(self, groups: list[Changes]) -> list[bool]:
        return [self._swap(changes) for changes in groups]

    def _swap(self, changes: Changes) -> bool:
        with self._lock:
            self._sweep()
            if any(change.old is not ... and self.get(change.key) != change.old for change in changes):
                return False
            for change in changes:
                self._make(change)
            return True

    def _make(self, change: Change) -> None:
        key, new = change.key, change.new
        _, _, before = self._entries.get(key, ABSENT)
        if new is None:
            links: tuple[str, ...] = ()
            self._entries.pop(key, None)
        else:
            kept = [index for index in before if index not in (*change.link, *change.unlink)]
            links = (*change.link, *kept) if kept else change.link  # which whoever made the change keeps, too
            self._entries[key] = new, self._world.monotonic() + change.ttl, links
        for index in links:
            self._indexes.setdefault(index, set()).add(key)
        for index in before:
            if index not in links:
                self._unlink(key, index)

    def _unlink(self, key: str, index: str) -> None:
        members = self._indexes[index]
        members.discard(key)
        if not members:
            del self._indexes[index]

    def _sweep(self) -> None:
        # At two entries a write it comes round, however many are added meanwhile, and no write takes long.
        for key in list(itertools.islice(self._entries, 2)):
            self._entries.move_to_end(key)
            if self.get(key) is None:
                self._make(Change(key, ..., None))
