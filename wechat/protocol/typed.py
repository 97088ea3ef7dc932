"""A push in which nothing ends a user's text early, whatever the user typed.

WeChat writes `<Content><![CDATA[`, what was typed, and `]]></Content>`. It does not split a `]]>` in the text
(silenceper/wechat#750, nswbmw/node-wechat#13), so a user can end the text and type nodes, WeChat's own names included.

`mend` looks for every way in which WeChat could have written the document: nodes that each have a name of their own,
and texts that end at a `]]></Name>`. The true way is among them. So what all ways have in common is true, and a push
is refused where they differ in a node of CONTROL: nothing that is typed adds or changes one of those.

The text is exact where the document has one field that users fill. It ends at the last `]]></Content>`, since that one
would belong to no node otherwise. In one of several such fields (Title and Description) a user can type what WeChat
writes between them; other texts in both would then give the same bytes. Of these ways the one counts in which the
fewest texts hold a `]]>`, then the one whose first text is the longest.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Set
from dataclasses import dataclass, field

from wechat.errors import Unreadable
from wechat.message import LISTS, MAX_DEPTH, cdata

# They say who answers, and whether a message is new. WeChat fills them, so none of them holds a `]]>`.
CONTROL = ("MsgType", "FromUserName", "ToUserName", "CreateTime", "MsgId", "Event", "EventKey")

# What users are known to fill. Where these alone explain nothing, one other field is suspected, then all.
_INVOICE = ("title", "phone", "tax_no", "addr", "bank_type", "bank_no")
_TEXTS = ("Content", "Recognition", "Label", "Poiname", "Title", "Description", "FileName", "ScanResult")
FILLED = frozenset((*_TEXTS, "ComplaintDetail", *_INVOICE))

MAX_STEPS = 20_000  # tags read, and names copied; WeChat's longest document has 1,000 tags

_BEGINNING = re.compile(r"\s*(?:<\?xml\s[^>]*\?>)?")
_TAG = re.compile(r"\s*<(?:/([\w:.-]+)|([\w:.-]+)(/?))>")
_TEXT_END = re.compile(r"\]\]></([\w:.-]+)>")
_END = re.compile(r"\s*\Z")


def mend(text: str) -> str:
    """The document with each `]]>` split that a user typed, or as it is where WeChat did not write it.

    Raises Unreadable where what was typed may have added or changed a node of CONTROL.
    """
    ends: dict[str, list[int]] = {}  # where a text may end, for each name
    for end in _TEXT_END.finditer(text):
        ends.setdefault(end[1], []).append(end.start())
    unlikely: list[_Way] = []
    others = ends.keys() - CONTROL
    for typed, most in ((FILLED, len(FILLED)), (others, 1), (others, len(others))):
        ways = _Reader(text, typed, most, ends).find_ways()
        if likely := [way for way in ways if way.is_push()]:
            return _split(text, likely)
        unlikely = unlikely or ways
    return _split(text, unlikely) if unlikely else text


@dataclass
class _Way:
    """A way to read the document, as far as `offset`."""

    offset: int
    levels: list[tuple[str, dict[str, None]]] = field(default_factory=lambda: [("", {})])  # open nodes, names in them
    filled: dict[str, bool] = field(default_factory=dict)  # the names of FILLED, and whether they stand in a list
    control: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[int, int]] = field(default_factory=list)  # that hold a `]]>`: from where to where

    def fork(self, offset: int, *texts: tuple[int, int]) -> "_Way":
        """Copy this way, to go on from `offset` behind these texts."""
        levels = [(name, dict(names)) for name, names in self.levels]
        return _Way(offset, levels, dict(self.filled), dict(self.control), [*self.texts, *texts])

    def is_in_list(self) -> bool:
        """Whether one of the open nodes repeats by design."""
        return any(name in LISTS for name, _ in self.levels)

    def take(self, name: str) -> bool:
        """Note down a node; False where WeChat writes none of this name here."""
        names = self.levels[-1][1]
        is_good = name not in names or name in LISTS
        if name in FILLED:
            is_listed = self.is_in_list()
            is_good = is_good and (name not in self.filled or (is_listed and self.filled[name]))
            self.filled[name] = is_listed
        elif name not in CONTROL:  # an unknown node may repeat too, if nothing stands between
            is_good = is_good or next(reversed(names)) == name
        names[name] = None
        return is_good

    def note(self, name: str, text: str) -> None:
        """Keep the text of a node that says who answers."""
        if name in CONTROL and len(self.levels) == 2:
            self.control[name] = text

    def is_push(self) -> bool:
        """Whether it is a message with a MsgId, or an event without one, as all are that users cause."""
        is_event = self.control.get("MsgType") == "event"
        has_event = "Event" in self.control or (not is_event and "EventKey" in self.control)
        return has_event == is_event and ("MsgId" in self.control) != is_event


@dataclass
class _Reader:
    """Reads a document where nodes of the names in `typed` hold what users typed, `most` of them a `]]>`."""

    text: str
    typed: Set[str]
    most: int
    ends: dict[str, list[int]]
    left: int = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Raises Unreadable where reading takes too many steps."""
        self.left -= steps
        if self.left < 0:
            raise Unreadable("so much in it looks like WeChat's XML that it cannot be told apart")

    def find_ways(self) -> list[_Way]:
        """Every way to read the whole document; those with longer texts come first."""
        beginning = _BEGINNING.match(self.text)
        found = []
        todo = [self.read_tag(_Way(beginning.end() if beginning else 0))]
        while todo:
            way = next(todo[-1], None)
            self.spend(1)
            if way is None:
                todo.pop()
            elif len(way.levels) > 1:
                todo.append(self.read_tag(way))
            elif _END.match(self.text, way.offset):
                found.append(way)
        return found

    def read_tag(self, way: _Way) -> Iterator[_Way]:
        """The ways on from this one, behind the next tag and the text that belongs to it."""
        tag = _TAG.match(self.text, way.offset)
        if not tag:
            return
        closed, name, is_empty = tag.groups()
        way.offset = tag.end()
        if closed:
            if way.levels.pop()[0] == closed:
                yield way
        elif way.take(name):
            if is_empty:
                yield way
            elif self.text.startswith("<![CDATA[", way.offset):
                yield from self.read_cdata(way, name)
            else:
                yield from self.read_node(way, name)

    def read_node(self, way: _Way, name: str) -> Iterator[_Way]:
        """The way on through a node that holds a number, or nodes."""
        end = self.text.find("<", way.offset)
        inside = self.text[way.offset : end]
        if self.text.startswith(f"</{name}>", end) and "]]>" not in inside:  # which is no XML outside of CDATA
            way.note(name, inside)
            way.offset = end + len(name) + 3
            yield way
        elif not inside.strip() and len(way.levels) <= MAX_DEPTH:
            way.levels.append((name, {}))
            yield way

    def read_cdata(self, way: _Way, name: str) -> Iterator[_Way]:
        """The ways on behind the text of a node."""
        start, size = way.offset + len("<![CDATA["), len(f"]]></{name}>")
        first = self.text.find("]]>", start)
        if name in self.typed and not way.is_in_list():
            for end in reversed(self.possible_ends(way, name, start)):
                if end == first or len(way.texts) < self.most:
                    self.spend(len(way.texts) + sum(len(names) for _, names in way.levels))  # which a fork copies
                    yield way.fork(end + size, *([] if end == first else [(start, end)]))
        elif self.text.startswith(f"]]></{name}>", first):
            way.note(name, self.text[start:first])
            way.offset = first + size
            yield way

    def possible_ends(self, way: _Way, name: str, start: int) -> list[int]:
        """Where the text of a node that users fill may end."""
        ends = self.ends.get(name, [])
        ends = ends[bisect_left(ends, start) :]
        if not ends or self.typed is not FILLED:
            return ends
        # A `]]></Name>` that ends no node is part of a text that ends later.
        is_last = all(self.ends.get(other, [-1])[-1] < ends[-1] for other in FILLED - way.filled.keys())
        return ends[-1:] if is_last else ends


def _split(text: str, ways: list[_Way]) -> str:
    """The document, read in the likeliest of the ways, with what users typed as CDATA that holds all of it.

    Raises Unreadable unless they agree on who answers.
    """
    if any(way.control != ways[0].control for way in ways):
        raise Unreadable("a user typed XML that may have changed who answers")
    pieces, offset = [], 0
    for start, end in min(ways, key=lambda way: len(way.texts)).texts:
        pieces += [text[offset : start - len("<![CDATA[")], cdata(text[start:end])]
        offset = end + len("]]>")
    return "".join([*pieces, text[offset:]])
