"""What may stand in a line of the log: no character that breaks it, nothing that the user said, and no secret."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MOST = 1000  # characters of what an error says
MOST_HEARD = 60_000  # characters of a message, in all its forms; one of 2,048 bytes has up to 30,000
MASK = "…"
NOT_THE_USERS = {"MsgType", "Event", "ToUserName", "CreateTime", "MsgId"}  # which a line of the log may name
SECRETS = re.compile("TOKEN|SECRET|KEY|PASSWORD")  # in the names of environment variables
URL_PARTS = re.compile(r"(?<=\?)[^\s'\")>]*=[^\s'\")>]*|(?<=://)[^\s/@?#]+(?=@)")  # queries, and passwords in addresses
EDGES = " \t\n'\"`“”‘’「」,.:;!?=()[]{}<>"
QUOTES = "'\"`“”‘’「」"


def escape(text: str) -> str:
    """The text as one line: newlines, ESC, bidirectional overrides, whatever does not print becomes `\\n`, `\\x1b` …

    waitress logs paths as they were decoded, so that `GET /%0a2026-…` would write a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shorten(openid: str) -> str:
    """Enough of an openid to follow one user through a log: followers of one account share its beginning."""
    return "…" + printable(openid[-6:])


def printable(text: str) -> str:
    """At most 64 characters of a text from outside, on one line."""
    return text[:64] if text.isascii() and text.isprintable() else ascii(text[:64])


def mask(text: str, message: Mapping[str, Any]) -> str:
    """The text with an ellipsis for each part that the message has as well, and for what is a secret.

    A part is a word in quotes, four letters in a row or two Chinese characters, a number, or a whole value.
    """
    if len(text) > MOST:
        text = text[:MOST].rpartition(" ")[0] + MASK  # half of a secret would not be known as one
    text = URL_PARTS.sub(MASK, text)
    for name, value in os.environ.items():
        for secret in value.split(",") if SECRETS.search(name) else ():  # new,old
            text = text.replace(secret.strip(), MASK) if len(secret.strip()) > 5 else text
    values = [value for value in _values(message) if value.strip()]
    heard = _fold("\0".join(form for value in values for form in _forms(value)))
    if len(heard) > MOST_HEARD:
        return MASK
    folded, masked, position = _fold(text), "", 0
    while position < len(text):
        end = position
        while end < len(text) and folded[position : end + 1] in heard:
            end += 1
        begin = position + len(text[position:end]) - len(text[position:end].lstrip(EDGES))
        stop = max(begin, position + len(text[position:end].rstrip(EDGES)))
        if begin < stop and _is_the_users(folded, begin, stop, heard):
            masked, position = masked + text[position:begin] + MASK, stop
        else:
            masked, position = masked + text[position], position + 1
    return masked


def _values(message: Any) -> Iterator[str]:
    """Every text in it, but those that a line of the log may name."""
    if isinstance(message, Mapping):
        for name, value in message.items():
            yield from () if name in NOT_THE_USERS else _values(value)
    elif isinstance(message, list):
        for value in message:
            yield from _values(value)
    else:
        yield str(message)


def _forms(value: str) -> tuple[str, ...]:
    """The value as errors show it: as it is, escaped, in bytes, or in an address."""
    return value, repr(value)[1:-1], ascii(value)[1:-1], repr(value.encode(errors="replace"))[2:-1], *_quoted(value)


def _quoted(value: str) -> tuple[str, str]:
    return quote(value, errors="replace"), quote_plus(value, errors="replace")


def _fold(text: str) -> str:
    """In small letters, and as long as before."""
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def _is_the_users(text: str, begin: int, stop: int, heard: str) -> bool:
    part, before, after = text[begin:stop], text[begin - 1 : begin], text[stop : stop + 1]
    if sum(char.isalnum() + (char > "\x7f") for char in part) >= 4 or (before and before in QUOTES and after in QUOTES):
        return True
    edge = "" if any(map(str.isdigit, part)) else r"\0"  # a short word counts where it is all of a value
    word = rf"(?:{edge}|^)(?<![0-9a-z])\s*{re.escape(part)}\s*(?![0-9a-z])(?:{edge}|$)"
    return not (before.isalnum() or after.isalnum()) and bool(re.search(word, heard))
