"""How a connection is made: to the first address that answers, through a proxy where there is one, and in time."""

import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from http.client import HTTPException, HTTPResponse
from math import inf
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from wechat.errors import TransportError

LookUp = Callable[[str, int], list[Any]]  # gives what socket.getaddrinfo gives


class Server(NamedTuple):
    """Where calls lead; `prefix` stands before each of their paths."""

    is_tls: bool
    netloc: str
    prefix: str

    @classmethod
    def at(cls, base_url: str) -> "Server":
        """The server with this address."""
        url = urlsplit(base_url)
        return cls(url.scheme == "https", url.netloc, url.path.rstrip("/"))


class DeadlineSocket(socket.socket):
    """A socket whose every step ends at `deadline`, or earlier where nothing happens for `patience` seconds."""

    deadline = inf  # by time.monotonic()
    patience = inf
    server = Server(False, "", "")  # to which it leads

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
    """The same over TLS."""


Prepare = Callable[[DeadlineSocket], DeadlineSocket]  # what is done with a connection before anything is sent


def look_up_by(deadline: float, look_up: LookUp, host: str, port: int) -> list[Any]:
    """What `look_up` gives, in a thread that is left behind at the deadline: no resolver takes a timeout.

    Raises OSError where that is nothing.
    """
    found: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            found.set_result(look_up(host, port))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    addresses = found.result(max(deadline - time.monotonic(), 0))
    if not addresses:
        raise OSError("the name has no address")
    return addresses


def reach(addresses: list[Any], deadline: float, prepare: Prepare) -> DeadlineSocket:
    """A connection to the first address that answers; one that is silent leaves the others their share of the time."""
    failure = OSError()
    for others, (*kind, _, address) in zip(reversed(range(len(addresses))), addresses, strict=True):
        try:
            with ExitStack() as stack:
                sock = stack.enter_context(DeadlineSocket(*kind))
                sock.deadline = share(deadline, others)
                sock.hurry()
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                prepared = prepare(sock)
                stack.pop_all()
                return prepared
        except OSError as error:
            failure = error
    raise failure


def share(deadline: float, others: int) -> float:
    """Until when a try may take, so that so many others have as long."""
    return deadline - (deadline - time.monotonic()) * others / (others + 1)


def secure(sock: DeadlineSocket, context: ssl.SSLContext | None, host: str) -> DeadlineSocket:
    """The connection over TLS, once the certificate is shown to be that of the host; as it is without a context."""
    if not context:
        return sock
    with ExitStack() as stack:
        stack.enter_context(sock)  # which is closed where this fails
        sock.hurry()
        secured = context.wrap_socket(sock, server_hostname=host)
        stack.pop_all()
    return cast(DeadlineSocket, secured)


class Proxy:
    """An HTTP proxy that passes connections on, at an address like `http://user:password@host:port`.

    https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        self._login = f"Proxy-Authorization: Basic {b64encode(login).decode()}\r\n" if parts.username else ""
        self._name = f"the proxy {self._host}:{self._port}"  # as errors say it, without what it takes to log in

    def connect(self, host: str, port: int, deadline: float, look_up: LookUp) -> DeadlineSocket:
        """A connection to the host; raises TransportError where the proxy is away, or does not make one."""
        target = f"[{host}]:{port}" if ":" in host else f"{host.encode('idna').decode()}:{port}"
        with translated(self._name):
            addresses = look_up_by(deadline, look_up, self._host, self._port)
            sock = reach(addresses, deadline, lambda sock: self._pass_on(sock, target))
        sock.deadline = deadline
        return sock

    def _pass_on(self, sock: DeadlineSocket, target: str) -> DeadlineSocket:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._login}\r\n".encode())
        response = HTTPResponse(sock, method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()  # the connection stays open: a 200 has no body
        said = f"{self._name} answered {response.status}"
        if response.status in (407, 401):  # tinyproxy says 401 where the password is wrong
            raise TransportError(f"{said}: are the user and the password in WECHAT_PROXY right?")
        if response.status // 100 != 2:
            raise TransportError(f"{said}: it does not let calls through to {target}")
        return sock


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Inside the block, whatever goes wrong on the wire becomes a TransportError about `what`."""
    try:
        yield
    except (OSError, HTTPException, ValueError, RuntimeError) as error:  # the last: no thread can be started
        # The text of these errors may hold the URL, and with it a token.
        raise TransportError(f"{what}: {type(error).__name__}") from None
