"""One schedule: from a seed to the promises that were broken in it, if any."""

import logging
from contextlib import contextmanager

from greenlet import GreenletExit

from tests.simulation.people import NOTHING_OPEN, Handlers, WeChat
from tests.simulation.plan import Plan
from tests.simulation.platform import Platform
from tests.simulation.process import Parts, start
from tests.simulation.promises import Watch
from tests.simulation.scheduler import Scheduler
from tests.simulation.store import Shelf
from tests.simulation.trouble import Trouble
from wechat.routing import Router

WALL = 1_800_000_000  # seconds since 1970, at the beginning
FAULTS_END = 45.0  # seconds
SETTLED_BY = 900.0  # the platform is tried again after 5 minutes at the latest
SELDOM = 0.05  # of the faults that would strike a heartbeat or a start, of which there are more steps than of all else
DELAYS = (1 / 64, 1 / 16, 1 / 4)  # seconds that a step may take


class Simulation:
    """The world of one schedule."""

    def __init__(self, seed, parts=Parts, is_traced=False):
        self.scheduler = Scheduler(seed)
        self.random = self.scheduler.random
        self.wall = WALL
        self.trace = [] if is_traced else None
        self.plan = Plan(seed, self.random)
        self.letters = {letter.name: letter for letter in self.plan.letters}
        self.processes, self._parts, self._numbers = {}, parts, 0
        self.shelf = Shelf(self)
        self.trouble, self.platform, self.watch = Trouble(self), Platform(self), Watch(self)
        self.wechat, self.router = WeChat(self), Router(Handlers(self).routes())

    def run(self):
        """The promises that were broken."""
        with listening_to_log(self):
            try:
                self._run()
            finally:
                self.trouble.end()
        return self.watch.broken

    def _run(self):
        scheduler = self.scheduler
        for _ in range(self.plan.processes):
            self._start_process(0)
        for letter in self.plan.letters:
            scheduler.spawn(None, lambda letter=letter: self.wechat.post(letter))
        self._run_until(self.watch.is_settled, FAULTS_END)
        self.trouble.end()
        scheduler.run(scheduler.now + 4)  # a store that failed is left alone for a while
        self._run_until(self.watch.is_settled, SETTLED_BY)
        if not self.plan.is_miniprogram:
            self._run_to_its_end(self._ask_all)
            self._run_to_its_end(self._fetch_all)
        self._run_to_its_end(self._replay_all)
        self._run_until(self.watch.are_locks_free, scheduler.now + 10)  # those who show life may be at a write
        self.watch.look_at_the_end()

    def _run_until(self, is_over, until):
        while self.scheduler.now < until and not is_over():
            self.scheduler.run(self.scheduler.now + 1)

    def _run_to_its_end(self, function):
        task = self.scheduler.spawn(None, function)
        until = self.scheduler.now + 120
        self._run_until(lambda: task.greenlet.dead, until)
        self._run_until(self.watch.is_settled, until)

    def _users(self):
        return sorted({letter.user for letter in self.plan.letters})

    def _ask_all(self):
        """Have each user write once more; the answer says so where something waits."""
        for user in self._users():
            self.wechat.ask(user, "fast")

    def _fetch_all(self):
        for user in self._users():
            for _ in range(30):
                text = self.wechat.ask(user)
                self.watch.continued(user, text)
                if text == NOTHING_OPEN:
                    break

    def _replay_all(self):
        for letter in self.plan.letters:
            is_fresh = self.scheduler.now - letter.sent_at < 280  # later its signature is stale
            if is_fresh and self.watch.is_done(letter):
                self.wechat.replay(letter)

    # What happens

    def say(self, text):
        """Note an event, where somebody wants to read them."""
        if self.trace is not None:
            self.trace.append(f"{self.scheduler.now:9.3f}  {text}")

    def step(self, process, weight=1.0):
        """A moment of a process at which anything may happen; `weight` is how much this is one to look at."""
        scheduler, trouble = self.scheduler, self.trouble
        if scheduler.is_over:
            raise GreenletExit
        chance = self.random.random()
        if chance < trouble.odds * weight and (scheduler.current.is_at_work or self.random.random() < SELDOM):
            trouble.strike(process)
            if process.is_dead:
                scheduler.leave()
        elif chance > 0.94:
            seconds = self.random.choice(DELAYS)
            self.watch.delays.append((scheduler.now, seconds))
            scheduler.sleep(seconds)
            return
        scheduler.pause()

    def crash(self, process):
        """End a process; another one takes its place after a while."""
        if process.is_dead:
            return
        self.say(f"FAULT {process.name} ends")
        process.crash()
        self.watch.crashed(process)
        self._start_process(self.random.choice([0.5, 2, 2, 10, 30]))

    def freeze(self, process, seconds):
        """Let a process stand still."""
        if not process.is_dead:
            self.say(f"FAULT {process.name} stands still for {seconds} s")
            self.watch.frozen(process, seconds)
            process.freeze(seconds)

    def _start_process(self, after):
        shelf = None if self.plan.is_memory else self.shelf

        def begin():
            self.scheduler.sleep(after)
            number = self.next_number()
            self.say(f"p{number} starts")
            start(self, number, self._parts, shelf)

        self.scheduler.spawn(None, begin)

    def next_number(self):
        """The number of the next process."""
        self._numbers += 1
        return self._numbers

    def shelves(self):
        """The store, or those of the processes that have one each."""
        return [process.store.shelf for process in self.started()] if self.plan.is_memory else [self.shelf]

    def alive(self):
        """The processes that have not ended."""
        return [process for process in self.processes.values() if not process.is_dead]

    def started(self):
        """Those that serve."""
        return [process for process in self.alive() if process.delivery]


class Listener(logging.Handler):
    """Reads the log of all processes."""

    def __init__(self, simulation):
        super().__init__(logging.INFO if simulation.trace is not None else logging.ERROR)
        self._simulation = simulation

    def handle(self, record):
        simulation = self._simulation
        if simulation.trace is not None:
            process = simulation.scheduler.current.process
            said = record.getMessage().partition("\n")[0]
            simulation.say(f"    {process.name if process else '-'} {record.levelname}: {said}")
        if record.levelno >= logging.ERROR:
            simulation.watch.logged(record)


@contextmanager
def listening_to_log(simulation):
    """Inside the block the simulation has the log, and nobody else."""
    loggers = [logging.getLogger(name) for name in ("wxserver", "wechat")]
    listener = Listener(simulation)
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.setLevel(listener.level)
        logger.propagate = False
    try:
        yield
        for logger in loggers:
            logger.removeHandler(listener)
            logger.setLevel(logging.CRITICAL + 1)
        simulation.scheduler.close()
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
            logger.propagate = propagate
