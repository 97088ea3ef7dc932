"""Messages that may take long: attempts that wait for them, their handlers in lanes, and what those yield."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial

from wechat.delivery.answering import Answer, Answering, Push
from wechat.delivery.entries import READY, UNDER_WAY, Entry
from wechat.delivery.lanes import Lanes, Task
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.errors import Unreadable
from wechat.message import label
from wechat.packing import Pieces, join
from wechat.protocol.envelope import Clock
from wechat.reply import Reply, Text
from wechat.settings import Settings
from wechat.texts import Texts
from wechat.trouble import troubles
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.2  # seconds between two looks whether it is a message's turn
FOLLOW_UP_AFTER = 1.0  # seconds by which the rest of a long text follows its beginning
FOLLOW_UP_AFTER_CRASH = 6.0  # the same where the beginning may not have arrived: WeChat asks for that after 5
MOST_PIECES = 5  # customer messages of a handler that yields; the last one has what is left over
CROWDED = "three quarters of WECHAT_THREADS wait for slow handlers: no further attempt is held"
SUSPECT, SUSPECTS = 2, "suspects"  # starts from which on messages are started one by one, and the lane for that
ALONE, LEAST_ALONE = 1.0, 0.05  # seconds that a suspect lives before the next one follows
LOOK_AT_SUSPECT = 0.02  # seconds between two looks
ALL_ALONE = 10.0  # seconds for all of them together, where that leaves each one enough


class Crowd:
    """How many attempts are held open, which leaves workers for other messages.

    Three quarters of the workers are for one attempt of each user; an eighth for all others of theirs, so that nobody
    makes it crowded for another. An attempt that WeChat has left does not count.
    """

    def __init__(self, workers: int, world: World) -> None:
        self._most_users, self._most_others = workers * 3 // 4, workers // 8
        self._lock = world.lock()
        self._held, self._troubles = list[str](), troubles(world)  # the user of each attempt

    def __len__(self) -> int:
        return len(self._held)

    @contextmanager
    def join(self, openid: str) -> Iterator[bool]:
        """Whether there is room for an attempt of the user inside the block."""
        with self._lock:
            users = len(set(self._held))
            others = len(self._held) - users
            has_room = others < self._most_others if openid in self._held else users < self._most_users
            if has_room:
                self._held.append(openid)
        if users >= self._most_users:
            self._troubles.note(CROWDED)
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._held.remove(openid)


class Runner(ABC):
    """Has messages answered that may take long; what `Delivery` does with every answer is declared here."""

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        ledger: Ledger,
        outbox: Outbox,
        clock: Clock,
        world: World = REAL,
    ) -> None:
        self._settings, self._clock, self._world, self.troubles = settings, clock, world, troubles(world)
        self._answering, self._ledger, self._outbox, self._sessions = answering, ledger, outbox, answering.sessions
        outbox.texts = lambda: self.texts
        self.lanes = Lanes(settings.slow_threads, "slow", world, settings.waiting_per_user, settings.waiting)
        self.crowd = Crowd(settings.threads, world)
        self._suspects, self._most_suspects = set[str](), 0  # keys; and the most at once, since there were none

    def begin(self) -> None:
        """Begin anew in a process that was forked, which has none of its parent's threads."""
        self.crowd = Crowd(self._settings.threads, self._world)
        for part in (self._answering, self.lanes, self._outbox.lanes, self._outbox.typists):
            part.begin()

    def is_idle(self) -> bool:
        """Whether nothing is under way; that somebody types is nothing to wait for."""
        return not (len(self.lanes) or len(self._outbox.lanes))

    def close(self) -> None:
        """Wait for what is under way."""
        for part in (self.lanes, self._outbox.lanes, self._outbox.typists, self._answering):
            part.close()

    @abstractmethod
    def do(self, entry: Entry, push: Push) -> float | None:
        """Answer the message; whatever goes wrong, it ends, for others wait for it. LATER where one awaits."""

    @abstractmethod
    def note(self, entry: Entry, push: Push, answer: Answer, further: Sequence[Entry] = ()) -> None:
        """Note the answer and the further replies, and send what of it is not direct."""

    @abstractmethod
    def first(self, push: Push, reply: Reply | None, is_more: bool, is_due: bool) -> tuple[bytes, Reply | None]:
        """The document that is the direct answer, and what of the reply follows it another way.

        `is_more` says that something waits behind it, `is_due` that the user has to be told of another reply.
        """

    @property
    def texts(self) -> Texts:
        """What the server itself says."""
        return self._answering.router.texts

    def do_in_lane(self, entry: Entry, push: Push) -> None:
        """Answer the message once its user's lane has come to it, or at once where too many wait already."""
        task = partial(self._take_turn, entry, push)
        self._sessions.line_up(push.wants)
        if entry.record.starts >= SUSPECT:
            self._suspects.add(entry.key)
            self._most_suspects = max(self._most_suspects, len(self._suspects))
            self.lanes.submit(SUSPECTS, partial(self._start_alone, entry, push.openid, task, []), is_resumed=True)
        elif not self.lanes.submit(push.openid, task, is_resumed=entry.record.starts > 0):
            self._sessions.leave(push.wants)
            self.note(entry, push, self._answering.turn_away(push))

    def _start_alone(self, entry: Entry, lane: str, task: Task, ends: list[float]) -> float | None:
        """Have a task done that may end the process; the next such follows once it is over, or has had a moment.

        So whichever ends the process is the last that was started; the start of each one before it is forgiven.
        """
        now = self._world.monotonic()
        if not ends:
            self.lanes.submit(lane, task, is_resumed=True)
            ends.append(now + min(ALONE, max(LEAST_ALONE, ALL_ALONE / (self._most_suspects or 1))))
        if entry.record.state in UNDER_WAY and now < ends[0]:
            return LOOK_AT_SUSPECT
        self._suspects.discard(entry.key)
        if not self._suspects:
            self._most_suspects = 0
        elif entry.record.state in UNDER_WAY:
            self._ledger.forgive(entry)
        return None

    def _take_turn(self, entry: Entry, push: Push) -> float | None:
        """Answer the message, once it has its user's session; gives the seconds until the next look whether it has."""
        if push.wants and not (push.call or self.lanes.is_closing):
            push.ticket = self._sessions.take_turn(push.wants)
            if not push.ticket:
                return min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (self._world.monotonic() - push.started) / 4))
        try:
            if not (push.call or self._ledger.start(entry)):
                return None
            entry.pieces = entry.pieces if push.call else None  # those of an earlier run do not count
            return self._do_limited(entry, push)
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

    def look_after(self) -> None:
        """Go on with what processes that died have promised; raises StoreError."""
        self._outbox.look()
        self._sessions.look_after()
        for entry in self._ledger.abandoned():
            if entry.record.state == READY:
                self._outbox.deliver(entry, FOLLOW_UP_AFTER_CRASH if entry.record.document else 0.0)
            else:
                self._take_over(entry)

    def _take_over(self, entry: Entry) -> None:
        try:
            push = self._answering.read(entry.record.content.encode(), self._world.monotonic())
        except Unreadable:  # of another version
            self._outbox.end_without_reply(entry)
            return
        logger.info(f"{label(push.message)}: taken over from a process that died")
        self.do_in_lane(entry, push)

    # What a handler yields

    def _give(self, entry: Entry, push: Push, reply: Reply) -> None:
        """Give a reply before the handler has ended: as the direct answer, or as a customer message."""
        entry.pieces = pieces = entry.pieces or Pieces(self._world.lock())
        with pieces.lock:
            pieces.left.append(reply)
            if self._outbox.can_push() and pieces.number < MOST_PIECES - 1 and not pieces.is_torn:
                self._give_ready(entry, push, pieces, is_more=False)

    def give_ready(self, entry: Entry, push: Push) -> None:
        """Give what there is as the direct answer, where no customer messages can be sent; the rest waits for 继续."""
        if pieces := entry.pieces:
            with pieces.lock:
                if pieces.left and entry.is_running:
                    self._give_ready(entry, push, pieces, is_more=True)

    def _give_ready(self, entry: Entry, push: Push, pieces: Pieces, is_more: bool) -> None:
        replies = join(pieces.left)
        entry.note(Answer(push.answerer, replies[0]))
        if entry.is_running:
            is_due = self._outbox.is_due(push.openid)
            document, rest = self.first(push, replies[0], is_more, is_due)
            if self._ledger.promise(entry, push.text, is_more, document).document and document:
                if is_due and isinstance(replies[0], Text):
                    self._outbox.note_told(push.openid)
                replies[:1] = [rest] if rest else []
                pieces.next_at = self._world.monotonic() + FOLLOW_UP_AFTER
        pieces.left = replies if is_more else []
        for further in () if is_more else self._further(entry, push, replies, pieces):
            if self._ledger.add(entry, further):
                self._outbox.deliver(further, pieces.after(self._world.monotonic()))
            else:
                pieces.is_torn = True

    def end_pieces(self, entry: Entry, push: Push, answer: Answer, pieces: Pieces) -> None:
        """End the message with what its handler yielded last; not where others had it meanwhile, and it begins anew."""
        if pieces.is_torn:
            return
        replies, pieces.left = join([*pieces.left, *([answer.reply] if answer.reply else [])]), []
        # The message's own record is the first of all replies to it: what follows others cannot stand in it.
        own = replies.pop(0) if replies and not pieces.number else None
        self.note(entry, push, Answer(answer.handler, own), self._further(entry, push, replies, pieces))

    def _further(self, entry: Entry, push: Push, replies: list[Reply], pieces: Pieces) -> list[Entry]:
        for late in (reply for reply in replies if reply.is_direct):
            say_too_late(Answer(push.answerer, late), push)
        made = self._ledger.further(entry, [each for each in replies if not each.is_direct], pieces.number + 1)
        pieces.number += len(made)
        for further in made:
            further.handler, further.msg_id = push.answerer, push.message.get("MsgId", "")
        return made


def say_too_late(answer: Answer, push: Push) -> None:
    """Log that the reply cannot be given any more."""
    said = "%s on %s: a %s reply can only be the direct answer, and it is too late"
    logger.error(said, answer.handler, label(push.message), answer.kind)
