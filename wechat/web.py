"""Requests read with care, and responses that are what they say."""

import logging
from urllib.parse import parse_qsl

from webob import Request, Response

from wechat.errors import Forbidden, MethodNotAllowed, Refusal, TooLarge, Unreadable
from wechat.log import printable
from wechat.settings import MARK

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


def read_proof(request: Request, mode: str) -> dict[str, str]:
    """What shows where a request comes from: its query, and in cloud mode a header, which no query can forge."""
    if mode != "cloud":
        return read_query(request)
    query = parse_qsl(request.environ.get("QUERY_STRING", ""), keep_blank_values=True, encoding="latin-1")
    return {**dict(query), MARK: request.environ.get("HTTP_X_WX_SOURCE", "")}


def respond_with(body: bytes, content_type: str, status: int | None = None) -> Response:
    """A response that no browser takes for anything but its content type."""
    length = str(len(body))
    headers = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff"), ("Content-Length", length)]
    return Response(None, status, headers, [body])


def acknowledge() -> Response:
    """What WeChat takes for: received, and there is nothing to show to the user."""
    return respond_with(b"success", TEXT)


def refuse(request: Request, refusal: Refusal) -> Response:
    """The one place where a refusal becomes a response; the reason goes to the log alone."""
    logger.warning("%s refused with %d: %s", printable(request.method), refusal.status, refusal)
    response = respond_with(b"refused\n", TEXT, refusal.status)
    if isinstance(refusal, MethodNotAllowed):
        response.headers["Allow"] = refusal.allowed
    return response
