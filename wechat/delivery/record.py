"""One record for each message: where it stands, and what the store holds of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from wechat.reply import Article, Image, Music, News, Raw, Reply, Text, Transfer, Video, Voice

RUNNING, PROMISED, READY, DONE = "running", "promised", "ready", "done"
COUNTS = frozenset({"attempts", "starts", "forgiven"})


@dataclass(slots=True)
class Record:
    """Where a message stands. A record never changes: the ledger puts another one in its place."""

    state: str
    owner: str = ""  # the process that has it; nobody has a reply that waits for 继续
    attempts: int = 1  # of WeChat's
    starts: int = 0  # of its handler
    is_slow: bool = False
    is_sending: bool = False  # whether a part of the reply is on its way to the platform
    openid: str = ""
    document: bytes = b""  # the direct answer
    content: str = ""  # the message as it came, once it may have to be answered by another process
    reply: str = ""  # what is left to send, packed
    forgiven: int = 0  # starts that do not count

    @property
    def is_open(self) -> bool:
        """Whether the user can ask for it by 继续, and another process goes on with it."""
        return self.state != DONE and (self.is_slow or self.state != RUNNING)

    @property
    def is_late(self) -> bool:
        """Whether the answer was promised, and is not the direct one."""
        return self.state == PROMISED or (self.state == READY and not self.document)

    def moved(self, **fields: Any) -> Record:
        """The record with these fields; what it counts goes up by so many."""
        for name in COUNTS.intersection(fields):
            fields[name] += getattr(self, name)
        return replace(self, **fields)

    def ended(self, document: bytes, reply: Reply | None) -> Record:
        """The record with its answer: ready where there is a reply left to send, else done."""
        state, left = (READY, pack(reply)) if reply else (DONE, "")
        return Record(
            state, self.owner, self.attempts, self.starts, self.is_slow, False, self.openid, document, "", left
        )

    @property
    def indexes(self) -> frozenset[str]:
        """Where it can be found: among its user's messages, and its owner's."""
        if not self.is_open:
            return frozenset()
        return frozenset((f"user:{self.openid}", *([f"owned:{self.owner}"] if self.owner else ())))


def pack_record(record: Record) -> str:
    """The record as JSON, for the store."""
    return json.dumps({**asdict(record), "document": record.document.decode()}, ensure_ascii=False)


def unpack_record(packed: str) -> Record | None:
    """The record that was packed; None for one of another version, which goes after a day."""
    try:
        fields = json.loads(packed)
        return Record(**{**fields, "document": fields["document"].encode()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


KINDS: dict[str, type[Reply]] = {kind.kind: kind for kind in (Text, Image, Voice, Video, Music, News, Transfer, Raw)}


def pack(reply: Reply) -> str:
    """The reply as JSON, for the store."""
    return json.dumps({"kind": reply.kind, **asdict(reply)})


def unpack(packed: str) -> Reply:
    """The reply that was packed."""
    fields: dict[str, Any] = json.loads(packed)
    kind = KINDS[fields.pop("kind")]
    if kind is News:
        fields["articles"] = [Article(**article) for article in fields["articles"]]
    return kind(**fields)
