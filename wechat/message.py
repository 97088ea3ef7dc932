"""A push as its fields, under WeChat's own names.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

import re
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from wechat.kinds import CLASSES
from wechat.log import printable, shorten

# Users' texts arrive with such characters raw, and no XML parser takes them. https://www.w3.org/TR/xml/#charsets
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

SPLIT = "]]]]><![CDATA[>"  # how a `]]>` stands inside CDATA

MAX_DEPTH = 32  # levels; the deepest push that is documented has 5

# Nodes that repeat by design: a list even where one push holds only one of them.
LISTS = frozenset({"item", "List", "fail_idx", "AroundBeacon", "Actions", "illegal_content"})


def without_forbidden(text: str) -> str:
    """The text without the characters that XML 1.0 forbids."""
    return text if text.isprintable() else _FORBIDDEN.sub("", text)  # no forbidden character is printable


def cdata(text: str) -> str:
    """The text as a CDATA section that no content can end."""
    clean = text if text.isprintable() else without_forbidden(text)
    return f"<![CDATA[{clean.replace(']]>', SPLIT)}]]>"


class Message(dict[str, Any]):
    """The fields of a push under WeChat's own names: `msg.Content`, `msg["Content"]`, `msg.get("EventKey", "")`.

    A value is a string, a nested Message, or a list of those. An absent field raises AttributeError or KeyError.
    Type checkers know the fields of each kind: `def hello(msg: TextMessage)`. All of them are Message when it runs.
    """

    __slots__ = ()

    ToUserName: str
    FromUserName: str
    CreateTime: str
    MsgType: str

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"no {name} in this message; there are {', '.join(self)}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None

    def __repr__(self) -> str:
        return f"<Message {', '.join(self)}>"


if TYPE_CHECKING:
    from wechat.fields import *  # noqa: F403
else:
    globals().update(dict.fromkeys(CLASSES, Message))


def delivery_key(message: Message, content: bytes) -> str:
    """What tells one message from another: the same for all attempts at one, and for no other message.

    A MsgId alone is not enough, two users have had the same; an event has none.
    """
    get = message.get
    if msg_id := get("MsgId"):
        return f"{get('FromUserName')} {get('CreateTime')} {msg_id}"
    digest = sha1(content).hexdigest()
    return f"{get('FromUserName')} {get('CreateTime')} {get('Event')} {get('EventKey')} {digest}"


def kind_of(message: Message) -> str:
    """What sort of message it is, for the log: `text`, `event/CLICK`."""
    kind: str = message.get("MsgType", "")
    return printable(f"{kind}/{message.get('Event', '')}" if kind == "event" else str(kind))


def label(message: Message) -> str:
    """The message as lines of the log name it: `text from …iE3bGY, MsgId 24563189712345678`; an event has no MsgId."""
    openid, msg_id = str(message.get("FromUserName", "")), str(message.get("MsgId") or "")
    said = f"{kind_of(message)} from {shorten(openid)}"
    return f"{said}, MsgId {printable(msg_id)}" if msg_id else said
