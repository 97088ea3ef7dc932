"""Whether customer messages can be sent just now, as the calls that were made have shown."""

import math

from wechat.errors import TransportError, WeChatError
from wechat.store.base import Store
from wechat.store.writes import Change
from wechat.world import World

KEY, SAID_KEY = "no-push", "no-push:said"  # why it is closed, and which reason stands in the log
AWAY, AWAY_FOR = "away", 30.0  # seconds
SAID_FOR = 86_400.0  # seconds
CLOSED = "no customer messages for %d s, slow replies wait for 继续"
# Errcodes that are about the account and not about one user or message, and the seconds for which they close it.
CLOSED_FOR = {
    48001: 3600.0,
    **dict.fromkeys((40164, 40125, 40013, 40243, 41001, 50007, 85107, 85113, 89503, 45009, 50004), 600.0),
}
# Refusals that show that the account may: the user has not written for too long, was sent too much, or sees it typing.
ABOUT_ONE_USER = frozenset({45015, 45047, 45080, 45081})


class Pushing:
    """Closed by a refusal of the account, or while the platform is away; the first call that works opens it.

    The store lets all processes know; while it does not answer, this process goes by what it saw last.
    """

    def __init__(self, store: Store, world: World) -> None:
        self._store, self._world = store, world
        self._said = ""  # the trouble that this process has logged
        self._seen: str | None = None
        self._closed_at: float | None = None  # since no call has worked
        self._worked_at = -math.inf

    def is_closed(self) -> bool:
        """Whether no call is to be tried."""
        return self._why() is not None

    def is_refused(self) -> bool:
        """Whether it is closed by a refusal, so that trying again is in vain."""
        return self._why() not in (None, AWAY)

    def has_worked_since(self, moment: float) -> bool:
        """Whether a call of this process has worked since then."""
        return self._worked_at >= moment

    def worked(self, began: float) -> None:
        """Note that a call worked. One that began before it was closed says nothing."""
        if self._closed_at is not None and began > self._closed_at:
            self._closed_at = self._seen = None
            changes = Change(KEY, ..., None), Change(SAID_KEY, ..., None)
            self._store.ask("customer messages stay closed", True, self._store.swap, *changes)
            self._store.troubles.end(self._said)
        if self._closed_at is None:
            self._worked_at = self._world.monotonic()

    def failed(self, error: Exception, began: float) -> None:
        """Note why a call did not work, and close where that is not about one message alone."""
        errcode = error.errcode if isinstance(error, WeChatError) else 0
        reason, seconds = str(errcode), CLOSED_FOR.get(errcode, 0.0)
        if isinstance(error, TransportError) and not self.is_refused():
            reason, seconds = AWAY, AWAY_FOR
        if errcode in ABOUT_ONE_USER:
            self.worked(began)
        if not seconds:
            return
        self._see(reason)
        said = self._store.ask("what closed customer messages is said again", None, self._store.get, SAID_KEY)
        changes = Change(KEY, ..., reason, seconds), Change(SAID_KEY, said, reason, SAID_FOR)
        is_first = self._store.ask("other processes go on sending customer messages", True, self._store.swap, *changes)
        if is_first and said != reason:
            self._store.troubles.end(self._said)
            self._said = CLOSED % seconds
            self._store.troubles.note(self._said, f": {error}", math.inf)

    def look(self) -> None:
        """Note whether another process has opened it; raises StoreError."""
        if self._said and self._store.get(SAID_KEY) is None:
            self._store.troubles.end(self._said)
            self._said = ""

    def _why(self) -> str | None:
        why = self._store.ask("whether customer messages are closed is not known", self._seen, self._store.get, KEY)
        self._see(why)
        return why

    def _see(self, why: str | None) -> None:
        self._seen = why
        if why and self._closed_at is None:
            self._closed_at = self._world.monotonic()
