"""Which function answers which message: `on` marks it, `load` collects the marks, `Router` finds it."""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from wechat.errors import RoutingError, StartError, short
from wechat.importing import import_all
from wechat.message import Message
from wechat.settings import Settings, environment, read
from wechat.startup import handlers_folder
from wechat.texts import hand_out, texts_of

Part = str | re.Pattern[str]
Route = tuple[Part, ...]
Function = Callable[..., Any]
Routes = dict[Route, Function]
F = TypeVar("F", bound=Function)

OFFERS = ("match", "session", "api", "error")  # what a handler can ask for by a parameter's name, after the message
DEFAULT, ERROR, BUSY = ("default",), ("error",), ("busy",)
ASYNC = inspect.iscoroutinefunction, inspect.isasyncgenfunction
YIELDING = inspect.isgeneratorfunction, inspect.isasyncgenfunction
PARTS = {"text": 2, "event": 3}  # how long a path of this MsgType may be; all others have one part


class Mark(NamedTuple):
    """One path that a function claims. `hides` is an earlier handler of the same name, which the module loses."""

    path: Route
    slow: bool
    timeout: float | None
    hides: Function | None


def on(msg_type: Part, *parts: Part, slow: bool = False, timeout: float | None = None) -> Callable[[F], F]:
    """Marks a function as the handler of a path: MsgType, then Content or Event, then EventKey.

    A string matches exactly, letters in either case but for an EventKey; a compiled pattern, in last place, matches the
    whole value and is handed on as `match`. `slow=True` says that the handler may take seconds; after `timeout`
    seconds its user gets the error handler's reply. The function is returned as it was.
    """
    path = _folded((msg_type, *parts))
    _check_path(path)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"@on({describe(path)}): timeout takes seconds above 0")

    def mark(function: F) -> F:
        earlier = getattr(function, "__globals__", {}).get(getattr(function, "__name__", ""))
        hides = earlier if earlier is not function and _marks(earlier) else None
        marked: Any = function
        marked.wechat_marks = [*_marks(function), Mark(path, slow, timeout, hides)]
        return function

    return mark


def _check_path(path: Route) -> None:
    head = path[0]
    most = PARTS.get(head, 1) if isinstance(head, str) else 1
    if len(path) > most:
        raise ValueError(f"@on({describe(path)}): a path that begins like this has at most {most} parts")
    for place, part in enumerate(path):
        if not isinstance(part, (str, re.Pattern)):
            raise TypeError(f"@on: part {place + 1} is a {type(part).__name__}, not a string or a compiled pattern")
        if isinstance(getattr(part, "pattern", ""), bytes):
            raise TypeError(f"@on({describe(path)}): a pattern of text is needed, not of bytes")
        if isinstance(part, re.Pattern) and place < len(path) - 1:
            raise ValueError(f"@on({describe(path)}): a pattern may stand in last place only")


def _folded(parts: tuple[Any, ...]) -> Route:
    """The parts as a key: letters in either case are one, but for an EventKey, which is the account's own."""
    folded = [part.strip().casefold() if isinstance(part, str) else part for part in parts[:2]]
    return (*folded, *parts[2:])


def _marks(function: Any) -> list[Mark]:
    marks = inspect.getattr_static(function, "wechat_marks", [])  # a module may hold things that answer with an error
    return marks if isinstance(marks, list) else []


def describe(path: Iterable[Part]) -> str:
    """The path as one would write it inside `@on(...)`."""
    return ", ".join(map(repr, path))


def where(function: Function) -> str:
    """The function's module and name, and where it stands: `handlers.books.book (handlers/books.py:40)`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return name_of(function) + (f" ({short(code.co_filename)}:{code.co_firstlineno})" if code else "")


def name_of(function: Function) -> str:
    """The function's module and name."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def load(folder: str | Path, environ: Mapping[str, str] = os.environ) -> Routes:
    """Imports the modules of a folder, in name order, and collects what they mark: path to function.

    Names that begin with `_` are passed over; the modules read their own settings from `environ`. A `TEXTS` among them
    goes along with each function. Raises RoutingError with every fault at once: modules that do not import, paths and
    texts claimed twice, handlers that hide one another, parameters that have no meaning.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise RoutingError([f"WECHAT_HANDLERS, --handlers: {folder} is no folder: the handlers belong there"])
    routes: Routes = {}
    faults: list[str] = []
    with environment(environ):
        modules = import_all(folder, faults)
    for module in modules:
        for function in vars(module).values():
            for mark in _marks(function):
                faults += _faults(function, mark, routes.setdefault(mark.path, function))
    hand_out(modules, routes.values(), faults)
    if faults:
        raise RoutingError(list(dict.fromkeys(faults)))
    return routes


def prepare(environ: Mapping[str, str], folder: str | Path | None = None) -> tuple[Settings, Routes]:
    """The settings and the routes, of another folder than WECHAT_HANDLERS if one is given.

    Raises StartError with every fault of both.
    """
    faults: list[str] = []
    settings, routes = None, None
    try:
        settings = read(environ)
    except StartError as error:
        faults += error.faults
    try:
        routes = load(folder or handlers_folder(environ), environ)
    except StartError as error:
        faults += error.faults
    if settings is None or routes is None:
        raise StartError(faults)
    return settings, routes


def _faults(function: Function, mark: Mark, owner: Function) -> Iterator[str]:
    if owner is not function:
        yield f"@on({describe(mark.path)}) stands twice: at {where(owner)} and at {where(function)}; one has to go"
    if mark.path == BUSY and any(_is(function, kind) for kind in (*ASYNC, *YIELDING)):
        yield f"{where(function)} answers at once where too many wait: it has to be a `def` that does not yield"
    if mark.hides:
        yield f"{where(function)} hides {where(mark.hides)}: give one of them another name"
    offers = [name for name in OFFERS if (mark.path, name) != (BUSY, "session")]  # which others have just then
    unknown = [name for name in _asks(function)[1:] if name not in offers]
    if not _asks(function):
        yield f"{where(function)} takes no parameter: the first one is the message"
    if unknown:
        yield f"{where(function)} asks for {', '.join(unknown)}: after the message there are only {', '.join(offers)}"


def _asks(function: Function) -> list[str]:
    return [
        ("*" if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) else "") + name
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def _is(function: Function, kind: Callable[[Any], bool]) -> bool:
    return kind(function) or kind(type(function).__call__)


class Handler(NamedTuple):
    """A function with what a call needs to know of it."""

    function: Function
    name: str
    path: Route
    slow: bool
    asks: tuple[str, ...]
    timeout: float | None = None  # seconds
    is_async: bool = False
    yields: bool = False
    is_plain: bool = False  # it asks for nothing, and its reply is what it returns

    def __call__(self, message: Message, **offers: Any) -> Any:
        """What the function returns for the message and for those of the offers that it asks for."""
        return self.function(message, **{name: offers.get(name) for name in self.asks})


class Found(NamedTuple):
    """The handler of a message, and the match where a pattern found it."""

    handler: Handler
    match: re.Match[str] | None


class Router:
    """Finds the handler of a message; what it costs does not grow with the number of exact paths."""

    def __init__(self, routes: Routes) -> None:
        self.exact: dict[Route, Found] = {}
        self.patterns: dict[Route, list[tuple[re.Pattern[str], Handler]]] = {}
        for path, function in routes.items():
            marks = [mark for mark in _marks(function) if mark.path == path]
            timeout = next((mark.timeout for mark in marks if mark.timeout), None)
            is_async, yields = (any(_is(function, kind) for kind in kinds) for kinds in (ASYNC, YIELDING))
            is_marked = timeout is not None or any(mark.slow for mark in marks)
            slow = is_marked or is_async or yields  # a worker's thread cannot be left to itself
            asks = tuple(_asks(function)[1:])
            is_plain = not (asks or is_async or yields)
            handler = Handler(function, name_of(function), path, slow, asks, timeout, is_async, yields, is_plain)
            if isinstance(path[-1], re.Pattern):
                self.patterns.setdefault(path[:-1], []).append((path[-1], handler))
            else:
                self.exact[path] = Found(handler, None)
        self._rest, *others = (self.exact.pop(path, None) for path in (DEFAULT, ERROR, BUSY))
        self.default, self.error, self.busy = (found.handler if found else None for found in (self._rest, *others))
        self.texts = texts_of(routes.values())

    def find(self, message: Message) -> Found | None:
        """The handler with the longest path that fits, else the default, else None."""
        values = address(message)
        path: Route = values if len(values) == 1 else (values[0], values[1].casefold(), *values[2:])
        while path:
            if found := self.exact.get(path):
                return found
            path = path[:-1]
            for pattern, handler in self.patterns.get(path, ()):
                if match := pattern.fullmatch(values[len(path)]):
                    return Found(handler, match)
        return self._rest


def address(message: Message) -> tuple[str, ...]:
    """The message's own path, as patterns see it: MsgType, then Content or Event, then EventKey."""
    kind = message["MsgType"].casefold()
    if kind == "text":
        return kind, message.get("Content", "").strip()
    if kind == "event":
        return kind, message.get("Event", "").strip(), message.get("EventKey", "")
    return (kind,)
