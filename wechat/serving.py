"""The application under waitress, until SIGTERM, and what is finished then; and what uWSGI does to its threads."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any, Protocol

import waitress
from waitress import wasyncore
from waitress.task import WSGITask

from wechat.connections import MAX_HEAD, Channel, Connections
from wechat.delivery.delivery import Delivery
from wechat.errors import StartError
from wechat.settings import Settings
from wechat.system import END_SIGNALS, MOST_CONNECTIONS, allow_open_files, check_port
from wechat.web import MAX_BODY

logger = logging.getLogger("wxserver")

LOOK, LOOK_WHILE_DRAINING = 1.0, 0.05  # seconds between two looks at whether to stop, while nothing else happens


class Served(Protocol):
    """What is served: it is told when the end has come, and says whether it is idle."""

    settings: Settings
    delivery: Delivery
    is_draining: bool


def bind(app: Served) -> dict[int, Any]:
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
    for server in list(sockets.values()):  # a host name may stand for more than one address
        if server.accepting:
            host, port = server.effective_host, server.effective_port
            logger.info("listening on http://%s:%s%s", f"[{host}]" if ":" in host else host, port, settings.path)
    return sockets


def serve(app: Served) -> None:
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
        elif isinstance(dispatcher, Channel):
            dispatcher.task_class = LastTask


def is_idle(app: Served, sockets: dict[int, Any]) -> bool:
    """Whether every request that came has been answered, and every debt been paid."""
    channels = [channel for channel in list(sockets.values()) if isinstance(channel, Channel)]
    is_busy = any(channel.requests or channel.request or channel.total_outbufs_len for channel in channels)
    return not is_busy and app.delivery.is_idle()


FORK_HOOKS = {"py-call-uwsgi-fork-hooks", "py-call-osafterfork"}
FORKS = (
    "uWSGI is about to fork this process without telling Python, which would leave its workers without the threads "
    "that write the log and claim messages: add lazy-apps, or where its options are not yours see docs/deploy.md"
)
NO_THREADS = (
    "uWSGI runs threads only while a request is handled: add enable-threads. Until then log lines are late, slow "
    "handlers stand still between requests, and processes that share a store take this one for dead"
)


def check_uwsgi(uwsgi: Any) -> None:
    """Raise StartError where uWSGI would break the threads that are about to start; warn where it holds them up.

    `uwsgi` is the module of that name, which exists inside uWSGI alone; None elsewhere.
    https://uwsgi-docs.readthedocs.io/en/latest/ThingsToKnow.html
    """
    if not uwsgi:
        return
    will_fork = uwsgi.worker_id() == 0 and (uwsgi.masterpid() or uwsgi.numproc > 1)  # a worker's number is 1 or more
    if will_fork and not FORK_HOOKS & set(uwsgi.opt):
        raise StartError([FORKS])
    if not uwsgi.has_threads:
        logger.warning(NO_THREADS)
