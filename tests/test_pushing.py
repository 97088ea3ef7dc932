"""When customer messages are closed, for how long, and who knows."""

import threading
import time

import pytest

from sandbox.messages import text_message
from sandbox.testing import APPID, SECRET
from tests.conftest import FaultyStore, Time, begin
from wechat.errors import TransportError, WeChatError
from wechat.platform.pushing import Pushing
from wechat.trouble import troubles

AWAY = TransportError("no answer")


@pytest.fixture
def store(world):
    return FaultyStore(world)


@pytest.fixture
def pushing(store, world):
    return Pushing(store, world)


def refused(errcode):
    return WeChatError(errcode, "refused")


def fail(pushing, world, *errors):
    for error in errors:
        world.now += 1
        pushing.failed(error, world.now)


def work(pushing, world):
    world.now += 1
    pushing.worked(world.now)


def overs(world, log):
    """What the log says is over, a minute later."""
    world.now += 60
    troubles(world)._look(world.now)
    return [line for line in log.messages if line.startswith("over: ")]


def lasts(pushing, world):
    """The seconds for which it stays closed."""
    began = world.now
    while pushing.is_closed():
        world.now += 1
    return world.now - began


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (refused(48001), 3600),
        *((refused(errcode), 600) for errcode in (40164, 40125, 40013, 40243, 50007, 89503, 45009, 50004)),
        (AWAY, 30),
        *((refused(errcode), 0) for errcode in (-1, 45015, 45047, 40003, 0)),
        (ValueError("odd"), 0),
    ],
    ids=str,
)
def test_what_is_about_the_account_closes_for_a_while(pushing, world, error, seconds):
    fail(pushing, world, error)
    assert lasts(pushing, world) == seconds


def test_only_a_refusal_says_that_trying_again_is_in_vain(pushing, world):
    fail(pushing, world, AWAY)
    assert not pushing.is_refused()
    fail(pushing, world, refused(40164))
    assert pushing.is_refused()
    fail(pushing, world, AWAY)
    assert pushing.is_refused()


def test_all_processes_know_and_one_line_says_so(store, world, log):
    one, other = Pushing(store, world), Pushing(store, world)
    fail(one, world, *[refused(48001)] * 3)
    fail(other, world, refused(48001))
    assert other.is_closed()
    assert log.text.count("no customer messages for 3600 s, slow replies wait for 继续: 48001: refused") == 1
    work(other, world)
    work(one, world)
    assert not one.is_closed()
    assert overs(world, log) == ["over: no customer messages for 3600 s, slow replies wait for 继续: 1 in 5 s"]


def test_who_said_that_it_is_closed_says_when_another_process_has_opened_it(store, world, log):
    one, other = Pushing(store, world), Pushing(store, Time())
    fail(one, world, refused(40164))
    one.look()
    assert overs(world, log) == []
    other._closed_at = 0.0
    other.worked(1.0)
    one.look()
    assert len(overs(world, log)) == 1
    assert not one.is_closed()


def test_a_platform_that_stays_away_is_said_once(pushing, world, log):
    for _ in range(5):
        fail(pushing, world, AWAY)
        world.now += 300
    assert log.text.count("no customer messages for 30 s, slow replies wait for 继续: no answer") == 1
    work(pushing, world)
    assert len(overs(world, log)) == 1
    fail(pushing, world, AWAY)
    world.now += 60
    troubles(world)._look(world.now)
    assert log.text.count("no customer messages for 30 s, slow replies wait for 继续: no answer") == 2


def test_a_call_that_began_before_it_was_closed_opens_nothing(pushing, world):
    began = world.now
    fail(pushing, world, refused(45009))
    pushing.worked(began)
    assert pushing.is_closed()
    assert not pushing.has_worked_since(began)


def test_a_refusal_about_one_user_shows_that_the_account_may(pushing, world):
    since = world.now
    fail(pushing, world, refused(40003))
    assert not pushing.has_worked_since(since)
    fail(pushing, world, refused(45015))
    assert pushing.has_worked_since(since)


def test_while_the_store_does_not_answer_a_process_goes_by_what_it_saw(store, pushing, world):
    fail(pushing, world, refused(48001))
    store.fault = "away"
    assert pushing.is_closed()
    work(pushing, world)
    assert not pushing.is_closed()


# Typing


class Hanging:
    """A platform that takes customer messages, and hangs where somebody types."""

    def __init__(self):
        self.may_end, self.typed, self.sent = threading.Event(), [], []

    def typing(self, openid):
        self.typed.append(openid)
        self.may_end.wait(10)

    def send_message(self, openid, message):
        self.sent.append(message["text"]["content"])


SLOW = """
import time
@on("text", re.compile("go.*"), slow=True)
def go(msg):
    time.sleep(0.9)
    return msg.Content
"""


@pytest.fixture
def hanging(make_account):
    """An account on such a platform, and the platform."""
    account = make_account(SLOW, WECHAT_APPID=APPID, WECHAT_SECRET=SECRET, WECHAT_REPLY_WITHIN="0.2")
    api = account.app.delivery._outbox._api = Hanging()
    yield account, api
    api.may_end.set()


def test_typing_never_stands_in_front_of_an_answer(hanging):
    account, api = hanging
    account.app.delivery._outbox.can_push = lambda *since: True  # so that all are promised
    threads = [
        threading.Thread(target=account.post, args=[text_message(f"go {number}", f"o{number:027}")])
        for number in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + 5
    while len(api.sent) < 40 and time.monotonic() < end:
        time.sleep(0.02)
    assert sorted(api.sent) == sorted(f"go {number}" for number in range(40))
    assert len(api.typed) <= 8


def test_while_it_is_not_known_whether_it_is_closed_the_attempt_is_held(hanging):
    account, api = hanging
    assert b"go" in account.post(text_message("go")).body
    assert api.sent == []


def test_nobody_types_for_who_has_the_answer(hanging):
    account, api = hanging
    outbox = account.app.delivery._outbox
    entry, _ = begin(account.app.delivery._ledger, "key", "o", True)
    account.app.delivery._ledger.end(entry, b"x", None, None)
    assert outbox.show_typing(entry).wait(5)
    assert api.typed == []
