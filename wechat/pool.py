"""Threads for what handlers that await give to others, as calls to the platform."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

Job = tuple["Result", Callable[[], Any]]


class Result(Future[Any]):
    """What comes of a call; where nobody waits for it any more, its thread is left to itself."""

    leave: Callable[["Result"], None]
    is_left = False

    def cancel(self) -> bool:
        is_cancelled = super().cancel()
        if not is_cancelled:
            self.leave(self)
        return is_cancelled


class Pool(ThreadPoolExecutor):  # asyncio takes no other kind
    """Up to so many threads, when needed; one that was left to itself does not count, another takes its place."""

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, name)
        self._name, self._most, self._free = name, most, most
        self._jobs, self._lock = deque[Job](), threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Have the function called, once a thread is free."""
        result = Result()
        result.leave = self._leave
        job = result, partial(function, *arguments, **named)
        with self._lock:
            self._jobs.append(job)
            try:
                self._begin()
            except RuntimeError:  # the host gives no more threads: those that there are go on with it
                if self._free == self._most:
                    self._jobs.remove(job)
                    raise
        return result

    def _begin(self) -> None:
        """Start a thread, where there is room for one, and something for it to do; the lock is held."""
        if self._free and self._jobs:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
            self._free -= 1

    def _work(self) -> None:
        while job := self._next():
            if self._do(*job):
                return
            del job  # which holds what it answered

    def _next(self) -> Job | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._free += 1
        return None

    def _do(self, result: Result, call: Callable[[], Any]) -> bool:
        """Make the call. Whether its thread was left meanwhile, and is none of these any more."""
        if result.set_running_or_notify_cancel():
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)
        with self._lock:
            return result.is_left

    def _leave(self, result: Result) -> None:
        with self._lock:
            if result.running() and not result.is_left:
                result.is_left = True
                self._free += 1
                with suppress(RuntimeError):
                    self._begin()
