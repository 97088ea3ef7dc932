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
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

import waitress
from webob import Request, Response

from wechat.envelope import Clock, Plain
from wechat.errors import Forbidden, MethodNotAllowed, NotFound, Refusal, StartError, TooLarge, Unreadable
from wechat.log import configure as configure_log
from wechat.log import kind_of, printable, shorten, trace
from wechat.message import Message, parse
from wechat.reply import to_reply, to_xml
from wechat.routing import Found, Router, Routes, describe, prepare
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


class Answer(NamedTuple):
    """What was said to a message, by whom. The document is empty where nothing was."""

    handler: str
    kind: str
    document: str


class Application:
    """The server as a WSGI callable.

    `routes` is what `wechat.routing.load` returns; `clock` gives the seconds since 1970.
    """

    def __init__(self, settings: Settings, routes: Routes, clock: Clock = time.time) -> None:
        self.settings = settings
        self.clock = clock
        self.router = Router(routes)
        self.envelope = Plain(settings.tokens, settings.max_age, clock)
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
        content = self.envelope.open(body, read_query(request))
        message = parse(content)
        answer = self.answer(message)
        if not answer.document:
            return respond_with("success", "text/plain")
        document = self.envelope.seal(answer.document)
        return respond_with(document, "application/json" if document[0] == "{" else "application/xml")

    def answer(self, message: Message) -> Answer:
        """Has the message answered, and logs one line about it that quotes nobody."""
        started = time.perf_counter()
        found = self.router.find(message)
        answer = self.run(found, message) if found else Answer("nobody", "success", "")
        if logger.isEnabledFor(logging.INFO):
            milliseconds = (time.perf_counter() - started) * 1000
            kind, openid = kind_of(message), shorten(message.FromUserName)
            is_claimed = found and found.handler is not self.router.default
            hint = "" if is_claimed else f"; to answer these: @on({describe(kind.split('/'))})"
            logger.info(f"{kind} from {openid} -> {answer.handler}: {answer.kind}, {milliseconds:.1f} ms{hint}")
        return answer

    def run(self, found: Found, message: Message) -> Answer:
        """What the handler answers. Where it raises: what the error handler does, if there is one."""
        try:
            result = found.handler(message, match=found.match)
            if isinstance(result, Message):  # handed on: the new message is routed in place of the old one
                message = result
                found = self.router.find(message) or found
                result = found.handler(message, match=found.match)
            return self.render(found.handler.name, result, message)
        except (Exception, SystemExit) as error:
            logger.error("%s failed\n%s", found.handler.name, trace(error))
            return self.apologise(message, error)

    def apologise(self, message: Message, error: BaseException) -> Answer:
        """What the error handler answers; nothing where there is none, or where it raises too."""
        handler = self.router.error
        if not handler:
            return Answer("nobody", "success", "")
        try:
            return self.render(handler.name, handler(message, error=error), message)
        except (Exception, SystemExit) as second:
            logger.error("%s, the error handler, failed\n%s", handler.name, trace(second))
            return Answer(handler.name, "success", "")

    def render(self, name: str, result: Any, message: Message) -> Answer:
        """What a handler returned, as the document that answers the message; raises whatever is wrong with it."""
        reply = to_reply(result)
        if reply is None:
            return Answer(name, "success", "")
        document = to_xml(reply, message, int(self.clock()))
        return Answer(name, reply.kind, document)


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
