"""The event loop of a simulated process: one task, on which its coroutines run in turn."""

import asyncio
from contextlib import suppress

from greenlet import GreenletExit

from tests.simulation.scheduler import Event, Waiting


class Sleep:
    """What a handler awaits: so many seconds."""

    def __init__(self, seconds):
        self._seconds = seconds

    def __await__(self):
        yield self._seconds


class SimulatedLoop:
    """As `wechat.loop.Loop`, and what a `wechat.loop.Call` takes of asyncio."""

    is_stuck = False

    def __init__(self, simulation, process):
        self._scheduler, self._process = simulation.scheduler, process
        self._due, self._calls, self._tasks = [], [], []
        self._is_due = Event(self._scheduler)
        self.task = None  # until it is needed
        self._scheduler.at_end.append(self._end)

    def start(self, call, done, key):
        """Run the coroutine."""
        if not self.task:
            self.task = self._scheduler.spawn(self._process, self._serve)
            self.task.is_at_work = False
        self._calls.append(call)
        call.line_up(done, key)
        call._ends = 0.0  # by the machine's clock: over when the simulated one says so
        self.call_soon(lambda: self._begin(call))

    def _begin(self, call):
        self._seconds = call.seconds
        call.begin(self, bool)

    def call_at(self, _, function):
        """Have it called when the call that begins has had its time."""
        return self.call_later(self._seconds, function)

    def create_task(self, coroutine, name):
        """Run the coroutine from now on."""
        self._tasks.append(Task(self, coroutine))
        return self._tasks[-1]

    def call_soon(self, function):
        """Have the function called when it has its turn."""
        self._due.append(function)
        self._is_due.set()

    def call_later(self, seconds, function):
        """Have it called after so many seconds."""
        return Timer(self._scheduler, self._process, seconds, lambda: self.call_soon(function))

    def _serve(self):
        while True:
            self._is_due.wait()
            self._is_due.clear()
            while self._due:
                self._due.pop(0)()

    def _end(self):
        """Close what nobody goes on with; Python would say so of each coroutine that was never awaited."""
        coroutines = [task.coroutine for task in self._tasks] + [call._coroutine for call in self._calls]
        sessions = [getattr(call.held, "gen", None) for call in self._calls]
        for thing in (*coroutines, *sessions):
            with suppress(GreenletExit):
                getattr(thing, "close", bool)()


class Timer:
    """A call to come."""

    def __init__(self, scheduler, process, seconds, function):
        self._waiting, self._function, self._is_off = None, function, False
        self._scheduler, self._seconds = scheduler, seconds
        scheduler.spawn(process, self._wait).is_at_work = False

    def _wait(self):
        self._waiting = Waiting(self._scheduler.current)
        if not self._is_off:
            self._scheduler.wait(self._waiting, self._seconds)
        if not self._is_off:
            self._function()

    def cancel(self):
        """Call nothing."""
        self._is_off = True
        if self._waiting:
            self._scheduler.end(self._waiting, is_fired=False)


class Task:
    """A coroutine on its way: what it awaits is a number of seconds."""

    def __init__(self, loop, coroutine):
        self._loop, self.coroutine = loop, coroutine
        self._timer, self._is_done = None, False
        loop.call_soon(lambda: self._step(None))

    def cancel(self):
        """Have it raise CancelledError where it stands."""
        if self._timer and not self._is_done:
            self._timer.cancel()
            self._loop.call_soon(lambda: self._step(asyncio.CancelledError()))

    def _step(self, error):
        if self._is_done:
            return
        try:
            seconds = self.coroutine.throw(error) if error else self.coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._is_done = True
        else:
            self._timer = self._loop.call_later(seconds, lambda: self._step(None))
