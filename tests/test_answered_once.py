"""However a retry falls, a message is answered once; and its bytes never run a handler again."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from sandbox.messages import text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import TOKEN, Account
from tests.simulation.promises import under_way
from tests.test_promises import shown, store, wait_until  # noqa: F401, a fixture
from wechat.routing import on
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wechat.world import World
from wxserver import Application

WITHIN, MESSAGES = 0.1, 100
SECONDS = itertools.cycle(number / 1000 for number in range(-10, 30, 2))  # around what is swept over


@pytest.fixture
def make_app(store):  # noqa: F811
    apps = []

    def make(handler, **environ):
        settings = read({"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": store, **environ})
        apps.append(Application(settings, {("text",): handler}))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


@pytest.mark.parametrize("is_promised", [True, False], ids=["after the promise", "with the promise"])
def test_an_answer_is_given_directly_or_pushed_wherever_the_retry_falls(make_app, cloud, is_promised):
    """Where the run ends with the promise, both want to move the message; else the retry comes as the run ends."""

    @on("text", slow=True)
    def work(msg):
        time.sleep(float(msg.Content))
        return "the answer"

    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    app = make_app(work, WECHAT_REPLY_WITHIN=str(WITHIN), **credentials)
    endpoint = Endpoint("/weixin", app)

    def tell(number):
        shift, began = next(SECONDS), time.monotonic()
        takes = 3 * WITHIN if is_promised else WITHIN + shift
        push = signed_query(TOKEN), text_message(str(takes), f"o{number:027}").encode()
        first = endpoint.request("POST", *push)
        time.sleep(max(0.0, began + takes + shift - time.monotonic()))
        return {shown(attempt.body) for attempt in (first, endpoint.request("POST", *push))} - {""}

    with ThreadPoolExecutor(10) as pool:
        direct = list(pool.map(tell, range(MESSAGES)))
    assert wait_until(app.delivery.is_idle)
    sent = [openid for openid, _ in cloud.sent]
    answers = [len(said) + sent.count(f"o{number:027}") for number, said in enumerate(direct)]
    assert answers == [1] * MESSAGES


@pytest.mark.parametrize("max_age", ["300", "0"])
def test_the_same_bytes_run_no_handler_again_62_seconds_and_5000_messages_later(make_app, store, monkeypatch, max_age):  # noqa: F811
    runs, later = [], 0.0
    monkeypatch.setattr(World, "monotonic", staticmethod(lambda: time.monotonic() + later))

    @on("text")
    def work(msg):
        runs.append(msg.Content)
        return msg.Content

    account = Account(make_app(work, WECHAT_MAX_AGE=max_age))
    query, body = signed_query(TOKEN), text_message("once").encode()
    assert b"once" in account.post(body, query).body
    for number in range(5_000):
        account.app.delivery.answer(text_message("another", f"o{number:027}").encode())
    later = 62.0 if max_age == "300" else 50.0
    for _ in range(2):
        assert account.post(body, query).status_code == 200
    assert runs.count("once") == 1


def test_a_process_forgets_the_messages_of_others_that_it_has_promised():
    @on("text", slow=True)
    def work(msg):
        time.sleep(2.5)

    environ = {"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": "sqlite:/of/no/use", "WECHAT_REPLY_WITHIN": "0.1"}
    shared, push = MemoryStore(), text_message("work").encode()
    one, two = (Application(read(environ), {("text",): work}, store=shared) for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(one.delivery.answer, push)
        assert wait_until(lambda: under_way(one.delivery._ledger))
        assert two.delivery.answer(push) == b""
    assert not under_way(two.delivery._ledger)
    assert wait_until(one.delivery.is_idle)
    for app in (one, two):
        app.close()


def test_continue_looks_through_no_keys(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        app = Application(read({"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": redis_url}), {})
        app.delivery.answer(text_message("继续").encode())
        app.heartbeat._task()
        app.close()
        commands = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert "eval" in {name.removesuffix("sha") for name in commands}
    assert not commands & {"keys", "scan", "randomkey", "sort"}
