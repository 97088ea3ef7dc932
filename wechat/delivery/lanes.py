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
from wechat.world import REAL, Alarms, Rush, World

logger = logging.getLogger("wxserver")

SUSPECTS = "suspects"  # the lane in which they are started
LOOK_AT_SUSPECT = 0.02  # seconds between two looks
ALONE, LEAST_ALONE = 1.0, 0.05  # seconds that a suspect lives before the next one follows
ALL_ALONE = 10.0  # seconds for all of them together, where that leaves each one enough
IDLE = 10.0  # seconds after which a thread ends that has nothing to do

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


class Lanes:
    """Up to so many threads, which go round the lanes: users never wait for one another.

    What is resumed after a crash gets half of the threads at most: it may be what crashed, or hang. Of what is new, a
    lane takes `most_waiting` behind the task that runs, and all lanes together take `most`.
    """

    def __init__(
        self, threads: int, name: str, world: World = REAL, most_waiting: float = inf, most: float = inf
    ) -> None:
        self._threads, self._name, self._world = threads, name, world
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
        self._idle: list[threading.Event] = []
        self._alive = self._resuming = 0  # threads
        self._jobs = 0  # that wait or run
        self.is_closing = False
        self._emptied = self._world.event()
        self._alarms = Alarms("alarm", self._world)
        self._rush = Rush(f"{self._name}: all {self._threads} threads", self._alarms, self._count_waiting)

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
            self._lanes.setdefault(lane, []).append(
                Job(task, copy_context(), is_resumed, self._world.monotonic() + after)
            )
            self._jobs += 1
            if jobs:
                return True
            self._queue(lane, after)
            has_thread = self._wake()
        if not has_thread:
            self._work(is_patient=False)
        return True

    def submit_suspect(self, lane: str, task: Task, is_over: Callable[[], bool], forgive: Callable[[], object]) -> None:
        """Have a task done that may end the process; the next such follows once it is over, or lived for a moment.

        So whichever ends the process is the last that was started; the start of each one before it is forgiven.
        """
        ends: list[float] = []

        def watch() -> float | None:
            if not ends:
                alone = min(ALONE, max(LEAST_ALONE, ALL_ALONE / len(self._lanes[SUSPECTS])))
                ends.append(self._world.monotonic() + alone)
                self.submit(lane, task, is_resumed=True)
            elif is_over() or self._world.monotonic() >= ends[0]:
                if not is_over() and len(self._lanes[SUSPECTS]) > 1:
                    forgive()
                return None
            return LOOK_AT_SUSPECT

        self.submit(SUSPECTS, watch, is_resumed=True)

    def resume(self, lane: str) -> None:
        """Have the task that gives LATER, or has done so, called again. An event loop may call this: it never waits."""
        with self._lock:
            has_thread = not self._meet(lane) or self._wake()
        if not has_thread:
            self._work(is_patient=False)

    @contextmanager
    def limit(self, lane: str, name: str, seconds: float, instead: Task) -> Iterator[None]:
        """Let the task of the lane take so long at most inside the block; then another one is done instead.

        `name` is for the log. The thread that hangs does not count any more. Raises Left where the block ends later.
        """
        alarm = self._alarms.set(seconds, lambda: self._replace(lane, instead), name)
        try:
            yield
        finally:
            if not self._alarms.call_off(alarm):
                raise Left

    def _replace(self, lane: str, task: Task) -> None:
        with self._lock:
            jobs = self._lanes[lane]
            hanging, jobs[0] = jobs[0], Job(task, jobs[0].context.copy(), False, 0.0)
            self._resuming -= hanging.is_resumed
            self._alive -= 1
            self._queue(lane)
            self._wake()

    def close(self) -> None:
        """Wait for what runs or is ready, and drop what is paused."""
        with self._lock:
            self.is_closing = True
            for _, _, lane in self._paused:
                self._jobs -= len(self._lanes.pop(lane))
            self._paused.clear()
            for event in self._idle:
                event.set()
            self._look_whether_empty()
        self._emptied.wait()

    # With the lock held

    def _queue(self, lane: str, after: float = 0.0) -> None:
        if after > 0 and not self.is_closing:
            heappush(self._paused, (self._world.monotonic() + after, next(self._numbers), lane))
        else:
            (self._resumed if self._lanes[lane][0].is_resumed else self._ready).append(lane)

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
            self._rush.begin()
        return True

    def _choose(self) -> str | None:
        """The lane whose turn it is."""
        while self._paused and self._paused[0][0] <= self._world.monotonic():
            self._queue(heappop(self._paused)[2])
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
            self._look_whether_empty()

    def _meet(self, lane: str) -> bool:
        """Queue the lane with the second of the two: its task has given LATER, and it was resumed. Whether it is."""
        if lane in self._left:
            self._left.remove(lane)
            self._queue(lane)
            return True
        self._left.add(lane)
        return False

    def _count_waiting(self) -> int:
        return len(self._ready) + len(self._resumed)

    def _look_whether_empty(self) -> None:
        if self.is_closing and not self._lanes:
            self._emptied.set()

    # A thread

    def _work(self, is_patient: bool = True) -> None:
        while (lane := self._next(is_patient)) is not None:
            job = self._lanes[lane][0]
            again = self._do(job)
            with self._lock:
                if self._lanes.get(lane, (None,))[0] is not job:  # another one runs instead, in another thread
                    return
                self._finish(lane, again)

    def _next(self, is_patient: bool) -> str | None:
        """The next lane to serve; None where there has been none for a while, and the thread is to end."""
        has_waited = False
        while True:
            with self._lock:
                if (lane := self._choose()) is not None:
                    return lane
                self._rush.end()
                # Whoever began a pause looks when it ends; those who began to wait before that know nothing of it.
                pause = self._paused[0][0] - self._world.monotonic() if self._paused else IDLE
                is_needed = self._paused and (pause < IDLE or not self._idle)
                if self.is_closing or not is_patient or (has_waited and not is_needed):
                    self._alive -= is_patient
                    return None
                seconds = min(IDLE, pause)
                event = self._world.event()
                self._idle.append(event)
            has_waited = not event.wait(seconds)
            with self._lock:
                if event in self._idle:
                    self._idle.remove(event)

    def _do(self, job: Job) -> float | None:
        try:
            return job.context.run(job.task)
        except BaseException as error:
            log_error(logger, f"{self._name}: a task failed", error)
        return None
