"""One message, one run, one reply, whichever attempt is open.

WeChat hangs up after 5 s and sends the same bytes again, three times at most. What it hears is decided here.
https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

import logging
import math
from collections.abc import Sequence
from functools import partial

from wechat.delivery.answering import NEXT, NOBODY, Answer, Push
from wechat.delivery.entries import PROMISED, READY, RUNNING, Entry
from wechat.delivery.lanes import LATER
from wechat.delivery.outbox import NOTHING
from wechat.delivery.runner import FOLLOW_UP_AFTER, Runner, say_too_late
from wechat.errors import GivenUp, Left
from wechat.log import log_error, note
from wechat.message import delivery_key, kind_of, label
from wechat.reply import TEXT_LIMIT, Reply, Text, is_long, split_text, to_xml
from wechat.routing import DEFAULT, describe
from wechat.texts import AROUND
from wechat.workers import standing_aside

logger = logging.getLogger("wxserver")

TYPING_AT = 2 / 3  # of WECHAT_REPLY_WITHIN; so it is known whether customer messages are closed before it is over
# Of WECHAT_REPLY_WITHIN. What is answered within the first is given before it is noted: no other process promises it in
# that time, as each holds an attempt for the second, also where it stood still or has no room.
QUICK, AT_LEAST = 1 / 4, 1 / 3
SPARE = 0.3  # seconds past WECHAT_REPLY_WITHIN that the platform gets for that
OPEN_FOR = 600.0  # seconds for which a crowd counts on a call that worked
GRACE = 1.5  # seconds past WECHAT_REPLY_WITHIN, so that WeChat hangs up and asks again
HUNG_UP_AT = 0.4  # of that
LAST_ATTEMPT = 3
DIRECT = ""  # in the log: with this attempt, the first or a later one
LONG_FOR_UNMARKED = 1.0  # seconds
MOST_STARTS = 3  # each of which ended with the death of its process

Announced = tuple[Push, bool, Entry, bool]  # whether its handler may be slow, whether the caller has it already


class Delivery(Runner):
    """Gives each attempt at a message its answer."""

    def answer(self, content: bytes) -> bytes:
        """The document that answers this attempt at the message, or nothing for `success`; raises Unreadable."""
        return self.go_on(self.announce(content))

    def announce(self, content: bytes) -> Announced:
        """Read a message, and queue its record for the store; whoever calls has to `go_on`, in whatever thread."""
        push = self._answering.read(content, self._world.monotonic())
        is_slow = self._answering.may_take_long(push) and not self._is_continue(push)
        key = delivery_key(push.message, content)
        entry, is_ours = self._ledger.announce(key, push.openid, is_slow)
        return push, is_slow, entry, is_ours

    def go_on(self, announced: Announced) -> bytes:
        """The document that answers the attempt that was announced."""
        push, is_slow, entry, is_ours = announced
        try:
            is_ours = is_ours or self._ledger.attend(entry)
            attempt = entry.record.attempts
            if is_ours and not is_slow and (attempt == 1 or self._ledger.start(entry)):
                self.do(entry, push)
                if not entry.is_running:  # a fast handler may have handed the message on to a slow one
                    return self._log(push, entry, attempt, DIRECT, entry.record.document)
            elif is_ours:
                self.do_in_lane(entry, push)
            return self._await(entry, push, attempt)
        finally:
            self._ledger.leave(entry)

    def _await(self, entry: Entry, push: Push, attempt: int) -> bytes:
        """The document, or what is said when it is not ready in time."""
        with self.crowd.join(push.openid) as has_room:
            is_last = not has_room or attempt >= LAST_ATTEMPT
            within, now = self._settings.reply_within, self._world.monotonic()
            end = now + AT_LEAST * within if has_room or not entry.record.is_slow else now
            end = max(end, push.started + within) if has_room else end
            self._hold_and_show(entry, push, end, 0.0 if is_last else SPARE)
        if not (entry.is_running or entry.record.is_late):
            return self._log(push, entry, attempt, DIRECT, entry.record.document)
        since = push.started if has_room else self._world.monotonic() - OPEN_FOR
        if self._outbox.can_push(-math.inf if entry.record.is_late else since):
            return self._promise(entry, push, attempt, b"")
        if is_last or entry.record.is_late:
            self.give_ready(entry, push)
            return self._promise(entry, push, attempt, self.first(push, Text(self.texts.waiting))[0])
        # Until WeChat hangs up, one that came later may be an earlier one, of a process that stood still.
        is_over = self._hold(entry, push, end + GRACE * HUNG_UP_AT) or self._hold(entry, push, end + GRACE, attempt)
        if is_over or entry.record.attempts > attempt:
            return self._log(push, entry, attempt, "too late", entry.record.document)
        return self._promise(entry, push, attempt, b"")

    def _hold_and_show(self, entry: Entry, push: Push, end: float, spare: float) -> None:
        """Hold the attempt open, and let its user see meanwhile that an answer is being written."""
        if not self._hold(entry, push, end - self._settings.reply_within * (1 - TYPING_AT)):
            is_known = self._outbox.show_typing(entry)
            if not self._hold(entry, push, end):
                is_known.wait(spare)

    def _hold(self, entry: Entry, push: Push, end: float, attempt: float = math.inf) -> bool:
        """Hold the attempt open until then. Whether the message is answered or promised.

        With its number, it is held until WeChat asks again.
        """
        with standing_aside():
            while entry.is_running and entry.record.attempts <= attempt and (left := end - self._world.monotonic()) > 0:
                if self._ledger.wait(entry, left):
                    # Anew: while the store was away, this process may have begun with it already.
                    self.do_in_lane(entry, self._answering.read(push.content, push.started))
        return not entry.is_running

    def _promise(self, entry: Entry, push: Push, attempt: int, document: bytes) -> bytes:
        """Promise the answer for later, and only then say so; where it is there just now, give it."""
        if self._ledger.promise(entry, push.text, bool(document)).is_late:
            push.content = b""  # which waits with its handler, as thousands may
            return self._log(push, entry, attempt, "later", document)
        return self._log(push, entry, attempt, DIRECT, entry.record.document)

    def _log(self, push: Push, entry: Entry, attempt: int, how: str, document: bytes) -> bytes:
        """One line about the attempt, which quotes nobody; gives the document."""
        if logger.isEnabledFor(logging.INFO):
            milliseconds = (self._world.monotonic() - push.started) * 1000
            handler, hint = entry.handler or push.answerer, ""
            if handler != NEXT and (not push.found or push.found.handler.path in ((), DEFAULT)):
                hint = f"; to answer these: @on({describe(kind_of(push.message).split('/'))})"
            tries = f" at attempt {attempt}" if attempt > 1 else ""
            how = (how or ("direct" if attempt == 1 else "retry")) if document or entry.kind == NOBODY.kind else "later"
            said = f"{entry.kind}, {how}{tries}, {milliseconds:.1f} ms{hint}"
            note(logger, f"{label(push.message)} -> {handler}: {said}")
        return document

    # An answer

    def _is_continue(self, push: Push) -> bool:
        """Whether the user asks for what waits."""
        said = (push.message.get("Content") or push.message.get("Recognition") or "").casefold()
        word = self._answering.router.texts.word
        return word in said and said.strip(AROUND) == word and self._settings.account != "miniprogram"

    def do(self, entry: Entry, push: Push) -> float | None:
        try:
            # A record that is slow was looked at before: nothing waited, and it is a message like any other.
            if push.handlers or entry.record.is_slow or not self._is_continue(push):
                return self._run(entry, push)
            if not self._outbox.answer_continue(entry, push.openid, partial(self.first, push)):
                if push.limit or not self._answering.may_take_long(push):
                    return self._run(entry, push)
                self.slow_down(entry, push)
        except Left:
            pass  # it goes on in another thread
        except BaseException as error:
            log_error(logger, f"a message is not answered: {label(push.message)}", error, push.message)
            self._outbox.end_without_reply(entry)
        return None

    def _run(self, entry: Entry, push: Push) -> float | None:
        """Have the handler answer, here or in a lane."""
        started = self._world.monotonic()
        if entry.record.starts > MOST_STARTS and not push.error:
            said = "%s on %s: its process ended at each of %d starts, the message is given up"
            logger.error(said, push.answerer, label(push.message), MOST_STARTS)
            push.error = GivenUp("the process ended each time the message was answered")
        call = push.call
        answer = self._answering.answer(push)
        if push.call:
            if push.call is not call:
                self._answering.start(push.call, self.lanes.resume, push.openid)
            return LATER
        if not answer:
            self.slow_down(entry, push)
            return None
        now = self._world.monotonic()
        entry.is_quick = now - push.started < QUICK * self._settings.reply_within
        if now - started > LONG_FOR_UNMARKED and not push.limit:
            cause = f"{answer.handler} is not marked slow=True, and holds up others"
            self.troubles.note(cause, f": it took {now - started:.1f} s")
        if entry.pieces:
            with entry.pieces.lock:
                self.end_pieces(entry, push, answer, entry.pieces)
        else:
            self.note(entry, push, answer)
        return None

    def slow_down(self, entry: Entry, push: Push) -> None:
        """Go on in a lane with a message that a fast handler was at."""
        self._ledger.slow_down(entry)
        self.do_in_lane(entry, push)

    def note(self, entry: Entry, push: Push, answer: Answer, further: Sequence[Entry] = ()) -> None:
        if answer.reply or not entry.pieces:  # else its first piece is the direct answer, and noted
            entry.note(answer)
        untold = self._outbox.untold
        is_due = bool(untold) and entry.is_running and push.openid in untold and self._outbox.is_due(push.openid)
        now, rest = self._fit(answer.reply, bool(further) and not self._outbox.can_push(), is_due)
        document = self._to_xml(now, push)
        is_only_direct = bool(answer.reply and answer.reply.is_direct)
        whole = None if is_only_direct else answer.reply
        before = self._ledger.end(entry, document, rest, whole or (None if entry.pieces else NOTHING), further)
        if before == PROMISED and is_only_direct:
            say_too_late(answer, push)
        if is_due and before == RUNNING and isinstance(now, Text):
            self._outbox.note_told(push.openid)
        if before and entry.record.state == READY:
            entry.msg_id = push.message.get("MsgId", "")
            entry.is_told = before == RUNNING and isinstance(now, Text) and now.content.endswith(self.texts.more)
            self._outbox.deliver(entry, FOLLOW_UP_AFTER if entry.record.document else 0.0)
        if further and before and entry.pieces:
            now_given = FOLLOW_UP_AFTER if before == RUNNING and document else 0.0
            after = max(now_given, entry.pieces.after(self._world.monotonic()))
            for each in further:
                self._outbox.deliver(each, after)

    def _fit(self, reply: Reply | None, is_more: bool, is_due: bool) -> tuple[Reply | None, Reply | None]:
        if self._settings.account == "miniprogram" and not (reply and reply.is_direct):
            return None, reply
        if not isinstance(reply, Text) or not (is_more or is_due or is_long(reply)):
            return reply, None
        ending = f"\n\n{self.texts.announce}" if is_due else ""
        if is_more or (is_long(reply) and not self._outbox.can_push()):
            ending = f"\n\n{self.texts.more}"
        first, *others = split_text(reply.content, TEXT_LIMIT - len(ending.encode()))
        ending = ending if others or is_more or is_due else ""  # what did not fit was blanks
        return Text(first + ending), Text("".join(others)) if others else None

    def _to_xml(self, reply: Reply | None, push: Push) -> bytes:
        return to_xml(reply, push.message, int(self._clock())).encode(errors="replace") if reply else b""

    def first(
        self, push: Push, reply: Reply | None, is_more: bool = False, is_due: bool = False
    ) -> tuple[bytes, Reply | None]:
        now, rest = self._fit(reply, is_more, is_due)
        return self._to_xml(now, push), rest
