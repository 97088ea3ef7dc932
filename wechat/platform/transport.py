"""HTTP to one server, or to another in its place, over connections that are kept between calls and end in time.

The timeout of http.client begins anew with each byte; here a deadline holds for the whole call.
"""

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from math import inf
from typing import Any

from wechat.errors import TransportError
from wechat.platform.connecting import (
    DeadlineTLS,
    LookUp,
    Proxy,
    Server,
    look_up_by,
    reach,
    secure,
    share,
    translated,
)
from wechat.trouble import troubles

MOST_IDLE = 8  # connections
IDLE = 60.0  # seconds; a NAT forgets a silent connection after some minutes, and tells nobody
AWAY = 60.0  # seconds for which a server that could not be reached comes after the others
SILENCE = 5.0  # seconds, at most half of the time; then a kept connection counts as dead, if a fresh one may be tried
PIECE = 64 * 1024  # bytes
SELECTOR = getattr(selectors, "PollSelector", selectors.SelectSelector)  # Windows has no poll()

Body = bytes | Callable[[], Iterable[bytes]] | None  # a function begins it anew
Request = tuple[str, str, Body, Mapping[str, str]]  # method, target, body and headers


class HttpResponse:
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
    """Calls to the first of some base addresses whose server can be reached.

    The certificate of an https address is verified against its host, also behind a `proxy`, which is an address like
    `http://user:password@host:port`. With `may_reach`, a host is refused where that is false for one of its IP
    addresses.
    """

    def __init__(
        self,
        *base_urls: str,
        may_reach: Callable[[str], bool] | None = None,
        proxy: str = "",
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp = partial(socket.getaddrinfo, type=socket.SOCK_STREAM),  # noqa: B008, it holds nothing
    ) -> None:
        self._servers = [Server.at(url) for url in base_urls]
        self._away: dict[Server, float] = {}  # since when
        self._proxy = Proxy(proxy) if proxy else None
        self._may_reach, self._clock, self._look_up = may_reach, clock, look_up
        self._idle: deque[tuple[float, HTTPConnection]] = deque()  # since when, the oldest first

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
        is_repeatable: bool = False,
    ) -> Iterator[HttpResponse]:
        """The response, to be read inside the block within `timeout` seconds after its beginning.

        A kept connection that turns out to be dead is replaced by a fresh one where the call `is_repeatable`. Once
        something of a call has been sent, no other server is asked. Raises TransportError; its message holds the path,
        but nothing of the query.
        """
        what = f"{method} {target.partition('?')[0]}"
        request = (method, target, body, headers or {})
        with translated(what):
            connection, response = self._exchange(request, time.monotonic() + timeout, is_repeatable)
        is_reusable = False
        try:
            yield HttpResponse(response, what)
            # Behind a 103, the answer itself is still to come: the next call would take it for its own.
            is_open = response.isclosed() and connection.sock is not None and response.status >= 200
            is_reusable = is_open and _server_of(connection) == self._in_order()[0]
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
        fresh = self._connect(deadline)
        server = _server_of(fresh)
        try:
            return fresh, _ask(fresh, request, deadline, inf)
        except OSError:  # it may have done what it was asked, so this call is over, and the next ones go elsewhere
            self._away[server] = self._clock()
            raise

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
                if self._clock() - since < IDLE and not is_dropped(connection):
                    return connection
                connection.close()
        return None

    def _in_order(self) -> list[Server]:
        return sorted(self._servers, key=lambda server: self._clock() - self._away.get(server, -inf) < AWAY)

    def _connect(self, deadline: float) -> HTTPConnection:
        """A new connection to the first server that can be reached; each leaves the others their share of the time."""
        *others, last = self._in_order()
        for number, server in enumerate(others):
            try:
                return self._connect_to(server, share(deadline, len(others) - number))
            except (OSError, TransportError) as error:
                self._away[server] = self._clock()
                why = error if isinstance(error, TransportError) else type(error).__name__
                troubles().note(f"{server.netloc} cannot be reached", f" ({why}), another server is asked")
        return self._connect_to(last, deadline)

    def _connect_to(self, server: Server, deadline: float) -> HTTPConnection:
        """A new connection, to the very address that was checked: a second look-up could give another."""
        context = self._context if server.is_tls else None
        connection = HTTPSConnection(server.netloc, context=context) if context else HTTPConnection(server.netloc)
        host, port, is_checked = connection.host, connection.port, self._may_reach is not None
        # A proxy looks names up by itself, where it does not matter to what address they lead.
        found = look_up_by(deadline, self._look_up, host, port) if is_checked or not self._proxy else []
        for *_, address in found:
            if self._may_reach and not self._may_reach(address[0]):
                raise TransportError(f"{address[0]} is not a public address: nothing is fetched from there")
        if self._proxy:
            target = found[0][-1][0] if found else host
            sock = secure(self._proxy.connect(target, port, deadline, self._look_up), context, host)
        else:
            sock = reach(found, deadline, partial(secure, context=context, host=host))
        sock.server, connection.sock = server, sock
        return connection

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.sslsocket_class = DeadlineTLS
        return context


def _ask(connection: HTTPConnection, request: Request, deadline: float, patience: float) -> HTTPResponse:
    """The head of the answer; the connection is closed where there is none."""
    method, target, body, headers = request
    sock: Any = connection.sock  # a DeadlineSocket
    sock.deadline, sock.patience = deadline, patience
    try:
        connection.request(method, sock.server.prefix + target, body() if callable(body) else body, dict(headers))
        response = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    sock.patience = inf
    return response


def _server_of(connection: HTTPConnection) -> Server:
    sock: Any = connection.sock  # a DeadlineSocket
    server: Server = sock.server
    return server


def is_dropped(connection: HTTPConnection) -> bool:
    """Whether the other side has closed a connection that nobody uses: nothing else can have come in."""
    with SELECTOR() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))
