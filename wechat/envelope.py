"""What a message travels in. The same object that opens a push seals its reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from wechat.signature import check_age, check_signature

Clock = Callable[[], float]


class Plain:
    """A push that is its own envelope: the URL is signed, the body is not.

    Whoever has seen one signed URL can post another body to it until the timestamp is stale.
    """

    def __init__(self, tokens: Sequence[str], max_age: int, clock: Clock = time.time) -> None:
        self.tokens = tokens
        self.max_age = max_age  # seconds
        self.clock = clock

    def check_query(self, query: Mapping[str, str]) -> None:
        """Raises Forbidden unless WeChat signed the query, and not too long ago."""
        check_signature(query, self.tokens)
        check_age(query["timestamp"], self.clock(), self.max_age)

    def open(self, body: bytes, query: Mapping[str, str]) -> bytes:
        """The message in the body; raises Forbidden where the query is not signed."""
        self.check_query(query)
        return body

    def seal(self, reply: str) -> str:
        """The reply as it goes over the wire."""
        return reply
