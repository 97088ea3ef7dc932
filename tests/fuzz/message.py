"""Any bytes: a message that is what `Message` promises, or Unreadable."""

import json
import re

from wechat.errors import Unreadable
from wechat.masking import shorten
from wechat.message import Message, kind_of, without_forbidden
from wechat.protocol.parser import LIST_HOLDERS, MAX_DEPTH, REQUIRED, SCALARS, parse

ALLOWED = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")  # https://www.w3.org/TR/xml/#charsets


def check(data):
    """Raises AssertionError, or whatever the parser should not raise, where the bytes break a promise."""
    assert not message_in(b"<!DOCTYPE xml>" + data), "read behind a DOCTYPE"
    message = message_in(data)
    if message is None:
        return
    assert all(message[name] for name in REQUIRED)
    assert all(isinstance(message.get(name, ""), str) for name in SCALARS)
    assert levels(message, is_counted=is_message) <= MAX_DEPTH
    names, texts = set(names_in(message)), list(texts_in(message))
    assert all(ALLOWED.fullmatch(text) for text in [*names, *texts]), "a character that XML forbids"
    assert sum(map(len, texts)) <= len(data), "the texts outgrow what came"
    came = without_forbidden(data.decode("utf-8", "replace"))
    if came.lstrip("\ufeff \r\n\t").startswith("<"):  # in JSON they may be escaped
        assert all(name in came for name in names - set(LIST_HOLDERS.values())), "a name that did not come"
    assert (kind_of(message) + shorten(message.FromUserName)).isprintable(), "breaks a line of the log"
    if levels(message, is_counted=bool) <= MAX_DEPTH:  # where a list is a level of its own
        assert parse(json.dumps(message).encode()) == message, "not the same in JSON"
        assert parse(json.dumps(message, ensure_ascii=False).encode()) == message, "not the same in UTF-8"


def message_in(data):
    """The message, or None where it is refused."""
    try:
        return parse(data)
    except Unreadable:
        return None


def is_message(value):
    return isinstance(value, Message)


def levels(value, is_counted):
    """How deep the value is nested, of what is counted as a level."""
    if isinstance(value, str):
        return 1
    inner = value.values() if is_message(value) else value
    return is_counted(value) + max((levels(each, is_counted) for each in inner), default=0)


def names_in(value):
    """Every name in the message and in those inside it."""
    if is_message(value):
        yield from value
    if not isinstance(value, str):
        for each in value.values() if is_message(value) else value:
            yield from names_in(each)


def texts_in(value):
    """Every text; raises TypeError for anything that is neither text, Message nor list."""
    if isinstance(value, str):
        yield value
    elif is_message(value):
        yield from texts_in(list(value.values()))
    elif type(value) is list:
        for each in value:
            yield from texts_in(each)
    else:
        raise TypeError(type(value).__name__)
