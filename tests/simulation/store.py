"""The store that the simulated processes share, on the other side of a network that fails."""

from wechat.errors import StoreError
from wechat.store.base import Store
from wechat.store.memory import MemoryStore
from wechat.world import World

TIMEOUT = 0.5  # seconds, as the stores that are real have it


class Failure(Exception):
    """What the client of a store raises."""


class Clock(World):
    """The server's own clock."""

    def __init__(self, simulation):
        self.monotonic = lambda: simulation.scheduler.now


class Shelf(MemoryStore):
    """What the server holds. Each change is told to those who watch over the promises."""

    def __init__(self, simulation):
        super().__init__(Clock(simulation))
        self._simulation = simulation

    def change(self, changes, process):
        """Make all the changes, or none; whether it did."""
        before = {change.key: self.get(change.key) for change in changes}
        is_done = self._swap(changes)
        if is_done:
            self._simulation.watch.fetched(changes)
            for change in changes:
                self._simulation.watch.stored(change.key, before[change.key], change.new, process)
        return is_done

    def indexes(self):
        """The keys in each index."""
        return {name: set(self.linked(name)) for name in self._indexes}

    def items(self):
        """What has not expired."""
        return [(key, self.get(key)) for key in list(self._entries) if self.get(key) is not None]


class SimulatedStore(Store):
    """A process's way to the shelf."""

    name = "the store"
    failures = (Failure,)

    def __init__(self, simulation, process, shelf):
        super().__init__(process.world)
        self._simulation, self._process, self.shelf = simulation, process, shelf
        self.look_again = simulation.plan.look_again

    def get(self, key):
        try:
            with self._doing("get"):
                return self._ask(lambda: self.shelf.get(key), is_write=False)
        except StoreError:
            self._note_failure(key)
            raise

    def linked(self, index):
        try:
            with self._doing("list"):
                return self._ask(lambda: self.shelf.linked(index), is_write=False)
        except StoreError:
            self._note_failure(index)
            raise

    def finish(self, write):
        try:
            return super().finish(write)
        except StoreError:
            self._note_failure(*[change.key for change in write.changes])
            raise

    def swap_soon(self, change, missed):
        def note():
            if self._rests_until > self._world.monotonic():  # it failed just now, and had no older value
                self._simulation.watch.store_failed((change.key,), self._process)
            missed()

        super().swap_soon(change, note)

    def _swap_each(self, groups):
        made = self._ask(lambda: [self.shelf.change(changes, self._process) for changes in groups], is_write=True)
        for changes, is_made in zip(groups, made, strict=True):
            if is_made and self._simulation.plan.has_listener:
                self._tell_others(changes)
            if not is_made:
                self._simulation.watch.turned_away(changes, self._process, self.shelf)
        return made

    def _ask(self, operation, is_write):
        scheduler, trouble = self._simulation.scheduler, self._simulation.trouble
        self._simulation.watch.calls(self._process)
        self._simulation.step(self._process, 1.0 if is_write else 0.3)
        fault, seconds = trouble.of_store(self._process)
        if seconds:
            self._simulation.watch.is_store_slow = True
            scheduler.sleep(min(seconds, TIMEOUT))
        if fault == "away":
            raise Failure
        if fault == "late" and is_write:
            scheduler.spawn(None, lambda: self._come_late(operation))
            raise Failure
        result = operation()
        self._simulation.step(self._process, 1.0 if is_write else 0.3)
        if fault == "lost":
            raise Failure
        self._process.answers += 1
        return result

    def _come_late(self, operation):
        """A write that stood in a buffer while its process gave up waiting."""
        self._simulation.scheduler.sleep(self._simulation.scheduler.random.choice([0.1, 1, 3]))
        operation()

    def _tell_others(self, changes):
        for other in self._simulation.alive():
            if other.store and other is not self._process:
                for change in changes:
                    other.store._wake(change.key)

    def _note_failure(self, *keys):
        self._simulation.watch.store_failed(keys, self._process)
