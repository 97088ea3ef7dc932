"""Logging that never records message text, and in which nothing from outside can forge a line.

A record begins with its time at the start of a line; all further lines of it, those of a traceback, are indented.
"""

import json
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from wechat.masking import escape, mask
from wechat.system import at_fork

OURS = Path(__file__).parent
LEFT_BEHIND = "what a handler left behind failed"
INDENT = " " * 4  # before each line that does not begin a record


class LineFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE`, control characters escaped; below it the lines of a traceback, indented."""

    def format(self, record: logging.LogRecord) -> str:
        below = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        lines = f"{below}\n{record.stack_info or ''}".strip("\n").splitlines()
        return self.line(record.created, record.levelname, record.name, record.getMessage(), lines)

    def line(self, created: float, level: str, name: str, said: str, below: Sequence[str] = ()) -> str:
        """What is written of a record; `created` in seconds since 1970."""
        line = escape(f"{_written(int(created))},{int(created % 1 * 1000):03} {level} {name}: {said}")
        return line + "".join(f"\n{INDENT}{escape(each)}" for each in below) if below else line


class JsonFormatter(LineFormatter):
    """A JSON object on one line: time, level, logger, message and, where there is one, traceback."""

    def line(self, created: float, level: str, name: str, said: str, below: Sequence[str] = ()) -> str:
        time = f"{_written(int(created))},{int(created % 1 * 1000):03}"
        fields = {"time": time, "level": level, "logger": name, "message": said}
        if below:
            fields["traceback"] = "\n".join(below)
        return json.dumps(fields)


@lru_cache(maxsize=1)  # it would be half of the cost, and most lines are of the second before
def _written(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


FORMATTERS = {"text": LineFormatter, "json": JsonFormatter}
Note = tuple[float, str, str, str]  # what LineFormatter.line takes


class BatchHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr: warnings and errors at once, other lines all together ten times a second.

    A write for each message costs half of the throughput: each one lets another of the 64 threads run first.
    """

    interval = 0.1  # seconds
    patience = 0.5  # seconds for which a warning waits until it is written; none while nobody reads the log

    def __init__(self, stream: TextIO | None = None, style: str = "text") -> None:
        super().__init__(stream)
        if isinstance(self.stream, TextIOWrapper):  # a console may have another encoding, as GBK
            self.stream.reconfigure(errors="backslashreplace")
        formatter = FORMATTERS[style]()
        self.setFormatter(formatter)
        self.line = formatter.line
        self._begin()
        # A forked worker has no threads of its parent's, and may have locks that one of those held.
        at_fork(self._begin)

    def _begin(self) -> None:
        self.records: deque[logging.LogRecord | Note] = deque(maxlen=100_000)  # while nobody reads, the oldest go
        self.are_there_records, self.is_urgent = threading.Event(), threading.Event()
        self.waiting: deque[threading.Event] = deque()  # of those who want to know that their line is written
        self.writing = threading.Lock()
        threading.Thread(target=self._write_in_batches, name="log", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without logging's lock: a deque takes records from many threads, and the writing has a lock of its own."""
        is_wanted = bool(self.filter(record))  # since 3.12 it gives the record
        if is_wanted:
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record)
        if record.levelno >= logging.WARNING:
            self.flush()

    def add(self, record: "logging.LogRecord | Note") -> None:
        """Have it written with the others."""
        self.records.append(record)
        if not self.are_there_records.is_set():
            self.are_there_records.set()

    def flush(self) -> None:
        """Have all lines written; where nobody reads them, a pipe is full, and whoever logs goes on after a moment."""
        is_written = threading.Event()
        self.waiting.append(is_written)
        self.is_urgent.set()
        self.are_there_records.set()
        if not is_written.wait(self.patience):
            self.patience = 0.0

    def _write(self) -> None:
        waiting = [self.waiting.popleft() for _ in range(len(self.waiting))]
        with self.writing:
            lines = "".join(self._take_lines())
            with suppress(OSError, ValueError):  # a full disk or a closed pipe costs the lines, and not the answer
                if lines and self.stream:  # pythonw.exe and `2>&-` leave none
                    self.stream.write(lines)
                    self.stream.flush()
        self.patience = BatchHandler.patience
        for is_written in waiting:
            is_written.set()

    def _take_lines(self) -> Iterator[str]:
        while self.records:
            record = self.records.popleft()
            if isinstance(record, tuple):
                yield self.line(*record) + self.terminator
                continue
            try:
                line = self.format(record)
            except BaseException as error:  # somebody's "%d" for a text; logging itself would print the text too
                said = f"a line cannot be formatted, {type(error).__name__}: {record.msg!s:.200}"
                record.msg, record.args, record.exc_info, record.exc_text = said, None, None, None
                line = self.format(record)
            yield line + self.terminator

    def _write_in_batches(self) -> None:
        while self.are_there_records.wait():
            self.is_urgent.wait(self.interval)
            self.is_urgent.clear()
            self.are_there_records.clear()
            self._write()


def note(logger: logging.Logger, said: str) -> None:
    """Log at INFO; where the line goes to our own handler alone, without what only a LogRecord holds."""
    handlers = logging.root.handlers
    if len(handlers) == 1 and type(handlers[0]) is BatchHandler and not (logger.handlers or logger.filters):
        handlers[0].add((time.time(), "INFO", logger.name, said))
    else:
        logger.info("%s", said)


def configure(level: str, style: str = "text", stream: TextIO | None = None) -> None:
    """Log to stderr from `level` on, a name like `info`; as `text`, or as `json`, an object a line.

    A process that has logging set up keeps it; what the server and waitress say there is escaped as well.
    """
    _watch_what_is_left_behind()
    if logging.root.handlers:
        for name in ("wxserver", "waitress"):
            logging.getLogger(name).addFilter(_escape_message)
        return
    logging.basicConfig(level=level.upper(), handlers=[BatchHandler(stream, style)])
    logging.captureWarnings(True)
    # One line for each request that waits a moment would hide all others.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


def _watch_what_is_left_behind() -> None:
    """Log what fails in tasks, callbacks, threads and finalizers of handlers, which nobody waits for."""
    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(_leave_words_out)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _note_failure
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _note_failure


def _note_failure(end: "threading.ExceptHookArgs | sys.UnraisableHookArgs") -> None:
    if end.exc_type is not SystemExit:
        log_error(logging.getLogger("wxserver"), LEFT_BEHIND, end.exc_value)


def _leave_words_out(record: logging.LogRecord) -> bool:
    if record.exc_info:  # else it names functions alone
        record.msg, record.args, record.exc_text, record.exc_info = LEFT_BEHIND, (), trace(record.exc_info[1]), None
    return True


def _escape_message(record: logging.LogRecord) -> bool:
    record.msg, record.args = escape(record.getMessage()), None
    return True


def collect_less() -> None:
    """What a line does not show is not collected, in a process where nobody else's format may show it.

    https://docs.python.org/3/howto/logging.html#optimization
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def log_error(
    logger: logging.Logger, said: str, error: BaseException | None, message: Mapping[str, Any] | None = None
) -> None:
    """Log at ERROR what failed, with the traceback of the error below it, in which nobody is quoted (`trace`)."""
    if logger.isEnabledFor(logging.ERROR):
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, said, (), None)
        record.exc_text = trace(error, message)  # which every formatter puts below the line
        logger.handle(record)


def may_quote() -> bool:
    """Whether LOG_LEVEL is DEBUG, so that what users say may be shown."""
    return logging.getLogger(__name__).isEnabledFor(logging.DEBUG)


def trace(error: BaseException | None, message: Mapping[str, Any] | None = None) -> str:
    """The traceback of an error and of its causes, for `log_error`.

    What the errors say may quote the user: with the user's message, that is masked; without it, what they say is left
    out. LOG_LEVEL=DEBUG shows all of it.
    """
    parts, seen = list[str](), set[int]()
    while error is not None and id(error) not in seen:  # `raise error from error` is its own cause
        seen.add(id(error))
        parts[:0] = [*traceback.format_tb(error.__traceback__), type(error).__name__ + _says(error, message) + "\n"]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(parts).rstrip()


def _says(error: BaseException, message: Mapping[str, Any] | None) -> str:
    try:
        text = str(error)
        if not (may_quote() or _is_of_wechat(error)):
            if message is None:
                return " (LOG_LEVEL=DEBUG shows what it says)"
            text = mask(text, message)
    except BaseException as second:  # of a class of a handler's own
        text = f"str() of it raises {type(second).__name__}"
    return f": {escape(text)}" if text else ""


def _is_of_wechat(error: BaseException) -> bool:
    """Whether one of our modules raised it, and it quotes nobody: a Message names fields, an errmsg says anything."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    file = Path(frames[0].filename) if frames else Path()
    is_ours = file.is_relative_to(OURS) and file.name not in ("message.py", "answers.py")
    return is_ours and (frames[0].line or "").startswith("raise")
