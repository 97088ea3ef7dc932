"""From a message to the reply of its handler, whatever the handler does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wechat.calling import Handler, give_each
from wechat.delivery.sessions import Sessions
from wechat.digests import random_hex
from wechat.errors import Left
from wechat.log import log_error
from wechat.message import Message, label
from wechat.platform.api import Api
from wechat.protocol.parser import parse
from wechat.reply import Reply, Text, to_reply
from wechat.routing import RouteMatch, Router

if TYPE_CHECKING:
    from wechat.loop import Call, Loop

logger = logging.getLogger("wxserver")

TIMEOUT = 300.0  # seconds that a handler has in a lane, unless it says something else
MOST_HANDLERS = 8  # for one message, which each of them hands on to the next
NO_SESSION = NO_LIMIT = nullcontext()
Held = AbstractContextManager[Any]


@dataclass(slots=True)
class Push:
    """A message on its way: what came, what it says, and who answers it."""

    content: bytes
    message: Message
    found: RouteMatch | None
    started: float
    asked: Message  # another one where a handler has handed the message on; of it a handler gets a copy, to change
    handlers: tuple[str, ...] = ()  # that did so
    error: BaseException | None = None  # what the error handler is to answer
    ticket: str = ""  # for the user's session, which the next handler takes
    call: Call | None = None  # of an async handler, until what came of it is taken
    limit: Limit | None = None  # in a lane
    give: Callable[[Reply], None] | None = None  # in a lane: what takes the replies that a handler yields

    @property
    def openid(self) -> str:
        """Who wrote it."""
        return self.message.FromUserName

    @property
    def answerer(self) -> str:
        """The name of its handler."""
        return self.found.handler.name if self.found else "nobody"

    @property
    def wants(self) -> str:
        """Whose session its handler asks for; empty where it asks for none."""
        return self.asked.FromUserName if self.found and "session" in self.found.handler.asks else ""

    @property
    def text(self) -> str:
        """What came, as the store keeps it."""
        return self.content.decode(errors="replace")

    def hand(self, reply: Reply | None) -> None:
        """Give a reply that its handler yields, while somebody waits for it."""
        if reply and self.give:
            self.give(reply)


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

# In a lane: lets a block take so many seconds at most, and goes on with another push after that; by its name.
Limit = Callable[[str, float, Callable[[], Push]], AbstractContextManager[None]]


class Answering:
    """Finds the handler of a message and calls it with what it asks for."""

    def __init__(self, router: Router, api: Api, sessions: Sessions, loop: Loop | None = None) -> None:
        self.router = router
        self._api = api
        self.sessions = sessions
        self._lock = threading.Lock()
        self._loop = loop  # made when it is first needed

    def read(self, content: bytes, started: float) -> Push:
        """The message in the bytes of a push, and its handler; raises Unreadable."""
        message = parse(content)
        return Push(content, message, self.router.find(message), started, message)

    def may_take_long(self, push: Push) -> bool:
        """Whether the handler is marked as slow."""
        return bool(push.found and push.found.handler.slow)

    def answer(self, push: Push) -> Answer | None:
        """What the handler answers, or the last one to which the message is handed on.

        None where that is not known yet: an async handler is at it, as `push.call`, and this is to be called again when
        it has ended; or the push is at a handler that may take long, and in no lane. Where a handler raises: what the
        error handler answers, if there is one. Raises Left where the lane went on without a handler.
        """
        while push.found and not push.error:
            handler, match = push.found
            name = handler.name
            if handler.asks and not self._claim(handler, push):
                return None
            try:
                is_bare = handler.is_plain and not push.limit
                result = handler.function(Message(push.asked)) if is_bare else self._call(handler, push, match=match)
                if push.call:
                    return None
                if not isinstance(result, Message):
                    return Answer(name, to_reply(result))
                result.setdefault("FromUserName", push.openid)  # whose session is asked for
                push.asked, push.found, push.handlers = result, self.router.find(result), (*push.handlers, name)
                if len(push.handlers) == MOST_HANDLERS:
                    logger.error("a message was handed on too often: %s", " -> ".join(push.handlers))
                    push.error = RecursionError("a message was handed on too often")
                elif not push.limit and self.may_take_long(push):
                    return None
            except Left:
                raise
            except BaseException as error:  # a handler may raise what it likes
                log_error(logger, f"{name} failed on {label(push.asked)}", error, push.asked)
                push.error = error
        return self._apologise(push, push.error) if push.error else NOBODY

    def turn_away(self, push: Push) -> Answer:
        """What the busy handler answers, else the text for a message that is one too many."""
        handler, usual = self.router.busy, Answer("busy", Text(self.router.texts.busy))
        if handler:
            push.found = RouteMatch(handler, None)
        return (self.answer(push) if handler else None) or usual

    def _claim(self, handler: Handler, push: Push) -> bool:
        """Whether the handler can have the session that it asks for, or wait for it, as in a lane it may."""
        if "session" not in handler.asks or push.call:
            return True
        push.ticket = push.ticket or self.sessions.claim(push.asked.FromUserName, bool(push.limit))
        return bool(push.ticket or push.limit)

    def _apologise(self, push: Push, error: BaseException) -> Answer | None:
        """What the error handler answers; nothing where there is none, or where it raises too."""
        handler = self.router.error
        if not handler:
            return NOBODY
        if (handler.slow and not push.limit) or not self._claim(handler, push):  # what it yields needs a lane
            return None
        try:
            result = self._call(handler, push, error=error)
            return None if push.call else Answer(handler.name, to_reply(result))
        except Left:
            raise
        except BaseException as second:
            log_error(logger, f"{handler.name}, the error handler, failed on {label(push.asked)}", second, push.asked)
            return Answer(handler.name)

    def _call(self, handler: Handler, push: Push, **offers: Any) -> Any:
        """What the handler returns; where it is async, `push.call` is to be started first."""
        if push.call:
            return _take(push, push.call)
        ticket = (push.ticket or random_hex(4)) if "session" in handler.asks else ""
        push.ticket = "" if ticket else push.ticket
        opened = self.sessions.open(push.asked.FromUserName, ticket) if ticket else NO_SESSION
        offers.update(api=self._api, wait=self.wait)
        if handler.is_async:
            offers["session"] = opened.__enter__()  # until _take()
            push.call = self._prepare(handler, Message(push.asked), opened, offers)
            return None
        with opened as session, self._in_time(handler, push, push.limit, ticket) if push.limit else NO_LIMIT:
            result = handler(Message(push.asked), session=session, give=push.hand, **offers)
            return give_each(result, push.hand) if handler.yields else result

    @contextmanager
    def _in_time(self, handler: Handler, push: Push, limit: Limit, ticket: str) -> Iterator[None]:
        """Let the lane go on where the handler takes too long; what it says after that is dropped: raises Left."""
        said, seconds = f"{handler.name} on {label(push.asked)}", handler.timeout or TIMEOUT

        def late() -> Push:
            logger.error("%s: no answer after %g s, its thread is left to itself", said, seconds)
            push.give = None
            if ticket:
                self.sessions.give_back(push.asked.FromUserName, ticket)
            if handler is self.router.error:
                return replace(push, found=None, error=None, limit=None)
            return replace(push, error=TimeoutError(f"no answer after {seconds:g} s"), limit=None)

        try:
            with limit(handler.name, seconds, late):
                yield
        except Left:
            logger.warning("%s: it came back too late, what it says is dropped", said)
            raise

    def _prepare(self, handler: Handler, message: Message, held: Held, offers: dict[str, Any]) -> Call:
        from wechat.loop import Call  # asyncio costs 20 ms and 1 MB, where nobody uses it

        coroutine = handler(message, **{**offers, "give": lambda reply: call.tell(reply)})
        call: Call = Call(handler.name, coroutine, handler.timeout or TIMEOUT, held, to_reply)
        return call

    def wait(self, handler: Handler, message: Message, offers: dict[str, Any]) -> Any:
        """What an async handler returns within a `def`, whose thread waits for it."""
        return self._made_loop().run(self._prepare(handler, message, NO_SESSION, offers), offers["give"])

    def start(self, call: Call, done: Callable[[str], object], key: str) -> None:
        """Run the coroutine of an async handler; `done` is called with the key when there is something to take."""
        self._made_loop().start(call, done, key)

    def _made_loop(self) -> Loop:
        with self._lock:
            if not self._loop or self._loop.is_stuck:
                from wechat.loop import Loop

                self._loop = Loop()
            return self._loop

    def begin(self) -> None:
        """Begin anew, as a process that was forked has to."""
        self._lock = threading.Lock()
        if self._loop:
            self._loop.begin()

    def close(self) -> None:
        """End what async handlers have left behind."""
        if self._loop:
            self._loop.close()


def _take(push: Push, call: Call) -> Any:
    """What came of the coroutine, whose session is saved; `push.call` stays while there may be more."""
    replies, is_over = call.take()
    for reply in replies:
        push.hand(reply)
    if not is_over:
        return None
    push.call = None
    with ExitStack() as stack:
        stack.push(call.held)  # which was entered when the handler was called
        return call.result()
