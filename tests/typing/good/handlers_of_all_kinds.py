"""Handlers that are right: no type checker says a word."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from wechat.loop import Awaited
from wechat.message import ClickEvent, LocationEvent, Message, ScancodeWaitmsgEvent, ScanEvent, TextMessage
from wechat.platform.api import Api
from wechat.reply import Article, Image, Reply, Text
from wechat.routing import around, on


@on("text", "hello")
@on("text", "hi")
def hello(msg: TextMessage) -> str:
    return msg.Content.upper() + msg.FromUserName


@on("text", re.compile(r"order (\d+)"), slow=True, timeout=60)
def order(msg: TextMessage, match: re.Match[str], session: dict[str, Any], api: Api) -> Text | None:
    api.send(msg.FromUserName, "one moment")
    session["order"] = match[1]
    return Text(match[1]) if match[1] else None


@on("text", "ask")
async def ask(msg: TextMessage, api: Awaited) -> str:
    await api.typing(msg.FromUserName)
    return "x"


@on("text", "story")
def story(msg: TextMessage) -> Iterator[str]:
    yield "once"


@on("text", "long story")
async def long_story(msg: TextMessage, session: dict[str, Any]) -> AsyncIterator[str | Image]:
    yield "once"


@on("event", "SCAN")
def scan(msg: ScanEvent) -> list[Article]:
    return [Article(msg.EventKey, msg.Ticket)]


@on("event", "scancode_waitmsg")
def code(msg: ScancodeWaitmsgEvent) -> str:
    return msg.ScanCodeInfo.ScanResult.rpartition(",")[2]


@on("event", "LOCATION")
def place(msg: LocationEvent) -> None:
    print(float(msg.Latitude))


@on("event", "CLICK", "HELLO")
def button(msg: ClickEvent) -> Message:
    return Message({**msg, "MsgType": "text", "Content": "hello"})


@on("image")
def image(msg: Message) -> Image:
    return Image(msg.MediaId)


@on("error")
def failed(msg: Message, error: BaseException) -> str:
    return type(error).__name__


@on("default")
def default(msg: Message, session: dict[str, Any] | None = None) -> str:
    return hello(TextMessage(msg))


@around("text")
def guard(msg: TextMessage, answer: Callable[[], Reply | None], session: dict[str, Any]) -> Reply | str | None:
    return "no" if session else answer()


@around()
async def note(msg: Message, answer: Callable[[], Awaitable[Reply | None]]) -> Reply | None:
    return await answer()


@around(slow=True)
def closed(msg: Message) -> str:
    return "closed"
