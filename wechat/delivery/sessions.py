"""What a handler remembers of a user from one message to the next."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from wechat.digests import random_hex
from wechat.errors import StoreError
from wechat.masking import printable
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.store.writes import Change

logger = logging.getLogger("wxserver")

LIFE = 86_400.0  # seconds
LONGEST = 3_600.0  # seconds that a handler may hold a session
QUEUED = 600.0  # seconds after which a queue in which nobody moves is forgotten
MOST_UNMADE, OUT_OF_TURN = 1_000, "a session is not given in turn"
LOOK_AT_OWNER = 1.0  # seconds between two looks at whether the process that has it still lives


Step = Callable[[list[str]], list[str]]  # from a queue to the one after it


class Sessions:
    """A dict for each FromUserName, kept for a day; one handler at a time has it.

    Those who come while it is taken stand in a queue: the names of their processes, one for each message.
    """

    def __init__(self, store: Store, owners: Owners) -> None:
        self._store, self._owners = store, owners
        self._claimed: set[str] = set()  # tickets whose lock is taken already
        self._unmade = deque[tuple[str, Step]](maxlen=MOST_UNMADE)  # steps out of a queue that the store did not take

    def claim(self, openid: str, has_waited: bool = False) -> str:
        """A ticket for the session, which nobody else has then; empty where somebody has it, or waits for it."""
        ticket = random_hex(4)
        nobody_waits = () if has_waited else (Change(f"queue:{openid}", None, None),)
        try:
            if not self._owners.take(f"lock:{openid}", LONGEST, ticket, *nobody_waits):
                return ""
            self._claimed.add(ticket)
        except StoreError:  # whoever opens it says so
            pass
        return ticket

    def line_up(self, openid: str) -> None:
        """Stand in the queue for the session, behind all who came before; nobody's session has none."""
        if not openid:
            return
        self._store.ask(OUT_OF_TURN, False, self._make, openid, lambda queue: [*queue, self._owners.me])

    def leave(self, openid: str) -> None:
        """Stand in the queue no more, as the last one of this process."""
        if openid:
            self._move(openid, self._without_last)

    def take_turn(self, openid: str) -> str:
        """A ticket for the session, if it is this process's turn and nobody has it; empty else."""
        try:
            queue = self._store.get(f"queue:{openid}") or ""
            if self._owners.me in queue.split() and self._alive(queue.split())[0] != self._owners.me:
                return ""
        except StoreError:  # whoever opens it says so
            self._move(openid, self._without_first)
            return random_hex(4)
        if ticket := self.claim(openid, has_waited=True):
            self._move(openid, self._without_first)
        return ticket

    def _alive(self, queue: list[str]) -> list[str]:
        return [owner for owner in queue if not self._owners.is_dead(owner)]

    def _without_first(self, queue: list[str]) -> list[str]:
        alive = self._alive(queue)
        position = alive.index(self._owners.me) if self._owners.me in alive else len(alive)
        return [*alive[:position], *alive[position + 1 :]]

    def _without_last(self, queue: list[str]) -> list[str]:
        return self._without_first(queue[::-1])[::-1]

    def _move(self, openid: str, step: Step) -> None:
        """Make a step in the user's queue, and those that the store did not take before."""
        self._make_all((openid, step))

    def look_after(self) -> None:
        """Make the steps that the store did not take: until then who stands behind waits for nobody."""
        if self._unmade:
            self._make_all()

    def _make_all(self, *further: tuple[str, Step]) -> None:
        steps = list[tuple[str, Step]]()
        with suppress(IndexError):  # other threads take of them, too
            for _ in range(len(self._unmade)):
                steps.append(self._unmade.popleft())
        for one in (*steps, *further):
            if not self._store.ask(OUT_OF_TURN, False, self._make, *one):
                self._unmade.append(one)

    def _make(self, openid: str, step: Step) -> bool:
        key = f"queue:{openid}"
        while True:
            before = self._store.get(key)
            after = " ".join(step((before or "").split())) or None
            if after == before or self._store.swap(Change(key, before, after, QUEUED)):
                return True

    @contextmanager
    def open(self, openid: str, ticket: str = "") -> Iterator[dict[str, Any]]:
        """The user's dict, nobody else's meanwhile; saved after the block where it changed.

        What is no JSON is a TypeError or ValueError then. A process that stood still until another one took the session
        saves nothing.
        """
        ticket = ticket or random_hex(4)
        is_locked = self._is_claimed(ticket) or self._store.ask(
            "a session is used without its lock", False, self._lock, openid, ticket
        )
        try:
            before = self._store.ask("a session begins empty", None, self._store.get, f"session:{openid}") or "{}"
            session: dict[str, Any] = json.loads(before)
            yield session
            after = _pack(session)
            if after != before:
                self._write(openid, after, [self._owners.hold(f"lock:{openid}", LONGEST, ticket)] if is_locked else [])
        finally:
            self.give_back(openid, ticket)

    def give_back(self, openid: str, ticket: str) -> None:
        """Let others have the session; whoever has it by this ticket saves nothing from now on."""
        self._claimed.discard(ticket)
        self._store.ask("the lock of a session stays for a while", None, self._owners.release, f"lock:{openid}", ticket)

    def _is_claimed(self, ticket: str) -> bool:
        is_claimed = ticket in self._claimed
        self._claimed.discard(ticket)
        return is_claimed

    def _lock(self, openid: str, ticket: str) -> bool:
        """Wait for the session, for as long as the store can say whose it is. Whether it is the caller's."""
        key = f"lock:{openid}"
        while not self._owners.take(key, LONGEST, ticket):
            if holder := self._store.get(key):
                self._store.wait(key, holder, LOOK_AT_OWNER)
        return True

    def _write(self, openid: str, text: str, locks: list[Change]) -> None:
        change = Change(f"session:{openid}", ..., None if text == "{}" else text, LIFE)
        if not self._store.ask("a session is lost", True, self._store.swap, change, *locks):
            logger.warning("a session is lost: another process took it while this one stood still")


def _pack(session: dict[str, Any]) -> str:
    try:
        return json.dumps(session, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        for key in session:
            try:
                json.dumps({key: session[key]})
            except (TypeError, ValueError):
                said = (
                    f"session[{printable(repr(key))}] is a {type(session[key]).__name__}: a session takes what JSON has"
                )
                raise type(error)(said) from error
        raise
