"""Sealed pushes that somebody tampers with: what opens is what was sealed with the key, and nothing else.

The first byte says how the rest is used.
"""

import json
from base64 import b64decode, b64encode
from urllib.parse import parse_qsl

from sandbox.platform import Platform
from wechat.errors import Forbidden
from wechat.protocol.envelope import SEALED_JSON, SEALED_XML, Cipher, envelope_for, sign
from wechat.settings import read

TOKENS, APPID = ("fresh", "testtoken"), "wx1234567890abcdef"
KEYS = ("Z" * 42 + "G", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")
AES_KEY = b64decode(KEYS[1] + "=")
NOW = 1714037059
ENVIRON = {"WECHAT_TOKEN": ",".join(TOKENS), "WECHAT_AES_KEY": ",".join(KEYS), "WECHAT_APPID": APPID}
PLAIN, COMPAT, SAFE = (
    envelope_for(read({**ENVIRON, "WECHAT_MODE": mode}), lambda: NOW) for mode in ("plain", "compat", "safe")
)
PLATFORM = Platform(TOKENS[1], "safe", AES_KEY, APPID)

CONTENT = b"<xml>what WeChat sealed</xml>"
RANDOM = b"0123456789abcdef"
GENUINE = b64encode(Cipher(AES_KEY).seal(CONTENT, APPID.encode(), RANDOM)).decode()
FORMS = (SEALED_XML, SEALED_JSON)


def check(data):
    """Raises where the bytes break a promise."""
    ways = (any_body, any_query, any_plain_text, any_content, any_encrypted)
    way, rest = data[:1] or b"\0", data[1:]
    ways[way[0] % len(ways)](rest)


def query_for(encrypted):
    """The query with which WeChat signs this encrypted text, and nothing but it."""
    return {"timestamp": str(NOW), "nonce": "7", "msg_signature": sign(TOKENS[1], str(NOW), "7", encrypted)}


def body_of(encrypted, form):
    return (form % (encrypted, "", NOW, "7")).encode()


def opened(envelope, body, query):
    """What the envelope opens, or None where it refuses the push, which is all it may do otherwise."""
    try:
        return envelope.open(body, query)[0]
    except Forbidden:
        return None


def any_body(body):
    """A body of the attacker's under a query that WeChat signed for another one."""
    for envelope in (COMPAT, SAFE):
        push = opened(envelope, body, query_for(GENUINE))
        assert not push or push == CONTENT
    assert not opened(PLAIN, body, query_for(GENUINE))


def any_query(data):
    """A genuine body, or one of the attacker's, under a query of the attacker's."""
    text, _, body = data.partition(b"\n")
    query = dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True, encoding="latin-1"))
    for each in (body, *(body_of(GENUINE, form) for form in FORMS)):
        for envelope in (COMPAT, SAFE):
            push = opened(envelope, each, query)
            assert not push or push == CONTENT
    assert not opened(PLAIN, body, query)


def any_encrypted(data):
    """Whatever stands in the envelope, WeChat signed it, so that it is decrypted."""
    encrypted = data.decode("latin-1")
    query = query_for(encrypted.replace("\\/", "/").strip())
    for form in FORMS:
        push = opened(SAFE, (form % (encrypted, "", NOW, "7")).encode("latin-1"), query)
        assert not push or push in contents(encrypted)


def contents(encrypted):
    """What the keys find in the encrypted text, where they find WeChat's form."""
    data = b64decode(encrypted.replace("\\/", "/"))
    for key in KEYS:
        decryptor = Cipher(b64decode(key + "="))._cipher.decryptor()
        yield content_in(decryptor.update(data) + decryptor.finalize())


def content_in(padded):
    """The content where random bytes, a length, the appid and a padding stand around it; else None."""
    length = int.from_bytes(padded[16:20], "big")
    padding = len(padded) - 20 - length - len(APPID)
    is_there = 1 <= padding <= 32 and padded[20 + length :] == APPID.encode() + bytes([padding]) * padding
    return padded[20 : 20 + length] if is_there else None


def any_plain_text(padded):
    """Whatever is inside, paddings and lengths included: it opens just where it has WeChat's form."""
    padded += b"\x10" * (-len(padded) % 16)
    encryptor = Cipher(AES_KEY)._cipher.encryptor()
    encrypted = b64encode(encryptor.update(padded) + encryptor.finalize()).decode()
    push = opened(SAFE, body_of(encrypted, SEALED_XML), query_for(encrypted))
    assert push == content_in(padded)


def any_content(content):
    """What is sealed opens again, both ways, and a reply goes in the form of its push."""
    encrypted = b64encode(Cipher(AES_KEY).seal(content, APPID.encode(), RANDOM)).decode()
    for form in FORMS:
        for envelope in (COMPAT, SAFE):
            inside, seal = envelope.open(body_of(encrypted, form), query_for(encrypted))
            assert inside == content
            reply = seal(content)
            assert reply.startswith(b"{") == (form is SEALED_JSON)
            check_reply(reply, content)


def check_reply(reply, content):
    """WeChat, or Python's JSON for it, finds the content in the sealed reply."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        fields = json.loads(reply) if reply.startswith(b"{") else {}
        assert not fields or Cipher(AES_KEY).open(b64decode(fields["Encrypt"])) == (content, APPID.encode())
    else:
        assert PLATFORM.open(reply) == text
