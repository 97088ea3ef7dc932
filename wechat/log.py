"""What may stand in a log: never what a user said, and nothing from outside that could break a line."""

from __future__ import annotations

import logging
import traceback

from wechat.message import Message


def kind_of(message: Message) -> str:
    """What sort of message it is: `text`, `event/CLICK`."""
    kind: str = message.MsgType
    return printable(f"{kind}/{message.get('Event', '')}" if kind == "event" else kind)


def shorten(openid: str) -> str:
    """Enough of an openid to follow one user through a log."""
    return printable(openid[:6]) + "…"


def printable(text: str) -> str:
    """At most 64 characters of a text from outside, on one line."""
    return text[:64] if text.isascii() and text.isprintable() else ascii(text[:64])


def trace(error: BaseException | None) -> str:
    """The traceback of an error and of its causes.

    What the errors say is left out unless LOG_LEVEL is DEBUG: it may quote the user.
    """
    is_debug = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    parts: list[str] = []
    while error:
        said = f": {error}" if is_debug else " (LOG_LEVEL=DEBUG shows what it says)"
        parts[:0] = [*traceback.format_tb(error.__traceback__), type(error).__name__ + said + "\n"]
        error = error.__cause__ or error.__context__
    return "".join(parts).rstrip()
