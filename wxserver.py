"""The WSGI callable for a WeChat account, and the way a message takes through it.

`python wxserver.py` serves it with waitress; `wxserver:application`, or `wsgi:application`, is what another WSGI server
imports. Importing this module reads no environment.
"""

import wechat.lean  # noqa: F401, before WebOb; `wechat` tells an old Python which one is needed, so no newer syntax here

# isort: split
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, NoReturn
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Request

from wechat.delivery.answering import Answering
from wechat.delivery.delivery import Announced, Delivery
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.delivery.sessions import Sessions
from wechat.errors import NotFound, Refusal, StartError, Unreadable
from wechat.log import collect_less, log_error
from wechat.log import configure as configure_log
from wechat.mistakes import find_mistakes, unknown_settings
from wechat.platform.api import Api
from wechat.protocol.envelope import Clock, envelope_for
from wechat.protocol.parser import is_probe
from wechat.routing import Router, Routes, prepare
from wechat.serving import serve
from wechat.settings import UNSIGNED, Settings
from wechat.startup import handlers_folder, read_env_file
from wechat.store.base import Store
from wechat.store.opening import open_store
from wechat.store.owners import Heartbeat, Owners
from wechat.system import check_uwsgi
from wechat.terminal import Parser, complain
from wechat.terminal import run as run_command
from wechat.web import JSON, TEXT, XML, Whole, acknowledge, check_method, read_body, read_mark, read_query, refuse

logger = logging.getLogger("wxserver")

HEALTHZ = "/healthz"
OPENED = "wxserver.opened"  # in an environ: what came of the first half of the way of a message
Opened = tuple[Announced | None, Callable[[bytes], bytes]]


class Application:
    """The server as a WSGI callable.

    `routes` is what `wechat.routing.load` returns; `clock` gives the seconds since 1970; a `store` takes the place of
    the one in the settings. Raises StartError where the store does not answer.
    """

    def __init__(
        self, settings: Settings, routes: Routes, clock: Clock = time.time, store: Store | None = None
    ) -> None:
        self.settings = settings
        self.envelope = envelope_for(settings, clock)
        self.read_proof = read_mark if settings.mode == "cloud" else read_query
        self.is_shared = settings.store != "memory:"  # and outlives the process
        self.store = store or open_store(settings.store, settings.account_key if self.is_shared else "")
        owners = Owners(self.store)
        self.api = Api(settings, self.store, owners, clock)
        ledger = Ledger(self.store, owners, self.is_shared, 2 * settings.max_age)
        outbox = Outbox(settings, self.api, ledger, self.store)
        self.answering = Answering(Router(routes), self.api, Sessions(self.store, owners))
        self.delivery = Delivery(settings, self.answering, ledger, outbox, clock)
        self.heartbeat = Heartbeat(owners, self.delivery.look_after, self.begin)
        self.paths = (settings.path, settings.path + "/")
        self.is_draining = False  # since SIGTERM has come
        if self.is_shared:
            self.heartbeat.start()

    def begin(self) -> None:
        """Makes threads and connections anew, as a process that was forked has to."""
        self.store.begin()
        self.api.begin()
        self.delivery.begin()

    def use(self, routes: Routes) -> None:
        """From the next message on, these routes answer."""
        self.answering.router = Router(routes)

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
            log_error(logger, "a request failed", error)
            response = acknowledge()
        return response(environ, start_response)

    def respond(self, request: Request) -> Whole:
        """The response to a request; raises Refusal."""
        path, method = request.environ.get("PATH_INFO", ""), request.environ["REQUEST_METHOD"]
        if path in self.paths:
            if method == "POST":
                return self.receive(request)
            check_method(method, "GET", "POST")
            return self.verify(request)
        if path != HEALTHZ:
            raise NotFound("no such path: WeChat posts to WECHAT_PATH")
        check_method(method, "GET", "HEAD")
        if self.is_draining:
            return Whole(b'{"status": "draining"}', JSON, 503)
        return Whole(b'{"status": "ok"}', JSON)

    def verify(self, request: Request) -> Whole:
        """The answer to WeChat's question whether this URL knows the token: its echostr; raises Refusal."""
        query = self.read_proof(request)
        self.envelope.check_query(query)
        if "echostr" not in query:
            raise Unreadable("a signed GET without echostr: only the platform's check of the URL is a GET")
        return Whole(query["echostr"].encode("latin-1"), TEXT)

    def receive(self, request: Request) -> Whole:
        """The way of a message: each step takes what the one before it gives. Raises Refusal."""
        opened = request.environ.pop(OPENED, None) or self.open(request)
        if isinstance(opened, Exception):
            try:
                raise opened
            finally:
                del opened  # the error knows this frame, and all that was opened with it: nothing may be a ring
        announced, seal = opened
        document = self.delivery.go_on(announced) if announced else b""
        if not document:
            return acknowledge()
        sealed = seal(document)
        return Whole(sealed, JSON if sealed.startswith(b"{") else XML)

    def open(self, request: Request) -> Opened:
        """The first half of that way: the message is read, and its record queued for the store; raises Refusal."""
        body = read_body(request)
        if is_probe(body):
            return None, bytes
        content, seal = self.envelope.open(body, self.read_proof(request))
        return self.delivery.announce(content), seal

    def open_all(self, environs: Iterable[WSGIEnvironment]) -> None:
        """Go the first half for several requests, so that the store is asked once; each has to be called for then."""
        for environ in environs:
            if environ["REQUEST_METHOD"] == "POST" and environ.get("PATH_INFO") in self.paths:
                try:
                    environ[OPENED] = self.open(Request(environ))
                except Exception as error:
                    environ[OPENED] = error
        self.store.flush()


def make_application(environ: Mapping[str, str], handlers: str | Path | None = None) -> Application:
    """The application that the environment asks for, with the handlers in another folder than WECHAT_HANDLERS if given.

    Raises StartError with every fault at once.
    """
    return Application(*prepare(environ, handlers))


def start(environ: MutableMapping[str, str], handlers: Path | None = None) -> Application:
    """Build the application for a process of its own: log to stderr, and exit with status 2 where it cannot start."""
    try:
        read_env_file(environ)
        settings, routes = prepare(environ, handlers)
        configure_log(settings.log_level, settings.log_format)
        weak = [UNSIGNED] if settings.mode == "cloud" else []
        for said in (*weak, *unknown_settings(environ), *find_mistakes(handlers or handlers_folder(environ), routes)):
            logger.warning(said)
        check_uwsgi(sys.modules.get("uwsgi"))
        return Application(settings, routes)
    except StartError as error:
        give_up(error)


def give_up(error: StartError) -> NoReturn:
    """Says what stops the start, a line for each fault, and ends the process with status 2."""
    complain(*(f"wxserver: {fault}" for fault in error.faults))
    raise SystemExit(2) from None


def run(app: Application) -> NoReturn:
    """Serves until it is stopped, and ends the process with status 0; with 2 where it cannot listen."""
    collect_less()
    try:
        serve(app)
    except StartError as error:
        give_up(error)
    app.store.flush()
    # Threads that still wait for a handler would hold up the end; what they owe stays written.
    logging.shutdown()
    os._exit(0)


def __getattr__(name: str) -> Any:
    """`application`, made from the process's environment when somebody first asks for it."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = app = start(os.environ)
    return app


def main(arguments: list[str]) -> NoReturn:
    """Serve until it is stopped: `python wxserver.py`."""
    about = "Serve the account; all settings come from the environment, and from a file .env in this folder."
    options = Parser(description=about).parse_args(arguments)
    run(start(os.environ, vars(options).get("handlers")))


def command() -> NoReturn:
    """The script that an installed package puts on PATH: `wxserver`."""
    run_command(main)


if __name__ == "__main__":
    command()
