"""The application under waitress until SIGTERM, what is finished then, and clients that are slow or hostile.

waitress reads requests in the one thread that serves all sockets, and waits for a client as long as that client likes.
Here each has ten seconds for a request, and none keeps others out.
"""

import logging
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import waitress
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from wechat.delivery.delivery import Delivery
from wechat.errors import StartError
from wechat.heads import MAX_HEAD, Parser
from wechat.settings import Settings
from wechat.system import END_SIGNALS, MOST_CONNECTIONS, advise, allow_open_files, check_port
from wechat.web import MAX_BODY
from wechat.workers import Workers

logger = logging.getLogger("wxserver")

WITHIN = 10.0  # seconds for a request, head and body, and as many to take the answer; WeChat hangs up after 5
IDLE = 120.0  # seconds between two requests
LOOK = 1.0  # seconds between two looks at all connections, and at whether to stop while nothing else happens
LOOK_WHILE_DRAINING = 0.05  # seconds
GRACE = 0.2  # seconds in which a client that has just connected may send its request
BATCH = 100  # connections that are accepted in a row
REPORT = 60.0  # seconds between two lines about them in the log


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when its client is waited for. Only the thread of the sockets changes that."""

    parser_class = Parser
    is_new = True  # no request has come as a whole

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.since = time.monotonic()

    def received(self, data: bytes) -> Any:
        """Take what came; the time runs from the accept for a first request, from the first byte for a later one."""
        before = self.request
        if before is None:
            data = data.lstrip(b"\r\n")  # RFC 9112, section 2.2; waitress would take some of them for a whole request
        is_taken = super().received(data)
        if not data:
            return is_taken
        if self.request is None or self.requests or before not in (None, self.request):  # one has come as a whole
            self.is_new, self.since = False, time.monotonic()
        elif before is None and not self.is_new:  # another one begins
            self.since = time.monotonic()
        return is_taken

    def handle_expt(self) -> None:
        """Close: nobody who speaks HTTP sends urgent data, and waitress would log it for ever."""
        self.handle_close()

    def is_overdue(self, now: float) -> bool:
        """Whether the client has had its time: for a request, for taking an answer, or between two requests."""
        if self.requests:  # a worker has one of them
            self.since = now
            return False
        return now - self.since > (WITHIN if self.is_awaited() else IDLE)

    def is_awaited(self) -> bool:
        """Whether the client owes the rest of a request, or is to take an answer."""
        is_sending = self.total_outbufs_len or self.close_when_flushed or self.will_close
        return bool(self.is_new or self.request is not None or is_sending)

    def may_go(self) -> bool:
        """Whether nothing would be lost with it but a request that has not come as a whole."""
        return not (self.requests or self.total_outbufs_len or self.close_when_flushed)  # in this order: see service()


class LastTask(WSGITask):  # type: ignore[misc]
    """Answers a request, and tells the client that the connection ends with it."""

    def build_response_header(self) -> Any:
        self.request.headers["CONNECTION"] = "close"  # as if it had asked for that
        return super().build_response_header()


class Bell:
    """Wakes the thread of the sockets once for all answers that are ready by the time it looks.

    waitress writes to a pipe for each, and each write lets another thread take the interpreter.
    """

    def __init__(self, server: Any) -> None:
        self._is_rung, self._trigger, self._read = False, server.trigger, server.trigger.handle_read
        server.pull_trigger, server.trigger.handle_read = self.ring, self._hear

    def ring(self) -> None:
        """Wake it, unless somebody has since it last looked."""
        if not self._is_rung:
            self._is_rung = True
            self._trigger.pull_trigger()

    def _hear(self) -> None:
        self._read()
        self._is_rung = False  # last: who found it rung meanwhile is looked at in the next round


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
    is_draining: bool


def bind(app: ServableApp) -> dict[int, Any]:
    """The sockets of a waitress that is bound to the address in the settings; raises StartError where it cannot be."""
    settings, sockets = app.settings, dict[int, Any]()
    allow_open_files()
    try:
        check_port(settings.host, settings.port)
        waitress.create_server(
            app,
            sockets,
            host=settings.host,
            port=settings.port,
            _dispatcher=Workers(settings.threads),
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
