"""The bytes of a push, XML or JSON, read into a Message.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

import json
import os
import re
from collections.abc import Callable
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers.expat import ExpatError, ParserCreate

from wechat.errors import Unreadable
from wechat.message import LISTS, MAX_DEPTH, Message, without_forbidden
from wechat.protocol.typed import CONTROL, mend

REQUIRED = ("MsgType", "FromUserName", "ToUserName")  # without them nobody can answer
SCALARS = (*CONTROL, "Content", "Recognition")  # what decides who answers, and once

# The nodes that hold a `List`, of which Mini Programs leave out one level or the other.
LIST_HOLDERS = {
    f"subscribe_msg_{what}_event": f"SubscribeMsg{what.title()}Event" for what in ("popup", "change", "sent")
}

# What the cloud asks, without a signature, to see whether somebody is there: protocol.md has both forms.
_PROBE = re.compile(
    rb"""\s*(\{\s*"action"\s*:\s*"CheckContainerPath"\s*\}"""
    rb"""|<xml>\s*<action>(<!\[CDATA\[)?CheckContainerPath(\]\]>)?</action>\s*</xml>)\s*"""
)

# A DOCTYPE can stand nowhere but here, so no parser ever sees one, nor the entities it could define.
_BEGINNING = re.compile(r"\s*(<\?xml\s[^>]*\?>\s*)?<\w")

UNUSUAL = LISTS | {ElementTree.Comment, ElementTree.ProcessingInstruction}  # as the names of nodes
MOST_READ = 100_000  # bytes; a parser keeps the names of all nodes that it has met
_idle: list["_Stream"] = []  # with which nobody reads just now


def parse(content: bytes) -> Message:
    """The message in the bytes of a push, with each field as the user typed it.

    Raises Unreadable where there is none: neither XML nor a JSON object, a DOCTYPE, a key twice, over 32 levels, no
    MsgType, FromUserName or ToUserName.
    """
    fields = _flat(content) or _read(content, _from_push)
    if not all(map(fields.get, REQUIRED)):
        raise Unreadable(f"no {next(name for name in REQUIRED if not fields.get(name))} in the message")
    return fields


def read_fields(content: bytes) -> Message:
    """The fields of a document, XML or JSON, like a reply; raises Unreadable where it is neither."""
    return _read(content, _from_xml)


def _read(content: bytes, from_xml: Callable[[str], Message]) -> Message:
    # One broken character must not cost a user the answer, so it becomes U+FFFD.
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    read = _from_json if text[:1] != "<" and text.lstrip()[:1] == "{" else from_xml
    try:
        return read(text)
    except Unreadable:
        cleaned = without_forbidden(text)  # few messages have something to clean, and no other one pays for the look
        if cleaned == text:
            raise
    return _read(cleaned.encode(), from_xml)


def _check(fields: Message) -> Message:
    """The fields of a push, with its lists in their places; raises Unreadable where one is missing its only text."""
    for name in SCALARS:
        if not isinstance(fields.get(name, ""), str):
            raise Unreadable(f"{name} is not one text")
    holder = LIST_HOLDERS.get(fields.get("Event", ""))
    if holder and "List" in fields:
        fields[holder] = Message({"List": fields.pop("List")})
    elif holder and isinstance(fields.get(holder), list):
        fields[holder] = Message({"List": fields[holder]})
    return fields


def is_probe(body: bytes) -> bool:
    """Whether the body is the question of WeChat's cloud whether somebody listens here."""
    return len(body) < 200 and bool(_PROBE.fullmatch(body))


def _flat(content: bytes) -> Message | None:
    """The fields of a push as nearly all are, each as it was typed; tests/fuzz/typed.py tries to prove that wrong.

    Where the XML holds no comment, and every `]]>` is the end of a node, a text with a `]]>` of the user's own is in
    two nodes of one name: behind `]]></Content>` WeChat's own `]]></Content>` is the end of another one.
    """
    if not content.startswith(b"<xml>") or content.count(b"]]>") != content.count(b"]]></"):
        return None
    if content.count(b"xml") != 2:  # a namespace, which the parser writes into each name: 2.5 GB from 200 KB
        return None
    try:
        root = (_idle.pop() if _idle else _Stream()).read(content)
    except (ElementTree.ParseError, IndexError):  # the latter: another thread took it first
        return None
    if root is None or any(map(len, root)):
        return None
    fields = Message()
    for node in root:
        fields[node.tag] = node.text or ""
    return fields if len(fields) == len(root) and UNUSUAL.isdisjoint(fields) else None


class _Stream:
    """ElementTree's parser, for one push after the other: to make it for each takes longer than to read it.

    Each is a node of a document without an end, and nothing of it is left to the next one: behind it stands a node
    whose name nobody knows, and only where that is found beside the push is there another one.
    """

    def __init__(self) -> None:
        builder = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
        outer = builder.start("outer", {})
        self._parser = ElementTree.XMLParser(target=builder, encoding="utf-8")
        self._parser.feed("<stream>")
        self._nodes, self._name, self._left = outer[0], f"end-{os.urandom(8).hex()}", MOST_READ
        self._end = f"<{self._name}/>".encode()

    def read(self, content: bytes) -> ElementTree.Element | None:
        """The node that the content is, if it is one; raises ParseError."""
        self._parser.feed(content + self._end)
        nodes = self._nodes[:]
        if nodes[-1].tag != self._name:
            return None
        self._nodes.clear()
        self._left -= len(content)
        if self._left > 0:
            _idle.append(self)
        tail = nodes[0].tail
        return nodes[0] if len(nodes) == 2 and not (tail and tail.strip()) else None


def _from_push(text: str) -> Message:
    return _check(_from_xml(mend(text)))


def _from_xml(text: str) -> Message:
    if not _BEGINNING.match(text):
        raise Unreadable("neither JSON nor XML, or a DOCTYPE or comment before the XML: WeChat sends none")
    return _fields(_parse_xml(text), 1)


def _parse_xml(document: str) -> ElementTree.Element:
    # ElementTree's own parser writes the namespace into each name: 2.5 GB from 200 KB.
    builder, parser = ElementTree.TreeBuilder(), ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(document, True)
    except ExpatError as error:
        raise Unreadable(f"not XML: {error}") from None
    return builder.close()


def _refuse(*_: str) -> NoReturn:
    raise Unreadable("a number in the JSON that is none")


def _fields(node: ElementTree.Element, depth: int) -> Message:
    if depth >= MAX_DEPTH:  # the children stand one deeper
        raise Unreadable(f"over {MAX_DEPTH} levels of nodes")
    fields = Message()
    for child in node:
        name = child.tag
        value = _fields(child, depth + 1) if len(child) else child.text or ""
        if name in LISTS:
            fields.setdefault(name, []).append(value)
        elif name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def _from_json(text: str) -> Message:
    try:
        # Numbers stay as they were written: a MsgId has more digits than a float keeps.
        fields: Message = json.loads(
            text, strict=False, object_pairs_hook=_from_pairs, parse_int=str, parse_float=str, parse_constant=_refuse
        )
        if _depth(fields) > MAX_DEPTH:
            raise Unreadable(f"over {MAX_DEPTH} levels of JSON")
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {type(error).__name__}") from None
    return _check(fields)


def _from_pairs(pairs: list[tuple[str, Any]]) -> Message:
    fields = Message()
    for name, value in pairs:
        name, plain = without_forbidden(name), _as_in_xml(value)
        if name in fields:
            raise Unreadable("a key stands twice in the JSON")
        fields[name] = [plain] if name in LISTS and not isinstance(plain, list) else plain
    return fields


def _as_in_xml(value: Any) -> Any:
    """A JSON value as the same XML would give it: text, Message, or list of those."""
    if isinstance(value, list):
        return [_as_in_xml(item) for item in value]
    if isinstance(value, str):
        return without_forbidden(value)
    return str(value).lower() if isinstance(value, bool) else value or ""  # null, and an object without members


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
