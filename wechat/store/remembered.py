"""What this process has answered: the documents of the last minute, and a digest of each message for longer."""

from __future__ import annotations

from collections.abc import Callable

KEPT = 60.0  # seconds for which a document is kept; WeChat's last attempt begins 15 s after the first
MOST = 2_048  # documents in a generation, of which there are two: about 2 MB
SHELVES = 4_096
DIGEST = 8  # bytes


class Remembered:
    """Messages that are done, each for `seconds` at least, however many there are: 8 bytes a message."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds, self._monotonic = seconds, monotonic
        self._documents: dict[str, bytes] = {}
        self._older_documents: dict[str, bytes] = {}
        self._shelves = self._older_shelves = [b""] * SHELVES  # of digests
        self._documents_since = monotonic()
        self._shelves_since = self._documents_since - seconds  # the first turn makes shelves of its own

    def add(self, key: str, document: bytes) -> None:
        """Remember the message and its document."""
        now = self._monotonic()
        if len(self._documents) >= MOST or now - self._documents_since >= KEPT:
            self._turn(now)
        self._documents[key] = document

    def find(self, key: str) -> bytes | None:
        """The document of a message that is done, empty once it is no longer kept; None for any other message."""
        document = self._documents.get(key)
        if document is None:
            document = self._older_documents.get(key)
        if document is not None:
            return document
        number = hash(key)
        digest, shelf = number.to_bytes(DIGEST, "little", signed=True), number % SHELVES
        older, newer = self._older_shelves[shelf], self._shelves[shelf]
        if digest in newer or digest in older:
            return b"" if _is_on(newer, digest) or _is_on(older, digest) else None
        return None

    def _turn(self, now: float) -> None:
        """Of the older documents only digests stay, and of older digests nothing."""
        if now - self._shelves_since >= self._seconds:
            self._older_shelves, self._shelves, self._shelves_since = self._shelves, [b""] * SHELVES, now
        for number in map(hash, self._older_documents):
            self._shelves[number % SHELVES] += number.to_bytes(DIGEST, "little", signed=True)
        self._older_documents, self._documents, self._documents_since = self._documents, {}, now


def _is_on(shelf: bytes, digest: bytes) -> bool:
    at = shelf.find(digest)
    while at > 0 and at % DIGEST:  # parts of two others
        at = shelf.find(digest, at + 1)
    return at >= 0
