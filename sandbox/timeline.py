"""What happens in the sandbox, in order, for a page that looks on."""

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TextIO

from wechat.log import LineFormatter

Event = dict[str, Any]

MOST = 5_000  # events that a page which is opened late still sees
STANDING = ("menu", "handlers")  # of which the latest counts, however long ago it was

# Which message of the page is being answered, in whatever thread; 0 for none.
answering: ContextVar[int] = ContextVar("answering", default=0)

HANDLER = re.compile(r" -> (\S+): ")  # in the line that the server writes about an attempt
FAILED = re.compile(r"(\S+?),?(?: the error handler,)? (?:failed on |on .*: (?:no answer after|its process ended) )")


class Timeline:
    """Events for any number of threads; each has a `seq`, a `kind`, and `at`, in seconds since 1970."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self._standing: dict[str, Event] = {}
        self._changed = threading.Condition()
        self._last = 0

    def add(self, kind: str, **fields: Any) -> None:
        """Adds an event, of fields that JSON takes."""
        with self._changed:
            self._last += 1
            event = {"seq": self._last, "kind": kind, "at": time.time(), **fields}
            if kind in STANDING:
                self._standing[kind] = event
            else:
                self._events.append(event)
            self._changed.notify_all()

    def after(self, seq: int, seconds: float) -> list[Event]:
        """The events after that one; where there are none, those of the next so many seconds.

        A `seq` that has not been yet is one of another run, of which there is nothing to wait for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._last != seq, seconds)
            events = [*self._standing.values(), *self._events]
        return sorted([event for event in events if event["seq"] > seq], key=lambda event: int(event["seq"]))


class LogLines(logging.Handler):
    """Adds the lines of the log about a message of the page, with its `id`, and the handler that the server names.

    `where` says in which file a handler stands.
    """

    def __init__(self, timeline: Timeline, where: Callable[[str], str]) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self._timeline, self._where = timeline, where

    def emit(self, record: logging.LogRecord) -> None:
        number = answering.get()
        if not number:
            return
        try:
            named = HANDLER.search(record.getMessage()) if record.name == "wxserver" else None
            handler = {"handler": named[1], "where": self._where(named[1])} if named else {}
            if failed := FAILED.match(record.getMessage()) if record.levelno >= logging.ERROR else None:
                handler = {"failed": failed[1], "where": self._where(failed[1])}
            self._timeline.add("log", id=number, level=record.levelname, line=self.format(record), **handler)
        except Exception:  # a line that cannot be formatted must not cost the answer
            self.handleError(record)


class Printed:
    """Stands in for stdout or stderr: what is printed while a message is answered also goes to its log."""

    def __init__(self, stream: TextIO, timeline: Timeline) -> None:
        self._stream, self._timeline, self._begun = stream, timeline, threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes it, and shows each line that is whole."""
        if number := answering.get():
            *lines, self._begun.line = (getattr(self._begun, "line", "") + text).split("\n")
            for line in lines:
                self._timeline.add("log", id=number, level="PRINT", line=line)
        size = self._stream.write(text)
        self._stream.flush()  # a pipe would keep it for later
        return size
