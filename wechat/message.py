"""A push as its fields, under WeChat's own names.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

import re
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wechat.digests import sha1
from wechat.kinds import CLASSES
from wechat.log import may_quote
from wechat.masking import printable, shorten

# Users' texts arrive with such characters raw, and no XML parser takes them. https://www.w3.org/TR/xml/#charsets
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

SPLIT = "]]]]><![CDATA[>"  # how a `]]>` stands inside CDATA

MAX_DEPTH = 32  # levels; the deepest push that is documented has 5

# Nodes that repeat by design: a list even where one push holds only one of them.
LISTS = frozenset({"item", "List", "fail_idx", "AroundBeacon", "Actions", "illegal_content"})

COMMON = "ToUserName", "FromUserName", "CreateTime", "MsgType", "MsgId", "Content", "Event", "EventKey"

KEPT = 60.0  # seconds for which a message that ended is kept; WeChat's last attempt begins 15 s after the first
MOST = 2_048  # messages in a generation, of which there are two: about 10 MB
SHELVES = 4_096
DIGEST = 8  # bytes

T = TypeVar("T")


def without_forbidden(text: str) -> str:
    """The text without the characters that XML 1.0 forbids."""
    return text if text.isprintable() else _FORBIDDEN.sub("", text)  # no forbidden character is printable


def cdata(text: str) -> str:
    """The text as a CDATA section that no content can end."""
    clean = text if text.isprintable() else without_forbidden(text)
    return f"<![CDATA[{clean.replace(']]>', SPLIT)}]]>"


class NoField(KeyError, AttributeError):
    """A message has no such field, whether it was asked for as a key or as an attribute."""

    __str__ = Exception.__str__  # KeyError's would quote it


class Message(dict[str, Any]):
    """The fields of a push under WeChat's own names: `msg.Content`, `msg["Content"]`, `msg.get("EventKey", "")`.

    A value is a string, a nested Message, or a list of those. An absent field raises AttributeError or KeyError.
    `print(msg)` shows the names of the fields; with LOG_LEVEL=DEBUG, as in the sandbox, their values too.
    Type checkers know the fields of each kind: `def hello(msg: TextMessage)`. All of them are Message when it runs.
    """

    __slots__ = ()

    ToUserName: str
    FromUserName: str
    CreateTime: str
    MsgType: str

    def __missing__(self, name: str) -> Any:
        raise NoField(f"no {name} in this message; there are {', '.join(self)}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except NoField as error:
            raise AttributeError(*error.args) from None

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self.items()) if may_quote() else self
        return f"<Message {', '.join(shown)}>"


for field in COMMON:  # a sixth of the time that `__getattr__` takes
    setattr(Message, field, property(itemgetter(field)))

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


class Remembered(Generic[T]):
    """Messages by their keys, each until it ended, and known to be over for `seconds` more at 8 bytes a message."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], has_ended: Callable[[T], bool]) -> None:
        self._seconds, self._monotonic, self._has_ended = seconds, monotonic, has_ended
        self.messages: dict[str, T] = {}  # under way, and some that ended
        self._older: dict[str, T] = {}
        self._most = MOST
        self._shelves = self._older_shelves = [b""] * SHELVES  # of digests
        self._since = monotonic()
        self._shelves_since = self._since - seconds  # the first turn makes shelves of its own

    def add(self, key: str, message: T) -> None:
        """Remember the message."""
        now = self._monotonic()
        if len(self.messages) >= self._most or now - self._since >= KEPT:
            self._turn(now)
        self.messages[key] = message

    def get(self, key: str) -> T | None:
        """The message, if it is under way or ended a short while ago."""
        return self.messages.get(key) or self._older.get(key)

    def is_over(self, key: str) -> bool:
        """Whether there was such a message, of which there is no more than a digest."""
        number = hash(key)
        place = number % SHELVES
        shelf = self._shelves[place] + self._older_shelves[place]
        if not shelf:
            return False
        digest = number.to_bytes(DIGEST, "little", signed=True)
        at = shelf.find(digest)
        while at > 0 and at % DIGEST:  # parts of two others
            at = shelf.find(digest, at + 1)
        return at >= 0

    def drop(self, key: str) -> None:
        """Know nothing of the message any more."""
        self.messages.pop(key, None)
        self._older.pop(key, None)

    def _turn(self, now: float) -> None:
        """Of what ended in the generation before only digests stay, and of older digests nothing."""
        if now - self._shelves_since >= self._seconds:
            self._older_shelves, self._shelves, self._shelves_since = self._shelves, [b""] * SHELVES, now
        for number in map(hash, self._older):
            self._shelves[number % SHELVES] += number.to_bytes(DIGEST, "little", signed=True)
        messages, self.messages, self._older, self._since = self.messages, {}, {}, now
        for key, message in messages.items():
            (self._older if self._has_ended(message) else self.messages)[key] = message
        self._most = len(self.messages) + MOST
