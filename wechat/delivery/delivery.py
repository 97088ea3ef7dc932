"""One message, one run, one reply, whichever attempt is open.

WeChat hangs up after 5 s and sends the same bytes again, three times at most. What it hears is decided here.
https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

from __future__ import annotations

import logging
import threading
import time

from wechat.delivery.answering import Answer, Answering, HandedOn, Push
from wechat.delivery.debts import Debts
from wechat.delivery.outbox import Outbox
from wechat.delivery.pool import Pool
from wechat.delivery.runs import Run, Runs
from wechat.errors import StoreError
from wechat.log import shorten, trace
from wechat.message import Message, delivery_key, kind_of
from wechat.protocol.envelope import Clock
from wechat.protocol.parser import parse
from wechat.reply import TEXT_LIMIT, Reply, Text, is_long, split_text, to_xml
from wechat.routing import describe
from wechat.settings import Settings

logger = logging.getLogger("wxserver")

CONTINUE = "继续"
STILL_RUNNING = "还在处理，稍后回复“继续”获取结果"
NOT_READY = "还没好，请稍后再回复“继续”"
MORE = "\n\n回复“继续”查看下文"
GRACE = 1.5  # seconds past WECHAT_REPLY_WITHIN, so that WeChat hangs up and asks again
LAST_ATTEMPT = 3
LONG_FOR_UNMARKED = 1.0  # seconds
DIRECT = ""  # in the log: with this attempt, the first or a later one
BEHIND = 1.0  # seconds by which the rest of a long text follows its beginning


class Delivery:
    """Gives each attempt at a message its answer."""

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        runs: Runs,
        debts: Debts,
        outbox: Outbox,
        slow: Pool,
        clock: Clock,
    ) -> None:
        self._within = settings.reply_within
        self._is_miniprogram = settings.account == "miniprogram"
        self._most_waiting = settings.threads * 3 // 4
        self._answering, self._runs, self._debts, self._outbox = answering, runs, debts, outbox
        self._clock = clock
        self._slow = slow
        self.begin()

    def begin(self) -> None:
        """Makes its threads, and those of the outbox; anew in a process that was forked, which has none."""
        self._lock = threading.Lock()
        self._waiting = 0
        self._slow.begin()
        self._outbox.pool.begin()

    def answer(self, content: bytes) -> bytes:
        """The document that answers this attempt at the message, or nothing for `success`; raises Unreadable."""
        message = parse(content)
        push = Push(content, message, self._answering.router.find(message), time.perf_counter())
        run, attempt, is_ours = self._runs.begin(delivery_key(message, content))
        if is_ours:
            if self._answering.may_take_long(message, push.found) and not self._is_continue(push):
                self._do_in_pool(run, push)
            else:
                self._do(run, push)
            if not run.is_pooled:  # a fast handler may have handed the message on to a slow one
                return self._log(push, run, attempt, DIRECT, run.document)
        try:
            return self._await(run, push, attempt)
        except StoreError as error:
            logger.warning("a message may be answered twice: %s", error)
            with self._lock:  # once is enough, for all attempts that followed the run
                is_followed, run.followed = run.followed is not None, None
            if is_followed:
                self._do_in_pool(run, push)
            return self._await(run, push, attempt)

    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not (len(self._slow) or len(self._outbox.pool))

    def close(self) -> None:
        """Waits for what is under way."""
        self._slow.close()
        self._outbox.pool.close()

    # An attempt

    def _await(self, run: Run, push: Push, attempt: int) -> bytes:
        """The document, or what is said when it is not ready in time."""
        is_crowded = self._waiting >= self._most_waiting
        if self._hold(run, push, 0 if is_crowded else self._within, is_open=True):
            return self._log(push, run, attempt, DIRECT, run.document)
        if self._outbox.can_push():
            self._outbox.show_typing(push.openid)
            return self._acknowledge(run, push, attempt, b"")
        if is_crowded or attempt >= LAST_ATTEMPT:
            return self._acknowledge(run, push, attempt, self._to_xml(Text(STILL_RUNNING), push.message))
        if self._hold(run, push, GRACE, is_open=False) or self._runs.is_superseded(run, attempt):
            return self._log(push, run, attempt, "too late", run.document)
        return self._acknowledge(run, push, attempt, b"")

    def _hold(self, run: Run, push: Push, seconds: float, is_open: bool) -> bool:
        """Holds the attempt open, up to so many seconds; whether the run has ended."""
        end = time.monotonic() + seconds
        with self._lock:
            self._waiting += 1
            run.open_attempts += is_open
        try:
            while not run.wait(end - time.monotonic()) and time.monotonic() < end:
                if self._runs.take_over(run):
                    self._do_in_pool(run, push)
            return run.is_done
        finally:
            with self._lock:
                self._waiting -= 1
                run.open_attempts -= is_open

    def _acknowledge(self, run: Run, push: Push, attempt: int, document: bytes) -> bytes:
        """Writes the debt down, and only then says so; where the run has ended just now, its document."""
        self._owe(push, run)
        if run.wait(0):
            debt = self._debts.find(push.openid, run.key)
            if debt and self._debts.cancel(debt):
                run.is_owed = False
                return self._log(push, run, attempt, DIRECT, run.document)
        return self._log(push, run, attempt, "later", document)

    def _owe(self, push: Push, run: Run) -> None:
        run.is_owed = True
        self._debts.owe(push.openid, run.key, push.text, run.owner)

    # The run

    def _do_in_pool(self, run: Run, push: Push, handed: HandedOn | None = None) -> None:
        run.is_pooled = True
        self._slow.submit(self._do, run, push, handed)

    def _do(self, run: Run, push: Push, handed: HandedOn | None = None) -> None:
        """Does the run; whatever goes wrong, it ends, for others wait for it."""
        try:
            self._run(run, push, handed)
        except BaseException as error:
            logger.error("a message is not answered\n%s", trace(error))
            self._runs.end(run, b"")
            if debt := self._debts.find(push.openid, run.key):
                self._debts.settle(debt)

    def _run(self, run: Run, push: Push, handed: HandedOn | None) -> None:
        """Has the handler answer, lets every attempt know, and pays what has been owed meanwhile."""
        started = time.perf_counter()
        is_continue = not handed and self._is_continue(push)
        answer, place, is_more_kept = self._continue(push) if is_continue else (None, "", False)
        if not answer:
            came = self._answering.begin(*handed) if handed else self._answering.begin(push.message, push.found)
            if isinstance(came, HandedOn):
                self._do_in_pool(run, push, came)
                return
            answer = came
        seconds = time.perf_counter() - started
        if seconds > LONG_FOR_UNMARKED and not run.is_pooled:
            logger.warning("%s took %.1f s: mark it slow=True, so that it holds up nobody", answer.handler, seconds)
        run.handler, run.kind = answer.handler, answer.kind
        now, rest = self._fit(answer.reply, is_more_kept)
        document = self._to_xml(now, push.message) if now else b""
        debt = self._debts.owe_rest(push.openid, run.key, push.text, rest) if rest and not place else None
        is_later = False
        if self._is_in_time(run, started) and not (self._is_miniprogram and not now):
            self._runs.end(run, document)
        else:
            is_later = self._end_late(run, push, answer, document)
        if rest and place:
            self._debts.keep(push.openid, rest, place)
        elif debt and is_later:
            self._debts.settle(debt)
        elif debt:
            self._outbox.pay(push.openid, answer._replace(reply=rest), debt, BEHIND)

    def _is_in_time(self, run: Run, started: float) -> bool:
        """Whether no attempt can have been told to wait."""
        return not (run.is_pooled or run.is_owed) and time.perf_counter() - started < self._within / 2

    def _end_late(self, run: Run, push: Push, answer: Answer, document: bytes) -> bool:
        """Ends the run; whether its answer goes another way than that of an open attempt."""
        if self._is_miniprogram and answer.reply and not document:
            self._owe(push, run)
        with self._lock:
            is_open = run.open_attempts > 0 and bool(document or not answer.reply)
            run.end(document)
        debt = self._debts.find(push.openid, run.key)
        if not debt:
            self._runs.tell(run)
            debt = self._debts.find(push.openid, run.key)  # owed by a process that could not know yet
            if not debt and not run.is_owed:
                return False
        if is_open and (not debt or self._debts.cancel(debt)):
            self._runs.tell(run)
            return False
        claimed = self._debts.claim(debt) if debt else None
        if debt and not claimed and not self._debts.find(push.openid, run.key):  # an attempt has the document after all
            self._runs.tell(run)
            return False
        self._runs.end(run, b"" if answer.reply else document)  # for whoever asks again
        if claimed or not debt:
            self._outbox.pay(push.openid, answer, claimed)
        return True

    def _is_continue(self, push: Push) -> bool:
        return not self._is_miniprogram and push.message.get("Content", "").strip() == CONTINUE

    def _continue(self, push: Push) -> tuple[Answer | None, str, bool]:
        """What 继续 gets, before any handler, while there is something; the place it had, and whether there is more."""
        reply, place, is_more_kept = self._debts.take_kept(push.openid)
        if reply:
            return Answer(CONTINUE, reply), place, is_more_kept
        is_owed = self._debts.is_anything_owed(push.openid)
        return (Answer(CONTINUE, Text(NOT_READY)) if is_owed else None), "", False

    def _fit(self, reply: Reply | None, is_more_kept: bool) -> tuple[Reply | None, Reply | None]:
        """What of the reply is the direct answer, and what follows on another way."""
        if self._is_miniprogram and not (reply and reply.is_direct):
            return None, None
        if not isinstance(reply, Text) or not (is_more_kept or is_long(reply)):
            return reply, None
        is_pushed = not is_more_kept and self._outbox.can_push()
        ending = "" if is_pushed else MORE
        first, *others = split_text(reply.content, TEXT_LIMIT - len(ending.encode()))
        return Text(first + ending), Text("".join(others)) if others else None

    def _to_xml(self, reply: Reply, message: Message) -> bytes:
        return to_xml(reply, message, int(self._clock())).encode(errors="replace")

    def _log(self, push: Push, run: Run, attempt: int, how: str, document: bytes) -> bytes:
        """One line about the attempt, which quotes nobody; gives the document."""
        if logger.isEnabledFor(logging.INFO):
            milliseconds = (time.perf_counter() - push.started) * 1000
            kind, openid, found = kind_of(push.message), shorten(push.openid), push.found
            handler = run.handler or (found.handler.name if found else "nobody")
            is_claimed = handler == CONTINUE or (found and found.handler is not self._answering.router.default)
            hint = "" if is_claimed else f"; to answer these: @on({describe(kind.split('/'))})"
            tries = f" at attempt {attempt}" if attempt > 1 else ""
            how = (how or ("direct" if attempt == 1 else "retry")) if document or run.kind == "success" else "later"
            logger.info(f"{kind} from {openid} -> {handler}: {run.kind}, {how}{tries}, {milliseconds:.1f} ms{hint}")
        return document
