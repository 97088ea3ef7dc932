"""From a message to the reply of its handler, whatever the handler does."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from wechat.delivery.sessions import Sessions
from wechat.errors import GivenUp
from wechat.log import log_error
from wechat.message import Message, label
from wechat.platform.api import Api
from wechat.protocol.parser import parse
from wechat.reply import Reply, to_reply
from wechat.routing import Found, Handler, Router

logger = logging.getLogger("wxserver")

MOST_HANDLERS = 8  # for one message, which each of them hands on to the next


@dataclass(slots=True)
class Push:
    """A message on its way: what came, what it says, and who answers it."""

    content: bytes
    message: Message
    found: Found | None
    started: float

    @property
    def openid(self) -> str:
        """Who wrote it."""
        openid: str = self.message.FromUserName
        return openid

    @property
    def text(self) -> str:
        """What came, as the store keeps it."""
        return self.content.decode(errors="replace")


@dataclass(slots=True)
class Answer:
    """What a handler answers; no reply means that it says nothing."""

    handler: str
    reply: Reply | None = None

    @property
    def kind(self) -> str:
        """The reply's kind, for the log."""
        return self.reply.kind if self.reply else "success"


NOBODY = Answer("nobody")


class HandedOn(NamedTuple):
    """A message that a handler returned, to be answered in place of its own by another one that may take long."""

    message: Message
    found: Found | None
    handlers: tuple[str, ...]  # that have seen it


class Answering:
    """Finds the handler of a message and calls it with what it asks for."""

    def __init__(self, router: Router, api: Api, sessions: Sessions) -> None:
        self.router = router
        self._api = api
        self._sessions = sessions

    def read(self, content: bytes, started: float) -> Push:
        """The message in the bytes of a push, and its handler; raises Unreadable."""
        message = parse(content)
        return Push(content, message, self.router.find(message), started)

    def may_take_long(self, message: Message, found: Found | None) -> bool:
        """Whether the handler is marked as slow, or would wait for another one of the same user."""
        if not found:
            return False
        handler = found.handler
        return handler.slow or ("session" in handler.asks and self._sessions.is_taken(message.FromUserName))

    def answer(self, message: Message, found: Found | None, handlers: tuple[str, ...] = ()) -> Answer:
        """What the handler answers, or the last one to which the message is handed on, however long it takes."""
        answer = self.begin(message, found, handlers)
        while isinstance(answer, HandedOn):
            answer = self.begin(*answer)
        return answer

    def begin(self, message: Message, found: Found | None, handlers: tuple[str, ...] = ()) -> Answer | HandedOn:
        """What the handler answers, or what it hands on to one that may take long, which is not called yet.

        Where a handler raises: what the error handler answers, if there is one.
        """
        while found:
            name = found.handler.name
            try:
                result = self._call(found.handler, message, match=found.match)
                if not isinstance(result, Message):
                    return Answer(name, to_reply(result))
                handlers = (*handlers, name)
                if len(handlers) == MOST_HANDLERS:
                    logger.error("a message was handed on too often: %s", " -> ".join(handlers))
                    return self.apologise(message, RecursionError("a message was handed on too often"))
                message, found = result, self.router.find(result)
                if self.may_take_long(message, found):
                    return HandedOn(message, found, handlers)
            except BaseException as error:  # a handler may raise what it likes
                log_error(logger, f"{name} failed on {label(message)}", error)
                return self.apologise(message, error)
        return NOBODY

    def give_up(self, push: Push, starts: int) -> Answer:
        """What the error handler answers to a message whose process ended at each of its starts."""
        said = f"{push.found.handler.name if push.found else 'nobody'} on {label(push.message)}"
        logger.error("%s: its process ended at each of %d starts, the message is given up", said, starts)
        return self.apologise(push.message, GivenUp("the process ended each time the message was answered"))

    def apologise(self, message: Message, error: BaseException) -> Answer:
        """What the error handler answers; nothing where there is none, or where it raises too."""
        handler = self.router.error
        if not handler:
            return NOBODY
        try:
            return Answer(handler.name, to_reply(self._call(handler, message, error=error)))
        except BaseException as second:
            log_error(logger, f"{handler.name}, the error handler, failed on {label(message)}", second)
            return Answer(handler.name)

    def _call(self, handler: Handler, message: Message, **offers: Any) -> Any:
        if not handler.asks:
            return handler.function(message)
        wants_session = "session" in handler.asks
        with self._sessions.open(message.FromUserName) if wants_session else nullcontext() as session:
            return handler(message, api=self._api, session=session, **offers)
