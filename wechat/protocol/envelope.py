"""How WeChat signs, and what a message travels in: nothing, AES, or its own cloud. What opens a push seals its reply.

https://developers.weixin.qq.com/doc/service/guide/dev/push/
https://developers.weixin.qq.com/doc/oplatform/developers/dev/push/encryption.html
"""

import json
import os
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from wechat.digests import compare_digest, random_below, sha1
from wechat.errors import Forbidden, Unreadable
from wechat.protocol.parser import read_fields
from wechat.settings import MARK, Settings

Clock = Callable[[], float]
Query = Mapping[str, str]
Opened = tuple[bytes, Callable[[bytes], bytes]]  # the content of a push, and how its reply goes over the wire

BLOCK = 32  # bytes to which the content is padded; AES itself would ask for 16
NUMBERS = ("CreateTime", "ArticleCount", "ErrCode")  # in the JSON of a reply
RANDOM = 16  # bytes before the content, so that no two sealings are alike

# 32 encrypted bytes at least. Nothing is tried twice (`++`), so that any body costs one look at each byte.
ENCRYPT_IN_XML = re.compile(rb"<Encrypt>\s*+(?:<!\[CDATA\[)?+([A-Za-z0-9+/=\s]{44,}+)(?:\]\]>\s*+)?+</Encrypt>")
ENCRYPT_IN_JSON = re.compile(rb'"Encrypt"\s*+:\s*+"([A-Za-z0-9+/=\s\\]{44,}+)"')

SEALED_XML = (
    "<xml><Encrypt><![CDATA[%s]]></Encrypt><MsgSignature><![CDATA[%s]]></MsgSignature>"
    "<TimeStamp>%s</TimeStamp><Nonce><![CDATA[%s]]></Nonce></xml>"
)
SEALED_JSON = '{"Encrypt":"%s","MsgSignature":"%s","TimeStamp":%s,"Nonce":"%s"}'


def sign(*parts: str) -> str:
    """The SHA-1 of the sorted parts, 40 hexadecimal digits; the parts are Latin-1, as a WSGI query is."""
    return sha1("".join(sorted(parts)).encode("latin-1", "replace")).hexdigest()


def check_signature(query: Query, tokens: Sequence[str], name: str = "signature", signed: str = "") -> str:
    """The token that signed the query's `timestamp` and `nonce`, and what else is `signed`; raises Forbidden."""
    signature, timestamp, nonce = query.get(name), query.get("timestamp"), query.get("nonce")
    if not (signature and timestamp and nonce):
        raise Forbidden(f"no {name}, timestamp or nonce in the query: it does not come from WeChat")
    for token in tokens:
        # It takes the same time wherever they differ, and no more than ASCII.
        if signature.isascii() and compare_digest(sign(token, timestamp, nonce, signed), signature):
            return token
    raise Forbidden(f"the {name} does not match: is WECHAT_TOKEN the token typed on the platform's page?")


def check_age(timestamp: str, now: float, max_age: int) -> None:
    """Raises Forbidden where the timestamp is over `max_age` seconds from `now`, either way; 0 lets every age pass."""
    if not max_age:
        return
    if not (timestamp.isdecimal() and timestamp.isascii() and len(timestamp) <= 12):
        raise Forbidden("the timestamp is not a number of seconds")
    age = now - int(timestamp)
    if not -max_age <= age <= max_age:
        raise Forbidden(f"the timestamp is {age:.0f} s old, WECHAT_MAX_AGE is {max_age}: a replay, or a wrong clock?")


class Cipher:
    """AES-256-CBC as WeChat uses it: the key's own first half is the initialisation vector."""

    def __init__(self, key: bytes) -> None:
        # Optional: only the modes that seal need the package, and `settings` has seen that it is there.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._cipher = Cipher(algorithms.AES(key), modes.CBC(key[:16]))

    def seal(self, content: bytes, appid: bytes, random: bytes) -> bytes:
        """The content encrypted; `random` has 16 bytes."""
        data = random + len(content).to_bytes(4, "big") + content + appid
        padding = BLOCK - len(data) % BLOCK
        encryptor = self._cipher.encryptor()
        return encryptor.update(data + bytes([padding]) * padding) + encryptor.finalize()

    def open(self, data: bytes) -> tuple[bytes, bytes]:
        """The content and the appid in the encrypted data; two empty strings for whatever this key did not seal."""
        if len(data) % 16 or not data:
            return b"", b""
        decryptor = self._cipher.decryptor()
        padded = decryptor.update(data) + decryptor.finalize()
        padding = padded[-1]
        start, end = RANDOM + 4, len(padded) - padding
        length = int.from_bytes(padded[RANDOM:start], "big")
        is_whole = 1 <= padding <= BLOCK and start + length < end and padded.endswith(bytes([padding]) * padding)
        return (padded[start : start + length], padded[start + length : end]) if is_whole else (b"", b"")


class Plain:
    """A push that is its own envelope: the URL is signed, the body is not.

    Whoever has seen one signed URL can post another body to it until the timestamp is stale.
    """

    def __init__(self, settings: Settings, clock: Clock = time.time) -> None:
        self.settings = settings
        self.clock = clock

    def check_query(self, query: Query, name: str = "signature", signed: str = "") -> str:
        """The token with which WeChat signed the query, and not too long ago; raises Forbidden."""
        token = check_signature(query, self.settings.tokens, name, signed)
        check_age(query["timestamp"], self.clock(), self.settings.max_age)
        return token

    def open(self, body: bytes, query: Query) -> Opened:
        """The content of the push; raises Forbidden where the query is not signed or the body is sealed."""
        self.check_query(query)
        if b"Encrypt" in body and b"MsgType" not in body:
            raise Forbidden("the push is encrypted: set WECHAT_AES_KEY and WECHAT_APPID as on the platform's page")
        return body, bytes


class Sealed(Plain):
    """A push in AES. `safe` takes nothing else; `compat` takes plain ones too, and believes what is sealed."""

    def __init__(self, settings: Settings, clock: Clock = time.time) -> None:
        super().__init__(settings, clock)
        self.appid = settings.appid.encode()
        self.ciphers = [Cipher(key) for key in settings.aes_keys]

    def open(self, body: bytes, query: Query) -> Opened:
        """The content of the push; raises Forbidden where WeChat did not seal it, or not with our keys."""
        is_json = body.lstrip()[:1] == b"{"
        # In compat mode a user may have typed such nodes too. WeChat's is the longest: it holds them all, in base64.
        longest = max((ENCRYPT_IN_JSON if is_json else ENCRYPT_IN_XML).findall(body), key=len, default=b"")
        encrypted = longest.replace(b"\\/", b"/").strip().decode("latin-1")
        # A msg_signature alone says nothing: `encrypt_type=raw` has been seen beside one.
        kind = query.get("encrypt_type", "aes" if encrypted and "msg_signature" in query else "raw")
        if self.settings.mode == "compat" and kind != "aes":
            return super().open(body, query)
        if not encrypted:
            why = "WECHAT_MODE is safe" if self.settings.mode == "safe" else "its query says encrypt_type=aes"
            raise Forbidden(f"the push is not encrypted, and {why}")
        token = self.check_query(query, "msg_signature", encrypted)
        cipher, content = self.decrypt(encrypted)
        return content, lambda reply: self.seal(reply, token, cipher, SEALED_JSON if is_json else SEALED_XML)

    def decrypt(self, encrypted: str) -> tuple[Cipher, bytes]:
        """The cipher that opens the text, and what is inside; raises Forbidden where none of ours does."""
        with suppress(ValueError):  # no base64
            data = b64decode(encrypted)
            for cipher in self.ciphers:
                content, appid = cipher.open(data)
                if compare_digest(appid, self.appid):
                    return cipher, content
        raise Forbidden("the push does not decrypt: are WECHAT_AES_KEY and WECHAT_APPID as on the platform's page?")

    def seal(self, reply: bytes, token: str, cipher: Cipher, template: str) -> bytes:
        """The reply, sealed and signed for the token, with a timestamp and a nonce of its own."""
        encrypted = b64encode(cipher.seal(reply, self.appid, os.urandom(RANDOM))).decode()
        timestamp, nonce = str(int(self.clock())), str(random_below(10**10))
        return (template % (encrypted, sign(token, timestamp, nonce, encrypted), timestamp, nonce)).encode()


class Cloud(Plain):
    """A push of WeChat's own cloud (云托管), which signs nothing: a header marks it. Its reply is JSON.

    That the cloud's public address drops a forged header is promised nowhere, so it has to be switched off.
    https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/guide/weixin/push.html
    """

    def check_query(self, query: Query, name: str = MARK, signed: str = "") -> str:
        """Nothing, as there is no token; raises Forbidden where the mark is not there."""
        if not query.get(name):
            raise Forbidden(f"no {name} in its head: it does not come from WeChat's cloud, and WECHAT_MODE is cloud")
        return ""

    def open(self, body: bytes, query: Query) -> Opened:
        """The push as it came; raises Forbidden where the mark is not there."""
        self.check_query(query)
        return body, to_json


def to_json(document: bytes) -> bytes:
    """A reply as WeChat's cloud takes it; a handler's own body that is no XML goes as it is.

    https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/development/weixin/callback.html
    """
    try:
        fields = dict(read_fields(document)) if not document.lstrip().startswith(b"{") else {}
    except Unreadable:
        return document
    for name in NUMBERS:
        if re.fullmatch(r"-?[0-9]{1,15}", str(fields.get(name))):
            fields[name] = int(fields[name])
    if isinstance(fields.get("Articles"), Mapping):
        fields["Articles"] = fields["Articles"].get("item", [])
    return json.dumps(fields, ensure_ascii=False).encode() if fields else document


def envelope_for(settings: Settings, clock: Clock = time.time) -> Plain:
    """The envelope that the setting WECHAT_MODE asks for."""
    return {"plain": Plain, "cloud": Cloud}.get(settings.mode, Sealed)(settings, clock)
