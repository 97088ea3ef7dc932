"""A model's answer, which is Markdown, as a text for WeChat, which shows none of it but links."""

import re
from collections import defaultdict
from collections.abc import Iterator
from html import unescape
from itertools import chain, repeat

LONGEST_HEAD = 30  # characters; a longer one is not repeated in each row of its table
RULE = "———"

THINK = re.compile(r"(?<!`)<(/?)think>", re.IGNORECASE)
FENCE = re.compile(r"\s*+(`{3,}|~{3,})[^`]*+$")
HEADING = re.compile(r" {0,3}#{1,6}[ \t]++")
QUOTE = re.compile(r"[ \t]*+(?:>[ \t]*+)++")
ITEM = re.compile(r"([ \t]*+)[-*+][ \t]++(?:\[([ xX])\][ \t]++)?")
CELL = re.compile(r"(?<!\\)\|")
OWN_LINK = r'<a href="[^"<>]*+">[^<>]*+</a>'
TAG = re.compile(rf"({OWN_LINK})|<(?=/?a[\s>])", re.IGNORECASE)

# No part looks further than the next character that begins another match: the time grows with the length alone.
MARK = r"(?P<mark>(?<!\*)\*{1,3}(?!\*)|(?<!_)_{1,3}(?!_)|(?<!~)~~(?!~))"
WORDS = rf"""
    (?<!`)(?P<ticks>`++)(?P<code>[^`]++)(?P=ticks)(?!`)
  | \\(?P<escaped>[!-/:-@\[-`{{-~])
  | (?P<entity>&(?:nbsp|lt|gt|amp|quot|\#39);)
  | {MARK}
"""
LINKS = r"""
    !?\[(?P<words>(?:[^\[\]\\]|\\.|\[[^\[\]]*+\])*+)\]
        \(\s*+<?(?P<url>(?:[^\s()<>]|\([^\s()<>]*+\))*+)>?(?:\s++(?:"[^"]*+"|'[^']*+'))?\s*+\)
  | <a(?P<attributes>\s[^<>]*+)>(?P<label>[^<>]*+)</a>
  | <(?P<address>https?://[^\s<>]++)>
  | (?P<bare>https?://[^\s<>*`|"'，。；！？、（）《》「」【】]++)
  | (?P<break><br\s*+/?>)
"""
ONLY_WORDS = re.compile(WORDS, re.VERBOSE)
INLINE = re.compile(f"{LINKS}|{WORDS}", re.VERBOSE | re.IGNORECASE)
HREF = re.compile(r"href\s*+=\s*+[\"']?([^\"'\s]*+)", re.IGNORECASE)


def plain(markdown: str) -> str:
    """The answer of a model as a text for WeChat: what it thought goes, links become `<a href>`, the rest is words.

    Of a stream, give it whole paragraphs, or all that has come so far: a thought that has not ended is left out, too.
    The result may be empty. https://spec.commonmark.org/ is followed as far as models go.
    """
    text = _without_thoughts(markdown.replace("\r\n", "\n").replace("\r", "\n"))
    lines = re.sub(r"\n{3,}", "\n\n", "\n".join(_lines(text.split("\n"))))
    return TAG.sub(lambda found: found[1] or "＜", lines).strip("\n")


def _without_thoughts(text: str) -> str:
    """The text without `<think>…</think>`; the closing tag may be missing, and some servers leave out the first one."""
    kept, end, begun = [], 0, -1
    for number, tag in enumerate(THINK.finditer(text)):
        if tag[1] and (begun >= 0 or number == 0):
            end, begun = tag.end(), -1
        elif not tag[1] and begun < 0:
            begun = tag.start()
            kept.append(text[end:begun])
    if begun < 0:
        return _without_half_a_tag("".join([*kept, text[end:]]))
    if text[:begun].rpartition("\n")[2].strip():  # in the midst of a line it is a word like any other
        kept.append(text[begun:])
    return "".join(kept)


def _without_half_a_tag(text: str) -> str:
    begun = text.rpartition("\n")[2].strip()
    return text.removesuffix(begun) if len(begun) > 1 and "<think>".startswith(begun.lower()) else text


def _lines(lines: list[str]) -> Iterator[str]:
    fence, index = "", 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if fence:
            mark = line.strip()
            if mark.startswith(fence) and not mark.strip(fence[0]):
                fence = ""
            else:
                yield _as_code(line)
        elif opening := FENCE.match(line):
            fence = opening[1]
        elif "|" in line and index < len(lines) and _is_below_a_head(lines[index]):
            end = next((end for end in range(index + 1, len(lines)) if "|" not in lines[end]), len(lines))
            yield from _table(line, lines[index + 1 : end])
            index = end
        else:
            yield _line(line.rstrip())


def _as_code(text: str) -> str:
    """The text in which WeChat sees no link."""
    return TAG.sub(lambda found: found[0].replace("<", "＜"), text)


def _is_below_a_head(line: str) -> bool:
    return {"|", "-"} <= set(line) <= set("|-: \t")


def _table(head: str, rows: list[str]) -> Iterator[str]:
    """A line for each row, in which each cell says what it is: a phone is too narrow for columns."""
    heads = _cells(head)
    if any(len(cell) > LONGEST_HEAD for cell in heads):
        heads, rows = [], [head, *rows]
    for row in rows:
        cells = zip(chain(heads, repeat("")), _cells(row), strict=False)
        yield " | ".join(f"{head}{': ' if head.isascii() else '：'}{cell}" if head else cell for head, cell in cells)


def _cells(row: str) -> list[str]:
    parts = CELL.split(row.strip().removeprefix("|").removesuffix("|"))
    return [_inline(part.strip().replace(r"\|", "|")).replace("\n", " ") for part in parts]


def _line(line: str) -> str:
    """One line outside of tables and code."""
    if quote := QUOTE.match(line):
        return f"│ {_line(line[quote.end() :])}"
    marks = set(line) - {" ", "\t"}
    if len(marks) == 1 and marks <= set("-*_=") and line.count(marks.pop()) > 2:
        return RULE
    if heading := HEADING.match(line):
        words = line[heading.end() :].rstrip("#")
        return _inline(words.rstrip() if words[-1:].isspace() else line[heading.end() :])
    if item := ITEM.match(line):
        sign = "•" if item[2] is None else "☐" if item[2] == " " else "☑"
        return f"{item[1]}{sign} {_inline(line[item.end() :])}"
    return _inline(line)


def _inline(text: str, tokens: re.Pattern[str] = INLINE) -> str:
    """The text without marks of emphasis; what is code, an address or escaped stays as it is."""
    parts: list[str] = []
    openers: dict[str, list[int]] = {"*": [], "_": [], "~": []}
    end = 0
    for found in tokens.finditer(text):
        parts.append(text[end : found.start()])
        end = found.end()
        if found["mark"]:
            _pair(found, parts, openers[found["mark"][0]])
        else:
            parts.append(_literal(defaultdict(str, found.groupdict(""))))
    return "".join([*parts, text[end:]])


def _pair(found: re.Match[str], parts: list[str], openers: list[int]) -> None:
    """Adds the mark to the parts, without what pairs with marks before it: those lose as much."""
    mark, end = found["mark"], found.end()
    before = found.string[found.start() - 1] if found.start() else " "
    after = found.string[end] if end < len(found.string) else " "
    is_inside = _is_latin(before) and _is_latin(after)  # 2*3*4, a*b*c, snake_case
    if len(mark) > 1 and before.isalpha() and after.isalpha():  # un**believ**able, and not 2**10
        is_inside = False
    if not before.isspace() and not (is_inside or (mark[0] == "_" and _is_latin(after))):
        while mark and openers:
            taken = min(len(mark), len(parts[openers[-1]]))
            parts[openers[-1]] = parts[openers[-1]][taken:]
            mark = mark[taken:]
            if not parts[openers[-1]]:
                openers.pop()
    if mark and not after.isspace() and not (is_inside or (mark[0] == "_" and _is_latin(before))):
        openers.append(len(parts))
    parts.append(mark)


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _literal(found: dict[str, str]) -> str:
    """What a token becomes that is no mark."""
    if found["ticks"]:
        return _as_code(found["code"])
    if found["entity"]:
        return unescape(found["entity"]).replace("\xa0", " ")
    if found["break"]:
        return "\n"
    if found["attributes"]:
        href = HREF.search(found["attributes"])
        return _link(href[1] if href else "", found["label"])
    return found["escaped"] or found["bare"] or _link(found["address"] or found["url"], found["words"])


def _link(url: str, words: str) -> str:
    """The link as WeChat takes it; an address that leads nowhere from WeChat stands behind its words."""
    label = _inline(words, ONLY_WORDS).strip()
    if not url.lower().startswith(("https://", "http://")):
        return f"{label} ({url})" if url and not url.startswith(("#", "data:")) else label
    url, label = url.replace('"', "%22"), (label or url).replace("<", "＜").replace(">", "＞")
    return f'<a href="{url}">{label}</a>'
