"""Handlers as values that can be called, alone or within those that wrap them."""

import inspect
import re
from collections.abc import Callable, Generator
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wechat.errors import HandedOn
from wechat.message import Message
from wechat.reply import Reply, to_reply

Part = str | re.Pattern[str]
Route = tuple[Part, ...]
Function = Callable[..., Any]

ASYNC = inspect.iscoroutinefunction, inspect.isasyncgenfunction
YIELDING = inspect.isgeneratorfunction, inspect.isasyncgenfunction
WITHIN = ("give", "wait")  # what a handler within another one is called with besides: see `Answering`


@dataclass(slots=True, eq=False)
class Handler:
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
        given = {name: offers.get(name) for name in self.asks}
        if self.is_async and "api" in given and "wait" not in given:
            from wechat.loop import Awaited

            given["api"] = Awaited(given["api"])
        return self.function(message, **given)


def is_any(function: Function, kinds: tuple[Callable[[Any], bool], ...]) -> bool:
    """Whether the function, or an object that can be called, is of one of these kinds."""
    return any(kind(function) or kind(type(function).__call__) for kind in kinds)


def asks(function: Function) -> list[str]:
    """The names of the parameters, those that take any number with their star."""
    return [
        ("*" if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) else "") + name
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def give_each(values: Generator[Any], give: Callable[[Reply | None], None]) -> Any:
    """Give what a handler yields, one by one; what it returns then is for the caller."""
    with closing(values):
        while True:
            try:
                value = next(values)
            except StopIteration as end:
                return end.value
            give(to_reply(value))


def wrap(inner: Handler, outer: Handler, match: re.Match[str] | None) -> Handler:
    """The inner handler within the outer one, as one handler; `match` is of the outer one's own pattern."""
    answer = _answer_awaited if outer.is_async else _answer
    slow, timeout = inner.slow or outer.slow, inner.timeout or outer.timeout
    inner = inner if inner.timeout == timeout else replace(inner, timeout=timeout)  # which a `def` around waits for

    def function(message: Message, **offers: Any) -> Any:
        within = {"answer": partial(answer, inner, message, offers), "match": match or offers.get("match")}
        return outer(message, **{**offers, **within})

    asked = tuple(dict.fromkeys((*inner.asks, *outer.asks, *WITHIN)))
    return Handler(function, f"{inner.name} in {outer.name}", inner.path, slow, asked, timeout, outer.is_async)


def land(handler: Handler) -> Handler:
    """The handler within all others, which returns the message that an inner one hands on."""

    def function(message: Message, **offers: Any) -> Any:
        try:
            return handler.function(message, **offers)
        except HandedOn as handed:
            return handed.message

    async def function_awaited(message: Message, **offers: Any) -> Any:
        try:
            return await handler.function(message, **offers)
        except HandedOn as handed:
            return handed.message

    return replace(handler, function=function_awaited if handler.is_async else function)


def _answer(inner: Handler, message: Message, offers: dict[str, Any]) -> Reply | None:
    """What `answer()` gives in a `def`. Raises HandedOn."""
    if inner.is_async:
        return _checked(offers["wait"](inner, message, offers))
    result = inner(message, **offers)
    return _checked(give_each(result, offers["give"]) if inner.yields else result)


def _answer_in_thread(inner: Handler, message: Message, offers: dict[str, Any]) -> Reply | None:
    try:
        return _answer(inner, message, offers)
    except StopIteration as error:  # Python 3.11 would never tell who awaits it; 3.12 makes the same of it
        raise RuntimeError(f"{inner.name} raised StopIteration") from error


async def _answer_awaited(inner: Handler, message: Message, offers: dict[str, Any]) -> Reply | None:
    """What `await answer()` gives in an `async def`. Raises HandedOn."""
    if not inner.is_async:
        import asyncio  # as in Answering: it costs 20 ms and 1 MB, where nobody uses it

        return await asyncio.to_thread(_answer_in_thread, inner, message, offers)
    result = inner(message, **offers)
    if not inner.yields:
        return _checked(await result)
    async with aclosing(result) as values:
        async for value in values:
            offers["give"](to_reply(value))
    return None


def _checked(result: Any) -> Reply | None:
    if isinstance(result, Message):
        raise HandedOn(result)
    return to_reply(result)
