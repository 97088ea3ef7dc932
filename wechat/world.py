"""Time and threads, as a parameter: those of the machine, or those of a simulation; and what is done in its time."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from wechat.log import log_error

logger = logging.getLogger("wxserver")

LONGEST_WAIT = 3600.0  # seconds: an event takes no infinity, and nothing over threading.TIMEOUT_MAX
FULL, NAMED = 5.0, 3  # seconds after which a pool without a rest is said to be full, and how many tasks are named then


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


class Alarm:
    """A task, and when it is to be done, by the world's monotonic clock; `name` is that of what has so long."""

    def __init__(self, set_at: float, at: float, task: Callable[[], object], name: str, has_rung: threading.Event):
        self.set_at, self.at, self.task, self.name, self.has_rung = set_at, at, task, name, has_rung


class Alarms:
    """Short tasks that one thread does in their time; it ends where there are none."""

    def __init__(self, name: str, world: World) -> None:
        self._name, self._world = name, world
        self._lock = world.lock()
        self._sooner = world.event()
        self._alarms: set[Alarm] = set()
        self._has_thread = False

    def set(self, seconds: float, task: Callable[[], object], name: str = "") -> Alarm:
        """Have the task done after so many seconds."""
        now = self._world.monotonic()
        alarm = Alarm(now, now + seconds, task, name, self._world.event())
        with self._lock:
            self._alarms.add(alarm)
            if self._has_thread:
                self._sooner.set()
            else:
                with suppress(RuntimeError):  # the interpreter ends
                    self._world.start(self._ring, self._name)
                    self._has_thread = True
        return alarm

    def call_off(self, alarm: Alarm) -> bool:
        """Have the task not done. False where it has been done."""
        with self._lock:
            if alarm in self._alarms:
                self._alarms.remove(alarm)
                return True
        alarm.has_rung.wait()
        return False

    def age(self, alarm: Alarm) -> float:
        """For how many seconds it has been set."""
        return self._world.monotonic() - alarm.set_at

    def oldest(self, number: int) -> list[Alarm]:
        """So many of those with a name that were set first."""
        with self._lock:
            return sorted((alarm for alarm in self._alarms if alarm.name), key=lambda alarm: alarm.set_at)[:number]

    def _ring(self) -> None:
        while True:
            with self._lock:
                alarm = min(self._alarms, key=lambda alarm: alarm.at, default=None)
                if not alarm:
                    self._has_thread = False
                    return
                left = alarm.at - self._world.monotonic()
                if left <= 0:
                    self._alarms.remove(alarm)
                self._sooner.clear()
            if left > 0:
                self._sooner.wait(min(left, LONGEST_WAIT))
                continue
            try:
                alarm.task()
            except BaseException as error:
                log_error(logger, f"{self._name}: a task failed", error)
            alarm.has_rung.set()


class Rush:
    """The time in which a pool has no thread for those who wait: once it lasts, a warning, and another at its end.

    A pool whose tasks have no alarms with a name is not spoken of.
    """

    def __init__(self, pool: str, alarms: Alarms, count_waiting: Callable[[], int]) -> None:
        self._pool, self._alarms, self._count_waiting = pool, alarms, count_waiting
        self._alarm: Alarm | None = None  # since it began
        self._is_said = False

    def begin(self) -> None:
        """Somebody waits."""
        if not self._alarm:
            self._alarm = self._alarms.set(FULL, lambda: self._say(self._alarm))

    def end(self) -> None:
        """A thread has nothing to do."""
        if self._is_said and self._alarm:
            logger.warning("%s were busy for %.0f s; one is free again", self._pool, self._alarms.age(self._alarm))
        self._alarm, self._is_said = None, False

    def _say(self, alarm: Alarm | None) -> None:
        oldest = [f"{one.name} for {self._alarms.age(one):.0f} s" for one in self._alarms.oldest(NAMED)]
        if alarm and self._alarms.age(alarm) >= FULL and oldest:
            self._is_said = True
            waiting = self._count_waiting()
            logger.warning("%s are busy, %d users wait; the oldest: %s", self._pool, waiting, ", ".join(oldest))
