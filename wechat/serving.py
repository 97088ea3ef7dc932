"""The application under waitress, until SIGTERM, and what is finished then."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from wechat.connections import MAX_HEAD, Connections
from wechat.delivery.delivery import Delivery
from wechat.errors import StartError
from wechat.settings import Settings
from wechat.system import END_SIGNALS, MOST_CONNECTIONS, allow_open_files, check_port
from wechat.web import MAX_BODY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from waitress.server import BaseWSGIServer

logger = logging.getLogger("wxserver")

LOOK, LOOK_WHILE_DRAINING = 1.0, 0.05  # seconds between two looks at whether to stop, while nothing else happens


class Served(Protocol):
    """What is served: it is told when the end has come, and says whether it is idle."""

    settings: Settings
    delivery: Delivery
    is_draining: bool

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]: ...


def bind(app: Served) -> BaseWSGIServer:
    """waitress, bound to the address in the settings; raises StartError where it cannot be."""
    settings = app.settings
    allow_open_files()
    try:
        check_port(settings.host, settings.port)
        server = waitress.create_server(
            app,
            host=settings.host,
            port=settings.port,
            threads=settings.threads,
            max_request_header_size=MAX_HEAD,
            max_request_body_size=MAX_BODY + 1,  # waitress refuses a body of this size
            connection_limit=MOST_CONNECTIONS,
            log_socket_errors=False,  # a client that vanishes is none of our faults, and needs no traceback
            asyncore_use_poll=True,  # where there is poll(): select() fails on the 1,024th open file
            send_bytes=18_000,  # above any answer: the loop, which wakes up anyway, sends head and body at once
        )
    except (OSError, ValueError) as error:
        raise StartError([f"HOST, PORT: cannot listen on {settings.host}:{settings.port}: {error}"]) from error
    for host, port in addresses(server):
        logger.info("listening on http://%s:%s%s", f"[{host}]" if ":" in host else host, port, settings.path)
    return server


def addresses(server: BaseWSGIServer) -> list[tuple[str, int]]:
    """Where the server listens; a host name may stand for more than one address."""
    return getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]


def serve(app: Served, server: BaseWSGIServer) -> None:
    """Serves until SIGTERM, Ctrl-C or Ctrl-Break; then finishes what is in flight, for WECHAT_DRAIN seconds at most."""
    deadline, sockets = 0.0, getattr(server, "map", None) or server._map

    def drain(*_: object) -> None:
        nonlocal deadline
        deadline = deadline or time.monotonic() + app.settings.drain
        app.is_draining = True
        for dispatcher in list(sockets.values()):  # so that the loop looks at once
            getattr(dispatcher, "pull_trigger", bool)()

    connections = Connections(sockets, server.adj.connection_limit)
    for number in END_SIGNALS:
        signal.signal(number, drain)
    while not deadline or (time.monotonic() < deadline and not is_idle(app, sockets)):
        wasyncore.loop(timeout=LOOK_WHILE_DRAINING if deadline else LOOK, map=sockets, use_poll=True, count=1)
        connections.look_after(time.monotonic())
        if deadline:
            turn_away(sockets)
    logger.info("stopped")


class LastTask(WSGITask):  # type: ignore[misc]
    """Answers a request, and tells the client that the connection ends with it."""

    def build_response_header(self) -> Any:
        self.request.headers["CONNECTION"] = "close"  # as if it had asked for that
        return super().build_response_header()


def turn_away(sockets: dict[int, Any]) -> None:
    """Closes the listening sockets; open connections get one answer more, as a proxy would use them for ever."""
    for dispatcher in list(sockets.values()):
        if dispatcher.accepting:
            wasyncore.dispatcher.close(dispatcher)
        elif isinstance(dispatcher, HTTPChannel):
            dispatcher.task_class = LastTask


def is_idle(app: Served, sockets: dict[int, Any]) -> bool:
    """Whether every request that came has been answered, and every debt been paid."""
    channels = [channel for channel in list(sockets.values()) if isinstance(channel, HTTPChannel)]
    is_busy = any(channel.requests or channel.request or channel.total_outbufs_len for channel in channels)
    return not is_busy and app.delivery.is_idle()
