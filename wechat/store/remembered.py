"""What a process knows of messages: those under way or over for a minute, and a digest of each for longer."""

from collections.abc import Callable
from typing import Generic, TypeVar

KEPT = 60.0  # seconds for which a message that ended is kept; WeChat's last attempt begins 15 s after the first
MOST = 2_048  # messages in a generation, of which there are two: about 10 MB
SHELVES = 4_096
DIGEST = 8  # bytes

T = TypeVar("T")


class Remembered(Generic[T]):
    """Messages by their keys, each until it ended, and known to be over for `seconds` more at 8 bytes a message."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], has_ended: Callable[[T], bool]) -> None:
        self._seconds, self._monotonic, self._has_ended = seconds, monotonic, has_ended
        self._messages: dict[str, T] = {}
        self._older: dict[str, T] = {}
        self._most = MOST
        self._shelves = self._older_shelves = [b""] * SHELVES  # of digests
        self._since = monotonic()
        self._shelves_since = self._since - seconds  # the first turn makes shelves of its own

    def add(self, key: str, message: T) -> None:
        """Remember the message."""
        now = self._monotonic()
        if len(self._messages) >= self._most or now - self._since >= KEPT:
            self._turn(now)
        self._messages[key] = message

    def get(self, key: str) -> T | None:
        """The message, if it is under way or ended a short while ago."""
        return self._messages.get(key) or self._older.get(key)

    def current(self) -> list[T]:
        """All that are under way, and some that ended."""
        return list(self._messages.values())

    def is_over(self, key: str) -> bool:
        """Whether there was such a message, of which there is no more than a digest."""
        number = hash(key)
        shelf = number % SHELVES
        newer, older = self._shelves[shelf], self._older_shelves[shelf]
        if not (newer or older):
            return False
        digest = number.to_bytes(DIGEST, "little", signed=True)
        return _is_on(newer, digest) or _is_on(older, digest)

    def drop(self, key: str) -> None:
        """Know nothing of the message any more."""
        self._messages.pop(key, None)
        self._older.pop(key, None)

    def _turn(self, now: float) -> None:
        """Of what ended in the generation before only digests stay, and of older digests nothing."""
        if now - self._shelves_since >= self._seconds:
            self._older_shelves, self._shelves, self._shelves_since = self._shelves, [b""] * SHELVES, now
        for number in map(hash, self._older):
            self._shelves[number % SHELVES] += number.to_bytes(DIGEST, "little", signed=True)
        messages, self._messages, self._older, self._since = self._messages, {}, {}, now
        for key, message in messages.items():
            (self._older if self._has_ended(message) else self._messages)[key] = message
        self._most = len(self._messages) + MOST


def _is_on(shelf: bytes, digest: bytes) -> bool:
    at = shelf.find(digest)
    while at > 0 and at % DIGEST:  # parts of two others
        at = shelf.find(digest, at + 1)
    return at >= 0
