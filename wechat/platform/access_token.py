"""The access token: one for all threads and processes that share a store.

https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken.html
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wechat.digests import random_hex
from wechat.errors import TransportError
from wechat.platform.answers import number
from wechat.protocol.envelope import Clock
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.world import REAL, World

ALONE = "the access token is kept in this process alone"  # while the store does not answer
Fetch = Callable[[bool], dict[str, Any]]  # takes force_refresh, gives access_token and expires_in

MARGIN = 300  # seconds before its end; the platform hands out the next one by then
LOCK = 30.0  # seconds that one process may take to fetch, its retries included
LONGEST_LIFE, UNKNOWN_LIFE = 7200.0, 60.0  # seconds; the second where the platform does not say
TOKEN = re.compile(r"[ -~]{1,2048}")  # what can stand in a URL and in a store
FORCE_EVERY = 30.0  # seconds; the platform allows no more

KEY, LOCK_KEY, FORCED_KEY = "token", "token:lock", "token:forced"


@dataclass
class Fetching:
    """A fetch that all threads wait for which ask meanwhile."""

    is_over: threading.Event
    token: str = ""
    error: BaseException | None = None


class TokenCache:
    """Keeps the token in the store until five minutes before its end, and fetches it once for everybody."""

    def __init__(
        self, store: Store, owners: Owners, fetch: Fetch, clock: Clock = time.time, world: World = REAL
    ) -> None:
        self._store, self._owners, self._fetch, self._clock, self._world = store, owners, fetch, clock, world
        self._spare: str | None = None  # what was kept last, for as long as the store does not answer
        self._guard = world.lock()
        self._fetching: Fetching | None = None

    def get(self) -> str:
        """The current token; raises ApiError where none can be had."""
        return self._good(self._read()) or self._share(self._fetch_once)

    def renew(self, stale: str) -> str:
        """Another token in place of one that the platform refused; else the stale one. Raises ApiError."""
        kept = self._read()
        if self._good(kept) == stale:  # else somebody has a newer one already
            self._spare = None
            self._store.ask(ALONE, False, self._store.replace, KEY, kept, None, 0)
        token = self.get()
        if token != stale:
            return token
        # The ticket is a new one each time: this process may not force it twice, either.
        if self._store.ask(ALONE, False, self._owners.take, FORCED_KEY, FORCE_EVERY, random_hex(4)):
            return self._share(lambda: self._fetch_and_keep(force=True), joins=False)
        self._wait(self._read())  # whoever may is at it, or was a moment ago
        return self.get()

    def _share(self, fetch: Callable[[], str], joins: bool = True) -> str:
        """What `fetch` gives or raises, for all threads that ask before it has.

        One that is under way already counts as well, unless `joins` is false: then this one follows it.
        """
        is_mine = False
        while not is_mine:
            with self._guard:
                is_mine = self._fetching is None
                shared = self._fetching = self._fetching or Fetching(self._world.event())
            if joins or is_mine:
                break
            shared.is_over.wait()
        if is_mine:
            try:
                shared.token = fetch()
            except BaseException as error:
                shared.error = error
            self._fetching = None
            shared.is_over.set()
        shared.is_over.wait()
        if shared.error:
            raise shared.error
        return shared.token

    def _fetch_once(self) -> str:
        """Fetches, unless another process does: then its token is waited for."""
        deadline = self._world.monotonic() + LOCK
        while self._world.monotonic() < deadline:
            kept = self._read()
            if token := self._good(kept):
                return token
            # Where nobody can be asked it fetches, too: a second fetch gives the same token.
            if self._store.ask(ALONE, True, self._owners.take, LOCK_KEY, LOCK):
                try:
                    return self._good(self._read()) or self._fetch_and_keep()  # it may have come before the lock
                finally:
                    self._store.ask(ALONE, None, self._owners.release, LOCK_KEY)
            self._wait(kept)
        raise TransportError("another process has been fetching the access token for too long")

    def _fetch_and_keep(self, force: bool = False) -> str:
        answer = self._fetch(force)
        token, life = answer.get("access_token"), _life(answer.get("expires_in"))
        if not isinstance(token, str) or not TOKEN.fullmatch(token):
            raise TransportError("the platform's answer holds no access_token that can be used")
        self._spare = json.dumps({"token": token, "until": self._clock() + life})
        self._store.ask(ALONE, None, self._store.set, KEY, self._spare, max(life, 1))
        return token

    def _good(self, kept: str | None) -> str:
        """The token in what was kept, empty where it has ended."""
        entry = json.loads(kept or "{}")
        return str(entry["token"]) if entry.get("until", 0.0) > self._clock() else ""

    def _read(self) -> str | None:
        return self._store.ask(ALONE, self._spare, self._store.get, KEY)

    def _wait(self, kept: str | None) -> None:
        self._store.ask(ALONE, None, self._store.wait, KEY, kept or None, 1.0)


def _life(expires_in: object) -> float:
    """The seconds for which a token is kept."""
    life = min(number(expires_in) or 0.0, LONGEST_LIFE)
    return UNKNOWN_LIFE if life <= 0 else life - MARGIN if life > MARGIN else life / 2
