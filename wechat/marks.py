"""What `on` and `around` write on a function, and what is wrong with it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wechat.calling import ASYNC, YIELDING, Function, Part, Route, asks, is_any
from wechat.errors import short
from wechat.kinds import MSG_TYPES

if TYPE_CHECKING:
    from wechat.signatures import Around, Handles

F = TypeVar("F", bound="Handles")
A = TypeVar("A", bound="Around")

PARAMETERS = ("match", "session", "api", "error")  # what a handler can ask for by a parameter's name, after the message
AROUND_PARAMETERS = ("answer", "match", "session", "api")
DEFAULT, ERROR, BUSY = ("default",), ("error",), ("busy",)
NOT_THEN = BUSY, "session"  # which others have just then
PARTS = {"text": 2, "event": 3}  # how long a path of this MsgType may be; all others have one part


class Mark(NamedTuple):
    """One path that a function claims. `hides` is an earlier handler of the same name, which the module loses."""

    path: Route
    slow: bool
    timeout: float | None
    hides: Function | None
    is_around: bool

    def __str__(self) -> str:
        return f"@{'around' if self.is_around else 'on'}({describe(self.path)})"


def on(msg_type: Part, *parts: Part, slow: bool = False, timeout: float | None = None) -> Callable[[F], F]:
    """Marks a function as the handler of a path: MsgType, then Content or Event, then EventKey.

    A string matches exactly, letters in either case but for an EventKey; a compiled pattern, in last place, matches the
    whole value and is handed on as `match`. `slow=True` says that the handler may take seconds; after `timeout`
    seconds its user gets the error handler's reply. The function is returned as it was.
    """
    return _marker((msg_type, *parts), slow, timeout, is_around=False)


def around(*path: Part, slow: bool = False, timeout: float | None = None) -> Callable[[A], A]:
    """Marks a function as one that wraps the handlers of all messages that a path fits; of every message without one.

    Its parameter `answer` calls what is inside, and gives the reply value or None; in an `async def` it is awaited.
    What the function returns is the answer. Shorter paths are outside of longer ones, then load order counts.
    """
    return _marker(path, slow, timeout, is_around=True)


def _marker(parts: tuple[Part, ...], slow: bool, timeout: float | None, is_around: bool) -> Callable[[Any], Any]:
    said = f"@{'around' if is_around else 'on'}"
    _check_path(parts, said)
    path = _folded(parts)
    if is_around and path in (ERROR, BUSY):
        raise ValueError(f"{said}({describe(path)}): nothing wraps the error handler and the busy handler")
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
        raise ValueError(f"{said}({describe(path)}): timeout takes seconds above 0")

    def mark(function: Any) -> Any:
        earlier = getattr(function, "__globals__", {}).get(getattr(function, "__name__", ""))
        hides = earlier if earlier is not function and marks_of(earlier) else None
        function.wechat_marks = [*marks_of(function), Mark(path, slow, timeout, hides, is_around)]
        return function

    return mark


def _check_path(path: tuple[Any, ...], said: str) -> None:
    for index, part in enumerate(path):
        if inspect.isroutine(part):
            raise TypeError(f'{said} needs parentheses, and a path in them: {said}("text")')
        if not isinstance(part, (str, re.Pattern)):
            kind = f"part {index + 1} is a {type(part).__name__}"
            raise TypeError(f"{said}: {kind}, not a string or a compiled pattern; one {said} for each")
        if isinstance(getattr(part, "pattern", ""), bytes):
            raise TypeError(f"{said}({describe(path)}): a pattern of text is needed, not of bytes")
    head = path[0].strip().casefold() if path and isinstance(path[0], str) else ""
    most = PARTS.get(head, 1)
    if len(path) > most:
        is_event = head not in (*MSG_TYPES, *DEFAULT, *ERROR, *BUSY) and len(path) < PARTS["event"]
        better = f"write {said}({spell(('event', *path))})" if is_event else f"one {said} for each"
        raise ValueError(f"{said}({describe(path)}): a path that begins like this has at most {most} parts: {better}")
    if any(isinstance(part, re.Pattern) for part in path[:-1]):
        raise ValueError(f"{said}({describe(path)}): a pattern can only come last")


def _folded(parts: tuple[Any, ...]) -> Route:
    """The parts as a key: letters in either case are one, but for an EventKey, which is the account's own."""
    folded = [part.strip().casefold() if isinstance(part, str) else part for part in parts[:2]]
    return (*folded, *parts[2:])


def marks_of(function: Any) -> list[Mark]:
    """What the function was marked with."""
    marks = inspect.getattr_static(function, "wechat_marks", [])  # a module may hold things that answer with an error
    return marks if isinstance(marks, list) else []


def describe(path: Iterable[Part]) -> str:
    """The path as one would write it inside `@on(...)`."""
    return ", ".join(map(repr, path))


def spell(path: Iterable[Part]) -> str:
    """The path as documents write it: `"event", "CLICK", "KEY"`."""
    return ", ".join(f'"{part}"' if isinstance(part, str) else repr(part) for part in path)


def where(function: Function) -> str:
    """The function's module and name, and where it stands: `handlers.books.book (handlers/books.py:40)`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return name_of(function) + (f" ({short(code.co_filename)}:{code.co_firstlineno})" if code else "")


def name_of(function: Function) -> str:
    """The function's module and name."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def faults_of(function: Function, mark: Mark, owner: Function) -> Iterator[str]:
    """What stops the start: `owner` is the first function with that path."""
    if owner is not function:
        yield f"{mark} is claimed twice: at {where(owner)} and at {where(function)}; remove one"
    if mark.path == BUSY and is_any(function, (*ASYNC, *YIELDING)):
        yield f"{where(function)} answers at once where too many wait: it has to be a `def` that does not yield"
    if mark.is_around and is_any(function, YIELDING):
        yield f"{where(function)} wraps others: what it answers is returned, it cannot yield"
    if mark.hides:
        yield f"{where(function)} hides {where(mark.hides)}: give one of them another name"
    allowed = [name for name in (AROUND_PARAMETERS if mark.is_around else PARAMETERS) if (mark.path, name) != NOT_THEN]
    unknown = [name for name in asks(function)[1:] if name not in allowed]
    if not asks(function):
        yield f"{where(function)} takes no parameter: the first one is the message"
    if unknown:
        yield f"{where(function)} asks for {', '.join(unknown)}: after the message there are only {', '.join(allowed)}"
