"""Reply values: as JSON for the store, texts that are joined into one, and what a handler yields."""

import json
import threading
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wechat.reply import Article, Image, Music, News, Raw, Reply, Text, Transfer, Video, Voice

KINDS: dict[str, type[Reply]] = {kind.kind: kind for kind in (Text, Image, Voice, Video, Music, News, Transfer, Raw)}


@dataclass(slots=True)
class Pieces:
    """The replies of a handler that yields which are left to give."""

    lock: threading.Lock
    left: list[Reply] = field(default_factory=list)
    number: int = 0  # of those that went out as a message of their own
    is_torn: bool = False  # whether one of them was dropped, as another process had the message
    next_at: float = 0.0  # when the next one may go out, so that it does not arrive before the direct answer

    def after(self, now: float) -> float:
        """The seconds until then."""
        return max(0.0, self.next_at - now)


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


def join(replies: list[Reply]) -> list[Reply]:
    """The replies, of which texts that follow one another are one."""
    joined: list[Reply] = []
    for reply in replies:
        if joined and isinstance(reply, Text) and isinstance(joined[-1], Text):
            joined[-1] = replace(reply, content=f"{joined[-1].content}\n\n{reply.content}")
        else:
            joined.append(reply)
    return joined
