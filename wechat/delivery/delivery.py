"""One message, one run, one reply, whichever attempt is open.

WeChat hangs up after 5 s and sends the same bytes again, three times at most. What it hears is decided here.
https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

from wechat.delivery.answering import NEXT, NOBODY, Answering, Push
from wechat.delivery.entries import READY, Entry
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.delivery.runner import Runner
from wechat.errors import Unreadable
from wechat.log import note
from wechat.message import delivery_key, kind_of, label
from wechat.protocol.envelope import Clock
from wechat.reply import Text
from wechat.routing import DEFAULT, describe
from wechat.settings import Settings
from wechat.workers import standing_aside
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

TYPING_AT = 2 / 3  # of WECHAT_REPLY_WITHIN; so it is known whether customer messages are closed before it is over
SPARE = 0.3  # seconds past WECHAT_REPLY_WITHIN that the platform gets for that
OPEN_FOR = 600.0  # seconds for which a crowd counts on a call that worked
GRACE = 1.5  # seconds past WECHAT_REPLY_WITHIN, so that WeChat hangs up and asks again
HUNG_UP_AT = 0.4  # of that
LAST_ATTEMPT = 3
DIRECT = ""  # in the log: with this attempt, the first or a later one
BEHIND_A_CRASH = 6.0  # seconds after which the rest of a long text follows its beginning: WeChat asks for that after 5


class Crowd:
    """How many attempts are held open, which leaves workers for other messages.

    Three quarters of the workers are for one attempt of each user; an eighth for all others of theirs, so that nobody
    makes it crowded for another. An attempt that WeChat has left does not count.
    """

    def __init__(self, workers: int, world: World) -> None:
        self._most_users, self._most_others = workers * 3 // 4, workers // 8
        self._lock = world.lock()
        self._held: dict[str, int] = {}  # for each user

    def __len__(self) -> int:
        return sum(self._held.values())

    @contextmanager
    def join(self, openid: str) -> Iterator[bool]:
        """Whether there is room for an attempt of the user inside the block."""
        with self._lock:
            held, users = self._held.get(openid, 0), len(self._held)
            has_room = len(self) - users < self._most_others if held else users < self._most_users
            if has_room:
                self._held[openid] = held + 1
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._held[openid] -= 1
                    if not self._held[openid]:
                        del self._held[openid]


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
        self._workers = settings.threads
        self._answering, self._ledger, self._outbox = answering, ledger, outbox
        self._world = world
        self._runner = Runner(settings, answering, ledger, outbox, clock, world)
        self._lanes = self._runner.lanes, outbox.lanes, outbox.typists
        self.crowd = Crowd(self._workers, world)

    def begin(self) -> None:
        """Begin anew in a process that was forked, which has none of its parent's threads."""
        self.crowd = Crowd(self._workers, self._world)
        self._answering.begin()
        for lanes in self._lanes:
            lanes.begin()

    def answer(self, content: bytes) -> bytes:
        """The document that answers this attempt at the message, or nothing for `success`; raises Unreadable."""
        push = self._answering.read(content, self._world.monotonic())
        is_slow = self._answering.may_take_long(push) and not self._runner.is_continue(push)
        entry, is_ours = self._ledger.begin(delivery_key(push.message, content), push.openid, is_slow)
        try:
            attempt = entry.record.attempts
            if is_ours and not is_slow and (attempt == 1 or self._ledger.start(entry)):
                self._runner.do(entry, push)
                if not entry.is_running:  # a fast handler may have handed the message on to a slow one
                    return self._log(push, entry, attempt, DIRECT, entry.record.document)
            elif is_ours:
                self._runner.do_in_lane(entry, push)
            return self._await(entry, push, attempt)
        finally:
            self._ledger.leave(entry)

    def look_after(self) -> None:
        """Go on with what processes that died have promised; raises StoreError."""
        self._outbox.look()
        for entry in self._ledger.abandoned():
            if entry.record.state == READY:
                self._outbox.deliver(entry, BEHIND_A_CRASH if entry.record.document else 0.0)
            else:
                self._take_over(entry)

    def _take_over(self, entry: Entry) -> None:
        try:
            push = self._answering.read(entry.record.content.encode(), self._world.monotonic())
        except Unreadable:  # of another version
            self._runner.end_without_reply(entry)
            return
        logger.info(f"{label(push.message)}: taken over from a process that died")
        self._runner.do_in_lane(entry, push)

    def is_idle(self) -> bool:
        """Whether nothing is under way; that somebody types is nothing to wait for."""
        return not (len(self._runner.lanes) or len(self._outbox.lanes))

    def close(self) -> None:
        """Wait for what is under way."""
        for lanes in self._lanes:
            lanes.close()
        self._answering.close()

    def _await(self, entry: Entry, push: Push, attempt: int) -> bytes:
        """The document, or what is said when it is not ready in time."""
        with self.crowd.join(push.openid) as has_room:
            is_last = not has_room or attempt >= LAST_ATTEMPT
            self._hold_and_show(entry, push, self._within if has_room else 0.0, 0.0 if is_last else SPARE)
        if not (entry.is_running or entry.record.is_late):
            return self._log(push, entry, attempt, DIRECT, entry.record.document)
        since = push.started if has_room else self._world.monotonic() - OPEN_FOR
        if self._outbox.can_push(-math.inf if entry.record.is_late else since):
            return self._promise(entry, push, attempt, b"")
        if is_last or entry.record.is_late:
            self._runner.give_ready(entry, push)
            waiting = Text(self._runner.texts.waiting)
            return self._promise(entry, push, attempt, self._runner.to_xml(waiting, push.message))
        # Until WeChat hangs up, one that came later may be an earlier one, of a process that stood still.
        is_over = self._hold(entry, push, GRACE * HUNG_UP_AT) or self._hold(
            entry, push, GRACE * (1 - HUNG_UP_AT), attempt
        )
        if is_over or entry.record.attempts > attempt:
            return self._log(push, entry, attempt, "too late", entry.record.document)
        return self._promise(entry, push, attempt, b"")

    def _hold_and_show(self, entry: Entry, push: Push, seconds: float, spare: float) -> None:
        """Hold the attempt open, and let its user see meanwhile that an answer is being written."""
        if not self._hold(entry, push, seconds * TYPING_AT):
            is_known = self._outbox.show_typing(entry)
            if not self._hold(entry, push, seconds * (1 - TYPING_AT)):
                is_known.wait(spare)

    def _hold(self, entry: Entry, push: Push, seconds: float, attempt: float = math.inf) -> bool:
        """Hold the attempt open, up to so many seconds. Whether the message is answered or promised.

        With its number, it is held until WeChat asks again.
        """
        end = self._world.monotonic() + seconds
        with standing_aside():
            while entry.is_running and entry.record.attempts <= attempt and (left := end - self._world.monotonic()) > 0:
                if self._ledger.wait(entry, left):
                    self._runner.do_in_lane(entry, push)
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
            found = push.found
            handler = entry.handler or (found.handler.name if found else NOBODY.handler)
            hint = ""
            if handler != NEXT and (not found or found.handler.path in ((), DEFAULT)):
                hint = f"; to answer these: @on({describe(kind_of(push.message).split('/'))})"
            tries = f" at attempt {attempt}" if attempt > 1 else ""
            how = (how or ("direct" if attempt == 1 else "retry")) if document or entry.kind == NOBODY.kind else "later"
            said = f"{entry.kind}, {how}{tries}, {milliseconds:.1f} ms{hint}"
            note(logger, f"{label(push.message)} -> {handler}: {said}")
        return document
