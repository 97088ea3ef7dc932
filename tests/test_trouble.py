"""An hour of trouble, in simulated time, and what an operator reads of it."""

import logging
import re
from contextlib import contextmanager
from itertools import pairwise
from math import inf

import pytest
from webob import Request

from tests.simulation.platform import Answer
from tests.simulation.scheduler import Event, Scheduler, SimulatedWorld
from wechat.delivery.answering import Answering
from wechat.delivery.delivery import Delivery
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.delivery.sessions import Sessions
from wechat.errors import TransportError
from wechat.loop import Loop
from wechat.platform.api import Api
from wechat.routing import Router, on
from wechat.settings import Settings
from wechat.store.memory import MemoryStore
from wechat.store.owners import Heartbeat, Identity, Owners
from wechat.trouble import MOST, troubles
from wechat.workers import Workers, _mine

MINUTE, HOUR = 60.0, 3600.0
# What is wrong, from which minute to which.
PLAN = {
    "a worker hangs": (3, 7),
    "slow handlers hang": (10, 15),
    "the address is not on the list": (18, 24),
    "users are not to be written to": (29, 32),
    "the platform is busy": (33, 37),
    "the platform comes and goes": (39, 44),
    "the store is away": (46, 51),
    "the store comes and goes": (53, 58),
}
CAUSES = {
    "all 6 workers are busy, requests wait: see WECHAT_THREADS",
    "slow: all 3 threads are busy",
    "no customer messages for 600 s, slow replies wait for 继续",
    "no customer messages for 30 s, slow replies wait for 继续",
    "replies wait for 继续, as no customer messages are sent",
    "replies are tried again",
    "replies are not sent, errcode 45015",
    "the store is away, messages are answered without it",
    "other processes do not see how a message stands",
    "messages of processes that died cannot be looked after",
    "three quarters of WECHAT_THREADS wait for slow handlers: no further attempt is held",
    "handlers.hang is not marked slow=True, and holds up others",
}
SETTINGS = Settings(tokens=("t",), appid="wx1", secret="s", threads=6, slow_threads=3, waiting_per_user=2, waiting=20)


class Server:
    """What a simulated process is to the scheduler."""

    uptime, locks, frozen, is_dead = 0.0, 0, 0, False

    def holds_back(self, task):
        return False


class AwayStore(MemoryStore):
    """A store that does not answer, when `is_away` says so."""

    name, failures = "the store", (ConnectionError,)

    def get(self, key):
        with self._doing("get"):
            self._reach()
            return super().get(key)

    def linked(self, index):
        with self._doing("list"):
            self._reach()
            return super().linked(index)

    def _swap(self, changes):
        self._reach()
        return super()._swap(changes)

    def _reach(self):
        if self.is_away():
            raise ConnectionError


class Attempt:
    """One attempt at a message, as a worker takes it."""

    def __init__(self, hour, body):
        self._hour, self._body, self.answered = hour, body, Event(hour.scheduler)

    def service(self):
        self._hour.delivery.answer(self._body)
        self.answered.set()


class Hour:
    """A server, its users, and the plan of what goes wrong."""

    def __init__(self):
        self.scheduler = scheduler = Scheduler(1)
        world, self.lines, self._process = SimulatedWorld(scheduler, process := Server()), [], process
        self.store = AwayStore(world)
        self.store.is_away = lambda: self.is_on("the store is away") or self._is_on_by_turns("the store comes and goes")
        owners = Owners(self.store, world, Identity)
        api = Api(SETTINGS, self.store, owners, self._clock, world, lambda _: self)
        ledger = Ledger(self.store, owners, True, 600.0, world)
        outbox = Outbox(SETTINGS, api, ledger, self.store, world)
        answering = Answering(Router(self._routes()), api, Sessions(self.store, owners), Loop())
        self.delivery = Delivery(SETTINGS, answering, ledger, outbox, self._clock, world)
        self.workers = Workers(SETTINGS.threads, world=world)
        heartbeat = Heartbeat(owners, self.delivery.look_after, bool, world)
        scheduler.spawn(process, heartbeat.beat)

    def is_on(self, name):
        begin, end = PLAN[name]
        return begin * MINUTE <= self.scheduler.now < end * MINUTE

    def _is_on_by_turns(self, name):
        return self.is_on(name) and self.scheduler.now % 14 < 7

    def _clock(self):
        return 1_800_000_000 + self.scheduler.now

    def _routes(self):
        @on("text", "fast")
        def fast(message):
            return "fast"

        @on("text", "slow", slow=True)
        def slow(message):
            self.scheduler.sleep(40 if self.is_on("slow handlers hang") else 16)
            return "slow"

        @on("text", "hang")
        def hang(message):
            self.scheduler.sleep(30 if self.is_on("a worker hangs") else 0)

        for function in (slow, hang):
            function.__module__, function.__qualname__ = "handlers", function.__name__
        return {mark.path: function for function in (fast, slow, hang) for mark in function.wechat_marks}

    # The platform

    @contextmanager
    def open(self, method, target, body, headers, timeout, *_):
        path = target.partition("?")[0]
        if self._is_on_by_turns("the platform comes and goes"):
            raise TransportError(f"{method} {path}: no answer")
        yield Answer(path, self._answer(path))

    def close(self):
        pass

    def _answer(self, path):
        if self.is_on("the address is not on the list"):
            return {"errcode": 40164, "errmsg": "invalid ip"}
        if path.endswith("stable_token"):
            return {"access_token": "a", "expires_in": 7200}
        if self.is_on("users are not to be written to"):
            return {"errcode": 45015, "errmsg": "out of time limit"}
        return {"errcode": -1 if self.is_on("the platform is busy") else 0}

    # The users

    def _write(self, number):
        is_slow = number % 10 == 1 or self.is_on("slow handlers hang")
        word = "slow" if is_slow else "hang" if number % 3 == 0 else "fast"
        body = (
            f"<xml><ToUserName>gh</ToUserName><FromUserName>u{number % 50}</FromUserName>"
            f"<CreateTime>{int(self._clock())}</CreateTime><MsgType>text</MsgType><Content>{word}</Content>"
            f"<MsgId>{10**17 + number}</MsgId></xml>"
        ).encode()
        for _ in range(3):
            request = Attempt(self, body)
            self.workers.add_task(request)
            if request.answered.wait(5):
                return

    def _write_all(self):
        number = 0
        while self.scheduler.now < HOUR:
            number += 1
            self.scheduler.spawn(self._process, lambda number=number: self._write(number))
            self.scheduler.sleep(1)

    def run(self):
        self.scheduler.spawn(self._process, self._write_all)
        self.scheduler.run(HOUR + 10 * MINUTE)
        assert self.scheduler.broken == []
        self.scheduler.close()


class Reader(logging.Handler):
    """An operator who reads warnings and errors, and when they came."""

    def __init__(self, hour):
        super().__init__(logging.WARNING)
        self._hour = hour

    def emit(self, record):
        self._hour.lines.append((self._hour.scheduler.now, record.getMessage()))


@pytest.fixture(scope="module")
def hour():
    hour, logger = Hour(), logging.getLogger("wxserver")
    reader, before = Reader(hour), logger.propagate
    logger.addHandler(reader)
    logger.propagate = False
    try:
        hour.run()
    finally:
        _mine.workers = None  # a greenlet has the locals of this thread
        logger.removeHandler(reader)
        logger.propagate = before
    return hour


def history(hour):
    """When each cause began and was over, in order."""
    found, overs = {}, [line for _, line in hour.lines if line.startswith("over: ")]
    causes = CAUSES | {cause_of(line) for line in overs}
    for at, line in hour.lines:
        if not line.startswith("still: "):
            (cause,) = {cause for cause in causes if line.removeprefix("over: ").startswith(cause)} or {line}
            found.setdefault(cause, []).append((at, line.startswith("over: ")))
    return found


def cause_of(line):
    return re.fullmatch(r"over: (.+): \d+ in \d+ s", line)[1]


def test_each_cause_of_the_hour_is_in_the_log(hour):
    assert set(history(hour)) >= CAUSES


def test_there_is_no_more_than_one_line_a_minute_about_each_cause(hour):
    for cause, lines in history(hour).items():
        apart = [later - before for (before, _), (later, _) in pairwise(lines)]
        assert [seconds for seconds in apart if seconds < MINUTE] == [], cause


def test_each_cause_begins_and_is_over(hour):
    """What came once needs no second line; what began and was over within a minute after another line has one."""
    for cause, lines in history(hour).items():
        assert not lines[0][1], cause
        assert lines[-1][1] or len(lines) == 1, cause
        assert all(before or later for (_, before), (_, later) in pairwise(lines)), cause


def test_while_anything_is_wrong_a_line_a_minute_sums_up(hour):
    summaries = [(at, line) for at, line in hour.lines if line.startswith("still: ")]
    assert len(summaries) > 20
    assert min(later - before for (before, _), (later, _) in pairwise(summaries)) >= MINUTE
    for cause, lines in history(hour).items():
        for (begin, was_over), (end, _) in pairwise(lines):
            told = [line for at, line in summaries if begin + MINUTE <= at < end and not was_over]
            assert all(cause in line for line in told)
            assert was_over or len(told) >= (end - begin) // MINUTE - 2, cause


def test_the_last_line_tells_how_often_and_how_long(hour):
    overs = [
        (cause_of(line), re.findall(r"\d+", line.removeprefix(f"over: {cause_of(line)}")))
        for _, line in hour.lines
        if line.startswith("over: ")
    ]
    said = dict(sorted(overs, key=lambda over: float(over[1][-1])))  # the longest of each
    assert 8 * MINUTE < float(said["no customer messages for 600 s, slow replies wait for 继续"][-1]) < 20 * MINUTE
    times, seconds = map(float, said["slow: all 3 threads are busy"])
    assert times > 10
    assert 4 * MINUTE < seconds < 10 * MINUTE


def test_when_all_is_well_again_the_log_is_silent(hour):
    assert hour.lines[-1][1].startswith("over: ")
    assert hour.lines[-1][0] < HOUR + 5 * MINUTE


def test_an_hour_of_it_fits_on_two_pages(hour):
    assert len(hour.lines) < 120


# One cause at a time


@pytest.fixture
def later(world, log):
    """A function that lets so many seconds pass, and gives what the log says then."""

    def run(seconds):
        log.clear()
        world.now += seconds
        troubles(world)._look(world.now)
        return log.messages

    return run


def test_what_is_over_too_soon_is_worth_no_line(world, later):
    troubles(world).note("it is full", lasts=inf, after=5.0)
    world.now += 4
    troubles(world).end("it is full")
    assert later(1) == []
    assert later(600) == []


def test_what_lasts_is_said_in_its_time_with_what_is_known_then(world, later, log):
    troubles(world).note("it is full", lambda: f": {world.now:.0f}", lasts=inf, after=5.0)
    assert later(5) == ["it is full: 1005"]
    assert later(60) == ["still: it is full: 1 in 65 s"]
    troubles(world).end("it is full")
    assert log.messages[-1] == "over: it is full: 1 in 65 s"
    assert later(600) == []


def test_so_many_causes_that_nobody_reads_them_are_one(world, log):
    for number in range(2 * MOST):
        troubles(world).note(f"cause {number}", ": who did it")
    assert len(log.messages) == MOST + 1
    assert log.messages[-1] == "other causes: who did it"


def test_a_refusal_names_path_and_peer_and_is_a_warning_once(account, log):
    for _ in range(3):
        account.app(Request.blank("/wei\nxin?signature=secret", remote_addr="203.0.113.7").environ, lambda *_: None)
    assert {record.getMessage() for record in log.records} == {
        "refused with 404: no such path: WeChat posts to WECHAT_PATH (GET '/wei\\nxin' from 203.0.113.7)"
    }
    assert [record.levelname for record in log.records] == ["WARNING", "INFO", "INFO"]


def test_refusals_that_differ_in_a_number_alone_are_one_cause(account, log):
    """A stranger needs no signature for them, and would leave no room for what really is wrong."""
    for size in range(300_000, 300_000 + 2 * MOST):
        assert Request.blank("/weixin", method="POST", content_length=size).get_response(account.app).status_int == 413
    (line,) = [record.getMessage() for record in log.records if record.levelno == logging.WARNING]
    assert line.startswith("refused with 413: a body of 300000 bytes (POST /weixin from ")
    assert troubles().note("something else")
