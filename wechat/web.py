"""Requests read with care, and responses that are what they say."""

import logging
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Request, Response

from wechat.errors import Forbidden, MethodNotAllowed, Refusal, TooLarge, Unreadable
from wechat.log import note
from wechat.masking import printable
from wechat.settings import MARK
from wechat.trouble import troubles

logger = logging.getLogger("wxserver")

MAX_BODY = 256 * 1024  # bytes; the longest push that is documented has about 30 KB
MAX_QUERY_FIELDS = 32
TEXT, XML, JSON = "text/plain; charset=utf-8", "application/xml; charset=utf-8", "application/json; charset=utf-8"


def check_method(method: str, *allowed: str) -> None:
    """Raises MethodNotAllowed unless the method is one of those allowed."""
    if method not in allowed:
        raise MethodNotAllowed(", ".join(allowed))


def read_body(request: Request) -> bytes:
    """The body, of which no more than the limit is read; raises TooLarge, or Unreadable where it ends too soon."""
    length = request.environ.get("CONTENT_LENGTH") or ""
    if length.isdecimal() and len(length) < 12:
        least = most = int(length)
    else:  # chunks, or nothing
        least, most = 0, MAX_BODY + 1 if request.is_body_readable else 0
    if least > MAX_BODY:
        raise TooLarge(f"a body of {least} bytes")
    try:
        body: bytes = request.environ["wsgi.input"].read(most)
    except OSError as error:
        raise Unreadable("the connection broke inside the body") from error
    if len(body) > MAX_BODY:
        raise TooLarge(f"a body of over {MAX_BODY} bytes")
    if len(body) < least:
        raise Unreadable("the connection ended inside the body")
    return body


def read_query(request: Request) -> dict[str, str]:
    """The query as `parse_qsl` reads it, in Latin-1, so that each character is the byte that came.

    A later field wins: WeChat appends its own to those of a URL that has some. Raises Forbidden where there are none,
    or too many.
    """
    text: str = request.environ.get("QUERY_STRING", "")
    if not text:
        raise Forbidden("no query at all: does a proxy drop it?")
    pairs = text.split("&")
    if len(pairs) > MAX_QUERY_FIELDS:
        raise Forbidden(f"a query of over {MAX_QUERY_FIELDS} fields: WeChat sends 7")
    try:
        if "%" not in text and "+" not in text:  # as WeChat sends it
            return dict([pair.split("=") for pair in pairs])
    except ValueError:  # a bare name, an `&` too many, or a `=` in a value
        pass
    return dict(parse_qsl(text, keep_blank_values=True, encoding="latin-1"))


def read_mark(request: Request) -> dict[str, str]:
    """The query, and the header that marks a request of WeChat's cloud, which no query can forge."""
    query = parse_qsl(request.environ.get("QUERY_STRING", ""), keep_blank_values=True, encoding="latin-1")
    return {**dict(query), MARK: request.environ.get("HTTP_X_WX_SOURCE", "")}


class Whole(Response):  # type: ignore[misc]  # WebOb has no types
    """A response that is whole as it is made: no browser takes it for anything but its content type.

    WebOb's own looks at each header and argument, for what is not here: a tenth of the time of a message.
    """

    def __init__(self, body: bytes, content_type: str, status: int | None = None) -> None:
        self._status, self._headers, self._app_iter, self.conditional_response = "200 OK", None, [body], False
        length = ("Content-Length", str(len(body)))
        self._headerlist = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff"), length]
        if status:
            self.status = status

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            without_body: Iterable[bytes] = super().__call__(environ, start_response)
            return without_body
        start_response(self._status, self._headerlist)
        return self._app_iter


def acknowledge() -> Whole:
    """What WeChat takes for: received, and there is nothing to show to the user."""
    return Whole(b"success", TEXT)


def refuse(request: Request, refusal: Refusal) -> Whole:
    """The one place where a refusal becomes a response; the reason goes to the log alone."""
    asked = [printable(request.environ.get(name) or "?") for name in ("REQUEST_METHOD", "PATH_INFO", "REMOTE_ADDR")]
    reason = str(refusal)
    kind = re.split(r"-?\d", reason, maxsplit=1)[0].rstrip()  # else each size is a cause, and leaves no room for others
    cause, detail = f"refused with {refusal.status}: {kind}", reason[len(kind) :] + " ({} {} from {})".format(*asked)
    if not troubles().note(cause, detail):
        note(logger, cause + detail)  # at INFO, where each message has a line
    response = Whole(b"refused\n", TEXT, refusal.status)
    if isinstance(refusal, MethodNotAllowed):
        response.headers["Allow"] = refusal.allowed
    return response
