"""The application under waitress until SIGTERM, what is finished then, and clients that are slow or hostile.

waitress reads requests in the one thread that serves all sockets. None of them keeps others out.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol
from wsgiref.types import WSGIEnvironment

import waitress
from waitress import wasyncore

from wechat.channel import WITHIN, Bell, Channel, LastTask
from wechat.delivery.delivery import Delivery
from wechat.errors import StartError
from wechat.heads import MAX_HEAD
from wechat.settings import Settings
from wechat.system import END_SIGNALS, MOST_CONNECTIONS, advise, allow_open_files, check_port
from wechat.web import MAX_BODY
from wechat.workers import Workers

logger = logging.getLogger("wxserver")

LOOK = 1.0  # seconds between two looks at all connections, and at whether to stop while nothing else happens
LOOK_WHILE_DRAINING = 0.05  # seconds
GRACE = 0.2  # seconds in which a client that has just connected may send its request
BATCH = 100  # connections that are accepted in a row
REPORT = 60.0  # seconds between two lines about them in the log


class Connections:
    """The connections among `sockets`, which is waitress's map; there is to be room for one more below `limit`."""

    def __init__(self, sockets: dict[int, Any], limit: int) -> None:
        self._sockets, self._limit = sockets, limit
        for server in [dispatcher for dispatcher in sockets.values() if dispatcher.accepting]:
            server.channel_class = Channel
            Bell(server)
            server.handle_accept = partial(self._accept, server.handle_accept)
        self._slow, self._early = 0, 0  # connections closed since the last line about them
        self._look_at = self._report_at = 0.0

    def look_after(self, now: float) -> None:
        """Close what is overdue, and what has waited longest where there is no room."""
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._close_overdue(now)
            self._report(now)
        self._make_room(now)

    def turn_away(self) -> None:
        """Close the listening sockets; open connections get one answer more, as a proxy would use them for ever."""
        for dispatcher in [dispatcher for dispatcher in self._sockets.values() if dispatcher.accepting]:
            wasyncore.dispatcher.close(dispatcher)
        for channel in self._channels():
            channel.task_class = LastTask

    def are_idle(self) -> bool:
        """Whether every request that came has been answered."""
        return not any(channel.requests or channel.request or channel.total_outbufs_len for channel in self._channels())

    def _channels(self) -> list[Channel]:
        return [dispatcher for dispatcher in list(self._sockets.values()) if isinstance(dispatcher, Channel)]

    def _close_overdue(self, now: float) -> None:
        for channel in self._channels():
            if channel.is_overdue(now):
                self._slow += channel.is_awaited()
                channel.handle_close()

    def _make_room(self, now: float) -> None:
        while len(self._sockets) >= self._limit:
            candidates = filter(Channel.may_go, self._channels())
            oldest = min(candidates, key=lambda channel: channel.since, default=None)
            if not oldest or now - oldest.since < GRACE:
                return
            oldest.handle_close()
            self._early += 1

    def _accept(self, accept_one: Callable[[], None]) -> None:
        """Accept who waits: waitress takes one in a round, and a round takes milliseconds among 1,000 connections."""
        for _ in range(BATCH):
            before = len(self._sockets)
            accept_one()
            if len(self._sockets) == before:
                return
            self._make_room(time.monotonic())
            if len(self._sockets) >= self._limit:
                return

    def _report(self, now: float) -> None:
        if now < self._report_at or not (self._slow or self._early):
            return
        if self._early:
            why = "those that waited longest without a whole request; a proxy in front would wait for slow clients"
            logger.warning("connections ran out: closed %d early, %s", self._early, why)
        if self._slow:
            logger.info("closed %d connections that took over %g s for a request or an answer", self._slow, WITHIN)
        self._slow, self._early, self._report_at = 0, 0, now + REPORT


class ServableApp(Protocol):
    """What is served: it is told when the end has come, and says whether it is idle."""

    settings: Settings
    delivery: Delivery
    is_shared: bool
    is_draining: bool

    def open_all(self, environs: Iterable[WSGIEnvironment]) -> None:
        """Go the first half of the way for several requests."""


def bind(app: ServableApp) -> dict[int, Any]:
    """The sockets of a waitress that is bound to the address in the settings; raises StartError where it cannot be."""
    settings, sockets = app.settings, dict[int, Any]()
    allow_open_files()

    def prepare(channels: list[Channel]) -> None:
        app.open_all([environ for channel in channels if (environ := channel.prepare())])

    try:
        check_port(settings.host, settings.port)
        waitress.create_server(
            app,
            sockets,
            host=settings.host,
            port=settings.port,
            _dispatcher=Workers(settings.threads, prepare if app.is_shared else None),
            max_request_header_size=MAX_HEAD,
            max_request_body_size=MAX_BODY + 1,  # waitress refuses a body of this size
            connection_limit=MOST_CONNECTIONS,
            log_socket_errors=False,  # a client that vanishes is none of our faults, and needs no traceback
            asyncore_use_poll=True,  # where there is poll(): select() fails on the 1,024th open file
            send_bytes=18_000,  # above any answer: the loop, which wakes up anyway, sends head and body at once
        )
    except (OSError, ValueError) as error:
        raise StartError([f"HOST, PORT: cannot listen on {settings.host}:{settings.port}: {advise(error)}"]) from error
    for server in list(sockets.values()):  # a host name may stand for more than one address
        if server.accepting:
            host, port = server.effective_host, server.effective_port
            logger.info("listening on http://%s:%s%s", f"[{host}]" if ":" in host else host, port, settings.path)
    return sockets


def serve(app: ServableApp) -> None:
    """Serves until SIGTERM, Ctrl-C or Ctrl-Break; then finishes what is in flight, for WECHAT_DRAIN seconds at most.

    Raises StartError where it cannot listen.
    """
    deadline, sockets = 0.0, bind(app)

    def drain(*_: object) -> None:
        nonlocal deadline
        deadline = deadline or time.monotonic() + app.settings.drain
        app.is_draining = True
        for dispatcher in list(sockets.values()):  # so that the loop looks at once
            getattr(dispatcher, "pull_trigger", bool)()

    connections = Connections(sockets, MOST_CONNECTIONS)
    for number in END_SIGNALS:
        signal.signal(number, drain)
    while not deadline or (time.monotonic() < deadline and not (connections.are_idle() and app.delivery.is_idle())):
        wasyncore.loop(timeout=LOOK_WHILE_DRAINING if deadline else LOOK, map=sockets, use_poll=True, count=1)
        connections.look_after(time.monotonic())
        if deadline:
            connections.turn_away()
    logger.info("stopped")
