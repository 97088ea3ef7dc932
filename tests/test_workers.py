"""The threads that answer requests."""

import subprocess
import sys
import threading
import time

import pytest

from wechat.workers import FEWEST, Workers, standing_aside


class Request:
    """A request that stays at work until it is let go."""

    def __init__(self, stands_aside=False):
        self.stands_aside = stands_aside
        self.is_at_work, self.may_go, self.is_answered = (threading.Event() for _ in range(3))
        self.worker = None

    def service(self):
        self.worker = threading.get_ident()
        self.is_at_work.set()
        if self.stands_aside:
            with standing_aside():
                self.may_go.wait(10)
        else:
            self.may_go.wait(10)
        self.is_answered.set()


class Bad:
    def service(self):
        raise SystemExit


@pytest.fixture
def workers():
    return Workers(8)


def answer(workers, request):
    request.may_go.set()
    workers.add_task(request)
    assert request.is_answered.wait(5)
    time.sleep(0.01)  # until its thread rests
    return request.worker


def test_no_thread_is_started_before_a_request_comes(workers):
    assert workers._threads == 0


def test_one_request_after_the_other_is_answered_by_one_thread(workers):
    assert len({answer(workers, Request()) for _ in range(20)}) == 1


def test_a_request_is_answered_while_all_at_work_are_blocked(workers):
    blocked = [Request() for _ in range(5)]
    for request in blocked:
        workers.add_task(request)
    assert all(request.is_at_work.wait(5) for request in blocked)
    answer(workers, Request())
    for request in blocked:
        request.may_go.set()


def test_one_that_stands_aside_makes_room_at_once(workers, monkeypatch):
    monkeypatch.setattr("wechat.workers.PATIENCE", 60)  # so that nobody else calls another
    blocked = [Request(stands_aside=True) for _ in range(FEWEST * 3)]
    for request in blocked:
        workers.add_task(request)
    assert all(request.is_at_work.wait(5) for request in blocked)
    for request in blocked:
        request.may_go.set()
    assert all(request.is_answered.wait(5) for request in blocked)


def test_no_more_threads_are_started_than_there_may_be(workers):
    requests = [Request(stands_aside=True) for _ in range(12)]
    for request in requests:
        workers.add_task(request)
    time.sleep(0.3)
    assert sum(request.is_at_work.is_set() for request in requests) == 8
    for request in requests:
        request.may_go.set()
    assert all(request.is_answered.wait(5) for request in requests)


def test_whatever_a_request_raises_its_thread_goes_on(workers, caplog):
    workers.add_task(Bad())
    time.sleep(0.05)
    answer(workers, Request())
    assert workers._threads == 1
    assert "a request failed in waitress" in caplog.text


def test_standing_aside_means_nothing_in_another_thread():
    with standing_aside():
        pass


def loaded(*statements):
    code = "; ".join([*statements, "import sys; print('ssl' in sys.modules)"])
    return subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True)


def test_an_account_without_a_secret_does_without_ssl():
    make = "wxserver.make_application({'WECHAT_TOKEN': 'a-token-of-the-test'})"
    assert loaded("import wxserver", make) == "False\n"


def test_the_real_urllib_is_there_for_whoever_imports_it_later():
    assert loaded("import wxserver", "from urllib.request import urlopen", "assert urlopen.__doc__") == "True\n"


def test_once_workers_have_been_blocked_more_are_called_at_once(workers):
    for request in (blocked := [Request() for _ in range(5)]):
        workers.add_task(request)
    assert all(request.is_at_work.wait(5) for request in blocked)
    assert workers._enough > FEWEST
    for request in blocked:
        request.may_go.set()
    workers._lower_at = 0.0
    answer(workers, Request())
    assert FEWEST <= workers._enough < 5


def test_where_the_host_gives_no_more_threads_those_that_there_are_answer(workers, monkeypatch, caplog):
    answer(workers, Request())
    monkeypatch.setattr("wechat.workers.PATIENCE", 0.001)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    blocked, other = Request(), Request()
    workers.add_task(blocked)
    assert blocked.is_at_work.wait(5)
    workers.add_task(other)
    blocked.may_go.set()
    other.may_go.set()
    assert other.is_answered.wait(5)
    assert caplog.text.count("no further worker") == 1
    assert workers._threads == 1


def test_where_the_host_gives_no_thread_at_all_the_request_waits_until_there_is_one(workers, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    request = Request()
    request.may_go.set()
    with monkeypatch.context() as host:
        host.setattr(threading.Thread, "start", refuse)
        workers.add_task(request)
    assert request.is_answered.wait(5)


# What waits together


def hold_up(workers, number=1):
    """Have that many workers blocked; gives what blocks them."""
    held = [Request() for _ in range(number)]
    for request in held:
        workers.add_task(request)
        assert request.is_at_work.wait(5)
    return held


@pytest.fixture
def patient(monkeypatch):
    """No worker that is at work counts as blocked."""
    monkeypatch.setattr("wechat.workers.PATIENCE", 60.0)


def let_wait(workers, number):
    """Requests that are answered as soon as a worker takes them."""
    waiting = [Request() for _ in range(number)]
    for request in waiting:
        request.may_go.set()
        workers.add_task(request)
    return waiting


def test_all_that_wait_when_a_worker_takes_one_are_prepared_together(patient):
    prepared = []
    workers = Workers(8, prepared.append)
    held = hold_up(workers, FEWEST)
    waiting = let_wait(workers, 5)
    held[0].may_go.set()
    assert all(request.is_answered.wait(5) for request in waiting)
    assert prepared == [waiting], "and the first ones, which were alone, were not"
    held[1].may_go.set()


def test_one_that_blocks_holds_up_none_that_was_prepared_with_it(monkeypatch):
    monkeypatch.setattr("wechat.workers.PATIENCE", 0.3)  # all of them come meanwhile
    prepared = []
    workers = Workers(8, prepared.append)
    held = hold_up(workers, FEWEST)
    blocks = Request()
    workers.add_task(blocks)
    others = let_wait(workers, 4)
    assert all(request.is_answered.wait(5) for request in others)
    assert prepared == [[blocks, *others]]
    assert not blocks.is_answered.is_set()
    for request in (blocks, *held):
        request.may_go.set()


def test_while_all_workers_are_blocked_nothing_is_prepared():
    """Another process would wait for what has begun here."""
    prepared = []
    workers = Workers(FEWEST, prepared.append)
    held = hold_up(workers, FEWEST)
    waiting = let_wait(workers, 3)
    while not workers._is_full:
        time.sleep(0.001)
    held[0].may_go.set()
    assert all(request.is_answered.wait(5) for request in waiting)
    assert prepared == []
    held[1].may_go.set()


def test_what_comes_later_is_not_begun_while_what_came_first_is_still_prepared(patient):
    """As long as workers took one request each, they took them in their order."""
    prepared, may_go_on = [], threading.Event()

    def prepare(tasks):
        prepared.append(tasks)
        if len(prepared) == 1:
            may_go_on.wait(5)

    workers, waiting = Workers(8, prepare), []
    for number, held in enumerate(hold_up(workers, FEWEST), 1):
        waiting += let_wait(workers, 3)
        held.may_go.set()
        while len(prepared) < number:
            time.sleep(0.001)
    waiting += let_wait(workers, 1)
    time.sleep(0.05)
    assert not any(request.is_at_work.is_set() for request in waiting)
    may_go_on.set()
    assert all(request.is_answered.wait(5) for request in waiting)
    assert prepared == [waiting[:3], waiting[3:6], waiting[6:]]


def test_where_nothing_can_be_prepared_each_is_answered_all_the_same(patient, caplog):
    def fail(tasks):
        raise OSError("no such thing")

    workers = Workers(8, fail)
    held = hold_up(workers, FEWEST)
    waiting = let_wait(workers, 3)
    held[0].may_go.set()
    assert all(request.is_answered.wait(5) for request in waiting)
    assert "requests are answered one by one" in caplog.text
    held[1].may_go.set()
