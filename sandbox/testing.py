"""Fixtures for the tests of handlers: a `user` who writes to the account, and the `cloud` behind it.

A project switches them on with `pytest_plugins = ["sandbox.testing"]` in its `tests/conftest.py`. The modules of
`handlers/` are imported anew for each test; what is to be another in one of them is named after the fixture has been
made: `monkeypatch.setattr("handlers.mine.price", 5)`.
"""

import io
import logging
import os
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

import wxserver
from sandbox.cloud import Cloud
from sandbox.messages import APPID, FIELDS, USER, compose
from sandbox.platform import Endpoint, Platform
from sandbox.verdict import BANNER, judge
from wechat.message import Message
from wechat.protocol.parser import read_fields
from wechat.startup import HANDLERS, handlers_folder

SECRET = "5ec4e7" * 5
SETTINGS = {"WECHAT_TOKEN": "testtoken", "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}


class User:
    """A user of the account. What would show the banner is an AssertionError, with the reason."""

    def __init__(self, app: wxserver.Application, cloud: Cloud, openid: str = USER) -> None:
        self.openid = openid
        self._app, self._cloud = app, cloud
        self._platform = Platform.of(app.settings)
        self._endpoint = Endpoint(app.settings.path, app, headers=self._platform.headers)
        self._taken = 0

    def another(self, openid: str) -> Self:
        """Another user of the same account."""
        return type(self)(self._app, self._cloud, openid)

    def says(self, content: str) -> Message:
        """The reply to a text, empty where there is none: `user.says("hi").Content`."""
        return self.sends("text", Content=content)

    def does(self, event: str, key: str = "", **fields: Any) -> Message:
        """The reply to an event: `user.does("subscribe")`, `user.does("CLICK", "MY_BUTTON")`."""
        return self.sends("event", Event=event, EventKey=key, **fields)

    def sends(self, kind: str, **fields: Any) -> Message:
        """The reply to a message of this MsgType; fields that are not given have a value of their own.

        A type that this module does not know needs its fields, else it is a ValueError.
        """
        if kind not in FIELDS and not fields:
            raise ValueError(f"{kind} needs its fields; these types have some: {', '.join(FIELDS)}")
        content = compose(kind, {**FIELDS.get(kind, {}), **fields}, self.openid)
        self._cloud.note_action(self.openid, fields.get("Event", "") if kind == "event" else "")
        *_, attempt = self._endpoint.deliver(*self._platform.push(content, openid=self.openid))
        reply, fault = judge(self._platform, attempt, kind == "event", self.openid)
        if fault:
            raise AssertionError(f"{BANNER} ({fault})")
        return read_fields(reply.encode()) if reply else Message()

    def waits_for_message(self, seconds: float = 10) -> dict[str, Any]:
        """The next customer message, as JSON: `user.waits_for_message()["text"]["content"]`."""
        messages = self._cloud.messages_to(self.openid, self._taken + 1, seconds)
        if len(messages) <= self._taken:
            raise AssertionError(f"no customer message came in {seconds:g} s")
        self._taken += 1
        return messages[self._taken - 1]


@pytest.fixture
def account_settings() -> dict[str, str]:
    """Settings in place of the usual ones; a test module has its own by a fixture of this name."""
    return {}


@pytest.fixture
def user(cloud: Cloud, account_settings: dict[str, str], caplog: pytest.LogCaptureFixture) -> Iterator[User]:
    """A user of the account that `handlers/` makes, with the real application and a stand-in for the platform."""
    caplog.set_level(logging.DEBUG, "wechat.log")  # so that a traceback has what the error says
    settings = {**SETTINGS, "WECHAT_API_URL": cloud.url, HANDLERS: str(handlers_folder(os.environ)), **account_settings}
    app = wxserver.make_application(settings)
    yield User(app, cloud)
    app.close()


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """The stand-in for api.weixin.qq.com behind real HTTP; its address is `cloud.url`."""
    app = Cloud(APPID, SECRET)
    server = make_server("127.0.0.1", 0, app, ThreadingServer, QuietHandler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    app.url = f"http://127.0.0.1:{server.server_port}"
    yield app
    server.shutdown()
    server.server_close()


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """A thread for each connection, none of which is waited for."""

    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    """Says nothing, also where a client went away."""

    def log_message(self, *_: object) -> None:
        pass

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()
