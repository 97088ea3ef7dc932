"""`kill -9` at each write to the store and each call of the platform, before and after it takes effect.

A user's message is followed to its end: WeChat asks again, the server is started again, the user asks by 继续. Then
everything was answered, in order, and no part more than twice. `CRASH_POINTS=all` kills at every point, `make crash`.
"""

import contextlib
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from wsgiref.simple_server import make_server

import pytest

from sandbox.cloud import Cloud
from sandbox.messages import USER, text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import SECRET, QuietHandler, ThreadingServer
from tests.mortal import Nursery
from tests.mortal_handlers.mine import WHOLE
from tests.test_promises import shown, wait_until
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.texts import Texts

MORE = f"\n\n{Texts.more}"

WITHIN, HANG_UP, PATIENCE = 0.15, 0.2, 10.0  # seconds
TOGETHER = 6  # servers at a time; with more of them beside other tests, two cores do not keep WeChat's times
EVERY = 1 if os.environ.get("CRASH_POINTS") == "all" else 7  # of how many points one is tried
AGAIN = 1 if EVERY == 1 else 3  # of how many of those the server is killed once more while it makes up for it
NUMBERS = itertools.count(1)


class Plot(NamedTuple):
    """What is said, and what the platform does about customer messages."""

    content: str
    can_push: bool = False
    is_refused: bool = False


PLOTS = {
    "slow, answered by the second attempt": Plot("short 0.3"),
    "slow, pushed": Plot("short 0.3", can_push=True),
    "long, fetched": Plot("long 0"),
    "long, its rest pushed": Plot("long 0", can_push=True),
    "long and slow, pushed": Plot("long 0.3", can_push=True),
    "kept": Plot("short 0.8"),
    "kept, since the platform refuses it": Plot("short 0.3", can_push=True, is_refused=True),
    "long and kept": Plot("long 0.8"),
}


class Story:
    """One message from its first attempt until nothing of it is open; `seen` is what the user has read."""

    def __init__(self, nursery, folder, store, plot, *dooms):
        name = f"{next(NUMBERS):06}"
        self.nursery, self.folder, self.plot = nursery, folder / name, plot
        self.folder.mkdir()
        self.seen, self.is_acknowledged, self.restarts = [], False, 0
        self.was_given_up = False  # by WeChat, so that what was given last did not arrive
        self.cloud = Cloud(f"wx{name:0>16}", SECRET)
        self.cloud.heard = self._hear
        if plot.is_refused:
            self.cloud.fail("/cgi-bin/message/custom/send", "unauthorized", times=None)
        self.token = f"token{name}"
        self.environ = {
            "WECHAT_TOKEN": self.token,
            "WECHAT_STORE": f"sqlite:{self.folder}/store.db" if store == "sqlite" else store,
            "WECHAT_REPLY_WITHIN": str(WITHIN),
            "WECHAT_THREADS": "8",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "RUNS": f"{self.folder}/runs",
        }
        self.dooms = iter(dooms)

    def _hear(self, call):
        if call.path.endswith("custom/send") and not call.errcode and not call.fault:
            self.seen.append(call.body["text"]["content"])

    def tell(self):
        with serving(self.cloud) as url:
            if self.plot.can_push:
                self.environ |= {"WECHAT_APPID": self.cloud._appid, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": url}
            self.server = self.first = self._start()
            try:
                self.is_acknowledged = self._say(self.plot.content) is not None
                self._read_on()
                return self._faults()
            finally:
                self.server.kill()
                self.first.kill()

    def _say(self, content):
        """WeChat's three attempts; what the last one hears comes however long it takes."""
        query, body = signed_query(self.token), text_message(content).encode()
        for hang_up in (HANG_UP, HANG_UP, PATIENCE):
            self._restart_if_dead()
            attempt = Endpoint(self.server.url, hang_up=hang_up).request("POST", query, body)
            if attempt.status == 200:
                self.seen.append(shown(attempt.body))
                return self.seen[-1]
            if attempt.problem:
                wait_until(lambda: self.server.is_dead, 2)
        self.was_given_up = True
        return None

    def _restart_if_dead(self):
        while self.server.is_dead:
            self.restarts += 1
            self.server = self._start()

    def _start(self):
        return self.nursery.start(self.folder / f"log{self.restarts}", *next(self.dooms, ()), **self.environ)

    def _read_on(self):
        """Until nothing is open any more; where nothing is pushed the user asks for it."""
        store = open_store(self.environ["WECHAT_STORE"], read(self.environ).account_key)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._restart_if_dead()
            if self.plot.can_push and not self.plot.is_refused:
                is_over = not store.linked(f"user:{USER}")
            else:
                is_over = self._say("继续") == "nothing waits"
            if is_over and not self.server.is_dead:
                break
            time.sleep(0.1)
        self.left = wait_until(lambda: not store.linked(f"user:{USER}"), 2) is False
        store.close()

    def _faults(self):
        """What was promised and is not so."""
        whole, covered, runs = WHOLE[self.plot.content.split()[0]], 0, self.runs
        times = [0] * len(whole)
        for text in self.seen:
            part = text.removesuffix(MORE)
            if part in ("", Texts.waiting, Texts.not_ready, Texts.nothing, "nothing waits"):
                continue
            begin = whole.find(part)
            if begin < 0:
                yield f"nobody wrote {part[:40]!r}"
                continue
            if begin > covered and not self.was_given_up:
                yield f"{begin} comes when only {covered} have come"
            end = begin + len(part)
            covered = max(covered, end)
            times[begin:end] = [count + 1 for count in times[begin:end]]
        if self.is_acknowledged and covered < len(whole):
            yield f"lost: {covered} of {len(whole)}"
        if max(times) > 1 + self.restarts:
            yield f"{max(times)} deliveries after {self.restarts} crashes"
        if runs > 1 + self.restarts:
            yield f"{runs} runs after {self.restarts} crashes"
        if self.left:
            yield "something is open for ever"

    @property
    def runs(self):
        file = self.folder / "runs"
        return len(file.read_text().splitlines()) if file.exists() else 0


@contextlib.contextmanager
def serving(app):
    server = make_server("127.0.0.1", 0, app, ThreadingServer, QuietHandler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_server_that_is_killed_at_any_point_loses_nothing_and_says_nothing_more_than_twice(
    nursery, tmp_path, kind, redis_url
):
    store = redis_url if kind == "redis" else kind

    def tell(name, *dooms):
        story = Story(nursery, tmp_path, store, PLOTS[name], *dooms)
        faults = list(story.tell())
        return story, [f"{name}, {dooms}: {', '.join(faults)}"] if faults else []

    with ThreadPoolExecutor(TOGETHER) as pool:
        quiet = dict(zip(PLOTS, pool.map(tell, PLOTS), strict=True))
        points = [
            (name, number, is_after)
            for name, (story, _) in quiet.items()
            for number in range(1, len(story.first.operations) + 1)
            for is_after in (False, True)
        ][::EVERY]
        told = [
            *pool.map(lambda point: tell(point[0], point[1:]), points),
            *pool.map(lambda point: tell(point[0], point[1:], (point[1] * 7 % 5 + 1, not point[2])), points[::AGAIN]),
        ]
    faults = [fault for _, faults in [*quiet.values(), *told] for fault in faults]
    deaths = sum(story.restarts for story, _ in told)
    print(f"{len(told)} stories, {deaths} deaths")
    assert not faults, "\n".join(faults)
    assert deaths > 0.9 * len(points)
