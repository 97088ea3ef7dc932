"""The threads that answer requests: a few at work while the queue moves, more as soon as one of them waits.

waitress wakes one of its threads for each request. With 64 of them that want to run Python, which one thread can at a
time, a fifth of the throughput goes to the changes between them.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Protocol

from wechat.log import log_error
from wechat.trouble import troubles
from wechat.world import REAL, World

logger = logging.getLogger("waitress")

FEWEST = 2  # at work while requests come; more of them take the interpreter from each other
PATIENCE = 0.005  # seconds without a request taken, after which those at work count as blocked
FULL = 1.0  # seconds after which workers without a rest are said to be busy
MOST_AT_ONCE = 16  # requests that are prepared together
MEMORY = 1.0  # seconds; after each of them one less counts as blocked


class Task(Protocol):
    """A request that came."""

    def service(self) -> None:
        """Answer it."""


class Batch:
    """Requests that are prepared together."""

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks, self.is_prepared = tasks, False


class Workers:
    """Up to `most` threads, each started when it is first needed; who rested last works first, its memory is warm.

    What several requests can do together `prepare` does, for those that wait when a worker takes one. This is what
    waitress calls a task dispatcher.
    """

    def __init__(self, most: int, prepare: Callable[[list[Any]], object] | None = None, world: World = REAL) -> None:
        self._most, self._prepare, self._world, self._troubles = most, prepare, world, troubles(world)
        self._all_busy, self._is_full = f"all {most} workers are busy, requests wait: see WECHAT_THREADS", False
        self._lock = world.lock()
        self._tasks: deque[Task] = deque()
        self._prepared: deque[Task] = deque()
        self._batches: deque[Batch] = deque()  # which are being prepared, and which wait for one before them
        self._resting: list[threading.Lock] = []  # each is released to wake its thread
        self._threads, self._at_work = 0, 0
        self._enough = FEWEST  # at work: more where those that are have been blocked lately
        self._taken = self._lower_at = 0.0  # when a task was last taken, and when fewer are enough
        self._has_tasks = world.event()
        world.start(self._watch, "workers")

    def add_task(self, task: Task) -> None:
        """Have the request answered."""
        with self._lock:
            self._tasks.append(task)
            if self._is_full:
                self._note_full()
            if self._at_work < self._enough:
                self._call_one()
            elif not self._has_tasks.is_set():
                self._has_tasks.set()

    def stand_aside(self) -> None:
        """Note that a thread at work is about to wait."""
        with self._lock:
            self._at_work -= 1
            if self._some_wait and self._at_work < self._enough:
                self._call_one()

    def come_back(self) -> None:
        """Note that a thread that stood aside goes on."""
        with self._lock:
            self._at_work += 1

    @property
    def _some_wait(self) -> bool:
        return bool(self._tasks or self._prepared)

    def _call_one(self) -> None:
        if self._resting:
            self._resting.pop().release()
        elif self._threads < self._most:
            try:
                self._world.start(self._work, "worker")
            except RuntimeError as error:  # the host gives no more threads: those that there are answer
                self._troubles.note("no further worker", f": {error}")
                self._has_tasks.set()  # where there is none at all, so that one is asked for again
                return
            self._threads += 1
        else:
            if not self._is_full:
                self._note_full()
            return
        self._at_work += 1

    def _note_full(self) -> None:
        self._is_full = True
        self._troubles.note(self._all_busy, lasts=inf, after=FULL)

    def _work(self) -> None:
        _mine.workers = self
        bell = self._world.lock()
        bell.acquire()
        while True:
            task = self._take(bell)
            if not task:
                bell.acquire()
                continue
            try:
                task.service()
            except BaseException as error:  # as waitress does: a thread that ended would be missed
                log_error(logger, "a request failed in waitress", error)

    def _take(self, bell: threading.Lock) -> Task | None:
        with self._lock:
            if not self._some_wait:
                self._rest(bell)
                return None
            self._taken = now = self._world.monotonic()
            if self._enough > FEWEST and now >= self._lower_at:
                self._enough, self._lower_at = self._enough - 1, now + MEMORY
            # Where all are blocked, another process may sooner have a worker for what is not begun here.
            is_alone = len(self._tasks) == 1 and not self._batches
            if self._prepared or not self._prepare or self._is_full or is_alone:
                return (self._prepared or self._tasks).popleft()
            batch = Batch([self._tasks.popleft() for _ in range(min(len(self._tasks), MOST_AT_ONCE))])
            self._batches.append(batch)
        try:
            self._prepare(batch.tasks)
        except BaseException as error:
            log_error(logger, "requests are answered one by one", error)
        return self._take_prepared(batch) or self._take(bell)

    def _take_prepared(self, batch: Batch) -> Task | None:
        """The first request that is prepared; none while a batch that was taken before this one still is not."""
        with self._lock:
            self._taken, batch.is_prepared = self._world.monotonic(), True
            while self._batches and self._batches[0].is_prepared:  # what came first is begun first
                self._prepared.extend(self._batches.popleft().tasks)  # any worker takes them: an answer may take long
            if not self._prepared:
                return None
            task = self._prepared.popleft()
            if self._at_work < self._enough:
                self._call_one()
            elif not self._has_tasks.is_set():
                self._has_tasks.set()
        return task

    def _rest(self, bell: threading.Lock) -> None:
        self._at_work -= 1
        self._resting.append(bell)
        if self._is_full:
            self._is_full = False
            self._troubles.end(self._all_busy)

    def _watch(self) -> None:
        """Call one more whenever requests wait, and those at work take none."""
        while self._has_tasks.wait():
            self._world.sleep(PATIENCE)
            with self._lock:
                if not self._some_wait:
                    self._has_tasks.clear()
                elif (now := self._world.monotonic()) - self._taken >= PATIENCE:
                    self._call_one()
                    self._enough, self._lower_at = min(self._enough + 1, self._most), now + MEMORY


class _Mine(threading.local):
    workers: Workers | None = None


_mine = _Mine()


@contextmanager
def standing_aside() -> Iterator[None]:
    """Let another worker run inside a block that waits."""
    workers = _mine.workers
    if not workers:
        yield
        return
    workers.stand_aside()
    try:
        yield
    finally:
        workers.come_back()
