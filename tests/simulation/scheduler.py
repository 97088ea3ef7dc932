"""Tasks that run one at a time: what runs next is drawn from a seed, and time passes only while nobody can run.

A task is a greenlet. It belongs to a process, or to the world outside (WeChat, the platform), and gives way at each
lock, event and sleep, and at each step to the store or the platform: there anything may happen.
"""

import heapq
import math
from itertools import count
from random import Random

from greenlet import GreenletExit, getcurrent, greenlet

from wechat.world import World

TICKS = 64  # a second: as events fall on ticks, many fall together, and any of them may come first
PREEMPT = 0.2  # of all locks taken, how many let others go first


class Task:
    """What runs in a process, or outside of all."""

    def __init__(self, process, run):
        self.process, self.greenlet = process, run
        self.is_at_work = process is not None  # on a message
        self.letter = None  # for an attempt: what is delivered


class Waiting:
    """One wait of a task. It ends once: by what it waits for, or in time."""

    def __init__(self, task):
        self.task, self.is_over, self.is_fired = task, False, False


class Scheduler:
    """Runs the tasks of one schedule."""

    def __init__(self, seed):
        self.random = Random(seed)
        self.now = 0.0  # seconds
        self.current = None
        self.is_over = False
        self.broken = []  # errors that ended a task
        self.at_end = []  # what is to be called when all is over
        self._hub = getcurrent()
        self._ready, self._timers, self._tasks = [], [], []
        self._numbers = count()

    def spawn(self, process, function):
        """Begin a task."""
        task = Task(process, greenlet(lambda: self._guard(function), self._hub))
        self._tasks.append(task)
        self._ready.append(task)
        return task

    def run(self, until):
        """Go on until so many seconds have passed, or nothing is left to do."""
        while self._ready or (self._timers and self._timers[0][0] <= until):
            if self._ready:
                self._run_one()
            else:
                self._go_to(self._timers[0][0])
        self.now = max(self.now, until)

    def close(self):
        """Unwind what still runs; nothing that it does on its way out counts."""
        self.is_over = True
        for task in self._tasks:
            if task.greenlet:  # begun, and not ended
                task.greenlet.throw(GreenletExit)
        for function in self.at_end:
            function()

    def make_ready(self, task):
        """Let the task run, at some moment from now on."""
        self._ready.append(task)

    # For the task that runs

    def pause(self):
        """Let others run first."""
        process = self.current.process
        if self._ready or self.is_over or (process and (process.is_dead or process.frozen)):
            self._ready.append(self.current)
            self.leave()

    def leave(self):
        """Stop here until somebody makes the task ready."""
        if self.is_over:
            raise GreenletExit
        self._hub.switch()

    def sleep(self, seconds):
        """Stop for so long."""
        self.wait(Waiting(self.current), seconds)

    def wait(self, waiting, seconds=None):
        """Stop until the wait is over. Whether what was waited for came."""
        if seconds is not None:
            at = math.ceil((self.now + max(0.0, seconds)) * TICKS) / TICKS
            heapq.heappush(self._timers, (at, next(self._numbers), waiting))
        self.leave()
        return waiting.is_fired

    def end(self, waiting, is_fired):
        """End a wait, unless it has ended."""
        if not waiting.is_over:
            waiting.is_over, waiting.is_fired = True, is_fired
            self._ready.append(waiting.task)

    def _guard(self, function):
        try:
            function()
        except Exception as error:
            self.broken.append(error)

    def _run_one(self):
        ready = self._ready
        place = int(self.random.random() * len(ready))
        task, ready[place] = ready[place], ready[-1]
        ready.pop()
        process = task.process
        if process is None or not (process.is_dead or process.holds_back(task)):
            self.current = task
            task.greenlet.switch()

    def _go_to(self, at):
        self.now = at
        while self._timers and self._timers[0][0] == at:
            self.end(heapq.heappop(self._timers)[2], is_fired=False)


class Lock:
    """`threading.Lock`, of a simulated process."""

    def __init__(self, scheduler, process):
        self._scheduler, self._process = scheduler, process
        self._is_taken = False
        self._waiting = []

    def acquire(self):
        scheduler = self._scheduler
        if scheduler.random.random() < PREEMPT:
            scheduler.pause()
        while self._is_taken:
            self._waiting.append(Waiting(scheduler.current))
            scheduler.wait(self._waiting[-1])
        if scheduler.is_over:
            raise GreenletExit
        self._is_taken = True
        self._process.locks += 1
        return True

    def release(self):
        self._is_taken = False
        self._process.locks -= 1
        if self._waiting:
            self._scheduler.end(self._waiting.pop(0), is_fired=True)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()


class Event:
    """`threading.Event`, of a simulated process or of the world outside."""

    def __init__(self, scheduler):
        self._scheduler = scheduler
        self._is_set = False
        self._waiting = []

    def is_set(self):
        return self._is_set

    def set(self):
        self._is_set = True
        for waiting in self._waiting:
            self._scheduler.end(waiting, is_fired=True)
        self._waiting = []

    def clear(self):
        self._is_set = False

    def wait(self, timeout=None):
        if self._is_set:
            return True
        waiting = Waiting(self._scheduler.current)
        self._waiting.append(waiting)
        return self._scheduler.wait(waiting, timeout)


class SimulatedWorld(World):
    """What the code of one process takes for its machine."""

    def __init__(self, scheduler, process):
        self._scheduler, self._process = scheduler, process

    def monotonic(self):
        return self._scheduler.now + self._process.uptime

    def sleep(self, seconds):
        self._scheduler.sleep(seconds)

    def lock(self):
        return Lock(self._scheduler, self._process)

    def event(self):
        return Event(self._scheduler)

    def start(self, task, name):
        self._scheduler.spawn(self._process, task)
