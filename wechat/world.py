"""Time and threads, as a parameter: those of the machine, or those of a simulation; and what is done in its time."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from wechat.log import log_error

logger = logging.getLogger("wxserver")


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
                self._sooner.wait(left)
                continue
            try:
                alarm.task()
            except BaseException as error:
                log_error(logger, f"{self._name}: a task failed", error)
            alarm.has_rung.set()
