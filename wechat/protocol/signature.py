"""SHA-1 over the sorted parts: how WeChat signs a URL, and a URL with its sealed body.

https://developers.weixin.qq.com/doc/service/guide/dev/push/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha1
from hmac import compare_digest

from wechat.errors import Forbidden


def sign(*parts: str) -> str:
    """The signature of the parts, 40 hexadecimal digits; the parts are Latin-1, as a WSGI query is."""
    return sha1("".join(sorted(parts)).encode("latin-1", "replace")).hexdigest()


def is_signed(signature: str, *parts: str) -> bool:
    """Whether `signature` belongs to the parts; takes the same time wherever they differ."""
    return compare_digest(sign(*parts).encode(), signature.encode("latin-1", "replace"))


def check_signature(query: Mapping[str, str], tokens: Sequence[str]) -> None:
    """Raises Forbidden unless one of the tokens signed the query's `timestamp` and `nonce`."""
    signature, timestamp, nonce = query.get("signature"), query.get("timestamp"), query.get("nonce")
    if not (signature and timestamp and nonce):
        raise Forbidden("no signature, timestamp or nonce in the query: it does not come from WeChat")
    for token in tokens:
        if is_signed(signature, token, timestamp, nonce):
            return
    raise Forbidden("the signature does not match: is WECHAT_TOKEN the token typed on the platform's page?")


def check_age(timestamp: str, now: float, max_age: int) -> None:
    """Raises Forbidden where the timestamp is over `max_age` seconds from `now`, either way; 0 lets every age pass."""
    if not max_age:
        return
    if not (timestamp.isdecimal() and timestamp.isascii() and len(timestamp) <= 12):
        raise Forbidden("the timestamp is not a number of seconds")
    age = now - int(timestamp)
    if abs(age) > max_age:
        raise Forbidden(f"the timestamp is {age:.0f} s old, WECHAT_MAX_AGE is {max_age}: a replay, or a wrong clock?")
