"""What a handler remembers of a user from one message to the next."""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wechat.errors import StoreError
from wechat.store.base import Change, Store, ask
from wechat.store.owners import Owners

logger = logging.getLogger("wxserver")

LIFE = 86_400.0  # seconds
LONGEST = 3_600.0  # seconds that a handler may hold a session
LOOK_AT_OWNER = 1.0  # seconds between two looks at whether the process that has it still lives


class Sessions:
    """A dict for each FromUserName, kept for a day; one handler at a time has it."""

    def __init__(self, store: Store, owners: Owners) -> None:
        self._store, self._owners = store, owners

    def is_taken(self, openid: str) -> bool:
        """Whether somebody has the user's session just now."""
        try:
            return self._store.get(f"lock:{openid}") is not None
        except StoreError:
            return False

    @contextmanager
    def open(self, openid: str, ticket: str = "") -> Iterator[dict[str, Any]]:
        """The user's dict, nobody else's meanwhile; saved after the block where it changed.

        What is no JSON is a TypeError or ValueError then. A process that stood still until another one took the session
        saves nothing.
        """
        ticket = ticket or secrets.token_hex(4)
        is_locked = ask("a session is used without its lock", False, self._lock, openid, ticket)
        try:
            before = ask("a session begins empty", None, self._store.get, f"session:{openid}") or "{}"
            session: dict[str, Any] = json.loads(before)
            yield session
            after = json.dumps(session, ensure_ascii=False)
            if after != before:
                self._write(openid, after, [self._owners.hold(f"lock:{openid}", LONGEST, ticket)] if is_locked else [])
        finally:
            self.give_back(openid, ticket)

    def give_back(self, openid: str, ticket: str) -> None:
        """Let others have the session; whoever has it by this ticket saves nothing from now on."""
        ask("the lock of a session stays for a while", None, self._owners.release, f"lock:{openid}", ticket)

    def _lock(self, openid: str, ticket: str) -> bool:
        """Wait for the session, for as long as the store can say whose it is. Whether it is the caller's."""
        key = f"lock:{openid}"
        while not self._owners.take(key, LONGEST, ticket):
            if holder := self._store.get(key):
                self._store.wait(key, holder, LOOK_AT_OWNER)
        return True

    def _write(self, openid: str, text: str, locks: list[Change]) -> None:
        change = Change(f"session:{openid}", ..., None if text == "{}" else text, LIFE)
        if not ask("a session is lost", True, self._store.swap, change, *locks):
            logger.warning("a session is lost: another process took it while this one stood still")
