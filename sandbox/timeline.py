"""What happens in the sandbox, in order, for a page that looks on."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from wechat.log import FORMAT

Event = dict[str, Any]

MOST = 5_000  # events that a page which is opened late still sees
HANDLER = re.compile(r" -> (\S+): ")  # in the line that the server writes about an attempt

# Which message of the page is being answered, in whatever thread; 0 for none.
answering: ContextVar[int] = ContextVar("answering", default=0)


class Timeline:
    """Events for any number of threads; each has a `seq`, a `kind`, and `at`, in seconds since 1970."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MOST)
        self._changed = threading.Condition()
        self._last = 0

    def add(self, kind: str, **fields: Any) -> None:
        """Adds an event, of fields that JSON takes."""
        with self._changed:
            self._last += 1
            self._events.append({"seq": self._last, "kind": kind, "at": time.time(), **fields})
            self._changed.notify_all()

    def after(self, seq: int, seconds: float) -> list[Event]:
        """The events after that one; where there are none, those of the next so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._last > seq, seconds)
            return [event for event in self._events if event["seq"] > seq]


class LogLines(logging.Handler):
    """Adds each line of the log to the timeline, with the message it is about as `id`, and the handler it names.

    `where` says in which file a handler stands.
    """

    def __init__(self, timeline: Timeline, where: Callable[[str], str]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self._timeline = timeline
        self._where = where

    def emit(self, record: logging.LogRecord) -> None:
        named = HANDLER.search(record.getMessage())
        handler = {"handler": named[1], "where": self._where(named[1])} if named else {}
        self._timeline.add("log", id=answering.get(), level=record.levelname, line=self.format(record), **handler)
