"""The WSGI callable for a WeChat account, and the way a message takes through it.

`python wxserver.py` serves it with waitress; `wxserver:application` is what any other WSGI server imports.
Importing this module reads no environment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import WSGITask
from webob import Request, Response

from wechat.answering import Answering
from wechat.api import Api
from wechat.debts import Debts
from wechat.delivery import Delivery
from wechat.envelope import Clock, envelope_for
from wechat.errors import NotFound, Refusal, StartError, Unreadable
from wechat.log import collect_less, trace
from wechat.log import configure as configure_log
from wechat.message import is_probe
from wechat.outbox import Outbox
from wechat.owners import Heartbeat, Owners
from wechat.routing import Router, Routes, prepare
from wechat.runs import Runs
from wechat.sessions import Sessions
from wechat.settings import Settings
from wechat.store import open_store
from wechat.web import MAX_BODY, acknowledge, check_method, read_body, read_query, refuse, respond_with

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from waitress.server import BaseWSGIServer

    application: Application

logger = logging.getLogger("wxserver")

HANDLERS = Path(__file__).with_name("handlers")
LOOK, LOOK_WHILE_DRAINING = 1.0, 0.05  # seconds between two looks at whether to stop, while nothing else happens
HEALTHZ = "/healthz"


class Application:
    """The server as a WSGI callable.

    `routes` is what `wechat.routing.load` returns; `clock` gives the seconds since 1970. Raises StartError where the
    store does not answer.
    """

    def __init__(self, settings: Settings, routes: Routes, clock: Clock = time.time) -> None:
        self.settings = settings
        self.envelope = envelope_for(settings, clock)
        self.store = open_store(settings.store)
        self.api = Api(settings, self.store, clock)
        self.delivery = self.make_delivery(Router(routes), clock)
        self.paths = (settings.path, settings.path + "/")
        self.is_draining = False  # since SIGTERM has come

    def make_delivery(self, router: Router, clock: Clock) -> Delivery:
        """What answers messages; with a store that outlives the process, it also pays what dead processes owe."""
        store, is_shared = self.store, self.settings.store != "memory:"
        owners = Owners(store)
        debts = Debts(store, owners)
        answering = Answering(router, self.api, Sessions(store, owners))
        outbox = Outbox(self.settings, self.api, debts)
        delivery = Delivery(self.settings, answering, Runs(store, owners, is_shared), debts, outbox, clock)
        self.heartbeat = Heartbeat(owners, delivery.pay_orphans, delivery.begin)
        if is_shared:
            self.heartbeat.start()
        return delivery

    def close(self) -> None:
        """Waits for what is under way, and gives everything back."""
        self.heartbeat.stop()
        self.delivery.close()
        self.api.close()
        self.store.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self.respond(request)
        except Refusal as refusal:
            response = refuse(request, refusal)
        except Exception as error:  # a fault of ours: the next attempt would fail in the same way, and show the banner
            logger.error("a request failed\n%s", trace(error))
            response = acknowledge()
        body: Iterable[bytes] = response(environ, start_response)
        return body

    def respond(self, request: Request) -> Response:
        """The response to a request; raises Refusal."""
        path, method = request.environ.get("PATH_INFO", ""), request.environ["REQUEST_METHOD"]
        if path == HEALTHZ:
            check_method(method, "GET", "HEAD")
            if self.is_draining:
                return respond_with('{"status": "draining"}', "application/json", 503)
            return respond_with('{"status": "ok"}', "application/json")
        if path not in self.paths:
            raise NotFound("no such path: WeChat posts to WECHAT_PATH")
        if method == "POST":
            return self.receive(request)
        check_method(method, "GET", "POST")
        return self.verify(request)

    def verify(self, request: Request) -> Response:
        """The answer to WeChat's question whether this URL knows the token: its echostr, byte for byte."""
        query = read_query(request)
        self.envelope.check_query(query)
        if "echostr" not in query:
            raise Unreadable("a signed GET without echostr: only the platform's check of the URL is a GET")
        return respond_with(query["echostr"].encode("latin-1"), "text/plain")

    def receive(self, request: Request) -> Response:
        """The way of a message: each step takes what the one before it gives."""
        body = read_body(request)
        if is_probe(body):
            return acknowledge()
        opened = self.envelope.open(body, read_query(request))
        document = self.delivery.answer(opened.content)
        if not document:
            return acknowledge()
        sealed = opened.seal(document)
        return respond_with(sealed, "application/json" if sealed.startswith(b"{") else "application/xml")


def make_application(environ: Mapping[str, str], handlers: str | Path = HANDLERS) -> Application:
    """The application that the environment asks for; raises StartError with every fault at once."""
    return Application(*prepare(environ, handlers))


def start(environ: Mapping[str, str]) -> Application:
    """The same for a process of its own: logs to stderr, and what stops the start ends the process with status 2."""
    try:
        app = make_application(environ)
    except StartError as error:
        give_up(error)
    configure_log(app.settings.log_level)
    return app


def give_up(error: StartError) -> NoReturn:
    """Says what stops the start, a line for each fault, and ends the process with status 2."""
    for fault in error.faults:
        print(f"wxserver: {fault}", file=sys.stderr)
    raise SystemExit(2)


def bind(app: Application) -> BaseWSGIServer:
    """waitress, bound to the address in the settings; ends the process with status 2 where it cannot be."""
    settings = app.settings
    allow_open_files()
    try:
        server = waitress.create_server(
            app,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            max_request_body_size=MAX_BODY + 1,  # waitress refuses a body of this size
            connection_limit=1000,
            asyncore_use_poll=True,  # select() fails on the 1,024th open file
            send_bytes=18_000,  # above any answer: the loop, which wakes up anyway, sends head and body at once
        )
    except (OSError, ValueError) as error:
        give_up(StartError([f"HOST, PORT: cannot listen on {settings.host}:{settings.port}: {error}"]))
    for host, port in addresses(server):
        logger.info("listening on http://%s:%s%s", f"[{host}]" if ":" in host else host, port, settings.path)
    return server


def allow_open_files() -> None:
    """As many as the system lets us have: 1,000 connections and a file for each thread do not fit into 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def addresses(server: BaseWSGIServer) -> list[tuple[str, int]]:
    """Where the server listens; a host name may stand for more than one address."""
    return getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]


def serve(app: Application, server: BaseWSGIServer) -> None:
    """Serves until SIGTERM or Ctrl-C; then finishes what is in flight, for WECHAT_DRAIN seconds at most."""
    deadline, sockets = 0.0, getattr(server, "map", None) or server._map

    def drain(*_: object) -> None:
        nonlocal deadline
        deadline = deadline or time.monotonic() + app.settings.drain
        app.is_draining = True
        for dispatcher in list(sockets.values()):  # so that the loop looks at once
            getattr(dispatcher, "pull_trigger", bool)()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, drain)
    while not deadline or (time.monotonic() < deadline and not is_idle(app, sockets)):
        wasyncore.loop(timeout=LOOK_WHILE_DRAINING if deadline else LOOK, map=sockets, use_poll=True, count=1)
        if deadline:
            turn_away(sockets)
    logger.info("stopped")


class LastTask(WSGITask):  # type: ignore[misc]
    """Answers a request, and tells the client that the connection ends with it."""

    def build_response_header(self) -> Any:
        self.request.headers["CONNECTION"] = "close"  # as if it had asked for that
        return super().build_response_header()


def turn_away(sockets: dict[int, Any]) -> None:
    """Closes the listening sockets; open connections get one answer more, as a proxy would use them for ever."""
    for dispatcher in list(sockets.values()):
        if dispatcher.accepting:
            wasyncore.dispatcher.close(dispatcher)
        elif isinstance(dispatcher, HTTPChannel):
            dispatcher.task_class = LastTask


def is_idle(app: Application, sockets: dict[int, Any]) -> bool:
    """Whether every request that came has been answered, and every debt been paid."""
    channels = [channel for channel in list(sockets.values()) if isinstance(channel, HTTPChannel)]
    is_busy = any(channel.requests or channel.request or channel.total_outbufs_len for channel in channels)
    return not is_busy and app.delivery.is_idle()


def run(app: Application) -> NoReturn:
    """Serves until it is stopped, and ends the process with status 0."""
    collect_less()
    serve(app, bind(app))
    # Threads that still wait for a handler would hold up the end; what they owe stays written.
    logging.shutdown()
    os._exit(0)


def __getattr__(name: str) -> Any:
    """`application`, made from the process's environment when somebody first asks for it."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = app = start(os.environ)
    return app


if __name__ == "__main__":
    run(start(os.environ))
