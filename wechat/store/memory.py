"""A store in the memory of its process."""

import itertools
from collections import OrderedDict

from wechat.store.base import Change, Changes, Entries, Store
from wechat.world import REAL, World


class MemoryStore(Store):
    """A store that ends with its process."""

    def __init__(self, world: World = REAL) -> None:
        super().__init__(world)
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._indexes: dict[str, set[str]] = {}  # the keys in each index
        self._links: dict[str, set[str]] = {}  # the indexes that each key is in

    def get(self, key: str) -> str | None:
        value, expires = self._entries.get(key, (None, 0.0))
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
        for index in change.link:
            self._indexes.setdefault(index, set()).add(key)
            self._links.setdefault(key, set()).add(index)
        for index in change.unlink if new is not None else tuple(self._links.get(key, ())):
            self._unlink(key, index)
        if new is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = new, self._world.monotonic() + change.ttl

    def _unlink(self, key: str, index: str) -> None:
        for table, name, member in ((self._indexes, index, key), (self._links, key, index)):
            members = table.get(name, set())
            members.discard(member)
            if not members:
                table.pop(name, None)

    def _sweep(self) -> None:
        # At two entries a write it comes round, however many are added meanwhile, and no write takes long.
        for key in list(itertools.islice(self._entries, 2)):
            self._entries.move_to_end(key)
            if self.get(key) is None:
                self._make(Change(key, ..., None))
