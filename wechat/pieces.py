"""A long text in pieces that WeChat takes, cut where a reader would cut it."""

import re
from unicodedata import category

from wechat.message import without_forbidden

# A longer text costs the user the whole answer: https://github.com/dodgepudding/wechat-php-sdk/issues/363
TEXT_LIMIT = 2047  # bytes of UTF-8

WORD, SENTENCE, PARAGRAPH = 1, 2, 3  # the higher one is the better place for a cut
BREAKS = re.compile(
    r"(?P<link><a\s[^<>]*+>(?:[^<]*+(?:<(?!/?a[\s>])[^<]*+)*+</a>)?+)"
    r"|(?P<stop>[。！？；…]++[”’」』）】》]*+|(?<![.!?;])[.!?;]++[\"'”’)\]]*+(?=\s))"
    r"|(?P<pause>[，、：]++)"
    r"|\s++",
    re.IGNORECASE,
)
FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))  # two of them are one flag
# The joiners, the colours of skin, and the tags that make the flag of Scotland: no combining marks by their category.
MODIFIERS = re.compile("[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")


def split_text(content: str, limit: int = TEXT_LIMIT) -> list[str]:
    """The content in pieces of at most `limit` bytes of UTF-8, which joined are the content; none for no content.

    What would be a piece of blanks alone is left out: WeChat takes no empty text.

    A piece ends with a paragraph, a sentence or a word, in this order, where one ends in the last quarter of what fits;
    else between two characters. Links (`<a href="…">…</a>`) and characters with their modifiers stay whole, unless one
    alone is longer than a piece.
    """
    content, pieces, start = without_forbidden(content), [], 0
    while start < len(content):
        end = _end_of_piece(content, start, limit)
        pieces.append(content[start:end])
        start = end
    return [piece for piece in pieces if not piece.isspace()]


def _end_of_piece(content: str, start: int, limit: int) -> int:
    data = content[start : start + limit].encode()
    most = start + len(data[:limit].decode(errors="ignore"))
    if most == len(content):
        return most
    least = start + len(data[: limit * 3 // 4].decode(errors="ignore"))
    ends, links, stop = {}, [], -1
    # A link that fits into a piece ends before `most + limit`: looking further would cost the square of the length.
    for found in BREAKS.finditer(content, start, most + limit):
        if found.start() >= most:
            break
        end, kind, rank = min(found.end(), most), found.lastgroup, WORD
        if kind == "link":
            links.append(found.span())
            continue
        if kind == "stop":
            stop, rank = end, SENTENCE
        elif not kind and end > least:
            rank = max(min(found[0].count("\n") + 1, PARAGRAPH), SENTENCE if found.start() == stop else WORD)
        if end > least and not _is_inside_a_character(content, start, end):
            ends[rank] = end
    return ends[max(ends)] if ends else _between_characters(content, start, most, links)


def _between_characters(content: str, start: int, most: int, links: list[tuple[int, int]]) -> int:
    """The last place up to `most` that is neither inside a character nor inside a link; without one, `most`."""
    position = most
    while position > start:
        while links and links[-1][0] >= position:
            links.pop()
        if links and position < links[-1][1]:
            position = links[-1][0]
        elif _is_inside_a_character(content, start, position):
            position -= 1
        else:
            return position
    return most


def _is_inside_a_character(content: str, start: int, position: int) -> bool:
    """Whether a cut here would part a character from its modifiers; `start` is no such place.

    https://www.unicode.org/reports/tr29/#Grapheme_Cluster_Boundary_Rules
    """
    before, after = content[position - 1], content[position]
    if after.isascii():
        return before == "\r" and after == "\n"
    if before in FLAG_LETTERS and after in FLAG_LETTERS:
        flags = content[start:position]
        return (len(flags) - len(flags.rstrip(FLAG_LETTERS))) % 2 == 1
    return before == "\u200d" or category(after)[0] == "M" or bool(MODIFIERS.match(after))
