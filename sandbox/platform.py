"""Plays WeChat towards a server: builds pushes, signs and seals them, and opens the replies."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from wechat.envelope import RANDOM, Cipher
from wechat.message import Message
from wechat.signature import sign
from wechat.templates import cdata

ACCOUNT = "gh_7f083739789a"
USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"


def signed_query(token: str, timestamp: int | None = None, encrypted: str = "") -> str:
    """The query of a URL that WeChat posts to.

    `timestamp` is in seconds since 1970, now unless given; `encrypted` is what the body holds under `Encrypt`.
    """
    seconds = str(int(time.time()) if timestamp is None else timestamp)
    nonce = str(secrets.randbelow(10**10))
    query = {"signature": sign(token, seconds, nonce), "timestamp": seconds, "nonce": nonce, "openid": USER}
    if encrypted:
        query |= {"encrypt_type": "aes", "msg_signature": sign(token, seconds, nonce, encrypted)}
    return urlencode(query)


def text_message(content: str, openid: str = USER) -> str:
    """A text as the user `openid` would send it, as XML."""
    return (
        f"<xml><ToUserName>{cdata(ACCOUNT)}</ToUserName><FromUserName>{cdata(openid)}</FromUserName>"
        f"<CreateTime>{int(time.time())}</CreateTime><MsgType><![CDATA[text]]></MsgType>"
        f"<Content>{cdata(content)}</Content><MsgId>{secrets.randbits(62)}</MsgId></xml>"
    )


def to_json(message: Message) -> str:
    """The message as WeChat pushes it to an account that has chosen JSON."""
    return json.dumps(_jsonable(message), ensure_ascii=False)


def _jsonable(value: object) -> object:
    if isinstance(value, Message):
        return {name: int(inner) if name == "CreateTime" else _jsonable(inner) for name, inner in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, list) else value


class Attempt(NamedTuple):
    """One attempt at a push: the status and body of the answer, None and empty where WeChat hung up."""

    status: int | None
    body: bytes
    seconds: float


def deliver(url: str, query: str, body: bytes, hang_up: float = 5.0, most: int = 3) -> list[Attempt]:
    """Posts as WeChat does: hangs up after so many seconds.

    Where no answer came, or one with another status than 200, the same bytes go again, `most` times in all.
    """
    attempts: list[Attempt] = []
    while len(attempts) < most and not (attempts and attempts[-1].status == 200):
        attempts.append(request("POST", url, query, body, hang_up))
    return attempts


def hang_up_on(connection: socket.socket) -> None:
    """Ends a connection, if it has not ended by itself."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def request(method: str, url: str, query: str, body: bytes | None = None, hang_up: float = 5.0) -> Attempt:
    """One request as WeChat makes it; it ends after `hang_up` seconds, however slowly the answer drips."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=hang_up)
    started = time.monotonic()
    try:
        connection.connect()
        end = threading.Timer(hang_up, hang_up_on, [connection.sock])
        end.start()
        try:
            headers = {"User-Agent": "Mozilla/4.0", "Content-Type": "text/xml"}
            connection.request(method, f"{parts.path or '/'}?{query}", body, headers)
            response = connection.getresponse()
            return Attempt(response.status, response.read(), time.monotonic() - started)
        finally:
            end.cancel()
    except (OSError, HTTPException):
        return Attempt(None, b"", time.monotonic() - started)
    finally:
        connection.close()


@dataclass(frozen=True)
class Platform:
    """WeChat's side of one account. `mode` is plain, compat or safe; the AES key has 32 bytes."""

    token: str
    mode: str = "plain"
    aes_key: bytes = b""
    appid: str = ""

    def push(self, content: str, timestamp: int | None = None) -> tuple[str, bytes]:
        """The query and the body that push the content, XML or JSON."""
        if self.mode == "plain":
            return signed_query(self.token, timestamp), content.encode()
        sealed = Cipher(self.aes_key).seal(content.encode(), self.appid.encode(), os.urandom(RANDOM))
        encrypted = b64encode(sealed).decode()
        body = self._envelope(content, encrypted)
        return signed_query(self.token, timestamp, encrypted), body.encode()

    def _envelope(self, content: str, encrypted: str) -> str:
        if content.startswith("{"):
            fields = json.loads(content) if self.mode == "compat" else {"ToUserName": ACCOUNT}
            return json.dumps({**fields, "Encrypt": encrypted}, ensure_ascii=False)
        node = f"<Encrypt>{cdata(encrypted)}</Encrypt></xml>"
        if self.mode == "compat":
            return re.sub("</xml>\\s*$", lambda _: node, content)
        return f"<xml><ToUserName>{cdata(ACCOUNT)}</ToUserName>{node}"

    def open(self, reply: bytes) -> str:
        """The document in a reply; raises ValueError where WeChat would not take it."""
        text = reply.decode()
        if self.mode == "plain" or text in ("", "success"):
            return text
        fields = (
            json.loads(text) if text.startswith("{") else {n.tag: n.text or "" for n in ElementTree.fromstring(text)}
        )
        if self.mode == "compat" and "Encrypt" not in fields:
            return text
        encrypted, timestamp, nonce = str(fields["Encrypt"]), str(fields["TimeStamp"]), str(fields["Nonce"])
        if fields["MsgSignature"] != sign(self.token, timestamp, nonce, encrypted):
            raise ValueError("the reply's MsgSignature does not match")
        content, appid = Cipher(self.aes_key).open(b64decode(encrypted))
        if appid.decode() != self.appid:
            raise ValueError("the reply does not decrypt, or holds another appid")
        return content.decode()
