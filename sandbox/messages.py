"""Messages and events as a user would send them.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from sandbox.facts import FACTS
from wechat.message import Message, cdata, without_forbidden

ACCOUNT, APPID = "gh_7f083739789a", "wx1234567890abcdef"
USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
NUMBERS = ("CreateTime", "MsgId")  # the nodes without CDATA

# The fields of each type that a user fills, in the order of a command line, and what they are otherwise.
FIELDS: Mapping[str, Mapping[str, str]] = FACTS["sent"]


def text_message(content: str, openid: str = USER) -> str:
    """A text as the user `openid` would send it, as XML."""
    return compose("text", {"Content": content}, openid)


def build(kind: str, values: Sequence[str], openid: str = USER) -> str:
    """The XML of a message of this MsgType; the values fill its fields in their order.

    Raises ValueError for a kind that nobody knows, and for more values than it has fields.
    """
    if kind not in FIELDS:
        raise ValueError(f"{kind} is not a type of message: there are {', '.join(FIELDS)}")
    names = list(FIELDS[kind])
    if len(values) > len(names):
        raise ValueError(f"{kind} takes {', '.join(names)} at most")
    return compose(kind, {**FIELDS[kind], **dict(zip(names, values, strict=False))}, openid)


def compose(kind: str, fields: Mapping[str, object], openid: str = USER) -> str:
    """The XML of a message that was never sent before, with its fields inside the nodes that all messages have."""
    # Two events of one user in one second would be one: nothing else tells them apart.
    created = next(_seconds) if kind == "event" else int(time.time())
    common = {"ToUserName": ACCOUNT, "FromUserName": openid, "CreateTime": created, "MsgType": kind}
    number = {} if kind == "event" else {"MsgId": secrets.randbits(62)}
    return f"<xml>{_nodes({**common, **fields, **number})}</xml>"


def _all_seconds() -> Iterator[int]:
    last = 0
    while True:
        last = max(last + 1, int(time.time()))
        yield last


_seconds = _all_seconds()


def _typed(text: str) -> str:
    # WeChat does not split a `]]>` that a user typed: silenceper/wechat#750, nswbmw/node-wechat#13.
    return f"<![CDATA[{without_forbidden(text)}]]>"


def _nodes(fields: Mapping[str, object], quote: Callable[[str], str] = _typed) -> str:
    return "".join(_node(name, value, quote) for name, value in fields.items())


def _node(name: str, value: object, quote: Callable[[str], str]) -> str:
    if isinstance(value, list):
        return "".join(_node(name, item, quote) for item in value)
    inner = _nodes(value, quote) if isinstance(value, Mapping) else value if name in NUMBERS else quote(str(value))
    return f"<{name}>{inner}</{name}>"


def to_xml(fields: Mapping[str, object]) -> str:
    """The XML of a reply that came as JSON, in which the articles are a plain list."""
    articles = fields.get("Articles", {})
    return f"<xml>{_nodes({**fields, **({'Articles': {'item': articles}} if articles else {})}, cdata)}</xml>"


def to_json(message: Message) -> str:
    """The message as WeChat pushes it to an account that has chosen JSON."""
    return json.dumps(_jsonable(message), ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, Message):
        return {name: int(inner) if name == "CreateTime" else _jsonable(inner) for name, inner in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list) else value
