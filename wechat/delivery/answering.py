"""From a message to the reply of its handler, whatever the handler does."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from wechat.delivery.sessions import Sessions
from wechat.errors import GivenUp, Left
from wechat.log import log_error
from wechat.message import Message, label
from wechat.platform.api import Api
from wechat.protocol.parser import parse
from wechat.reply import Reply, Text, to_reply
from wechat.routing import Found, Handler, Router

logger = logging.getLogger("wxserver")

TIMEOUT = 300.0  # seconds that a handler has in a lane, unless it says something else
MOST_HANDLERS = 8  # for one message, which each of them hands on to the next


@dataclass(slots=True)
class Push:
    """A message on its way: what came, what it says, and who answers it."""

    content: bytes
    message: Message
    found: Found | None
    started: float
    asked: Message  # another one where a handler has handed the message on
    handlers: tuple[str, ...] = ()  # that did so

    @property
    def openid(self) -> str:
        """Who wrote it."""
        openid: str = self.message["FromUserName"]
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
NEXT = "继续"  # in the log, whatever the account's own word for it is

# In a lane: lets a block take so many seconds at most, and has what answers instead called after that.
Limit = Callable[[str, float, Callable[[], Answer]], AbstractContextManager[None]]


class Answering:
    """Finds the handler of a message and calls it with what it asks for."""

    def __init__(self, router: Router, api: Api, sessions: Sessions) -> None:
        self.router = router
        self._api = api
        self._sessions = sessions

    def read(self, content: bytes, started: float) -> Push:
        """The message in the bytes of a push, and its handler; raises Unreadable."""
        message = parse(content)
        return Push(content, message, self.router.find(message), started, message)

    def may_take_long(self, push: Push) -> bool:
        """Whether the handler is marked as slow, or would wait for another one of the same user."""
        if not push.found:
            return False
        handler = push.found.handler
        return handler.slow or ("session" in handler.asks and self._sessions.is_taken(push.asked.FromUserName))

    def answer(self, push: Push, limit: Limit | None) -> Answer | None:
        """What the handler answers, or the last one to which the message is handed on.

        None where the push is at one that may take long, and the caller is in no lane. Where a handler raises: what the
        error handler answers, if there is one. Raises Left where the lane went on without a handler.
        """
        while push.found:
            name = push.found.handler.name
            try:
                result = self._call(push.found.handler, push.asked, limit, match=push.found.match)
                if not isinstance(result, Message):
                    return Answer(name, to_reply(result))
                push.asked, push.found, push.handlers = result, self.router.find(result), (*push.handlers, name)
                if len(push.handlers) == MOST_HANDLERS:
                    logger.error("a message was handed on too often: %s", " -> ".join(push.handlers))
                    return self.apologise(result, RecursionError("a message was handed on too often"), limit)
                if not limit and self.may_take_long(push):
                    return None
            except Left:
                raise
            except BaseException as error:  # a handler may raise what it likes
                log_error(logger, f"{name} failed on {label(push.asked)}", error)
                return self.apologise(push.asked, error, limit)
        return NOBODY

    def give_up(self, push: Push, starts: int, limit: Limit | None) -> Answer:
        """What the error handler answers to a message whose process ended at each of its starts."""
        said = f"{push.found.handler.name if push.found else 'nobody'} on {label(push.message)}"
        logger.error("%s: its process ended at each of %d starts, the message is given up", said, starts)
        return self.apologise(push.message, GivenUp("the process ended each time the message was answered"), limit)

    def turn_away(self, message: Message) -> Answer:
        """What the busy handler answers, else the text for a message that is one too many."""
        handler = self.router.busy
        if not handler:
            return Answer("busy", Text(self.router.texts.busy))
        try:
            return Answer(handler.name, to_reply(self._call(handler, message)))
        except BaseException as error:
            log_error(logger, f"{handler.name}, the busy handler, failed on {label(message)}", error)
            return self.apologise(message, error)

    def apologise(self, message: Message, error: BaseException, limit: Limit | None = None) -> Answer:
        """What the error handler answers; nothing where there is none, or where it raises too."""
        handler = self.router.error
        if not handler:
            return NOBODY
        try:
            return Answer(handler.name, to_reply(self._call(handler, message, limit, error=error)))
        except Left:
            raise
        except BaseException as second:
            log_error(logger, f"{handler.name}, the error handler, failed on {label(message)}", second)
            return Answer(handler.name)

    def _call(self, handler: Handler, message: Message, limit: Limit | None = None, **offers: Any) -> Any:
        if not (handler.asks or limit):
            return handler.function(message)
        ticket = secrets.token_hex(4) if "session" in handler.asks else ""
        with (
            self._sessions.open(message.FromUserName, ticket) if ticket else nullcontext() as session,
            self._in_time(handler, message, limit, ticket) if limit else nullcontext(),
        ):
            return handler(message, api=self._api, session=session, **offers)

    @contextmanager
    def _in_time(self, handler: Handler, message: Message, limit: Limit, ticket: str) -> Iterator[None]:
        """Let the lane go on where the handler takes too long; what it says after that is dropped: raises Left."""
        said, seconds = f"{handler.name} on {label(message)}", handler.timeout or TIMEOUT

        def late() -> Answer:
            logger.error("%s: no answer after %g s, its thread is left to itself", said, seconds)
            if ticket:
                self._sessions.give_back(message.FromUserName, ticket)
            if handler is self.router.error:
                return Answer(handler.name)
            return self.apologise(message, TimeoutError(f"no answer after {seconds:g} s"), limit)

        try:
            with limit(handler.name, seconds, late):
                yield
        except Left:
            logger.warning("%s: it came back too late, what it says is dropped", said)
            raise
