"""Faults that the project once had, put back one at a time: the simulation has to find each."""

from dataclasses import replace

from tests.simulation.process import Parts
from wechat.delivery.entries import READY
from wechat.delivery.ledger import Ledger
from wechat.platform.access_token import LOCK_KEY
from wechat.store.base import Change
from wechat.store.owners import LIFE, Owners


class DirectAndPushed(Parts):
    """The end of a run does not look whether the answer was promised: it is given directly, and pushed."""

    class Ledger(Ledger):
        def end(self, entry, document, rest, whole):
            state = super().end(entry, document, rest, whole)
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


class EndsBlindly(Parts):
    """The end that goes along with another write takes the place of whatever another process wrote meanwhile."""

    class Ledger(Ledger):
        def _end_soon(self, entry, after, whole):
            (change,) = self._changes(entry, after)
            self._put(entry, after)
            self._store.swap_soon(change._replace(old=...), lambda: None)


OLD_FAULTS = (EndsBlindly, DirectAndPushed, WithoutLimit, LockWithoutOwner, ByTheWallClock, WithoutFence, TakenOutFirst)
