"""A message being answered: here or in a lane, by its handler or as a 继续, and what becomes of the reply."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, partial

from wechat.delivery.answering import NEXT, NOBODY, Answer, Answering, Push
from wechat.delivery.entries import PROMISED, READY, RUNNING, Entry, Record
from wechat.delivery.lanes import LATER, Lanes
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import NOTHING, Outbox
from wechat.errors import Left, StoreError
from wechat.log import log_error
from wechat.message import Message, label
from wechat.packing import Pieces, join, unpack
from wechat.protocol.envelope import Clock
from wechat.reply import TEXT_LIMIT, Reply, Text, is_long, split_text, to_xml
from wechat.settings import Settings
from wechat.texts import AROUND, Texts
from wechat.world import World

logger = logging.getLogger("wxserver")

LONG_FOR_UNMARKED = 1.0  # seconds
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks whether it is a message's turn
BEHIND = 1.0  # seconds by which the rest of a long text follows its beginning
MOST_PIECES = 5  # customer messages of a handler that yields; the last one has what is left over
MOST_STARTS = 3  # each of which ended with the death of its process
SUSPECT = 2  # starts from which on messages are started one by one, to see which of them ends the process


class Runner:
    """Has a message answered, and gives the ledger and the outbox what they need of the answer."""

    def __init__(
        self, settings: Settings, answering: Answering, ledger: Ledger, outbox: Outbox, clock: Clock, world: World
    ) -> None:
        self._is_miniprogram = settings.account == "miniprogram"
        self._answering, self._ledger, self._outbox, self._sessions = answering, ledger, outbox, answering.sessions
        self._clock, self._world = clock, world
        outbox.texts = lambda: self.texts
        self.lanes = Lanes(settings.slow_threads, "slow", world, settings.waiting_per_user, settings.waiting)

    @property
    def texts(self) -> Texts:
        """What the server itself says."""
        return self._answering.router.texts

    def do_in_lane(self, entry: Entry, push: Push) -> None:
        """Answer the message once its user's lane has come to it, or at once where too many wait already."""
        task = partial(self._take_turn, entry, push)
        self._sessions.line_up(push.wants)
        if entry.record.starts >= SUSPECT:
            self.lanes.submit_suspect(push.openid, task, entry.is_over, lambda: self._ledger.forgive(entry))
        elif not self.lanes.submit(push.openid, task, is_resumed=entry.record.starts > 0):
            self._sessions.leave(push.wants)
            self._note(entry, push, self._answering.turn_away(push))

    def _take_turn(self, entry: Entry, push: Push) -> float | None:
        """Answer the message, once it has its user's session; gives the seconds until the next look whether it has."""
        if push.wants and not (push.call or self.lanes.is_closing):
            push.ticket = self._sessions.take_turn(push.wants)
            if not push.ticket:
                return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (self._world.monotonic() - push.started) / 4))
        try:
            return self._do_limited(entry, push) if push.call or self._ledger.start(entry) else None
        finally:
            if push.ticket:  # which it did not use
                self._sessions.give_back(push.wants, push.ticket)

    def _do_limited(self, entry: Entry, push: Push) -> float | None:
        push.limit, push.give = partial(self._limit, entry, push.openid), partial(self._give, entry, push)
        try:
            return self.do(entry, push)
        finally:
            push.limit = push.give = None  # 5,000 that wait need none

    def _limit(
        self, entry: Entry, openid: str, name: str, seconds: float, late: Callable[[], Push]
    ) -> AbstractContextManager[None]:
        """Let a handler take so long at most; then its lane goes on with what `late` gives."""
        once = cache(late)
        return self.lanes.limit(openid, name, seconds, lambda: self._do_limited(entry, once()))

    def do(self, entry: Entry, push: Push) -> float | None:
        """Answer the message; whatever goes wrong, it ends, for others wait for it. LATER where one awaits."""
        try:
            # A record that is slow was looked at before: nothing waited, and it is a message like any other.
            is_continue = not (push.handlers or entry.record.is_slow) and self.is_continue(push)
            if is_continue and self._continue(entry, push):
                return None
            if not (is_continue and not push.limit and self._answering.may_take_long(push)):
                return self._run(entry, push)
            self._slow_down(entry, push)
        except Left:
            pass  # it goes on in another thread
        except BaseException as error:
            log_error(logger, f"a message is not answered: {label(push.message)}", error, push.message)
            self.end_without_reply(entry)
        return None

    def _run(self, entry: Entry, push: Push) -> float | None:
        """Have the handler answer, here or in a lane."""
        started = self._world.monotonic()
        if entry.record.starts > MOST_STARTS and not push.error:
            self._answering.give_up(push, MOST_STARTS)
        call = push.call
        answer = self._answering.answer(push)
        if push.call:
            if push.call is not call:
                self._answering.start(push.call, self.lanes.resume, push.openid)
            return LATER
        if not answer:
            self._slow_down(entry, push)
            return None
        seconds = self._world.monotonic() - started
        if seconds > LONG_FOR_UNMARKED and not push.limit:
            logger.warning("%s took %.1f s: mark it slow=True, so that it holds up nobody", answer.handler, seconds)
        if entry.pieces:
            with entry.pieces.lock:
                self._end_pieces(entry, push, answer, entry.pieces)
        else:
            self._note(entry, push, answer)
        return None

    def _note(self, entry: Entry, push: Push, answer: Answer, is_more: bool = False) -> None:
        """Note the answer, and send what is not the direct one."""
        entry.note(answer)
        is_due = bool(self._outbox.untold) and entry.is_running and self._outbox.is_due(push.openid)
        now, rest = self._fit(answer.reply, is_more, is_due)
        document = self.to_xml(now, push.message) if now else b""
        is_only_direct = bool(answer.reply and answer.reply.is_direct)
        nothing = None if entry.pieces else NOTHING
        before = self._ledger.end(entry, document, rest, None if is_only_direct else answer.reply or nothing)
        if before == PROMISED and is_only_direct:
            _say_too_late(answer, push)
        if is_due and before == RUNNING and isinstance(now, Text):
            self._outbox.note_told(push.openid)
        if before and entry.record.state == READY:
            entry.msg_id = push.message.get("MsgId", "")
            entry.is_told = before == RUNNING and isinstance(now, Text) and now.content.endswith(self.texts.more)
            self._outbox.deliver(entry, BEHIND if entry.record.document else 0.0)

    # What a handler yields

    def _give(self, entry: Entry, push: Push, reply: Reply) -> None:
        """Give a reply before the handler has ended: as the direct answer, or as a customer message."""
        entry.pieces = pieces = entry.pieces or Pieces(self._world.lock())
        with pieces.lock:
            pieces.left.append(reply)
            if self._outbox.can_push() and pieces.number < MOST_PIECES - 1:
                self._give_ready(entry, push, pieces, is_more=False)

    def give_ready(self, entry: Entry, push: Push) -> None:
        """Give what there is as the direct answer, where no customer messages can be sent; the rest waits for 继续."""
        if pieces := entry.pieces:
            with pieces.lock:
                if pieces.left and entry.is_running:
                    self._give_ready(entry, push, pieces, is_more=True)

    def _give_ready(self, entry: Entry, push: Push, pieces: Pieces, is_more: bool) -> None:
        replies = join(pieces.left)
        entry.note(Answer(push.found.handler.name if push.found else NOBODY.handler, replies[0]))
        if entry.is_running:
            now, rest = self._fit(replies[0], is_more)
            document = self.to_xml(now, push.message) if now else b""
            if self._ledger.promise(entry, push.text, is_more, document).document and document:
                replies[:1] = [rest] if rest else []
                pieces.next_at = self._world.monotonic() + BEHIND
        pieces.left = replies if is_more else []
        if not is_more:
            self._send(entry, push, replies, pieces)

    def _end_pieces(self, entry: Entry, push: Push, answer: Answer, pieces: Pieces) -> None:
        replies = join([*pieces.left, *([answer.reply] if answer.reply else [])])
        pieces.left = []
        is_more = len(replies) > 1 and not self._outbox.can_push()
        self._note(entry, push, Answer(answer.handler, replies[0] if replies else None), is_more)
        self._send(entry, push, replies[1:], pieces)

    def _send(self, entry: Entry, push: Push, replies: list[Reply], pieces: Pieces) -> None:
        """Have each of the replies sent as a message of its own, or kept for 继续."""
        for reply in replies:
            answer = Answer(entry.handler, reply)
            pieces.number += 1
            if reply.is_direct:
                _say_too_late(answer, push)
            elif added := self._ledger.add(entry, pieces.number, reply):
                added.handler, added.msg_id = entry.handler, push.message.get("MsgId", "")
                self._outbox.deliver(added, max(0.0, pieces.next_at - self._world.monotonic()))

    def _slow_down(self, entry: Entry, push: Push) -> None:
        self._ledger.slow_down(entry)
        self.do_in_lane(entry, push)

    def end_without_reply(self, entry: Entry) -> None:
        """End the message, so that nobody waits for it any more."""
        if self._ledger.end(entry, b"", None, NOTHING) == PROMISED:
            self._outbox.deliver(entry)

    def is_continue(self, push: Push) -> bool:
        """Whether the user asks for what waits."""
        said = push.message.get("Content") or push.message.get("Recognition") or ""
        is_word = said.strip(AROUND).casefold() == self._answering.router.texts.word
        return is_word and not self._is_miniprogram

    def _continue(self, entry: Entry, push: Push) -> bool:
        """Answer 继续, before any handler, while there is something of the user's. Whether there was."""
        try:
            while entry.is_running:
                others = [other for other in self._ledger.open_of(push.openid) if other.key != entry.key]
                if not others and not self._ledger.is_running(push.openid, entry):
                    return False
                self._outbox.note_told(push.openid)
                seen = [(other, other.record) for other in others]
                waiting = [pair for pair in seen if pair[1].state == READY and not pair[1].is_sending]
                not_ready = Text(self.texts.not_ready)
                entry.note(Answer(NEXT, not_ready))
                if not waiting:
                    self._ledger.end(entry, self.to_xml(not_ready, push.message), None, None)
                elif self._fetch(entry, push, *waiting[0], is_more=len(waiting) > 1):
                    return True
        except StoreError as error:
            logger.warning("what waits for 继续 cannot be fetched: %s", error)
            return False
        self.end_without_reply(entry)  # one that was promised takes nothing: its user asks again
        return True

    def _fetch(self, entry: Entry, push: Push, waiting: Entry, seen: Record, is_more: bool) -> bool:
        reply = unpack(seen.reply)
        if reply == NOTHING:
            reply = Text(self.texts.nothing)
        now, rest = self._fit(reply, is_more or (isinstance(reply, Text) and is_long(reply)))  # the rest waits, too
        entry.note(Answer(NEXT, reply))
        return self._ledger.fetch(entry, waiting, seen, self.to_xml(now or reply, push.message), rest)

    def _fit(self, reply: Reply | None, is_more: bool, is_due: bool = False) -> tuple[Reply | None, Reply | None]:
        """What of the reply is the direct answer, and what follows it another way.

        `is_more` says that something waits behind it, `is_due` that the user has to be told of another reply.
        """
        if self._is_miniprogram and not (reply and reply.is_direct):
            return None, reply
        if not isinstance(reply, Text) or not (is_more or is_due or is_long(reply)):
            return reply, None
        ending = f"\n\n{self.texts.announce}" if is_due else ""
        if is_more or (is_long(reply) and not self._outbox.can_push()):
            ending = f"\n\n{self.texts.more}"
        first, *others = split_text(reply.content, TEXT_LIMIT - len(ending.encode()))
        return Text(first + ending), Text("".join(others)) if others else None

    def to_xml(self, reply: Reply, message: Message) -> bytes:
        """The document with which the reply answers the message."""
        return to_xml(reply, message, int(self._clock())).encode(errors="replace")


def _say_too_late(answer: Answer, push: Push) -> None:
    said = f"{answer.handler} on {label(push.message)}"
    logger.error("%s: a %s reply can only be the direct answer, and it is too late", said, answer.kind)
