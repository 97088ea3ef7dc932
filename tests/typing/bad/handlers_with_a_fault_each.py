"""Handlers that are wrong: a type checker complains at each line that ends in `# wrong`, and at no other."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from wechat.message import ScanEvent, TextMessage
from wechat.reply import Reply
from wechat.routing import around, on


@on("text", "a number")  # wrong
def returns_a_number(msg: TextMessage) -> int:
    return 5


@on("text", "a list of texts")  # wrong
def returns_texts(msg: TextMessage) -> list[str]:
    return ["one", "two"]


@on("text", "a dict")  # wrong
async def returns_a_dict(msg: TextMessage) -> dict[str, str]:
    return {}


@on("text", "numbers")  # wrong
def yields_numbers(msg: TextMessage) -> Iterator[int]:
    yield 5


@on("text", "numbers in turn")  # wrong
async def yields_numbers_in_turn(msg: TextMessage) -> AsyncIterator[int]:
    yield 5


@on("text", "the class")  # wrong
def returns_the_class(msg: TextMessage) -> type[Reply]:
    return Reply


@on("text", "nothing")  # wrong
def takes_nothing() -> str:
    return "x"


@on("text", "unknown")  # wrong
def asks_for_what_there_is_not(msg: TextMessage, user: str) -> str:
    return user


@on("text", "beside")  # wrong
def asks_for_that_beside_others(msg: TextMessage, session: dict[str, Any], user: Any) -> str:
    return "x"


@on("text", re.compile("x"))  # wrong
def takes_another_match(msg: TextMessage, match: str) -> str:
    return match


@on("text", "a text")  # wrong
def takes_a_text(msg: str) -> str:
    return msg


@on("text", "answer")  # wrong
def asks_for_an_answer(msg: TextMessage, answer: Callable[[], Reply | None]) -> Reply | None:
    return answer()


@on("text", 5)  # wrong
def claims_a_number(msg: TextMessage) -> str:
    return "x"


@on  # wrong
def without_parentheses(msg: TextMessage) -> str:
    return "x"


@around("text")  # wrong
def wraps_and_returns_a_number(msg: TextMessage, answer: Callable[[], Reply | None]) -> int:
    return 5


@around("text")  # wrong
async def does_not_await(msg: TextMessage, answer: Callable[[], Reply | None]) -> Reply | None:
    return answer()


@around()  # wrong
def wraps_and_asks_for_an_error(msg: TextMessage, answer: Callable[[], Reply | None], error: Exception) -> None:
    answer()


@around()  # wrong
def wraps_nothing() -> str:
    return "x"


@around()  # wrong
def wraps_and_yields(msg: TextMessage, answer: Callable[[], Reply | None]) -> Iterator[str]:
    yield "x"


@on("event", "SCAN")
def takes_a_field_for_a_number(msg: ScanEvent) -> str:
    return msg.EventKey + 1  # wrong
