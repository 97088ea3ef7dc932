"""The server as every kind of account and in every mode, with handlers that can be exchanged while it serves."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from sandbox.cloud_wire import TOKENLESS, UNVERIFIED, number_in
from sandbox.platform import MESSAGE_HEADER, PAGE_HEADER, is_local
from sandbox.timeline import answering
from wechat.platform.transport import Body, Transport
from wechat.routing import Routes, name_of, where
from wechat.settings import CRYPTOGRAPHY, Settings, package_fault

MODES = ("plain", *(() if package_fault(CRYPTOGRAPHY) else ("compat", "safe")), "cloud")
KINDS = ("official", "unverified", "miniprogram")  # an unverified account may not send customer messages

ACCOUNT_HEADER = "X-Sandbox-Account"

Make = Callable[[Settings, Routes], Any]  # gives a `wxserver.Application`


class NumberedTransport(Transport):
    """Says with each call in the course of which message it is made."""

    def open(self, method: str, target: str, body: Body = None, headers: Any = None, *rest: Any, **more: Any) -> Any:
        numbered = {**(headers or {}), MESSAGE_HEADER: str(answering.get())}
        return super().open(method, target, body, numbered, *rest, **more)


class Accounts:
    """A WSGI callable that passes each request on to the account it is for.

    The page says in a header which one that is, and which message it sends; other requests are for the account in the
    settings, and `visit` is called with the openid. `make` makes the application for one, when it is first asked for.
    """

    def __init__(self, settings: Settings, routes: Routes, make: Make, visit: Callable[[str], None]) -> None:
        self._settings, self._visit = settings, visit
        self._routes, self._make = routes, make
        self._apps: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not names_this_machine(environ) or "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"the sandbox answers this machine alone, and no browser\n"]
        account = environ.get("HTTP_X_SANDBOX_ACCOUNT", "")
        if not account:
            self._visit(parse_qs(environ.get("QUERY_STRING", "")).get("openid", [""])[0])

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, (PAGE_HEADER, self._settings.api_urls[0])], *rest)

        token = answering.set(number_in(environ))
        try:
            body: Iterable[bytes] = self._app(account)(environ, start)
            return body
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

    def _app(self, account: str) -> Any:
        mode, _, kind = account.partition("/")
        name = account if mode in MODES and kind in KINDS else ""
        with self._lock:
            if name not in self._apps:
                self._apps[name] = self._make(settings_for(self._settings, name), self._routes)
            return self._apps[name]


def names_this_machine(environ: WSGIEnvironment) -> bool:
    """Whether the request does; under another name, it is somebody's page that asks through a browser."""
    return is_local(f"http://{environ.get('HTTP_HOST')}")


def settings_for(settings: Settings, account: str) -> Settings:
    """The settings in the mode and as the kind of account that are named, like `safe/official`; as they are without.

    In cloud mode they have the address at which the stand-in takes calls from there, without a token.
    """
    mode, _, kind = account.partition("/")
    if account:
        secret = "" if kind == "unverified" else settings.secret
        settings = replace(settings, mode=mode, account=kind.replace("unverified", "official"), secret=secret)
    base = TOKENLESS if settings.secret else UNVERIFIED
    return replace(settings, api_urls=(settings.api_urls[0] + base,)) if settings.mode == "cloud" else settings
