"""A connection of waitress's, and what wakes the thread that serves them all.

Here a client has ten seconds for a request, and as many to take the answer; waitress waits as long as a client likes.
"""

import time
from typing import Any
from wsgiref.types import WSGIEnvironment

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from wechat.heads import Parser

WITHIN = 10.0  # seconds for a request, head and body, and as many to take the answer; WeChat hangs up after 5
IDLE = 120.0  # seconds between two requests


class PreparedTask(WSGITask):  # type: ignore[misc]
    """Answers a request, of which an environ may have been made before."""

    def get_environment(self) -> Any:
        environ, self.channel.environ = self.channel.environ, None
        return environ or super().get_environment()


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when its client is waited for. Only the thread of the sockets changes that."""

    parser_class, task_class = Parser, PreparedTask
    is_new = True  # no request has come as a whole
    environ: WSGIEnvironment | None = None  # of a request that is prepared, and whose answer has not begun

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

    def prepare(self) -> WSGIEnvironment | None:
        """What is asked for, as the application gets it; None where the application is not to see it."""
        request = self.requests[0]
        if self.connected and not request.error:
            self.environ = WSGITask(self, request).get_environment()
        return self.environ

    def service(self) -> None:
        """Have the request answered; one that is prepared also where its client has left: its message has begun."""
        environ = self.environ
        super().service()
        if environ and self.environ is environ:
            self.server.application(environ, lambda *_: None)

    def handle_write(self) -> None:
        """Send what is ready also while a later request is answered: waitress would wait for `send_bytes`, and spin."""
        if self.connected and self.requests and self.total_outbufs_len:
            self._flush_exception(self._flush_some_if_lockable)
        super().handle_write()

    def _flush_some(self, do_close: bool = True) -> bool:
        """Send what there is, unless another thread has closed the connection: that was an error in waitress' log."""
        with self.outbuf_lock:
            return bool(self.connected and super()._flush_some(do_close))

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


class LastTask(PreparedTask):
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
