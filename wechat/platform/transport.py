"""HTTP to one address, over connections that are kept open between calls."""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from math import inf
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from wechat.errors import TransportError
from wechat.platform.connection import LookUp, connect, resolve, tls_context

MOST_IDLE = 8  # connections
IDLE = 60.0  # seconds; a NAT forgets a silent connection after some minutes, and tells nobody
SILENCE = 5.0  # seconds, at most half of the time; then a kept connection counts as dead, if a fresh one may be tried
PIECE = 64 * 1024  # bytes
SELECTOR = getattr(selectors, "PollSelector", selectors.SelectSelector)  # Windows has no poll()

Body = bytes | Callable[[], Iterable[bytes]] | None  # a function begins it anew
Request = tuple[str, str, Body, Mapping[str, str]]  # method, target, body and headers


class Received:
    """A response whose body is still on the wire."""

    def __init__(self, response: HTTPResponse, what: str) -> None:
        self.what = what  # the call, for errors
        self.status = response.status
        self.headers = response.headers
        self._response = response

    def pieces(self, most: int) -> Iterator[bytes]:
        """The body, piece by piece; raises TransportError where it breaks off, or is over `most` bytes."""
        length = self._response.length or 0  # of the whole body, where the server says
        buffer, done = memoryview(bytearray(PIECE)), 0
        while True:
            if max(done, length) > most:
                raise TransportError(f"{self.what}: an answer of over {most} bytes")
            with translated(self.what):  # `read` would take as much at once as a chunk of length -1 makes it
                size = self._response.readinto(buffer)
            if not size:
                break
            done += size
            yield bytes(buffer[:size])
        if done < length:  # http.client takes the end of the connection for the end of the body
            raise TransportError(f"{self.what}: the answer was cut off")

    def read(self, most: int) -> bytes:
        """The whole body; raises TransportError where it is over `most` bytes."""
        return b"".join(self.pieces(most))


class Transport:
    """Calls to one scheme, host and port. The certificate of an https address is verified against the host.

    `is_public_only` refuses hosts with an address that is not on the public internet.
    """

    def __init__(
        self,
        base_url: str,
        is_public_only: bool = False,
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp = resolve,
    ) -> None:
        url = urlsplit(base_url)
        self._is_tls, self._netloc, self._prefix = url.scheme == "https", url.netloc, url.path.rstrip("/")
        self._is_public_only, self._clock, self._look_up = is_public_only, clock, look_up
        self._idle: deque[tuple[float, HTTPConnection]] = deque()  # since when, the oldest first

    @cached_property
    def _context(self) -> SSLContext | None:
        return tls_context() if self._is_tls else None

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
        is_repeatable: bool = False,
    ) -> Iterator[Received]:
        """The response, to be read inside the block within `timeout` seconds after its beginning.

        A kept connection that turns out to be dead is replaced by a fresh one where the call `is_repeatable`.
        Raises TransportError; its message holds the path, but nothing of the query.
        """
        what = f"{method} {target.partition('?')[0]}"
        request = (method, self._prefix + target, body, headers or {})
        with translated(what):
            connection, response = self._exchange(request, time.monotonic() + timeout, is_repeatable)
        is_reusable = False
        try:
            yield Received(response, what)
            is_reusable = response.isclosed() and connection.sock is not None
        finally:
            if is_reusable:
                self._keep(connection)
            else:
                response.close()  # which has the socket where no other response may follow
                connection.close()

    def close(self) -> None:
        """Closes the connections that nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()

    def _exchange(self, request: Request, deadline: float, is_repeatable: bool) -> tuple[HTTPConnection, HTTPResponse]:
        if kept := self._take():
            patience = min(SILENCE, (deadline - time.monotonic()) / 2) if is_repeatable else inf
            try:
                return kept, _ask(kept, request, deadline, patience)
            except (OSError, HTTPException):
                self.close()  # what killed this one did not spare the others
                if not is_repeatable:
                    raise
        fresh = connect(self._netloc, self._context, deadline, self._is_public_only, self._look_up)
        return fresh, _ask(fresh, request, deadline, inf)

    def _keep(self, connection: HTTPConnection) -> None:
        self._idle.append((self._clock(), connection))
        with suppress(IndexError):  # another thread may take the last one meanwhile
            while len(self._idle) > MOST_IDLE or self._clock() - self._idle[0][0] >= IDLE:
                self._idle.popleft()[1].close()

    def _take(self) -> HTTPConnection | None:
        """The connection that was used last, if one is there that can still be used."""
        with suppress(IndexError):
            while True:
                since, connection = self._idle.pop()
                is_usable = connection.sock is not None and self._clock() - since < IDLE
                if is_usable and not is_dropped(connection):
                    return connection
                connection.close()
        return None


def _ask(connection: HTTPConnection, request: Request, deadline: float, patience: float) -> HTTPResponse:
    """The head of the answer; the connection is closed where there is none."""
    method, target, body, headers = request
    sock: Any = connection.sock  # a DeadlineSocket
    sock.deadline, sock.patience = deadline, patience
    try:
        connection.request(method, target, body() if callable(body) else body, dict(headers))
        response = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    sock.patience = inf
    return response


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
    except (OSError, HTTPException, ValueError, RuntimeError) as error:  # the last: no thread can be started
        # The text of these errors may hold the URL, and with it a token.
        raise TransportError(f"{what}: {type(error).__name__}") from None


def to_text(raw: bytes) -> str:
    """The text in bytes that should be UTF-8 and may be GBK; what is neither has U+FFFD in it."""
    for encoding in ("utf-8-sig", "gb18030"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode(errors="replace")
