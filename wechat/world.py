"""Time and threads, as a parameter: those of the machine, or those of a simulation; and what is done in its time."""

import threading
import time
from collections.abc import Callable
from math import inf

LONGEST_WAIT = 3600.0  # seconds: an event takes no infinity, and nothing over threading.TIMEOUT_MAX


class World:
    """What the code takes from the machine; a simulation hands in its own."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    lock = staticmethod(threading.Lock)
    event = staticmethod(threading.Event)

    def start(self, task: Callable[[], None], name: str) -> None:
        """Run the task in a thread of its own, which does not keep the process alive."""
        threading.Thread(target=task, name=name, daemon=True).start()


REAL = World()


class Timer:
    """Has `look` called in its time, with the lock held, by a thread that ends where there is nothing to wait for.

    `look` gets the time by the world's monotonic clock, and gives the one at which it is to be called again, or inf.
    """

    def __init__(self, name: str, look: Callable[[float], float], lock: threading.Lock, world: World) -> None:
        self._name, self._look, self._lock, self._world = name, look, lock, world
        self._sooner = world.event()
        self._next = inf  # while there is no thread

    def look_by(self, at: float) -> None:
        """Have it called by then; the lock is held."""
        if at < self._next:
            has_thread, self._next = self._next < inf, at
            self._sooner.set()
            try:
                if not has_thread:
                    self._world.start(self._keep, self._name)
            except RuntimeError:  # the interpreter ends
                self._next = inf

    def _keep(self) -> None:
        while True:
            with self._lock:
                now = self._world.monotonic()
                self._next = self._look(now)
                if self._next == inf:
                    return
                self._sooner.clear()
                seconds = self._next - now
            self._sooner.wait(min(seconds, LONGEST_WAIT))
