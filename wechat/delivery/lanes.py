"""Threads for what may take long: a lane for each user, in which tasks run one after the other."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NamedTuple

from wechat.errors import Left
from wechat.log import log_error
from wechat.trouble import troubles
from wechat.world import REAL, Timer, World

logger = logging.getLogger("wxserver")

IDLE = 10.0  # seconds after which a thread ends that has nothing to do
FULL, NAMED = 5.0, 3  # seconds after which lanes without a rest are said to be full, and how many tasks are named then

# Gives the seconds after which it is to be called again, before its lane goes on; or LATER, which is until `resume`:
# the lane is occupied without a thread, and `close` waits for it.
Task = Callable[[], float | None]
LATER = inf


class Job(NamedTuple):
    """A task, the context it was handed in, and when it may begin."""

    task: Task
    context: Context
    is_resumed: bool
    at: float


class Limit(NamedTuple):
    """The time that a task has, and what its lane does instead when that is over; `name` is for the log."""

    name: str
    since: float
    until: float
    instead: Task


class Lanes:
    """Up to so many threads, which go round the lanes: users never wait for one another.

    What is resumed after a crash gets half of the threads at most: it may be what crashed, or hang. Of what is new, a
    lane takes `most_waiting` behind the task that runs, and all lanes together take `most`.
    """

    def __init__(
        self, threads: int, name: str, world: World = REAL, most_waiting: float = inf, most: float = inf
    ) -> None:
        self._threads, self._name, self._world = threads, name, world
        self._troubles, self._all_busy = troubles(world), f"{name}: all {threads} threads are busy"
        self._most_waiting, self._most = most_waiting, most
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a process that was forked has to: it has none of its parent's threads."""
        self._lock = self._world.lock()
        self._lanes: dict[str, list[Job]] = {}  # the first job of a lane runs, or is ready or paused
        self._ready: deque[str] = deque()  # lanes
        self._resumed: deque[str] = deque()  # lanes whose first job is one that is resumed
        self._left: set[str] = set()  # lanes whose first job gave LATER or was resumed, but not both
        self._paused: list[tuple[float, int, str]] = []  # until when, a number and the lane: a heap
        self._numbers = count()
        self._limits: dict[str, Limit] = {}  # of what runs in a lane
        self._idle: list[threading.Event] = []
        self._alive = self._resuming = 0  # threads
        self._jobs = 0  # that wait or run
        self._is_full = False  # whether lanes wait for a thread
        self.is_closing = False
        self._emptied = self._world.event()
        self._timer = Timer("timer", self._look, self._lock, self._world)

    def __len__(self) -> int:
        """How many lanes have something to do."""
        return len(self._lanes)

    def submit(self, lane: str, task: Task, after: float = 0.0, is_resumed: bool = False) -> bool:
        """Have the task done once the lane has come to it, `after` so many seconds at the soonest.

        False where there are too many already.
        """
        with self._lock:
            jobs = self._lanes.get(lane, ())
            if not is_resumed and (len(jobs) > self._most_waiting or self._jobs >= self._most):
                return False
            job = Job(task, copy_context(), is_resumed, self._world.monotonic() + after)
            self._lanes.setdefault(lane, []).append(job)
            self._jobs += 1
            if jobs:
                return True
            has_thread = self._queue(lane, after) or self._wake()
        if not has_thread:
            self._work(is_patient=False)
        return True

    def resume(self, lane: str) -> None:
        """Have the task that gives LATER, or has done so, called again. An event loop may call this: it never waits."""
        with self._lock:
            has_thread = not self._meet(lane) or self._wake()
        if not has_thread:
            self._work(is_patient=False)

    @contextmanager
    def limit(self, lane: str, name: str, seconds: float, instead: Task) -> Iterator[None]:
        """Let the task of the lane take so long at most inside the block; then another one is done instead.

        The thread that hangs does not count any more. Raises Left where the block ends later.
        """
        now = self._world.monotonic()
        limit = Limit(name, now, now + seconds, instead)
        with self._lock:
            self._limits[lane] = limit
            self._timer.look_by(limit.until)
        try:
            yield
        finally:
            with self._lock:
                if self._limits.get(lane) is not limit:
                    raise Left
                del self._limits[lane]

    def close(self) -> None:
        """Wait for what runs or is ready, and drop what is paused."""
        with self._lock:
            self.is_closing = True
            for _, _, lane in self._paused:
                self._jobs -= len(self._lanes.pop(lane))
            self._paused.clear()
            for event in self._idle:
                event.set()
            if not self._lanes:
                self._emptied.set()
        self._emptied.wait()

    # With the lock held

    def _queue(self, lane: str, after: float = 0.0) -> bool:
        """Have the lane wait for a thread, or first for its time. Whether it is the latter."""
        is_paused = after > 0 and not self.is_closing
        if is_paused:
            at = self._world.monotonic() + after
            heappush(self._paused, (at, next(self._numbers), lane))
            self._timer.look_by(at)
        else:
            (self._resumed if self._lanes[lane][0].is_resumed else self._ready).append(lane)
        return is_paused

    def _wake(self) -> bool:
        """Have one more thread look for work. False where there is none, as when the interpreter ends."""
        if self._idle:
            self._idle.pop().set()
        elif self._alive < self._threads:
            try:
                self._world.start(self._work, self._name)
            except RuntimeError:
                return self._alive > 0
            self._alive += 1
        else:
            self._is_full = True
            self._troubles.note(self._all_busy, self._say_who, inf, FULL)
        return True

    def _choose(self) -> str | None:
        """The lane whose turn it is."""
        if self._ready:
            return self._ready.popleft()
        if self._resumed and self._resuming < max(1, self._threads // 2):
            self._resuming += 1
            return self._resumed.popleft()
        return None

    def _finish(self, lane: str, again: float | None) -> None:
        jobs = self._lanes[lane]
        self._resuming -= jobs[0].is_resumed
        if again == LATER:
            self._meet(lane)
            return
        if again is None or self.is_closing:
            jobs.pop(0)
            self._jobs -= 1
        if jobs:
            self._queue(lane, again or jobs[0].at - self._world.monotonic())
        else:
            del self._lanes[lane]
            if self.is_closing and not self._lanes:
                self._emptied.set()

    def _meet(self, lane: str) -> bool:
        """Queue the lane with the second of the two: its task has given LATER, and it was resumed. Whether it is."""
        is_second = lane in self._left
        self._left ^= {lane}
        if is_second:
            self._queue(lane)
        return is_second

    # Threads

    def _work(self, is_patient: bool = True) -> None:
        while (lane := self._next(is_patient)) is not None:
            job, again = self._lanes[lane][0], None
            try:
                again = job.context.run(job.task)
            except BaseException as error:
                log_error(logger, f"{self._name}: a task failed", error)
            with self._lock:
                if self._lanes.get(lane, (None,))[0] is not job:  # another one runs instead, in another thread
                    return
                self._finish(lane, again)

    def _next(self, is_patient: bool) -> str | None:
        """The next lane to serve; None where there has been none for a while, and the thread is to end."""
        event = None
        while True:
            with self._lock:
                if has_waited := event in self._idle:
                    self._idle.remove(event)
                if (lane := self._choose()) is not None:
                    return lane
                if self._is_full:
                    self._is_full = False
                    self._troubles.end(self._all_busy)
                if self.is_closing or has_waited or not is_patient:
                    self._alive -= is_patient
                    return None
                event = self._world.event()
                self._idle.append(event)
            event.wait(IDLE)

    def _look(self, now: float) -> float:
        """Do what is to be done by now; gives the time of the next thing."""
        while self._paused and self._paused[0][0] <= now:
            self._queue(heappop(self._paused)[2])
            self._wake()
        for lane, limit in list(self._limits.items()):
            if limit.until <= now:
                self._replace(lane, self._limits.pop(lane).instead)
        times = (*(limit.until for limit in self._limits.values()), *(at for at, _, _ in self._paused[:1]))
        return min((at for at in times if at > now), default=inf)

    def _say_who(self) -> str:
        """Which tasks are oldest. Whoever logs it has another lock, under which this one may not be waited for."""
        now, oldest = self._world.monotonic(), sorted(self._limits.values(), key=lambda limit: limit.since)
        names = ", ".join(f"{limit.name} for {now - limit.since:.0f} s" for limit in oldest[:NAMED])
        return f", {len(self._ready) + len(self._resumed)} users wait; the oldest: {names or '?'}"

    def _replace(self, lane: str, task: Task) -> None:
        jobs = self._lanes[lane]
        hanging, jobs[0] = jobs[0], Job(task, jobs[0].context.copy(), False, 0.0)
        self._resuming -= hanging.is_resumed
        self._alive -= 1
        self._queue(lane)
        self._wake()
