"""Several processes on one store, that die, stand still, or disagree on the time: each message is answered once.

The seconds of the server are a tenth or less here; `CRASH_POINTS=all` freezes for the full time.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN
from tests.mortal import Nursery
from tests.test_promises import shown, wait_until
from wechat.store.base import Store
from wechat.texts import Texts

SOON = "from wechat.store import owners; owners.RENEW, owners.LIFE = 0.2, 1.0\n"  # a process counts as dead
UNSEEN = "owners._pid_namespace = lambda: ''\n"  # a process of another place: it cannot be looked at
IS_FULL = os.environ.get("CRASH_POINTS") == "all"


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def start(nursery, tmp_path, cloud):
    """A function that starts a server on the store, which pushes to `cloud`."""
    numbers, servers = itertools.count(), []

    def run(store, *doom, at=nursery, can_push=True, **environ):
        credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url} if can_push else {}
        usual = {"WECHAT_TOKEN": TOKEN, "WECHAT_REPLY_WITHIN": "0.15", "HOST": "127.0.0.1", "PORT": "0"}
        paths = {"WECHAT_STORE": store, "RUNS": str(tmp_path / "runs")}
        server = at.start(tmp_path / f"log{next(numbers)}", *doom, **{**usual, **paths, **credentials, **environ})
        servers.append(server)
        return server

    run.runs = lambda: Counter((tmp_path / "runs").read_text().splitlines())
    yield run
    for server in servers:
        server.signal(signal.SIGCONT)
        server.signal(signal.SIGKILL)


def user(number):
    return f"o{number:027}"


def attempt(server, push, hang_up=5.0):
    return Endpoint(server.url, hang_up=hang_up).request("POST", *push)


def make(content, number=0, token=TOKEN):
    return signed_query(token), text_message(content, user(number)).encode()


def pushed(cloud):
    return Counter((openid, message["text"]["content"]) for openid, message in cloud.sent)


def answered(cloud, heard):
    """How often each user has the answer, pushed or in one of the `heard` replies by user; a promise is none."""
    texts = ((openid, shown(one.body)) for openid, one in heard)
    return pushed(cloud) + Counter(said for said in texts if said[1] not in ("", Texts().waiting))


def is_stable(condition, seconds=1.5):
    """Whether it comes to hold, and still does a while later."""
    return wait_until(condition, 20) and not wait_until(lambda: not condition(), seconds)


# A handler that ends its process


def test_a_message_that_kills_its_process_is_given_up_after_three_deaths_and_all_others_are_answered(
    start, shared_store, cloud
):
    server, deaths, direct = start(shared_store), 0, set()
    assert attempt(server, make("die", 0)).body == b"success"
    left = {number: make("short 0.2", number) for number in range(1, 9)}

    def send(number):
        heard = attempt(server, left[number])
        if heard.status == 200:
            left.pop(number)
        if shown(heard.body):
            direct.add((user(number), shown(heard.body)))

    def is_over():
        nonlocal server, deaths
        if server.is_dead:
            server, deaths = start(shared_store), deaths + 1
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, list(left)))
        return not left and {*pushed(cloud), *direct} == expected

    expected = {(user(0), "sorry"), *((user(number), "the answer") for number in range(1, 9))}
    assert wait_until(is_over, 30)
    assert deaths == 3
    assert start.runs()[f"{user(0)} die"] == 3
    assert not wait_until(lambda: server.is_dead, 1)
    assert shown(attempt(server, make("hello")).body) == "nothing waits"


def test_64_handlers_that_hang_do_not_hold_up_a_fresh_message_after_restarts(start, shared_store):
    server = start(shared_store)
    with ThreadPoolExecutor(64) as pool:
        heard = pool.map(lambda number: attempt(server, make("short 600", number)), range(64))
        assert {shown(one.body) for one in heard} <= {"", Texts().waiting}, (
            "some before it is known whether one may push"
        )
    for number in range(100, 103):
        server.kill()
        server = start(shared_store, WECHAT_REPLY_WITHIN="4.5")
        assert shown(attempt(server, make("short 0.01", number)).body) == "the answer"


def test_a_process_that_is_killed_while_it_fetches_the_token_holds_up_nobody(start, shared_store, cloud):
    other = start(shared_store)
    dying = start(shared_store, 4, False)
    push = make("short 0.3", 1)
    is_acknowledged = attempt(dying, push).status == 200
    assert wait_until(lambda: dying.is_dead, 5)
    assert dying.operations[-1] == "call /cgi-bin/stable_token"
    started = time.monotonic()
    assert is_acknowledged or attempt(other, push).status == 200
    assert attempt(other, make("short 0.3", 2)).body == b"success"
    assert wait_until(lambda: (user(2), "the answer") in pushed(cloud), 10)
    assert wait_until(lambda: (user(1), "the answer") in pushed(cloud), 20 - (time.monotonic() - started))


# Containers


def container():
    """A command that runs another one with PIDs and a host name of its own; nothing where that is not allowed."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
    inside = [*unshare, "sh", "-c", 'hostname twin; exec "$@"', "sh"]
    with contextlib.suppress(OSError):
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0:
            return inside
    return []


@pytest.fixture
def containers():
    """Two, whose processes have the same numbers and host names; elsewhere processes that cannot be looked at."""
    nurseries = [Nursery(*container()) for _ in range(2)]
    yield nurseries
    for nursery in nurseries:
        nursery.close()


def test_two_containers_with_one_host_name_run_each_message_once(start, shared_store, cloud, containers):
    tune = SOON + ("" if container() else UNSEEN)
    one, two = (start(shared_store, at=nursery, TUNE=tune) for nursery in containers)
    pushes = [make("short 0.4", number) for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda push: attempt(one, push, hang_up=0.05), pushes))
        heard = list(pool.map(lambda push: attempt(two, push), pushes))
    assert {one.status for one in heard} == {200}
    heard_by = list(zip(map(user, range(10)), heard, strict=True))
    assert is_stable(lambda: answered(cloud, heard_by) == {(user(number), "the answer"): 1 for number in range(10)})
    assert set(start.runs().values()) == {1}


def test_what_a_container_that_is_killed_has_promised_the_other_one_answers(start, shared_store, cloud, containers):
    tune = SOON + ("" if container() else UNSEEN)
    one, _two = (start(shared_store, at=nursery, TUNE=tune) for nursery in containers)
    assert attempt(one, make("short 0.5")).body == b"success"
    containers[0].kill()
    assert is_stable(lambda: pushed(cloud) == {(user(0), "the answer"): 1})


# Processes that stand still


@pytest.mark.parametrize("content", ["short 0.5", "long 0.5"])
def test_a_process_that_stood_still_does_not_send_what_another_one_has_sent(start, shared_store, cloud, content):
    tune = "" if IS_FULL else SOON
    frozen, _other = start(shared_store, TUNE=tune), start(shared_store, TUNE=tune)
    assert attempt(frozen, make(content)).body == b"success"
    frozen.signal(signal.SIGSTOP)
    time.sleep(40 if IS_FULL else 0)
    assert wait_until(lambda: len(cloud.sent) == (1 if content.startswith("short") else 3), 20)
    before = pushed(cloud)
    frozen.signal(signal.SIGCONT)
    assert is_stable(lambda: pushed(cloud) == before, 2)
    assert set(start.runs().values()) == {2}


FREEZES = """
import os, signal
from wechat.store.sqlite import SQLiteStore
make, is_over = SQLiteStore._make, []
def freeze(self, connection, change):
    made = make(self, connection, change)
    if not is_over and '"%s"' in (change.new or ""):
        is_over.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return made
SQLiteStore._make = freeze
"""


@pytest.mark.parametrize("state", ["promised", "ready"])
def test_a_process_that_stands_still_inside_a_write_to_sqlite_stops_nobody(start, tmp_path, cloud, state):
    """It holds the file's lock: the others go on without the store."""
    store, tune = f"sqlite:{tmp_path}/store.db", "" if IS_FULL else SOON
    frozen, other = start(store, TUNE=tune + FREEZES % state), start(store, TUNE=tune)
    push = make("short 0.4", 0)
    acknowledged = attempt(frozen, push, hang_up=0.5).body == b"success"
    assert acknowledged == (state == "ready")
    time.sleep(0.5)
    heard = [attempt(other, make("hello", 1)), attempt(other, make("count", 2))]
    heard += [attempt(other, make("short 0.4", number)) for number in (3, 4)]
    assert [one.status for one in heard] == [200] * 4
    assert [shown(one.body) for one in heard[:2]] == ["nothing waits", "1"]
    late = [user(number) for number, one in zip((3, 4), heard[2:], strict=True) if one.body == b"success"]
    if IS_FULL:
        time.sleep(40)
    frozen.signal(signal.SIGCONT)
    time.sleep(Store.rest)  # WeChat asks again later than that
    if not acknowledged:
        assert attempt(other, push).status == 200
    assert is_stable(lambda: pushed(cloud) == {(openid, "the answer"): 1 for openid in (user(0), *late)})


# Clocks


@pytest.mark.parametrize("hours", [(1, 0), (-1, 1)])
def test_processes_whose_clocks_differ_run_each_message_once(start, shared_store, cloud, hours):
    shift = "import time; real = time.time; time.time = lambda: real() + {}\n"
    one, two = (
        start(shared_store, TUNE=SOON + UNSEEN + shift.format(3600 * hour), WECHAT_MAX_AGE="7200") for hour in hours
    )
    pushes = [make("short 0.4", number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda push: attempt(one, push, hang_up=0.05), pushes))
        list(pool.map(lambda push: attempt(two, push, hang_up=0.05), pushes))
        heard = list(pool.map(lambda push: attempt(one, push), pushes))
    assert {one.status for one in heard} == {200}
    heard_by = list(zip(map(user, range(8)), heard, strict=True))
    assert is_stable(lambda: answered(cloud, heard_by) == {(user(number), "the answer"): 1 for number in range(8)})
    assert set(start.runs().values()) == {1}


# Accounts


@pytest.mark.parametrize("name", ["WECHAT_APPID", "WECHAT_TOKEN"])
def test_two_accounts_on_one_store_share_nothing(start, shared_store, name):
    values = ("wx00000000000000aa", "wx00000000000000bb") if name == "WECHAT_APPID" else ("tokenaa", "tokenbb")
    servers = [start(shared_store, can_push=False, **{name: value}) for value in values]
    tokens = values if name == "WECHAT_TOKEN" else (TOKEN, TOKEN)

    def say(number, content):
        return shown(attempt(servers[number], make(content, token=tokens[number])).body)

    assert [say(0, "count"), say(0, "count"), say(1, "count")] == ["1", "2", "1"]
    body = text_message("short 0.6", user(0)).encode()
    for _ in range(2):
        attempt(servers[0], (signed_query(tokens[0]), body), hang_up=0.2)
    assert shown(attempt(servers[0], (signed_query(tokens[0]), body)).body).startswith("还在处理")
    assert say(1, "继续") == "nothing waits"
    assert shown(attempt(servers[1], (signed_query(tokens[1]), body.replace(b"short 0.6", b"hello"))).body) == (
        "nothing waits"
    ), "an equal key is another message"
    assert wait_until(lambda: say(0, "继续") == "the answer")


def test_a_process_in_a_namespace_without_a_proc_of_its_own_is_not_looked_at():
    """/proc tells of other processes by the same numbers there."""
    look = "from wechat.store.owners import Identity; print(repr(Identity().namespace))"
    inside = ["unshare", "--pid", "--fork"] if container() else []
    said = subprocess.run([*inside, sys.executable, "-c", look], cwd=ROOT, capture_output=True, check=True).stdout
    assert said == b"''\n" if inside else said
