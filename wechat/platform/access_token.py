"""The access token: one for all threads and processes that share a store.

https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken.html
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from wechat.errors import ApiError, StoreError, TransportError
from wechat.platform.answers import number
from wechat.protocol.envelope import Clock
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.world import REAL, World

logger = logging.getLogger(__name__)

Fetch = Callable[[bool], dict[str, Any]]  # takes force_refresh, gives access_token and expires_in

MARGIN = 300  # seconds before its end; the platform hands out the next one by then
LOCK = 30.0  # seconds that one process may take to fetch, its retries included
LONGEST_LIFE, UNKNOWN_LIFE = 7200.0, 60.0  # seconds; the second where the platform does not say
TOKEN = re.compile(r"[ -~]{1,2048}")  # what can stand in a URL and in a store
FORCE_EVERY = 30.0  # seconds; the platform allows no more


KEY, LOCK_KEY, FORCED_KEY = "token", "token:lock", "token:forced"


class Flight:
    """A fetch that all threads wait for which ask meanwhile."""

    token = ""
    error: BaseException | None = None

    def __init__(self, world: World) -> None:
        self.landed = world.event()


class TokenCache:
    """Keeps the token in the store until five minutes before its end, and fetches it once for everybody."""

    def __init__(
        self, store: Store, owners: Owners, fetch: Fetch, clock: Clock = time.time, world: World = REAL
    ) -> None:
        self._store, self._owners, self._world = store, owners, world
        self._fetch = fetch
        self._clock = clock
        self._spare = ""  # what was kept last, for as long as the store does not answer
        self._guard = world.lock()
        self._flight: Flight | None = None

    def get(self) -> str:
        """The current token; raises ApiError where none can be had."""
        kept = self._read()
        return _token_in(kept) if self._is_good(kept) else self._share(self._fetch_once)

    def renew(self, stale: str) -> str:
        """Another token in place of one that the platform refused; else the stale one. Raises ApiError."""
        self._drop(stale)
        token = self.get()
        if token != stale:
            return token
        if self._may_force():
            return self._share(lambda: self._fetch_and_keep(force=True))
        self._wait(self._read())  # whoever may is at it, or was a moment ago
        return self.get()

    def _share(self, fly: Callable[[], str]) -> str:
        """What `fly` gives or raises, for all threads that ask before it has."""
        with self._guard:
            flight, is_mine = self._flight or Flight(self._world), self._flight is None
            self._flight = flight
        if is_mine:
            try:
                flight.token = fly()
            except BaseException as error:
                flight.error = error
            with self._guard:
                self._flight = None
            flight.landed.set()
        flight.landed.wait()
        if flight.error:
            raise flight.error
        return flight.token

    def _fetch_once(self) -> str:
        """Fetches, unless another process does: then its token is waited for."""
        deadline = self._world.monotonic() + LOCK
        while self._world.monotonic() < deadline:
            kept = self._read()
            if self._is_good(kept):
                return _token_in(kept)
            if self._lock():
                try:
                    kept = self._read()  # it may have come between the look and the lock
                    return _token_in(kept) if self._is_good(kept) else self._fetch_and_keep()
                finally:
                    self._unlock()
            self._wait(kept)
        raise ApiError("another process has been fetching the access token for too long")

    def _fetch_and_keep(self, force: bool = False) -> str:
        answer = self._fetch(force)
        token, life = answer.get("access_token"), _life(answer.get("expires_in"))
        if not isinstance(token, str) or not TOKEN.fullmatch(token):
            raise TransportError("the platform's answer holds no access_token that can be used")
        self._spare = json.dumps({"token": token, "until": self._clock() + life})
        try:
            self._store.set(KEY, self._spare, max(life, 1))
        except StoreError as error:
            logger.warning("the access token is kept in this process alone: %s", error)
        return token

    def _is_good(self, kept: str) -> bool:
        return bool(kept) and float(json.loads(kept)["until"]) > self._clock()

    def _read(self) -> str:
        try:
            return self._store.get(KEY) or ""
        except StoreError as error:
            logger.warning("the access token of this process is used: %s", error)
            return self._spare

    def _drop(self, stale: str) -> None:
        """Forgets the token, unless somebody has a newer one already."""
        kept = self._read()
        if not kept or _token_in(kept) != stale:
            return
        self._spare = ""
        try:
            self._store.replace(KEY, kept, None, 0)
        except StoreError as error:
            logger.warning("the access token could not be dropped: %s", error)

    def _lock(self) -> bool:
        try:
            return self._owners.take(LOCK_KEY, LOCK)
        except StoreError:
            return True  # nobody can be asked, and a second fetch gives the same token

    def _unlock(self) -> None:
        try:
            self._owners.release(LOCK_KEY)
        except StoreError:
            return  # it ends by itself

    def _wait(self, kept: str) -> None:
        try:
            self._store.wait(KEY, kept or None, 1.0)
        except StoreError:
            return  # the next look falls back on this process

    def _may_force(self) -> bool:
        try:
            return self._owners.take(
                FORCED_KEY, FORCE_EVERY, secrets.token_hex(4)
            )  # this process may not twice, either
        except StoreError:
            return False


def _life(expires_in: object) -> float:
    """The seconds for which a token is kept."""
    life = min(number(expires_in) or 0.0, LONGEST_LIFE)
    return UNKNOWN_LIFE if life <= 0 else life - MARGIN if life > MARGIN else life / 2


def _token_in(kept: str) -> str:
    return str(json.loads(kept)["token"])
