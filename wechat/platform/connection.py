"""Connections that end in time, however slowly the other side drips, and that lead where they may.

The timeout of http.client begins anew with each byte; here a deadline holds for the whole call.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import inf
from typing import Any, cast

from wechat.errors import TransportError

LookUp = Callable[[str, int], list[Any]]  # gives what socket.getaddrinfo gives

GLOBAL_UNICAST, NAT64 = ip_network("2000::/3"), ip_network("64:ff9b::/96")
# Not global, whatever an older Python says: https://www.iana.org/assignments/iana-ipv4-special-registry (and -ipv6-)
SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")))


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
    """The same over TLS."""


def tls_context() -> ssl.SSLContext:
    """What verifies the certificate of a server against its name."""
    context = ssl.create_default_context()
    context.sslsocket_class = DeadlineTLS
    return context


def connect(
    netloc: str, context: ssl.SSLContext | None, deadline: float, is_public_only: bool, look_up: LookUp
) -> HTTPConnection:
    """A connection to `host` or `host:port`, over TLS with a context.

    Raises OSError, HTTPException or ValueError, and TransportError where it may lead to public addresses only and the
    name has another one. The address that was checked is the one that is used: a second look-up could give another.
    """
    connection = HTTPSConnection(netloc, context=context) if context else HTTPConnection(netloc)
    addresses = _look_up_by(deadline, look_up, connection.host, connection.port)
    for *_, place in addresses if is_public_only else ():
        if not is_public(place[0]):
            raise TransportError(f"{place[0]} is no public address: nothing is fetched from there")
    connection.sock = _reach(addresses, deadline, context, connection.host)
    return connection


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv4 address counts also where IPv6 wraps it."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped or ip in NAT64:
            ip = IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL)


def resolve(host: str, port: int) -> list[Any]:
    """The addresses of a host, by the resolver of the system."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


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
