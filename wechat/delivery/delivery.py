"""One message, one run, one reply, whichever attempt is open.

WeChat hangs up after 5 s and sends the same bytes again, three times at most. What it hears is decided here.
https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

from __future__ import annotations

import logging

from wechat.delivery.answering import NOBODY, Answer, Answering, Push
from wechat.delivery.entries import Entry
from wechat.delivery.lanes import Lanes
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import NOTHING, Outbox
from wechat.delivery.record import PROMISED, READY, RUNNING, Record, unpack
from wechat.errors import StoreError, Unreadable
from wechat.log import log_error
from wechat.message import Message, delivery_key, kind_of, label
from wechat.protocol.envelope import Clock
from wechat.reply import TEXT_LIMIT, Reply, Text, is_long, split_text, to_xml
from wechat.routing import describe
from wechat.settings import Settings
from wechat.texts import CONTINUE, MORE, NOT_READY, STILL_RUNNING
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

GRACE = 1.5  # seconds past WECHAT_REPLY_WITHIN, so that WeChat hangs up and asks again
LAST_ATTEMPT = 3
LONG_FOR_UNMARKED = 1.0  # seconds
FROM_CONTINUE = Answer(CONTINUE, Text(NOT_READY))
DIRECT = ""  # in the log: with this attempt, the first or a later one
# Seconds by which the rest of a long text follows its beginning, which WeChat asks for again 5 s after a crash.
BEHIND, BEHIND_A_CRASH = 1.0, 6.0
MOST_STARTS = 3  # each of which ended with the death of its process
SUSPECT = 2  # starts from which on messages are started one by one, to see which of them ends the process


class Delivery:
    """Gives each attempt at a message its answer."""

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        ledger: Ledger,
        outbox: Outbox,
        clock: Clock,
        world: World = REAL,
    ) -> None:
        self._within = settings.reply_within
        self._is_miniprogram = settings.account == "miniprogram"
        self._most_waiting = settings.threads * 3 // 4
        self._answering, self._ledger, self._outbox = answering, ledger, outbox
        self._clock, self._world = clock, world
        self._slow = Lanes(settings.threads, "slow", world)
        self._lock = world.lock()
        self._waiting = 0

    def begin(self) -> None:
        """Begin anew in a process that was forked, which has none of its parent's threads."""
        self._lock = self._world.lock()
        self._waiting = 0
        self._slow.begin()
        self._outbox.lanes.begin()

    def answer(self, content: bytes) -> bytes:
        """The document that answers this attempt at the message, or nothing for `success`; raises Unreadable."""
        push = self._answering.read(content, self._world.monotonic())
        is_slow = self._answering.may_take_long(push) and not self._is_continue(push)
        entry, is_ours = self._ledger.begin(delivery_key(push.message, content), push.openid, is_slow)
        try:
            attempt = entry.record.attempts
            if is_ours and not is_slow and (attempt == 1 or self._ledger.start(entry)):
                self._do(entry, push, is_in_lane=False)
                if not entry.is_running:  # a fast handler may have handed the message on to a slow one
                    return self._log(push, entry, attempt, DIRECT, entry.record.document)
            elif is_ours:
                self._do_in_lane(entry, push)
            return self._await(entry, push, attempt)
        finally:
            self._ledger.leave(entry)

    def look_after(self) -> None:
        """Go on with what processes that died have promised; raises StoreError."""
        for entry in self._ledger.abandoned():
            if entry.record.state == READY:
                self._outbox.deliver(entry, BEHIND_A_CRASH if entry.record.document else 0.0)
            else:
                self._take_over(entry)

    def _take_over(self, entry: Entry) -> None:
        try:
            push = self._answering.read(entry.record.content.encode(), self._world.monotonic())
        except Unreadable:  # of another version
            self._end_without_reply(entry)
            return
        logger.info(f"{label(push.message)}: taken over from a process that died")
        self._do_in_lane(entry, push)

    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not (len(self._slow) or len(self._outbox.lanes))

    def close(self) -> None:
        """Wait for what is under way."""
        self._slow.close()
        self._outbox.lanes.close()

    def _await(self, entry: Entry, push: Push, attempt: int) -> bytes:
        """The document, or what is said when it is not ready in time."""
        is_crowded = self._waiting >= self._most_waiting
        if self._hold(entry, push, 0 if is_crowded else self._within) and not entry.record.is_late:
            return self._log(push, entry, attempt, DIRECT, entry.record.document)
        if self._outbox.can_push():
            self._outbox.show_typing(push.openid)
            return self._promise(entry, push, attempt, b"")
        if is_crowded or attempt >= LAST_ATTEMPT or entry.record.is_late:
            return self._promise(entry, push, attempt, self._to_xml(Text(STILL_RUNNING), push.message))
        if self._hold(entry, push, GRACE) or entry.record.attempts > attempt:
            return self._log(push, entry, attempt, "too late", entry.record.document)
        return self._promise(entry, push, attempt, b"")

    def _hold(self, entry: Entry, push: Push, seconds: float) -> bool:
        """Hold the attempt open, up to so many seconds. Whether the message is answered or promised."""
        end = self._world.monotonic() + seconds
        with self._lock:
            self._waiting += 1
        try:
            while entry.is_running and (left := end - self._world.monotonic()) > 0:
                if self._ledger.wait(entry, left):
                    self._do_in_lane(entry, push)
            return not entry.is_running
        finally:
            with self._lock:
                self._waiting -= 1

    def _promise(self, entry: Entry, push: Push, attempt: int, document: bytes) -> bytes:
        """Promise the answer for later, and only then say so; where it is there just now, give it."""
        if self._ledger.promise(entry, push.text).is_late:
            return self._log(push, entry, attempt, "later", document)
        return self._log(push, entry, attempt, DIRECT, entry.record.document)

    def _do_in_lane(self, entry: Entry, push: Push) -> None:
        def task() -> None:
            if self._ledger.start(entry):
                self._do(entry, push, is_in_lane=True)

        def is_over() -> bool:
            return entry.record.state not in (RUNNING, PROMISED)

        if entry.record.starts < SUSPECT:
            self._slow.submit(push.openid, task, is_resumed=entry.record.starts > 0)
        else:
            self._slow.submit_suspect(push.openid, task, is_over, lambda: self._ledger.forgive(entry))

    def _do(self, entry: Entry, push: Push, is_in_lane: bool) -> None:
        """Answer the message; whatever goes wrong, it ends, for others wait for it."""
        try:
            if push.handlers or not self._is_continue(push) or not self._continue(entry, push):
                self._run(entry, push, is_in_lane)
        except BaseException as error:
            log_error(logger, f"a message is not answered: {label(push.message)}", error)
            self._end_without_reply(entry)

    def _run(self, entry: Entry, push: Push, is_in_lane: bool) -> None:
        """Have the handler answer, note it, and send what is not the direct answer."""
        started = self._world.monotonic()
        if entry.record.starts > MOST_STARTS:
            answer: Answer | None = self._answering.give_up(push, MOST_STARTS)
        else:
            answer = self._answering.answer(push, is_in_lane)
        if not answer:
            self._ledger.slow_down(entry)
            self._do_in_lane(entry, push)
            return
        seconds = self._world.monotonic() - started
        if seconds > LONG_FOR_UNMARKED and not is_in_lane:
            logger.warning("%s took %.1f s: mark it slow=True, so that it holds up nobody", answer.handler, seconds)
        entry.answer = answer
        now, rest = self._fit(answer.reply, is_more=False)
        document = self._to_xml(now, push.message) if now else b""
        is_only_direct = bool(answer.reply and answer.reply.is_direct)
        before = self._ledger.end(entry, document, rest, None if is_only_direct else answer.reply or NOTHING)
        if before == PROMISED and is_only_direct:
            said = f"{answer.handler} on {label(push.message)}"
            logger.error("%s: a %s reply can only be the direct answer, and it is too late", said, answer.kind)
        if before and entry.record.state == READY:
            entry.msg_id = push.message.get("MsgId", "")
            self._outbox.deliver(entry, BEHIND if entry.record.document else 0.0)

    def _end_without_reply(self, entry: Entry) -> None:
        if self._ledger.end(entry, b"", None, NOTHING) == PROMISED:
            self._outbox.deliver(entry)

    def _is_continue(self, push: Push) -> bool:
        return not self._is_miniprogram and push.message.get("Content", "").strip() == CONTINUE

    def _continue(self, entry: Entry, push: Push) -> bool:
        """Answer 继续, before any handler, while there is something of the user's. Whether there was."""
        try:
            while entry.is_running:
                others = [other for other in self._ledger.open_of(push.openid) if other.key != entry.key]
                if not others:
                    return False
                seen = [(other, other.record) for other in others]
                waiting = [pair for pair in seen if pair[1].state == READY and not pair[1].is_sending]
                entry.answer = FROM_CONTINUE
                if not waiting:
                    self._ledger.end(entry, self._to_xml(Text(NOT_READY), push.message), None, None)
                elif self._fetch(entry, push, *waiting[0], is_more=len(waiting) > 1):
                    return True
        except StoreError as error:
            logger.warning("what waits for 继续 cannot be fetched: %s", error)
            return False
        self._end_without_reply(entry)  # one that was promised takes nothing: its user asks again
        return True

    def _fetch(self, entry: Entry, push: Push, waiting: Entry, seen: Record, is_more: bool) -> bool:
        reply = unpack(seen.reply)
        now, rest = self._fit(reply, is_more or (isinstance(reply, Text) and is_long(reply)))  # the rest waits, too
        entry.answer = Answer(CONTINUE, reply)
        return self._ledger.fetch(entry, waiting, seen, self._to_xml(now or reply, push.message), rest)

    def _fit(self, reply: Reply | None, is_more: bool) -> tuple[Reply | None, Reply | None]:
        """What of the reply is the direct answer, and what follows it another way."""
        if self._is_miniprogram and not (reply and reply.is_direct):
            return None, reply
        if not isinstance(reply, Text) or not (is_more or is_long(reply)):
            return reply, None
        ending = "" if not is_more and self._outbox.can_push() else MORE
        first, *others = split_text(reply.content, TEXT_LIMIT - len(ending.encode()))
        return Text(first + ending), Text("".join(others)) if others else None

    def _to_xml(self, reply: Reply, message: Message) -> bytes:
        return to_xml(reply, message, int(self._clock())).encode(errors="replace")

    def _log(self, push: Push, entry: Entry, attempt: int, how: str, document: bytes) -> bytes:
        """One line about the attempt, which quotes nobody; gives the document."""
        if logger.isEnabledFor(logging.INFO):
            milliseconds = (self._world.monotonic() - push.started) * 1000
            found = push.found
            answer = entry.answer or (Answer(found.handler.name) if found else NOBODY)
            is_default = not found or found.handler is self._answering.router.default
            address = describe(kind_of(push.message).split("/"))
            hint = f"; to answer these: @on({address})" if is_default and answer.handler != CONTINUE else ""
            tries = f" at attempt {attempt}" if attempt > 1 else ""
            how = (how or ("direct" if attempt == 1 else "retry")) if document or not answer.reply else "later"
            said = f"{answer.kind}, {how}{tries}, {milliseconds:.1f} ms{hint}"
            logger.info(f"{label(push.message)} -> {answer.handler}: {said}")
        return document
