"""HTTP to one address, over connections that are kept open between calls."""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import MappingProxyType
from urllib.parse import urlsplit

from wechat.errors import TransportError

MOST_IDLE = 8  # connections
PIECE = 64 * 1024  # bytes
SELECTOR = getattr(selectors, "PollSelector", selectors.SelectSelector)  # Windows has no poll()

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
Body = bytes | Iterable[bytes] | None


class Received:
    """A response whose body is still on the wire."""

    def __init__(self, response: HTTPResponse, what: str) -> None:
        self.what = what  # the call, for errors
        self.status = response.status
        self.headers = response.headers
        self._response = response

    def pieces(self) -> Iterator[bytes]:
        """The body, piece by piece; raises TransportError where it breaks off."""
        missing = self.length or 0
        while True:
            with translated(self.what):
                piece = self._response.read(PIECE)
            if not piece:
                break
            missing -= len(piece)
            yield piece
        if self.length is not None and missing:  # http.client takes the end of the connection for the end of the body
            raise TransportError(f"{self.what}: the answer was cut off")

    def read(self, most: int) -> bytes:
        """The whole body; raises TransportError where it is over `most` bytes."""
        body = b""
        for piece in self.pieces():
            body += piece
            if len(body) > most:
                raise TransportError(f"{self.what}: an answer of over {most} bytes")
        return body

    @property
    def length(self) -> int | None:
        """The bytes of the whole body, where the server says."""
        length = self.headers["Content-Length"] or ""
        return int(length) if length.isdecimal() and len(length) < 20 else None


class Transport:
    """Calls to one scheme, host and port. The certificate of an https address is verified."""

    def __init__(self, base_url: str) -> None:
        url = urlsplit(base_url)
        self._connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._netloc, self._prefix = url.netloc, url.path.rstrip("/")
        self._idle: deque[HTTPConnection] = deque()

    @contextmanager
    def open(
        self, method: str, target: str, body: Body = None, headers: Mapping[str, str] = NO_HEADERS, timeout: float = 10
    ) -> Iterator[Received]:
        """The response, to be read inside the block; `timeout` is in seconds for each step of the exchange.

        Raises TransportError; its message holds the path, but nothing of the query.
        """
        what = f"{method} {target.partition('?')[0]}"
        with translated(what):
            connection = self._take(timeout)
        try:
            with translated(what):
                connection.request(method, self._prefix + target, body, dict(headers))
                response = connection.getresponse()
            yield Received(response, what)
            is_reusable = response.isclosed() and connection.sock is not None
        except BaseException:
            connection.close()
            raise
        if is_reusable and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _take(self, timeout: float) -> HTTPConnection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.sock is not None and not is_dropped(connection):
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        return self._connect(self._netloc, timeout=timeout)


def is_dropped(connection: HTTPConnection) -> bool:
    """Whether the other side has closed a connection that nobody uses: nothing else can have come in."""
    with SELECTOR() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Inside the block, whatever goes wrong on the wire becomes a TransportError about `what`."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        # The text of these errors may hold the URL, and with it a token.
        raise TransportError(f"{what}: {type(error).__name__}") from None
