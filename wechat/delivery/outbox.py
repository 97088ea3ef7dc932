"""Replies on their way to users as customer messages, or waiting for 继续 where the platform does not take them."""

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from wechat.delivery.answering import NEXT, Answer
from wechat.delivery.entries import DONE, PROMISED, READY, RUNNING, Entry, Record
from wechat.delivery.lanes import Lanes
from wechat.delivery.ledger import Ledger
from wechat.errors import ApiError, StoreError, TransportError
from wechat.log import log_error
from wechat.packing import unpack
from wechat.platform.api import BUSY, Api
from wechat.platform.pushing import Pushing
from wechat.reply import TEXT_LIMIT, Reply, Text, is_long, split_text
from wechat.settings import Settings
from wechat.store.base import Store
from wechat.store.writes import Change
from wechat.texts import Texts
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

MOST_PARTS = 5  # customer messages that a user can get before writing again
SENDERS, TYPISTS = 16, 8  # threads; what is typing never stands in front of an answer
PAUSES = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0)  # seconds before the next try; then always the last
LONGEST = 86_400.0  # seconds for which it is tried
IN_VAIN = 10.0  # seconds of that after which the user is told to ask
KEPT = "replies wait for 继续, as no customer messages are sent"
UNTOLD = "untold"  # the index of who is to be told
NOTHING = Text("")  # a handler said nothing: who asks by 继续 is told so, it is not sent

# What a Mini Program can show, of the replies there are.
# https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/kf-mgnt/kf-message/sendCustomMessage.html
MINIPROGRAM_KINDS = ("text", "image")

First = Callable[..., tuple[bytes, Reply | None]]  # from a reply to its document, and what of it follows another way


class Outbox:
    """Sends what is ready by customer messages, a user's in order; what is refused waits for 继续."""

    def __init__(self, settings: Settings, api: Api, ledger: Ledger, store: Store, world: World = REAL) -> None:
        self._has_credentials = settings.may_call
        self._is_miniprogram = settings.account == "miniprogram"
        self._api, self._ledger, self._world = api, ledger, world
        self._pushing = Pushing(store, world)
        self._store = store
        self.texts: Callable[[], Texts] = Texts  # the account's own, once there is one who answers
        self.untold: set[str] = set()  # the users of whom this process knows that they wait without knowing
        self.lanes, self.typists = Lanes(SENDERS, "send", world), Lanes(TYPISTS, "typing", world)

    def can_push(self, since: float = -math.inf) -> bool:
        """Whether a reply may go out as a customer message; with `since`, whether a call has shown that since then."""
        if not self._has_credentials or self._is_miniprogram:  # which has no other way
            return self._has_credentials
        return not self._pushing.is_closed() and self._pushing.has_worked_since(since)

    def show_typing(self, entry: Entry) -> threading.Event:
        """Let the user see that an answer is being written, if the platform will; the event says that this is known."""
        is_known = self._world.event()

        def task() -> None:
            try:
                if entry.record.state not in (READY, DONE) and self.can_push():
                    self._type(entry.record.openid)
            finally:
                is_known.set()

        if self.can_push():
            self.typists.submit(entry.record.openid, task)
        else:
            is_known.set()
        return is_known

    def deliver(self, entry: Entry, after: float = 0.0) -> None:
        """Have the reply of a message that is ready sent, `after` so many seconds, or kept for 继续."""
        entry.tries, entry.ends = 0, self._world.monotonic() + LONGEST
        self.lanes.submit(entry.record.openid, lambda: self._go_on(entry), 0.0 if self._is_refused() else after)

    def _type(self, openid: str) -> None:
        began = self._world.monotonic()
        try:
            self._api.typing(openid)
            self._pushing.worked(began)
        except ApiError as error:
            logger.info("typing is not shown: %s", error)
            self._note_why(error, began)

    def _note_why(self, error: Exception, began: float) -> None:
        if not self._is_miniprogram:
            self._pushing.failed(error, began)

    def _is_refused(self) -> bool:
        """Whether sending is in vain, so that a reply has to wait for 继续."""
        return not (self._has_credentials and (self._is_miniprogram or not self._pushing.is_refused()))

    def _go_on(self, entry: Entry) -> float | None:
        """Send what is left, part by part; gives the seconds until the next try, where one may help."""
        while reply := self._claim(entry):
            first, rest = self._next_part(entry, reply)
            began = self._world.monotonic()
            try:
                self._api.send_message(entry.record.openid, first)
            except Exception as error:
                self._note_why(error, began)
                return self._note(entry, reply, error)
            self._pushing.worked(began)
            entry.parts += 1
            if self._ledger.sent(entry, rest) and not rest:
                self._log(entry, reply, "pushed")
            elif rest and self._is_last(entry.parts):
                entry.is_told = True
                self._keep(entry, rest)
        return None

    def _next_part(self, entry: Entry, reply: Reply) -> tuple[dict[str, Any], Reply | None]:
        """The next customer message of the reply, and what is left; the last one that goes out says `more`."""
        first, *others = reply.customer_messages()
        if not others:
            return first, None
        more = f"\n\n{self.texts().more}" if self._is_last(entry.parts + 1) else ""
        if more and isinstance(reply, Text):
            piece, *left = split_text(reply.content, TEXT_LIMIT - len(more.encode()))
            return Text(piece + more).customer_messages()[0], Text("".join(left))
        return first, Text("".join(later["text"]["content"] for later in others))

    def _is_last(self, parts: int) -> bool:
        return parts == MOST_PARTS and not self._is_miniprogram

    def _claim(self, entry: Entry) -> Reply | None:
        """What is left to send, once it is claimed; None where there is nothing, or it goes another way."""
        reply = unpack(entry.record.reply) if entry.record.state == READY else None
        if not reply:
            return None
        if self._is_miniprogram and reply.kind not in MINIPROGRAM_KINDS:
            logger.error("%s: Mini Programs have no %s reply, it is dropped", entry.label, reply.kind)
            self._ledger.sent(entry, None)
        elif self._is_refused() or (reply == NOTHING and entry.record.is_told):
            self._keep(entry, reply)
        elif reply == NOTHING:
            self._ledger.sent(entry, None)
        elif self._ledger.send(entry):
            return unpack(entry.record.reply)  # the whole, where its beginning turns out to have been too late
        return None

    def _note(self, entry: Entry, reply: Reply, error: Exception) -> float | None:
        """Whatever went wrong, the reply is tried again, waits for 继续, or is said to be lost."""
        said = f"the {reply.kind} reply of {entry.label}"
        is_passing = isinstance(error, TransportError) or getattr(error, "errcode", 0) == BUSY
        if is_passing and self._world.monotonic() < entry.ends:
            self._ledger.unsent(entry)
            entry.tries += 1
            if self._world.monotonic() > entry.ends - LONGEST + IN_VAIN:
                self._note_untold(entry)
            self._store.troubles.note("replies are tried again", f": {said}: {error}")
            return PAUSES[min(entry.tries, len(PAUSES)) - 1]
        if isinstance(error, ApiError):
            cause = f"replies are not sent, errcode {getattr(error, 'errcode', '-')}"
            self._store.troubles.note(cause, f": {said}: {error}", level=logging.ERROR)
        else:
            log_error(logger, f"{said} was not sent", error)
        self._keep(entry, reply)
        return None

    def _keep(self, entry: Entry, reply: Reply) -> None:
        if self._is_miniprogram:  # which has no passive reply to a 继续
            self._ledger.sent(entry, None)
            self._log(entry, reply, "lost")
            return
        notice = self._notice(entry)
        if self._ledger.keep(entry, *notice):  # in one step: nobody goes on with what is kept
            self.untold.update([entry.record.openid] if notice else [])
            self._log(entry, reply, "kept")
            if self._has_credentials and reply != NOTHING and self._is_refused():
                self._store.troubles.note(KEPT, f": the {reply.kind} reply of {entry.label}")

    # 继续

    def end_without_reply(self, entry: Entry) -> None:
        """End the message, so that nobody waits for it any more."""
        if self._ledger.end(entry, b"", None, NOTHING) == PROMISED:
            self.deliver(entry)

    def answer_continue(self, entry: Entry, openid: str, first: First) -> bool:
        """Answer 继续, before any handler, while there is something of the user's. Whether there was."""
        is_said = False
        try:
            while entry.is_running:
                others = [other for other in self._ledger.open_of(openid) if other.key != entry.key]
                if not others and not self._ledger.is_running(openid, entry):
                    return False
                waiting = [(other, seen) for other in others if (seen := other.record).state == READY]
                not_ready = Text(self.texts().not_ready)
                entry.note(Answer(NEXT, not_ready))
                if not waiting or waiting[0][1].is_sending:  # what is behind that follows it
                    is_said = self._ledger.end(entry, first(not_ready)[0], None, None) == RUNNING
                elif is_said := self._fetch(entry, *waiting[0], len(waiting) > 1, first):
                    break
        except StoreError as error:
            self._store.troubles.note("what waits for 继续 cannot be fetched", f": {error}")
            return False
        self.end_without_reply(entry)  # one that was promised takes nothing: its user asks again
        if is_said:  # last: where this process ends before, the next text says so
            self.note_told(openid)
        return True

    def _fetch(self, entry: Entry, waiting: Entry, seen: Record, is_more: bool, first: First) -> bool:
        reply = unpack(seen.reply)
        if reply == NOTHING:
            reply = Text(self.texts().nothing)
        entry.note(Answer(NEXT, reply))
        is_more = is_more or (isinstance(reply, Text) and is_long(reply))  # the rest waits, too
        return self._ledger.fetch(entry, waiting, seen, *first(reply, is_more))

    # Who waits without knowing

    def look(self) -> None:
        """Know what other processes have noted; raises StoreError."""
        self._pushing.look()
        self.untold = {key.removeprefix(f"{UNTOLD}:") for key in self._store.linked(UNTOLD)}

    def is_due(self, openid: str) -> bool:
        """Whether the user waits for a reply without knowing; what was fetched or sent meanwhile is forgotten."""
        if openid not in self.untold:
            return False
        try:
            is_noted = self._store.get(f"{UNTOLD}:{openid}") is not None
            waiting = [entry.record for entry in self._ledger.open_of(openid) if entry.record.state == READY]
        except StoreError as error:
            self._store.troubles.note("a user is not told that a reply waits", f": {error}")
            return False
        if not (is_noted and waiting):
            self.note_told(openid)
        return is_noted and not all(record.is_sending for record in waiting)

    def note_told(self, openid: str) -> None:
        """Note that the user knows that replies wait."""
        if openid in self.untold:
            self.untold.discard(openid)
            change = Change(f"{UNTOLD}:{openid}", ..., None, unlink=(UNTOLD,))
            self._store.ask("a user is told twice that a reply waits", False, self._store.swap, change)

    def _note_untold(self, entry: Entry) -> None:
        if notice := self._notice(entry):
            self._store.ask("only this process tells a user that a reply waits", False, self._store.swap, *notice)
            self.untold.add(entry.record.openid)

    def _notice(self, entry: Entry) -> tuple[Change, ...]:
        """What tells all processes that the user waits without knowing, where that is so."""
        if entry.is_told or entry.record.is_told or self._is_miniprogram:
            return ()
        return (Change(f"{UNTOLD}:{entry.record.openid}", ..., "1", LONGEST, link=(UNTOLD,)),)

    def _log(self, entry: Entry, reply: Reply, how: str) -> None:
        logger.info(f"{reply.kind} of {entry.label}: {how}")
