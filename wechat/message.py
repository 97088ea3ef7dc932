"""The bytes of a push, XML or JSON, read into a Message.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree
from xml.parsers.expat import ErrorString

from wechat.errors import Unreadable

MAX_DEPTH = 32  # levels; the deepest push that is documented has 5

# Nodes that repeat by design: a list even where one push holds only one of them.
LISTS = frozenset({"item", "List", "fail_idx", "AroundBeacon", "Actions", "illegal_content"})

REQUIRED = ("MsgType", "FromUserName", "ToUserName")  # without them nobody can answer
SCALARS = (*REQUIRED, "CreateTime", "MsgId", "Content", "Event", "EventKey")  # what decides who answers, and once

# The nodes that hold a `List`, of which Mini Programs leave out one level or the other.
LIST_HOLDERS = {
    "subscribe_msg_popup_event": "SubscribeMsgPopupEvent",
    "subscribe_msg_change_event": "SubscribeMsgChangeEvent",
    "subscribe_msg_sent_event": "SubscribeMsgSentEvent",
}

# What the cloud asks, without a signature, to see whether somebody is there: protocol.md has both forms.
_PROBE = re.compile(
    rb"""\s*(\{\s*"action"\s*:\s*"CheckContainerPath"\s*\}"""
    rb"""|<xml>\s*<action>(<!\[CDATA\[)?CheckContainerPath(\]\]>)?</action>\s*</xml>)\s*"""
)

# Users' texts arrive with such characters raw, and no XML parser takes them. https://www.w3.org/TR/xml/#charsets
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def without_forbidden(text: str) -> str:
    """The text without the characters that XML 1.0 forbids."""
    return _FORBIDDEN.sub("", text)


class Message(Mapping[str, Any]):
    """The fields of a push under WeChat's own names: `msg.Content`, `msg["Content"]`, `msg.get("EventKey", "")`.

    A value is a string, a nested Message, or a list of those. An absent field raises AttributeError or KeyError.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise KeyError(self._absent(name)) from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copy and pickle look for, before there are fields
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(self._absent(name)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Message {', '.join(self._fields)}>"

    def get(self, name: str, default: Any = None) -> Any:
        """The field, or `default` where the message has none."""
        return self._fields.get(name, default)

    def _absent(self, name: str) -> str:
        return f"no {name} in this message; there are {', '.join(self._fields)}"


def parse(content: bytes) -> Message:
    """The message in the bytes of a push.

    Raises Unreadable where there is none: neither XML nor a JSON object, a DOCTYPE, a key twice, over 32 levels, no
    MsgType, FromUserName or ToUserName.
    """
    # One broken character must not cost a user the answer, so it becomes U+FFFD.
    text = without_forbidden(content.decode("utf-8", "replace").removeprefix("\ufeff"))
    fields = _from_json(text) if text.lstrip()[:1] == "{" else _from_xml(text)
    for name in REQUIRED:
        if not fields.get(name):
            raise Unreadable(f"no {name} in the message")
    for name in SCALARS:
        if not isinstance(fields.get(name, ""), str):
            raise Unreadable(f"{name} is not one text")
    holder = LIST_HOLDERS.get(fields.get("Event", ""))
    if holder:
        _complete(fields, holder)
    return Message(fields)


def _complete(fields: dict[str, Any], holder: str) -> None:
    """Puts a list back into its holder where the JSON of a Mini Program had only one of the two."""
    if "List" in fields:
        fields[holder] = Message({"List": fields.pop("List")})
    elif isinstance(fields.get(holder), list):
        fields[holder] = Message({"List": fields[holder]})


def is_probe(body: bytes) -> bool:
    """Whether the body is the question of WeChat's cloud whether somebody listens here."""
    return len(body) < 200 and bool(_PROBE.fullmatch(body))


class _Builder(ElementTree.TreeBuilder):
    """Refuses a DOCTYPE, and with it every entity somebody could define."""

    def doctype(self, name: str, public_id: str | None, system_id: str | None) -> None:
        raise Unreadable("a DOCTYPE: WeChat sends none")


def _from_xml(text: str) -> dict[str, Any]:
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(text)
        root = parser.close()
    except ElementTree.ParseError as error:
        raise Unreadable(f"not XML: {ErrorString(error.code)} at line, column {error.position}") from None
    return _fields(root, 1)


def _fields(node: ElementTree.Element, depth: int) -> dict[str, Any]:
    if depth >= MAX_DEPTH:  # the children stand one deeper
        raise Unreadable(f"over {MAX_DEPTH} levels of nodes")
    fields: dict[str, Any] = {}
    for child in node:
        name = child.tag
        value = Message(_fields(child, depth + 1)) if len(child) else child.text or ""
        if name in LISTS or name in fields:
            _append(fields, name, value)
        else:
            fields[name] = value
    return fields


def _append(fields: dict[str, Any], name: str, value: str | Message) -> None:
    values = fields.setdefault(name, [])
    if not isinstance(values, list):
        values = fields[name] = [values]
    values.append(value)


def _from_json(text: str) -> dict[str, Any]:
    try:
        # Numbers stay as they were written: a MsgId has more digits than a float keeps.
        pairs = json.loads(
            text, strict=False, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=_refuse
        )
        return _plain_fields(pairs, 1)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {type(error).__name__}") from None


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, before it is known whether a key stands twice."""


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _plain_fields(pairs: _Pairs, depth: int) -> dict[str, Any]:
    fields = {}
    for name, value in pairs:
        if name in fields:
            raise Unreadable("a key stands twice in the JSON")
        plain = _plain_value(value, depth + 1)
        fields[name] = [plain] if name in LISTS and not isinstance(plain, list) else plain
    return fields


def _plain_value(value: Any, depth: int) -> Any:
    """A JSON value as the same XML would give it: text, Message, or list of those."""
    if depth > MAX_DEPTH:
        raise Unreadable(f"over {MAX_DEPTH} levels of JSON")
    if isinstance(value, _Pairs):
        return Message(_plain_fields(value, depth)) if value else ""
    if isinstance(value, list):
        return [_plain_value(item, depth + 1) for item in value]
    if isinstance(value, str):
        return without_forbidden(value)
    return {None: "", True: "true", False: "false"}[value]
