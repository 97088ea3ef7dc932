"""What may stand in a log: never what a user said, and nothing from outside that could break a line."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

from wechat.system import at_fork

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr: warnings and errors at once, other lines all together ten times a second.

    A write for each message costs half of the throughput: each one lets another of the 64 threads run first.
    """

    interval = 0.1  # seconds

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self.setFormatter(logging.Formatter(FORMAT))
        self._begin()
        # A forked worker has no threads of its parent's, and may have locks that one of those held.
        at_fork(self._begin)

    def _begin(self) -> None:
        self.records: deque[logging.LogRecord] = deque(maxlen=100_000)  # while nobody reads, the oldest lines go
        self.are_there_records = threading.Event()
        self.writing = threading.Lock()
        threading.Thread(target=self._write_in_batches, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without logging's lock: a deque takes records from many threads, and the writing has a lock of its own."""
        is_wanted = bool(self.filter(record))  # since 3.12 it gives the record
        if is_wanted:
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if record.levelno >= logging.WARNING:
            self.flush()
        elif not self.are_there_records.is_set():
            self.are_there_records.set()

    def flush(self) -> None:
        with self.writing:
            lines = "".join(self._take_lines())
            with suppress(OSError, ValueError):  # a full disk or a closed pipe costs the lines, and not the answer
                if lines and self.stream:  # pythonw.exe and `2>&-` leave none
                    self.stream.write(lines)
                    self.stream.flush()

    def _take_lines(self) -> Iterator[str]:
        while self.records:
            record = self.records.popleft()
            try:
                yield self.format(record) + self.terminator
            except Exception:
                self.handleError(record)

    def _write_in_batches(self) -> None:
        while self.are_there_records.wait():
            time.sleep(self.interval)
            self.are_there_records.clear()
            self.flush()


def configure(level: str, stream: TextIO | None = None) -> None:
    """Logs to stderr from `level` on, a name like `info`; a process that has logging set up keeps what it has."""
    if logging.root.handlers:
        return
    logging.basicConfig(level=level.upper(), handlers=[BatchHandler(stream)])
    # One line for each request that waits a moment would hide all others.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def collect_less() -> None:
    """What FORMAT does not show is not collected, in a process where nobody else's format may show it.

    https://docs.python.org/3/howto/logging.html#optimization
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def shorten(openid: str) -> str:
    """Enough of an openid to follow one user through a log."""
    return printable(openid[:6]) + "…"


def printable(text: str) -> str:
    """At most 64 characters of a text from outside, on one line."""
    return text[:64] if text.isascii() and text.isprintable() else ascii(text[:64])


def trace(error: BaseException | None) -> str:
    """The traceback of an error and of its causes.

    What the errors say is left out unless LOG_LEVEL is DEBUG: it may quote the user.
    """
    is_debug = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # `raise error from error` is its own cause
        seen.add(id(error))
        said = f": {error}" if is_debug else " (LOG_LEVEL=DEBUG shows what it says)"
        parts[:0] = [*traceback.format_tb(error.__traceback__), type(error).__name__ + said + "\n"]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(parts).rstrip()
