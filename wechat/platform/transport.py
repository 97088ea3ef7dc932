"""HTTP to one address, over connections that are kept between calls, end in time and lead where they may.

The timeout of http.client begins anew with each byte; here a deadline holds for the whole call.
"""

import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from math import inf
from typing import Any, cast
from urllib.parse import urlsplit

from wechat.errors import TransportError

MOST_IDLE = 8  # connections
IDLE = 60.0  # seconds; a NAT forgets a silent connection after some minutes, and tells nobody
SILENCE = 5.0  # seconds, at most half of the time; then a kept connection counts as dead, if a fresh one may be tried
PIECE = 64 * 1024  # bytes
SELECTOR = getattr(selectors, "PollSelector", selectors.SelectSelector)  # Windows has no poll()

Body = bytes | Callable[[], Iterable[bytes]] | None  # a function begins it anew
Request = tuple[str, str, Body, Mapping[str, str]]  # method, target, body and headers
LookUp = Callable[[str, int], list[Any]]  # gives what socket.getaddrinfo gives


class DeadlineSocket(socket.socket):
    """A socket whose every step ends at `deadline`, or earlier where nothing happens for `patience` seconds."""

    deadline = inf  # by time.monotonic()
    patience = inf

    def hurry(self) -> None:
        """Gives the next step the time that is left; raises TimeoutError where none is."""
        left = min(self.deadline - time.monotonic(), self.patience)
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.hurry()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        self.hurry()
        return super().recv_into(buffer, nbytes or 0, flags)


class DeadlineTLS(DeadlineSocket, ssl.SSLSocket):
    """A socket with a deadline, over TLS."""


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

    A host is refused where `may_reach` is false for one of its IP addresses.
    """

    def __init__(
        self,
        base_url: str,
        may_reach: Callable[[str], bool] = bool,
        clock: Callable[[], float] = time.monotonic,
        look_up: LookUp = partial(socket.getaddrinfo, type=socket.SOCK_STREAM),  # noqa: B008, it holds nothing
    ) -> None:
        url = urlsplit(base_url)
        self._is_tls, self._netloc, self._prefix = url.scheme == "https", url.netloc, url.path.rstrip("/")
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
        fresh = self._connect(deadline)
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
                if self._clock() - since < IDLE and not is_dropped(connection):
                    return connection
                connection.close()
        return None

    def _connect(self, deadline: float) -> HTTPConnection:
        """A new connection, to the very address that was checked: a second look-up could give another."""
        context = self._context
        connection = HTTPSConnection(self._netloc, context=context) if context else HTTPConnection(self._netloc)
        addresses = _look_up_by(deadline, self._look_up, connection.host, connection.port)
        for *_, place in addresses:
            if not self._may_reach(place[0]):
                raise TransportError(f"{place[0]} is no public address: nothing is fetched from there")
        connection.sock = _reach(addresses, deadline, context, connection.host)
        return connection

    @cached_property
    def _context(self) -> ssl.SSLContext | None:
        context = ssl.create_default_context() if self._is_tls else None
        if context:
            context.sslsocket_class = DeadlineTLS
        return context


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


def _look_up_by(deadline: float, look_up: LookUp, host: str, port: int) -> list[Any]:
    """What `look_up` gives, in a thread that is left behind at the deadline: no resolver takes a timeout."""
    found: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            found.set_result(look_up(host, port))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return found.result(max(deadline - time.monotonic(), 0))


def _reach(addresses: list[Any], deadline: float, context: ssl.SSLContext | None, host: str) -> DeadlineSocket:
    """A connection to the first address that answers; one that is silent leaves the others their share of the time."""
    failure = OSError("the name has no address")
    for others, (*kind, _, place) in zip(reversed(range(len(addresses))), addresses, strict=True):
        try:
            with ExitStack() as stack:
                sock = stack.enter_context(DeadlineSocket(*kind))
                sock.deadline = deadline - (deadline - time.monotonic()) * others / (others + 1)
                sock.hurry()
                sock.connect(place)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                secured = context.wrap_socket(sock, server_hostname=host) if context else sock
                stack.pop_all()
                return cast(DeadlineSocket, secured)
        except OSError as error:
            failure = error
    raise failure


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Inside the block, whatever goes wrong on the wire becomes a TransportError about `what`."""
    try:
        yield
    except (OSError, HTTPException, ValueError, RuntimeError) as error:  # the last: no thread can be started
        # The text of these errors may hold the URL, and with it a token.
        raise TransportError(f"{what}: {type(error).__name__}") from None
