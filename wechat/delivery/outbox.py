"""Replies on their way to users as customer messages, or kept where the platform does not take them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from wechat.delivery.answering import Answer
from wechat.delivery.debts import Debt, Debts
from wechat.delivery.pool import Pool
from wechat.errors import ApiError, TransportError, WeChatError
from wechat.log import shorten, trace
from wechat.platform.api import BUSY, Api
from wechat.reply import Reply, Text
from wechat.settings import Settings

logger = logging.getLogger("wxserver")

SENDERS = 16  # threads
PAUSES = (1.0, 3.0)  # seconds before the second and the third try
UNAUTHORIZED = 48001

# What a Mini Program can show, of the replies there are.
# https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/kf-mgnt/kf-message/sendCustomMessage.html
MINIPROGRAM_KINDS = ("text", "image")


class Outbox:
    """Pays debts: by a customer message where that is possible, else by keeping the reply for 继续."""

    def __init__(self, settings: Settings, api: Api, debts: Debts, sleep: Callable[[float], None] = time.sleep) -> None:
        self._has_credentials = bool(settings.appid and settings.secret)
        self._is_miniprogram = settings.account == "miniprogram"
        self._api = api
        self._debts = debts
        self._sleep = sleep
        self.pool = Pool(SENDERS, "send")

    def can_push(self) -> bool:
        """Whether a reply may go out as a customer message."""
        return self._has_credentials and (self._is_miniprogram or self._debts.may_push())

    def show_typing(self, openid: str) -> None:
        """Lets the user see that an answer is being written, if the platform will."""
        self.pool.submit(self._type, openid)

    def pay(self, openid: str, answer: Answer, debt: Debt | None, behind: float = 0) -> None:
        """Has the reply sent, `behind` seconds later, or kept; then the debt is forgotten."""
        self.pool.submit(self._pay, openid, answer, debt, behind)

    def _type(self, openid: str) -> None:
        try:
            self._api.typing(openid)
        except ApiError as error:
            logger.info("typing is not shown: %s", error)

    def _pay(self, openid: str, answer: Answer, debt: Debt | None, behind: float) -> None:
        if behind and self.can_push():
            self._sleep(behind)
        if answer.reply:
            try:
                how = self._deliver(openid, answer, answer.reply)
            except Exception as error:  # else the reply would stay owed, and unsent, for a day
                logger.error("%s: its reply is lost\n%s", answer.handler, trace(error))
                how = "lost"
            logger.info(f"{answer.kind} of {answer.handler} for {shorten(openid)}: {how}")
        if debt:
            self._debts.settle(debt)

    def _deliver(self, openid: str, answer: Answer, reply: Reply) -> str:
        if not reply.customer_messages():
            logger.error("%s: a %s reply can only be the direct answer, and it is too late", answer.handler, reply.kind)
            return "lost"
        if self._is_miniprogram and reply.kind not in MINIPROGRAM_KINDS:
            logger.error("%s: Mini Programs have no %s reply, it is dropped", answer.handler, reply.kind)
            return "dropped"
        unsent = self._send(openid, answer, reply) if self.can_push() else reply
        if not unsent:
            return "pushed"
        if self._is_miniprogram:  # which has no passive reply to a 继续
            return "lost"
        self._debts.keep(openid, unsent)
        return "kept"

    def _send(self, openid: str, answer: Answer, reply: Reply) -> Reply | None:
        """What of the reply the platform did not take; of a long text, that may be its end."""
        messages = reply.customer_messages()
        for number, message in enumerate(messages):
            if not self._send_one(openid, answer, message):
                rest = "".join(later["text"]["content"] for later in messages[number:]) if number else ""
                return Text(rest) if number else reply
        return None

    def _send_one(self, openid: str, answer: Answer, message: dict[str, Any]) -> bool:
        """Whether the platform took it, after three tries at most."""
        for pause in (*PAUSES, None):
            try:
                self._api.send_message(openid, message)
                return True
            except Exception as error:
                is_passing = isinstance(error, TransportError) or getattr(error, "errcode", 0) == BUSY
                if pause is None or not is_passing:
                    self._note(answer, error)
                    return False
            self._sleep(pause)
        return False

    def _note(self, answer: Answer, error: Exception) -> None:
        said = error if isinstance(error, ApiError) else trace(error)
        logger.error("the %s reply of %s was not sent: %s", answer.kind, answer.handler, said)
        if isinstance(error, WeChatError) and error.errcode == UNAUTHORIZED:
            self._debts.forbid_push()
