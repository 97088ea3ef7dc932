"""An event loop in a thread of its own, on which the coroutines of handlers run.

Nothing on it waits for the store or the platform: what follows a coroutine is for other threads.
"""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing, suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any

from wechat.log import log_error
from wechat.pool import Pool

logger = logging.getLogger("wxserver")

THREADS = 64  # for calls that block, as those to the platform
BLOCKED = 0.1  # seconds for which a handler may keep all others from going on, before it is named
STUCK = 30.0  # seconds of that after which what comes next gets another loop
LOOK = 0.02  # seconds between two looks at that
CLOSING = 1.0  # seconds in which what is cancelled at the end may clean up


class Call:
    """A handler's coroutine, or what it yields, and what came of it; `check` sees what is yielded first.

    `held` is for who takes the result to give back: the user's session.
    """

    __slots__ = (
        *("_check", "_coroutine", "_done", "_error", "_is_done", "_is_told", "_key", "_lock"),
        *("_ends", "_task", "_timer", "_value", "_yielded", "held", "name", "seconds"),
    )

    def __init__(
        self,
        name: str,
        coroutine: Coroutine[Any, Any, Any] | AsyncGenerator[Any, Any],
        seconds: float,
        held: AbstractContextManager[Any],
        check: Callable[[Any], Any] = bool,
    ) -> None:
        self.name, self.seconds, self.held = name, seconds, held
        self._coroutine, self._check, self._lock = coroutine, check, threading.Lock()
        self._is_done = self._is_told = False
        self._yielded: tuple[Any, ...] = ()
        self._value: Any = None
        self._error: BaseException | None = None

    def take(self) -> tuple[tuple[Any, ...], bool]:
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

    def tell(self, value: Any) -> None:
        """Add to what was yielded."""
        self._tell((value,))

    def line_up(self, done: Callable[[str], object], key: str) -> None:
        """Begin the time it has; `done` is called with the key when that is over, or something was yielded."""
        self._done, self._key, self._ends = done, key, time.monotonic() + self.seconds

    def expire(self) -> None:
        """End it, if its time is over. Any thread may do that, where the loop is held up."""
        if time.monotonic() >= self._ends:
            self._tell((), (None, TimeoutError(f"no answer within {self.seconds:g} s")))

    # On the loop

    def begin(self, loop: asyncio.AbstractEventLoop, ended: Callable[["Call"], object]) -> None:
        """Start the coroutine; `ended` is called with its end."""
        self._task = loop.create_task(self._run(ended), name=self.name)
        self._timer = loop.call_at(self._ends, self._cancel)

    async def _run(self, ended: Callable[["Call"], object]) -> None:
        try:
            if isinstance(self._coroutine, Coroutine):
                self._end(await self._coroutine, None)
            else:
                await self._follow(self._coroutine)
        except BaseException as error:  # SystemExit would end the loop
            self._end(None, error)
        ended(self)

    async def _follow(self, generator: AsyncGenerator[Any, Any]) -> None:
        async with aclosing(generator) as values:
            async for value in values:
                self._tell((self._check(value),))
        self._end(None, None)

    def _cancel(self) -> None:
        self.expire()
        self._task.cancel()  # which it may put off: nobody waits for it any more

    def _end(self, value: Any, error: BaseException | None) -> None:
        self._timer.cancel()
        self._tell((), (value, error))

    def _tell(self, values: tuple[Any, ...], end: tuple[Any, BaseException | None] | None = None) -> None:
        with self._lock:
            if self._is_done:  # its time is over, and it goes on
                return
            if end:
                self._is_done, (self._value, self._error) = True, end
            self._yielded += values
            is_told, self._is_told = self._is_told, True
        if not is_told:
            self._done(self._key)


class Loop:
    """The loop of a process, made when it is first needed.

    A call may hold it up for ever. Once it `is_stuck`, what comes next is for another one; what it has goes on if that
    ends, and has its time as it would.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a process that was forked has to: the parent's loop runs on in the parent alone."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[Call] = set()
        self._is_needed = threading.Event()  # while there are any
        self._goes_round, self.is_stuck = True, False

    def start(self, call: Call, done: Callable[[str], object], key: str) -> None:
        """Run the coroutine in the caller's context.

        `done` is called with the key, on the loop: it must not wait for anything.
        """
        call.line_up(done, key)
        with self._lock:
            loop = self._loop or self._make()
            self._calls.add(call)
            self._is_needed.set()
        loop.call_soon_threadsafe(call.begin, loop, self._note_end, context=copy_context())

    def run(self, call: Call, give: Callable[[Any], object]) -> Any:
        """Wait for the coroutine: what it returns, after what it yields was given. Raises what it raises."""
        told = threading.Event()
        self.start(call, lambda _: told.set(), call.name)
        while True:
            told.wait()
            told.clear()
            yielded, is_over = call.take()
            for value in yielded:
                give(value)
            if is_over:
                return call.result()

    def close(self) -> None:
        """End the thread; what still runs on the loop is cancelled."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop and thread:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(2 * CLOSING)
            self._is_needed.set()  # so that who watches sees that it is over

    def _make(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(Pool(THREADS, "async"))
        self._thread = threading.Thread(target=self._serve, args=[self._loop], name="loop", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, args=[self._loop, self._thread], name="watch", daemon=True).start()
        return self._loop

    def _note_end(self, call: Call) -> None:
        with self._lock:
            self._calls.remove(call)
            if self._calls:
                return
            self._is_needed.clear()
        if self.is_stuck:
            self.close()

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

    # Who keeps all others from going on

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        suspect, since, is_told = None, 0.0, False
        while self._is_needed.wait() and self._loop is loop:
            time.sleep(LOOK)
            task, now = asyncio.current_task(loop), time.monotonic()
            if task is not suspect or self._goes_round:
                suspect, since, is_told, self._goes_round = task, now, False, False
                with suppress(RuntimeError):  # it is closed
                    loop.call_soon_threadsafe(self._go_round)
            elif suspect and not is_told and now - since >= BLOCKED:
                is_told = True
                _name(suspect.get_name(), sys._current_frames().get(thread.ident or 0))
            elif now - since >= STUCK:
                self._go_on_without()

    def _go_on_without(self) -> None:
        with self._lock:
            self.is_stuck, calls = True, tuple(self._calls)
        for call in calls:
            call.expire()

    def _go_round(self) -> None:
        self._goes_round = True


def _name(handler: str, frame: FrameType | None) -> None:
    """Say who blocks the loop, and where: at the innermost line in the handlers' own modules."""
    package = handler.partition(".")[0] + "."
    place = frame
    while place and not place.f_globals.get("__name__", "").startswith(package):
        place = place.f_back
    place = place or frame
    at = f"{place.f_code.co_filename}:{place.f_lineno}" if place else "an unknown place"
    said = f"{handler} holds up all other async handlers, for over {BLOCKED:g} s at {at}"
    logger.warning(f"{said}: what takes long there has to be awaited, as by asyncio.to_thread")


class Awaited:
    """The methods of an object, to be awaited: each call is made in a thread."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return partial(asyncio.to_thread, getattr(self._thing, name))
