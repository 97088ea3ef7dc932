"""Faults that the project once had, or nearly, put in one at a time: the simulation has to find each."""

from dataclasses import replace

from tests.simulation.process import Parts
from wechat.delivery.answering import Answering
from wechat.delivery.delivery import Delivery
from wechat.delivery.entries import READY
from wechat.delivery.lanes import Lanes
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.delivery.sessions import Sessions
from wechat.platform.access_token import LOCK_KEY
from wechat.store.owners import LIFE, Owners
from wechat.store.writes import Change
from wechat.texts import Texts


class DirectAndPushed(Parts):
    """The end of a run does not look whether the answer was promised: it is given directly, and pushed."""

    class Ledger(Ledger):
        def end(self, entry, document, rest, whole, further=()):
            state = super().end(entry, document, rest, whole, further)
            if entry.record.state == READY and not entry.record.document:
                self._move(entry, (READY,), None, document=document)
            return state


class WithoutLimit(Parts):
    """A message that ends its process is run again at every start."""

    class Ledger(Ledger):
        def start(self, entry):
            is_mine = super().start(entry)
            if is_mine:
                entry.record = replace(entry.record, starts=1)
            return is_mine


class LockWithoutOwner(Parts):
    """The lock on the token lasts until it ends by itself, whoever died with it."""

    class Owners(Owners):
        def take(self, key, ttl, ticket=""):
            if key != LOCK_KEY:
                return super().take(key, ttl, ticket)
            return self._store.add(key, f"{self.me} {ticket}", ttl)


class ByTheWallClock(Parts):
    """A sign of life is the time, by the clock of the one who shows it; the others hold it against their own."""

    class Owners(Owners):
        def show_life(self):
            self._store.swap(Change(f"alive:{self.me}", ..., str(self.clock()), 3600, link=("owners",)))

        def is_dead(self, owner):
            if owner == self.me or self._identity.has_ended(owner):
                return owner != self.me
            shown = self._store.get(f"alive:{owner}")
            return shown is None or float(shown.partition(" ")[0] or 0) < self.clock() - LIFE


class WithoutFence(Parts):
    """Whoever once had a reply sends it, whoever has it now."""

    class Ledger(Ledger):
        def send(self, entry):
            entry.record = replace(entry.record, is_sending=True)
            return True


class TakenOutFirst(Parts):
    """继续 takes the reply out of the store, and then gives it."""

    class Ledger(Ledger):
        def fetch(self, entry, waiting, seen, document, rest):
            left = replace(seen.ended(seen.document, rest), owner="")
            with waiting.lock:
                is_taken = waiting.record is seen and self._settle(waiting, left)
            return is_taken and bool(self.end(entry, document, None, None))


class StoreOnTheLoop(Parts):
    """What an async handler has put into its session is saved on the loop."""

    class Answering(Answering):
        def start(self, call, done, key):
            def save(key):
                if call._is_done:
                    call.held.__exit__(None, None, None)
                done(key)

            super().start(call, save, key)


def with_lanes(**other):
    """A delivery whose lanes have these attributes."""

    class Other(Delivery):
        def __init__(self, *parts):
            super().__init__(*parts)
            self.lanes.__class__ = type("Other", (Lanes,), other)

    return Other


def submit_first(self, lane, task, *details, **more):
    is_taken = Lanes.submit(self, lane, task, *details, **more)
    jobs = self._lanes.get(lane, [])
    if is_taken and len(jobs) > 2:
        jobs.insert(1, jobs.pop())
    return is_taken


class LastInFirstOut(Parts):
    """The message that came last is the next one of its lane."""

    Delivery = with_lanes(submit=submit_first)


class OneLaneForAll(Parts):
    """Users wait for one another."""

    Delivery = with_lanes(
        submit=lambda self, _, *task, **more: Lanes.submit(self, "all", *task, **more),
        resume=lambda self, _: Lanes.resume(self, "all"),
        limit=lambda self, _, *limit: Lanes.limit(self, "all", *limit),
    )


class NoneMayWait(Parts):
    """A message is turned away as soon as another one of its user runs."""

    Delivery = with_lanes(_most_waiting=property(lambda self: 0, lambda self, value: None))


class WaitingHoldsAThread(Parts):
    """A message that waits for its user's session keeps a thread meanwhile."""

    class Sessions(Sessions):
        def take_turn(self, openid):
            while not (ticket := super().take_turn(openid)):
                self._owners._world.sleep(0.1)
            return ticket


class WithoutAWord(Parts):
    """Nobody notes that a reply waits of which its user knows nothing."""

    class Outbox(Outbox):
        def _notice(self, entry):
            return ()


class SilencedByAnOutage(Parts):
    """What could not be sent three times is never sent."""

    class Outbox(Outbox):
        def _note(self, entry, reply, error):
            again = super()._note(entry, reply, error)
            if entry.tries < 3:
                return again
            self._ledger.sent(entry, None)
            return None


class PromisedWhileClosed(Parts):
    """An answer is promised as a customer message while none can be sent."""

    class Outbox(Outbox):
        def can_push(self, since=0.0):
            return self._has_credentials


class InWhateverOrder(Parts):
    """What is to be sent to a user is sent by whichever threads are free."""

    class Outbox(Outbox):
        def deliver(self, entry, after=0.0):
            entry.tries, entry.ends = 0, self._world.monotonic() + 3600
            self.lanes.submit(entry.key, lambda: self._go_on(entry), after)


class EndedBeforeTheRest(Parts):
    """The end of a message is noted, and then what its handler has yielded last."""

    class Ledger(Ledger):
        def end(self, entry, document, rest, whole, further=()):
            state = super().end(entry, document, rest, whole)
            for each in further if state else ():
                self.add(entry, each)
            return state


class EndsBlindly(Parts):
    """Each end goes along with another write, and takes the place of whatever another process wrote meanwhile."""

    class Ledger(Ledger):
        def end(self, entry, *parts):
            entry.is_quick = True
            return super().end(entry, *parts)

        def _end_soon(self, entry, after, whole):
            change = self._change(entry, after)
            self._put(entry, after)
            self._store.swap_soon(change._replace(old=...), lambda: None)


class UsualWords(Parts):
    """The server says its own words, whatever the account's are."""

    class Delivery(Delivery):
        texts = Texts()


OLD_FAULTS = (
    *(DirectAndPushed, WithoutLimit, LockWithoutOwner, ByTheWallClock, WithoutFence, TakenOutFirst),
    *(StoreOnTheLoop, LastInFirstOut, OneLaneForAll, NoneMayWait, WaitingHoldsAThread, WithoutAWord),
    *(SilencedByAnOutage, PromisedWhileClosed, InWhateverOrder, EndedBeforeTheRest, UsualWords, EndsBlindly),
)
