"""An event loop in a thread of its own, on which the coroutines of handlers run.

Nothing on it waits for the store or the platform: what follows a coroutine is for other threads.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

from wechat.log import log_error

logger = logging.getLogger("wxserver")

THREADS = 64  # for calls that block, as those to the platform
BLOCKED = 0.1  # seconds for which a handler may keep all others from going on, before it is named
LOOK = 0.02  # seconds between two looks at that
CLOSING = 1.0  # seconds in which what is cancelled at the end may clean up


@dataclass(slots=True, eq=False)
class Call:
    """A handler's coroutine, or what it yields, and what came of it; `check` sees what is yielded first.

    `held` is for who takes the result to give back: the user's session.
    """

    name: str
    _coroutine: Coroutine[Any, Any, Any] | AsyncGenerator[Any, Any]
    seconds: float
    held: AbstractContextManager[Any]
    _check: Callable[[Any], Any] = bool
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _yielded: Sequence[Any] = ()
    _is_done: bool = False
    _is_told: bool = False  # whether `done` was called since what was yielded was taken
    _value: Any = None
    _error: BaseException | None = None
    _tell_of: Callable[[], object] = bool
    _task: "asyncio.Task[None] | None" = None
    _timer: asyncio.TimerHandle | None = None

    def take(self) -> tuple[Sequence[Any], bool]:
        """What was yielded since then, and whether that is all; if not, `done` is called once there is more."""
        with self._lock:
            yielded, self._yielded, self._is_told = self._yielded, (), False
            return yielded, self._is_done

    def result(self) -> Any:
        """What the coroutine returned; raises what it raised, or a TimeoutError."""
        error, self._error = self._error, None  # which holds the frames that hold this call
        if error:
            raise error
        return self._value

    # On the loop

    def begin(
        self, loop: asyncio.AbstractEventLoop, done: Callable[[str], object], key: str, ended: Callable[[], object]
    ) -> None:
        """Start the coroutine, and the time it has.

        `done` is called with the key when that is over, or something was yielded; `ended` with the coroutine's end.
        """
        self._tell_of = partial(done, key)
        self._task = loop.create_task(self._run(ended), name=self.name)
        self._timer = loop.call_later(self.seconds, self._expire)

    async def _run(self, ended: Callable[[], object]) -> None:
        try:
            if isinstance(self._coroutine, Coroutine):
                self._end(await self._coroutine, None)
            else:
                async with aclosing(self._coroutine) as values:
                    async for value in values:
                        self._tell([self._check(value)])
                self._end(None, None)
        except BaseException as error:  # SystemExit would end the loop
            self._end(None, error)
        ended()

    def _expire(self) -> None:
        self._end(None, TimeoutError(f"no answer within {self.seconds:g} s"))
        if self._task:
            self._task.cancel()  # which it may put off: nobody waits for it any more

    def _end(self, value: Any, error: BaseException | None) -> None:
        if not self._is_done:
            self._value, self._error = value, error
            if self._timer:
                self._timer.cancel()
            self._tell([], is_done=True)

    def _tell(self, values: list[Any], is_done: bool = False) -> None:
        with self._lock:
            if self._is_done:  # its time is over, and it goes on
                return
            self._yielded = [*self._yielded, *values] if values else self._yielded
            self._is_done, is_told, self._is_told = is_done, self._is_told, True
        if not is_told:
            self._tell_of()


class Loop:
    """One loop for a process, made when it is first needed."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a process that was forked has to: the parent's loop runs on in the parent alone."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running = 0  # coroutines; only the loop's thread counts them
        self._is_needed = threading.Event()  # while there are any

    def start(self, call: Call, done: Callable[[str], object], key: str) -> None:
        """Run the coroutine in the caller's context.

        `done` is called with the key, on the loop: it must not wait for anything.
        """
        with self._lock:
            loop = self._loop or self._make()
        loop.call_soon_threadsafe(self._start, loop, call, done, key, context=copy_context())

    def close(self) -> None:
        """End the thread; what still runs on the loop is cancelled."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop and thread:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(2 * CLOSING)
            self._is_needed.set()  # so that who watches sees that it is over

    def _make(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(THREADS, "async"))
        self._thread = threading.Thread(target=self._serve, args=[self._loop], name="loop", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, args=[self._loop, self._thread], name="watch", daemon=True).start()
        return self._loop

    def _start(self, loop: asyncio.AbstractEventLoop, call: Call, done: Callable[[str], object], key: str) -> None:
        self._running += 1
        self._is_needed.set()
        call.begin(loop, done, key, self._note_end)

    def _note_end(self) -> None:
        self._running -= 1
        if not self._running:
            self._is_needed.clear()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while self._loop is loop:
            try:
                loop.run_forever()
            except BaseException as error:  # of a task that a handler made
                log_error(logger, "the event loop goes on after a failure", error)
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSING))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        """Name each task that keeps all others from going on."""
        told = None
        while self._is_needed.wait() and self._loop is loop:
            goes_round, suspect = threading.Event(), asyncio.current_task(loop)
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(goes_round.set)
            if goes_round.wait(BLOCKED):
                time.sleep(LOOK)
            elif suspect and suspect is not told and suspect is asyncio.current_task(loop):
                told = suspect
                name = suspect.get_name()
                at = _place(name.partition(".")[0] + ".", sys._current_frames().get(thread.ident or 0))
                cure = "what takes long there has to be awaited, as by asyncio.to_thread"
                logger.warning("%s holds up all other async handlers, for over %g s at %s: %s", name, BLOCKED, at, cure)


def _place(package: str, frame: FrameType | None) -> str:
    """The innermost line in a module of the package; where there is none, the innermost of all."""
    place = frame
    while place and not place.f_globals.get("__name__", "").startswith(package):
        place = place.f_back
    place = place or frame
    return f"{place.f_code.co_filename}:{place.f_lineno}" if place else "an unknown place"


class Awaited:
    """The methods of an object, to be awaited: each call is made in a thread."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(asyncio.to_thread, getattr(self._thing, name))
