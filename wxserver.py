"""The WSGI callable for a WeChat account, and the way a message takes through it.

`python wxserver.py` serves it with waitress; `wxserver:application` is what any other WSGI server imports.
Importing this module reads no environment.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

import waitress
from webob import Request, Response
from wechat.store import open_store

from wechat.api import Api
from wechat.delivery import Delivery, MiniprogramDelivery
from wechat.envelope import Clock, envelope_for
from wechat.errors import Forbidden, MethodNotAllowed, NotFound, Refusal, StartError, TooLarge, Unreadable
from wechat.log import configure as configure_log
from wechat.log import printable
from wechat.message import is_probe, parse
from wechat.routing import Router, Routes, prepare
from wechat.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from waitress.server import BaseWSGIServer

    application: Application

logger = logging.getLogger("wxserver")

HANDLERS = Path(__file__).with_name("handlers")
MAX_BODY = 256 * 1024  # bytes; the longest push that is documented has about 30 KB
MAX_QUERY_FIELDS = 32  # WeChat sends 7
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
        deliver_by = MiniprogramDelivery if settings.account == "miniprogram" else Delivery
        self.delivery = deliver_by(Router(routes), self.api, clock)
        self.paths = (settings.path, settings.path + "/")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self.respond(request)
        except Refusal as refusal:
            response = refuse(request, refusal)
        body: Iterable[bytes] = response(environ, start_response)
        return body

    def respond(self, request: Request) -> Response:
        """The response to a request; raises Refusal."""
        path, method = request.environ.get("PATH_INFO", ""), request.method
        if path == HEALTHZ:
            check_method(method, "GET", "HEAD")
            return respond_with('{"status": "ok"}', "application/json")
        if path not in self.paths:
            raise NotFound("no such path: WeChat posts to WECHAT_PATH")
        check_method(method, "GET", "POST")
        return self.verify(request) if method == "GET" else self.receive(request)

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
        message = parse(opened.content)
        document = self.delivery.answer(message)
        if not document:
            return acknowledge()
        sealed = opened.seal(document)
        return respond_with(sealed, "application/json" if sealed[0] == "{" else "application/xml")


def check_method(method: str, *allowed: str) -> None:
    """Raises MethodNotAllowed unless the method is one of those allowed."""
    if method not in allowed:
        raise MethodNotAllowed(", ".join(allowed))


def read_body(request: Request) -> bytes:
    """The body, of which no more than the limit is read; raises TooLarge, or Unreadable where it ends too soon."""
    promised = request.content_length
    if promised is None and not request.is_body_readable:  # neither a length nor chunks
        promised = 0
    if (promised or 0) > MAX_BODY:
        raise TooLarge(f"a body of {promised} bytes")
    try:
        body: bytes = request.body_file_raw.read(MAX_BODY + 1 if promised is None else promised)
    except OSError as error:
        raise Unreadable("the connection broke inside the body") from error
    if len(body) > MAX_BODY:
        raise TooLarge(f"a body of over {MAX_BODY} bytes")
    if len(body) < (promised or 0):
        raise Unreadable("the connection ended inside the body")
    return body


def read_query(request: Request) -> dict[str, str]:
    """The query as Latin-1, so that each character is the byte that came; raises Forbidden where it is no query."""
    text = request.query_string
    if "%" not in text and "+" not in text:  # as WeChat sends it
        return dict(pair.partition("=")[::2] for pair in text.split("&"))
    try:
        return dict(parse_qsl(text, keep_blank_values=True, encoding="latin-1", max_num_fields=MAX_QUERY_FIELDS))
    except ValueError:
        raise Forbidden("a query with too many fields") from None


def respond_with(body: str | bytes, content_type: str, status: int = 200) -> Response:
    """A response that no browser takes for anything but its content type."""
    headers = [("Content-Type", f"{content_type}; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
    return Response(body.encode() if isinstance(body, str) else body, status, headers)


def acknowledge() -> Response:
    """What WeChat takes for: received, and there is nothing to show to the user."""
    return respond_with("success", "text/plain")


def refuse(request: Request, refusal: Refusal) -> Response:
    """The one place where a refusal becomes a response; the reason goes to the log alone."""
    logger.warning("%s refused with %d: %s", printable(request.method), refusal.status, refusal)
    response = respond_with("refused\n", "text/plain", refusal.status)
    if isinstance(refusal, MethodNotAllowed):
        response.headers["Allow"] = refusal.allowed
    return response


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
        logger.info("listening on http://%s:%s%s", host, port, settings.path)
    return server


def addresses(server: BaseWSGIServer) -> list[tuple[str, int]]:
    """Where the server listens; a host name may stand for more than one address."""
    return getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]


def __getattr__(name: str) -> Any:
    """`application`, made from the process's environment when somebody first asks for it."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = app = start(os.environ)
    return app


if __name__ == "__main__":
    bind(start(os.environ)).run()
