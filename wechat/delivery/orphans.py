"""What a process that died has left: messages that it acknowledged and did not answer, or not to the end."""

from __future__ import annotations

import logging

from wechat.delivery.answering import Answer, Answering
from wechat.delivery.debts import Debt, Debts
from wechat.delivery.outbox import Outbox
from wechat.delivery.pool import Pool
from wechat.delivery.runs import Runs
from wechat.errors import Unreadable
from wechat.message import Message, delivery_key, label
from wechat.protocol.parser import parse
from wechat.reply import Reply

logger = logging.getLogger("wxserver")


class Orphans:
    """Answers them, each by one of the processes that are left."""

    def __init__(self, answering: Answering, runs: Runs, debts: Debts, outbox: Outbox, pool: Pool) -> None:
        self._answering, self._runs, self._debts, self._outbox, self._pool = answering, runs, debts, outbox, pool

    def look_after(self) -> None:
        """Has each of them answered that nobody answers now; raises StoreError."""
        for debt in self._debts.orphans():
            content = debt.content.encode()
            try:
                message = parse(content)
            except Unreadable:  # of another version; it goes after a day
                continue
            key = delivery_key(message, content)
            if debt.rest:
                self._send_rest(debt, debt.rest, message.FromUserName, key)
            else:
                self._pool.submit(self._answer, debt, message, key)

    def _send_rest(self, debt: Debt, rest: Reply, openid: str, key: str) -> None:
        """Sends what follows a beginning; where that never went out, the rest is owed anew by whoever does the run."""
        is_beginning_out = not self._runs.is_under_way(key)
        claimed = self._debts.claim(debt)
        if claimed and is_beginning_out:
            self._outbox.pay(openid, Answer("a process that died", rest), claimed)
        elif claimed:
            self._debts.forget(claimed)  # and not one that the new run has written meanwhile

    def _answer(self, debt: Debt, message: Message, key: str) -> None:
        run, _, is_ours = self._runs.begin(key)
        is_left = is_ours or run.wait(0)
        claimed = self._debts.claim(debt) if is_left else None  # else whoever does the run finds the debt at its end
        if not claimed:
            return
        logger.info(f"{label(message)}: taken over from a process that died")
        answer = self._answering.answer(message, self._answering.router.find(message))
        self._runs.end(run, b"")
        self._outbox.pay(message.FromUserName, answer, claimed)
