"""Threads for what may take long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from wechat.log import log_error

logger = logging.getLogger("wxserver")


class Pool:
    """Up to so many threads; its length is how many tasks have not ended. What escapes a task is logged."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._name = threads, name
        self.begin()

    def begin(self) -> None:
        """Makes the pool anew, as a process that was forked has to: it has none of its parent's threads."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
        self._lock = threading.Lock()
        self._under_way = 0

    def __len__(self) -> int:
        return self._under_way

    def submit(self, task: Callable[..., None], *arguments: object) -> None:
        """Has the task done by one of the threads, or by the caller where the interpreter is ending."""

        def run() -> None:
            try:
                task(*arguments)
            except BaseException as error:
                log_error(logger, f"{self._name}: a task failed", error)
            finally:
                self._count(-1)

        self._count(1)
        try:
            self._executor.submit(copy_context().run, run)
        except RuntimeError:  # no more tasks are taken
            run()

    def close(self) -> None:
        """Waits for what is under way."""
        self._executor.shutdown()

    def _count(self, change: int) -> None:
        with self._lock:
            self._under_way += change
