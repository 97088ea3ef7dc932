"""The server as every kind of account and in every mode, with handlers that can be exchanged while it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit
from wsgiref.types import StartResponse, WSGIEnvironment

from sandbox.cloud_wire import TOKENLESS, UNVERIFIED, number_in
from sandbox.platform import MESSAGE_HEADER, PAGE_HEADER
from sandbox.timeline import answering
from wechat.delivery.delivery import Delivery
from wechat.platform.transport import Body, HttpResponse, Transport
from wechat.routing import Routes, name_of, where
from wechat.settings import CRYPTOGRAPHY, Settings, package_fault

MODES = ("plain", *(() if package_fault(CRYPTOGRAPHY) else ("compat", "safe")), "cloud")
KINDS = ("official", "unverified", "miniprogram")  # an unverified account may not send customer messages

ACCOUNT_HEADER = "X-Sandbox-Account"


class NumberedTransport(Transport):
    """Says with each call in the course of which message it is made."""

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        *rest: Any,
        **more: Any,
    ) -> Iterator[HttpResponse]:
        numbered = {**(headers or {}), MESSAGE_HEADER: str(answering.get())}
        with super().open(method, target, body, numbered, *rest, **more) as received:
            yield received


class App(Protocol):
    """What serves one account; `use` gives it other handlers."""

    delivery: Delivery

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]: ...

    def use(self, routes: Routes) -> None: ...


class Accounts:
    """A WSGI callable that passes each request on to the account it is for.

    The page says in a header which one that is, and which message it sends; other requests are for the account in the
    settings, and `visit` is called with the openid. `make` makes the application for one, when it is first asked for.
    """

    def __init__(
        self,
        settings: Settings,
        routes: Routes,
        make: Callable[[Settings, Routes], App],
        visit: Callable[[str], None] = lambda openid: None,
    ) -> None:
        self._settings, self._visit = settings, visit
        self._routes = routes
        self._make = make
        self._apps: dict[str, App] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not is_local(environ) or "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"the sandbox answers this machine alone, and no browser\n"]
        account = environ.get("HTTP_X_SANDBOX_ACCOUNT", "")
        if not account:
            self._visit(parse_qs(environ.get("QUERY_STRING", "")).get("openid", [""])[0])

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, (PAGE_HEADER, self._settings.api_urls[0])], *rest)

        token = answering.set(number_in(environ))
        try:
            return self._app(account)(environ, start)
        finally:
            answering.reset(token)

    def is_idle(self) -> bool:
        """Whether no message is under way, and no reply is still to be sent."""
        with self._lock:
            return all(app.delivery.is_idle() for app in self._apps.values())

    def use(self, routes: Routes) -> None:
        """From the next message on, these routes answer; messages under way end as they began."""
        with self._lock:
            self._routes = routes
            for app in self._apps.values():
                app.use(routes)

    def where(self, name: str) -> str:
        """Where the handler of this name stands, as file and line; empty where there is none."""
        bare = name.partition(" ")[0]  # `handlers.shop.hello in handlers.guard.guard`
        found = next((function for function in self._routes.values() if name_of(function) == bare), None)
        return where(found).partition("(")[2].rstrip(")") if found else ""

    def _app(self, account: str) -> App:
        mode, _, kind = account.partition("/")
        is_named = mode in MODES and kind in KINDS
        name = account if is_named else ""
        with self._lock:
            if name not in self._apps:
                settings = settings_for(self._settings, mode, kind) if is_named else self._settings
                self._apps[name] = self._make(inside(settings), self._routes)
            return self._apps[name]


def is_local(environ: WSGIEnvironment) -> bool:
    """Whether the request names this machine; under another name, it is somebody's page that asks through a browser."""
    try:
        return urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname in ("127.0.0.1", "localhost", "::1")
    except ValueError:
        return False


def settings_for(settings: Settings, mode: str, kind: str) -> Settings:
    """The settings of the same account in that mode, as an account of that kind."""
    return replace(
        settings,
        mode=mode,
        account="miniprogram" if kind == "miniprogram" else "official",
        secret="" if kind == "unverified" else settings.secret,
    )


def inside(settings: Settings) -> Settings:
    """The settings, with the address at which the stand-in takes calls from WeChat's own cloud, without a token."""
    base = TOKENLESS if settings.secret else UNVERIFIED
    return replace(settings, api_urls=(settings.api_urls[0] + base,)) if settings.mode == "cloud" else settings
