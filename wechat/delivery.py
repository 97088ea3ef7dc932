"""One message, one run, one reply."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from wechat.api import Api
from wechat.envelope import Clock
from wechat.errors import ApiError
from wechat.log import kind_of, shorten, trace
from wechat.message import Message
from wechat.reply import Raw, Reply, Transfer, to_reply, to_xml
from wechat.routing import Found, Router, describe

logger = logging.getLogger("wxserver")

# What a Mini Program can show, of the replies there are; the first two only as a customer message.
# https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/kf-mgnt/kf-message/sendCustomMessage.html
MINIPROGRAM_KINDS = ("text", "image")


class Answer(NamedTuple):
    """What is said to a message, by whom. The document is empty where WeChat gets `success`."""

    handler: str
    reply: Reply | None = None
    document: str = ""

    @property
    def kind(self) -> str:
        """The reply's kind, for the log."""
        return self.reply.kind if self.reply else "success"


NOBODY = Answer("nobody")


class Delivery:
    """Has messages answered: directly, or for a Mini Program by customer messages."""

    def __init__(self, router: Router, api: Api, clock: Clock = time.time) -> None:
        self.router = router
        self.api = api
        self.clock = clock

    def answer(self, message: Message) -> str:
        """The document that answers the message, or nothing; logs one line about it that quotes nobody."""
        started = time.perf_counter()
        found = self.router.find(message)
        answer = self.run(found, message) if found else NOBODY
        if logger.isEnabledFor(logging.INFO):
            milliseconds = (time.perf_counter() - started) * 1000
            kind, openid = kind_of(message), shorten(message.FromUserName)
            is_claimed = found and found.handler is not self.router.default
            hint = "" if is_claimed else f"; to answer these: @on({describe(kind.split('/'))})"
            logger.info(f"{kind} from {openid} -> {answer.handler}: {answer.kind}, {milliseconds:.1f} ms{hint}")
        return answer.document

    def run(self, found: Found, message: Message) -> Answer:
        """What the handler answers. Where it raises: what the error handler does, if there is one."""
        try:
            result = self.call(found, message)
            if isinstance(result, Message):  # handed on: the new message is routed in place of the old one
                message = result
                found = self.router.find(message) or found
                result = self.call(found, message)
            return self.render(found.handler.name, result, message)
        except (Exception, SystemExit) as error:
            logger.error("%s failed\n%s", found.handler.name, trace(error))
            return self.apologise(message, error)

    def call(self, found: Found, message: Message) -> Any:
        """What the handler returns."""
        return found.handler(message, match=found.match, api=self.api)

    def apologise(self, message: Message, error: BaseException) -> Answer:
        """What the error handler answers; nothing where there is none, or where it raises too."""
        handler = self.router.error
        if not handler:
            return NOBODY
        try:
            return self.render(handler.name, handler(message, error=error, api=self.api), message)
        except (Exception, SystemExit) as second:
            logger.error("%s, the error handler, failed\n%s", handler.name, trace(second))
            return Answer(handler.name)

    def render(self, name: str, result: Any, message: Message) -> Answer:
        """What a handler returned, as the document that answers the message; raises whatever is wrong with it."""
        reply = to_reply(result)
        return Answer(name, reply, self.document(reply, message)) if reply else Answer(name)

    def document(self, reply: Reply, message: Message) -> str:
        """The reply as the direct answer to the message."""
        return to_xml(reply, message, int(self.clock()))


class MiniprogramDelivery(Delivery):
    """For a Mini Program a push is acknowledged, and what the handler returned is sent as customer messages.

    https://developers.weixin.qq.com/miniprogram/dev/framework/server-ability/message-push.html
    """

    def __init__(self, router: Router, api: Api, clock: Clock = time.time) -> None:
        super().__init__(router, api, clock)
        self.outbox = ThreadPoolExecutor(thread_name_prefix="send")

    def render(self, name: str, result: Any, message: Message) -> Answer:
        """The answer to the push; replies other than a Transfer or a Raw are on their way to the user."""
        reply = to_reply(result)
        if reply is None:
            return Answer(name)
        if isinstance(reply, Transfer | Raw):
            return Answer(name, reply, self.document(reply, message))
        if reply.kind in MINIPROGRAM_KINDS:
            self.outbox.submit(self.push, name, message.FromUserName, reply)
        else:
            logger.error("%s: Mini Programs have no %s reply, it is dropped", name, reply.kind)
        return Answer(name, reply)

    def push(self, name: str, openid: str, reply: Reply) -> None:
        """Sends the reply; a failure is logged."""
        try:
            self.api.send(openid, reply)
        except ApiError as error:
            logger.error("the %s reply of %s was not sent: %s", reply.kind, name, error)
        except Exception as error:
            logger.error("the %s reply of %s was not sent\n%s", reply.kind, name, trace(error))
