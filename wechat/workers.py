"""The threads that answer requests: a few at work while the queue moves, more as soon as one of them waits.

waitress wakes one of its threads for each request. With 64 of them that want to run Python, which one thread can at a
time, a fifth of the throughput goes to the changes between them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger("waitress")

FEWEST = 2  # at work while requests come; more of them take the interpreter from each other
PATIENCE = 0.005  # seconds without a request taken, after which those at work count as blocked
MEMORY = 1.0  # seconds; after each of them one less counts as blocked


class Task(Protocol):
    """A request that came."""

    def service(self) -> None:
        """Answer it."""


class Workers:
    """Up to `most` threads, each started when it is first needed; who rested last works first, its memory is warm.

    This is what waitress calls a task dispatcher.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._resting: list[threading.Lock] = []  # each is released to wake its thread
        self._threads, self._at_work = 0, 0
        self._is_short = False  # whether the last thread that was wanted could not be started
        self._enough = FEWEST  # at work: more where those that are have been blocked lately
        self._taken = self._lower_at = 0.0  # when a task was last taken, and when fewer are enough
        self._has_tasks = threading.Event()
        threading.Thread(target=self._watch, name="workers", daemon=True).start()

    def add_task(self, task: Task) -> None:
        """Have the request answered."""
        with self._lock:
            self._tasks.append(task)
            if self._at_work < self._enough:
                self._call_one()
            elif not self._has_tasks.is_set():
                self._has_tasks.set()

    def stand_aside(self) -> None:
        """Note that a thread at work is about to wait."""
        with self._lock:
            self._at_work -= 1
            if self._tasks and self._at_work < self._enough:
                self._call_one()

    def come_back(self) -> None:
        """Note that a thread that stood aside goes on."""
        with self._lock:
            self._at_work += 1

    def _call_one(self) -> None:
        if self._resting:
            self._resting.pop().release()
        elif self._threads < self._most:
            try:
                threading.Thread(target=self._work, name="worker", daemon=True).start()
            except RuntimeError as error:  # the host gives no more threads: those that there are answer
                if not self._is_short:
                    logger.warning("no further worker: %s", error)
                self._is_short = True
                return
            self._threads, self._is_short = self._threads + 1, False
        else:
            return
        self._at_work += 1

    def _work(self) -> None:
        _mine.workers = self
        bell = threading.Lock()
        bell.acquire()
        while True:
            task = self._take(bell)
            if not task:
                bell.acquire()
                continue
            try:
                task.service()
            except BaseException:  # as waitress does: a thread that ended would be missed
                logger.exception("a request failed in waitress")

    def _take(self, bell: threading.Lock) -> Task | None:
        with self._lock:
            if self._tasks:
                self._taken = now = time.monotonic()
                if self._enough > FEWEST and now >= self._lower_at:
                    self._enough, self._lower_at = self._enough - 1, now + MEMORY
                return self._tasks.popleft()
            self._at_work -= 1
            self._resting.append(bell)
            return None

    def _watch(self) -> None:
        """Call one more whenever requests wait, and those at work take none."""
        while self._has_tasks.wait():
            time.sleep(PATIENCE)
            with self._lock:
                if not self._tasks:
                    self._has_tasks.clear()
                elif (now := time.monotonic()) - self._taken >= PATIENCE:
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
