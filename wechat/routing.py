"""Which function answers which message: `load` collects what `on` and `around` mark, `Router` finds it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from wechat.calling import ASYNC, YIELDING, Function, Handler, Route, asks, is_any, land, wrap
from wechat.errors import RoutingError, StartError
from wechat.importing import import_all
from wechat.marks import BUSY, ERROR, faults_of, marks_of
from wechat.marks import DEFAULT as DEFAULT
from wechat.marks import around as around
from wechat.marks import describe as describe
from wechat.marks import name_of as name_of
from wechat.marks import on as on
from wechat.marks import where as where
from wechat.message import Message
from wechat.settings import Settings, environment, read
from wechat.startup import handlers_folder
from wechat.texts import hand_out, texts_of

Routes = dict[Route, Function]


def load(folder: str | Path, environ: Mapping[str, str] = os.environ) -> Routes:
    """Imports the modules of a folder, in name order, and collects what they mark: path to function.

    Names that begin with `_` are passed over; the modules read their own settings from `environ`. A `TEXTS` among them,
    and what they mark with `around`, go along with each function. Raises RoutingError with every fault at once: modules
    that do not import, paths and texts claimed twice, handlers that hide one another, parameters that have no meaning.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise RoutingError([f"WECHAT_HANDLERS, --handlers: {folder} is not a folder: put the handlers there"])
    routes: Routes = {}
    arounds: dict[tuple[Route, Function], None] = {}
    faults: list[str] = []
    with environment(environ):
        modules = import_all(folder, faults)
    for module in modules:
        for function in vars(module).values():
            for mark in marks_of(function):
                if mark.is_around:
                    arounds[mark.path, function] = None
                faults += faults_of(
                    function, mark, function if mark.is_around else routes.setdefault(mark.path, function)
                )
    for answering in routes.values():
        answering.wechat_arounds = list(arounds)  # type: ignore[attr-defined]
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


class RouteMatch(NamedTuple):
    """The handler of a message, and the match where a pattern found it."""

    handler: Handler
    match: re.Match[str] | None


NOBODY = Handler(lambda message: None, "nobody", (), slow=False, asks=())


class Router:
    """Finds the handler of a message; what it costs does not grow with the number of exact paths."""

    def __init__(self, routes: Routes) -> None:
        self.exact: dict[Route, RouteMatch] = {}
        self.patterns: dict[Route, list[tuple[re.Pattern[str], Handler]]] = {}
        for path, function in routes.items():
            handler = _handler(path, function)
            if isinstance(path[-1], re.Pattern):
                self.patterns.setdefault(path[:-1], []).append((path[-1], handler))
            else:
                self.exact[path] = RouteMatch(handler, None)
        self._rest, *others = (self.exact.pop(path, None) for path in (DEFAULT, ERROR, BUSY))
        self.default, self.error, self.busy = (found.handler if found else None for found in (self._rest, *others))
        self.texts = texts_of(routes.values())
        self.arounds = [_handler(path, function, is_around=True) for path, function in arounds_of(routes)]
        # Where their paths begin; a pattern there may fit everything.
        self._wrapped = {() if isinstance((*each.path, "")[0], re.Pattern) else each.path[:1] for each in self.arounds}
        if self.arounds:  # so that they cost nothing where there are none
            self.find = self._find_within  # type: ignore[method-assign]

    def find(self, message: Message) -> RouteMatch | None:
        """The handler with the longest path that fits, else the default, else None; within what wraps it."""
        path, values = addresses(message)
        while path:
            if path in self.exact:
                return self.exact[path]
            path = path[:-1]
            for pattern, handler in self.patterns.get(path, ()):
                if match := pattern.fullmatch(values[len(path)]):
                    return RouteMatch(handler, match)
        return self._rest

    find_bare = find  # without what wraps it

    def _find_within(self, message: Message) -> RouteMatch | None:
        found = self.find_bare(message)
        handler, match = found or (NOBODY, None)
        wrapping = self.wrapping(message, handler)
        for outer, own_match in reversed(wrapping):
            handler = wrap(handler, outer, own_match)
        return RouteMatch(land(handler), match) if wrapping else found

    def wrapping(self, message: Message, handler: Handler) -> list[RouteMatch]:
        """What wraps the handler of the message, from outside, each with the match of its own pattern."""
        found: list[RouteMatch] = []
        if self._wrapped.isdisjoint(((), (message["MsgType"].casefold(),), handler.path[:1])):
            return found  # so that they cost other messages next to nothing
        _, values = addresses(message)
        for outer in self.arounds:
            fits, match = _fit(outer.path, values)
            if fits or outer.path == handler.path:
                found.append(RouteMatch(outer, match))
        return found


def _fit(path: Route, values: tuple[str, ...]) -> tuple[bool, re.Match[str] | None]:
    """Whether a path fits a message with this address, and the match of the pattern in its last place."""
    match = None
    for index, part in enumerate(path):
        if index == len(values):
            return False, None
        if isinstance(part, re.Pattern):
            match = part.fullmatch(values[index])
        elif part != (values[index].casefold() if index < 2 else values[index]):
            return False, None
    return bool(match) or not (path and isinstance(path[-1], re.Pattern)), match


def _handler(path: Route, function: Function, is_around: bool = False) -> Handler:
    marks = [mark for mark in marks_of(function) if (mark.path, mark.is_around) == (path, is_around)]
    timeout = next((mark.timeout for mark in marks if mark.timeout), None)
    is_async, yields = is_any(function, ASYNC), is_any(function, YIELDING)
    is_marked = timeout is not None or any(mark.slow for mark in marks)
    slow = is_marked or is_async or yields  # a worker's thread cannot be left to itself
    asked = tuple(asks(function)[1:])
    is_plain = not (asked or is_async or yields)
    return Handler(function, name_of(function), path, slow, asked, timeout, is_async, yields, is_plain)


def arounds_of(routes: Routes) -> list[tuple[Route, Function]]:
    """Path and function of all that wrap others, from outside."""
    found: list[tuple[Route, Function]]
    found = next((function.wechat_arounds for function in routes.values() if hasattr(function, "wechat_arounds")), [])
    return sorted(found, key=lambda around: len(around[0]))


def addresses(message: Message) -> tuple[Route, tuple[str, ...]]:
    """The message's own path, as words fit it and as patterns do: MsgType, then Content or Event, then EventKey."""
    kind = message["MsgType"].casefold()
    if kind == "text":
        word = message.get("Content", "").strip()
        return (kind, word.casefold()), (kind, word)
    if kind == "event":
        event, key = message.get("Event", "").strip(), message.get("EventKey", "")
        return (kind, event.casefold(), key), (kind, event, key)
    return (kind,), (kind,)
