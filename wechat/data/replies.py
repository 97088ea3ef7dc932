"""Answers from `replies.csv`: keyword, match, reply. `python -m wechat import` writes that file, and Excel can edit it.

`match` is `exact` or `contains` for a text, `click` for the key of a button, `subscribe` for a new follower, or
`default` for what nothing else answers. Of several rows with one keyword, a random one answers. Handlers in code come
first.
"""

import csv
import io
import random
import re
from pathlib import Path

from wechat.routing import on

FILE = Path(__file__).with_name("replies.csv")
COLUMNS = ["keyword", "match", "reply"]
FIXED = {"subscribe": "subscribe", "default": ""}  # keywords that need not be typed


def read(file):
    """The replies by match and keyword; raises ValueError with the line that is wrong."""
    found = {kind: {} for kind in ("exact", "contains", "click", *FIXED)}
    rows = csv.reader(io.StringIO(text_of(file), newline="")) if file.exists() else iter([COLUMNS])
    if [name.strip().casefold() for name in next(rows, [])][:3] != COLUMNS:
        raise ValueError(f"{file.name}, line 1: it takes {','.join(COLUMNS)}")
    for row in filter(any, rows):
        keyword, kind, reply, *more = map(str.strip, [*row, "", "", ""])
        kind = kind.casefold()
        keyword = FIXED.get(kind, keyword)
        if kind not in found or not (keyword or kind in FIXED) or any(more):
            raise ValueError(f"{file.name}, line {rows.line_num}: it takes a keyword, {', '.join(found)}, and a reply")
        if reply:
            found[kind].setdefault(keyword, []).append(reply)
    return found


def text_of(file):
    """The text of a file in UTF-8; raises ValueError for another encoding."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeError:
        raise ValueError(f"{file.name} is not UTF-8 (Excel writes GBK): save it as “CSV UTF-8”") from None


REPLIES = read(FILE)


def any_of(kind, around=""):
    """A pattern with a group for each keyword. Patterns leave a path to whoever claims it with a string."""
    words = "|".join(f"({re.escape(keyword)})" for keyword in REPLIES[kind]) or "(?!)"
    return re.compile(f"{around}(?:{words}){around}", re.IGNORECASE | re.DOTALL)


def answer(kind, match):
    return random.choice(list(REPLIES[kind].values())[match.lastindex - 1])


@on("text", any_of("exact"))
def exact(msg, match):
    return answer("exact", match)


@on("text", any_of("contains", ".*"))
def contains(msg, match):
    return answer("contains", match)


@on("event", "CLICK", any_of("click"))
def click(msg, match):
    return answer("click", match)


@on("event", any_of("subscribe"))
def subscribe(msg, match):
    return answer("subscribe", match)


@on(any_of("default", "(?!event).*"))
def default(msg, match):
    return answer("default", match)
