"""Plays WeChat towards a server: signs and seals pushes, delivers them, and opens the replies.

https://developers.weixin.qq.com/doc/service/guide/dev/push/
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple, Self
from urllib.parse import urlencode, urlsplit
from wsgiref.types import WSGIApplication
from xml.etree import ElementTree

from webob import Request

from sandbox.messages import ACCOUNT, USER, to_json, to_xml
from wechat.errors import Unreadable
from wechat.message import cdata
from wechat.protocol.envelope import RANDOM, Cipher, sign
from wechat.protocol.parser import parse
from wechat.settings import MARK, Settings

HEADERS = {"User-Agent": "Mozilla/4.0", "Content-Type": "text/xml"}
# Which message of the sandbox a request belongs to, and where the sandbox has its page.
MESSAGE_HEADER, PAGE_HEADER = "X-Sandbox-Message", "X-Sandbox-Page"


def signed_query(token: str, timestamp: int | None = None, encrypted: str = "", openid: str = USER) -> str:
    """The query of a URL that WeChat posts to.

    `timestamp` is in seconds since 1970, now unless given; `encrypted` is what the body holds under `Encrypt`.
    """
    seconds = str(int(time.time()) if timestamp is None else timestamp)
    nonce = str(secrets.randbelow(10**10))
    query = {"signature": sign(token, seconds, nonce), "timestamp": seconds, "nonce": nonce, "openid": openid}
    if encrypted:
        query |= {"encrypt_type": "aes", "msg_signature": sign(token, seconds, nonce, encrypted)}
    return urlencode(query)


class Attempt(NamedTuple):
    """One attempt at a push: the status and body of the answer, None and empty where there was none.

    `problem` says why, unless WeChat hung up after so many seconds. `page` is the sandbox's, where one answered.
    """

    status: int | None
    body: bytes
    seconds: float
    problem: str = ""
    page: str = ""


def is_address(text: str) -> bool:
    """Whether it is a URL to post to."""
    found = re.fullmatch(
        r"https?://(\w[\w-]{0,62}(?:\.[\w-]{1,63})*\.?|\[[\da-f:]+\])(:\d{1,5})?(/[!-~]*)?",
        text,
        re.ASCII | re.IGNORECASE,
    )
    return found is not None and int((found[2] or ":80")[1:]) < 65_536


def is_local(url: str) -> bool:
    """Whether it is on this machine."""
    return is_address(url) and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Endpoint:
    """Where WeChat posts to: a URL, and the WSGI callable behind it where nothing listens there.

    WeChat hangs up after `hang_up` seconds; `headers` are sent with each request.
    """

    url: str
    app: WSGIApplication | None = None
    hang_up: float = 5.0
    headers: Mapping[str, str] = field(default_factory=dict)

    def deliver(self, query: str, body: bytes, most: int = 3) -> Iterator[Attempt]:
        """Posts as WeChat does; gives each attempt as soon as it has ended.

        Where no answer came, or one with another status than 200, the same bytes go again, `most` times in all.
        """
        for _ in range(most):
            attempt = self.request("POST", query, body)
            yield attempt
            if attempt.status == 200:
                return

    def request(self, method: str, query: str, body: bytes = b"") -> Attempt:
        """One request as WeChat makes it; it ends when WeChat hangs up, however slowly the answer drips."""
        exchange = self._call if self.app else self._post
        started = time.monotonic()
        try:
            status, content, page = exchange(method, self._target(query), body)
            return Attempt(status, content, time.monotonic() - started, page=page)
        except (OSError, HTTPException) as error:
            seconds = time.monotonic() - started
            said = getattr(error, "strerror", "") or type(error).__name__
            return Attempt(None, b"", seconds, said if seconds < self.hang_up else "")

    def _target(self, query: str) -> str:
        parts = urlsplit(self.url)
        return f"{parts.path or '/'}?{'&'.join(filter(None, [parts.query, query]))}"

    def _post(self, method: str, target: str, body: bytes) -> tuple[int, bytes, str]:
        parts = urlsplit(self.url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        with closing(connect(parts.hostname or "", parts.port, timeout=self.hang_up)) as connection:
            started = time.monotonic()
            connection.connect()
            left = max(0.0, started + self.hang_up - time.monotonic())
            end = threading.Timer(left, hang_up_on, [connection.sock])
            end.start()
            try:
                connection.request(method, target, body or None, {**HEADERS, **self.headers})
                response = connection.getresponse()
                return response.status, response.read(), response.getheader(PAGE_HEADER, "")
            finally:
                end.cancel()

    def _call(self, method: str, target: str, body: bytes) -> tuple[int, bytes, str]:
        request = Request.blank(target, method=method, body=body, headers={**HEADERS, **self.headers})
        answer: Future[tuple[int, bytes, str]] = Future()

        def call() -> None:
            try:
                response = request.send(self.app)
                answer.set_result((response.status_int, response.body, ""))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=call, name="push", daemon=True).start()
        return answer.result(self.hang_up)


def hang_up_on(connection: socket.socket) -> None:
    """Ends a connection, if it has not ended by itself."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Platform:
    """WeChat's side of one account. `mode` is plain, compat, safe or cloud; the AES key has 32 bytes."""

    token: str
    mode: str = "plain"
    aes_key: bytes = b""
    appid: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """WeChat's side of the account in the settings."""
        return cls("".join(settings.tokens[:1]), settings.mode, (settings.aes_keys or (b"",))[0], settings.appid)

    @property
    def headers(self) -> dict[str, str]:
        """What it puts on a request, beside what every client does."""
        return {MARK: "other", "Content-Type": "application/json"} if self.mode == "cloud" else {}

    def push(self, content: str, timestamp: int | None = None, openid: str = USER) -> tuple[str, bytes]:
        """The query and the body that push the content, XML or JSON, of the user `openid`."""
        if self.mode == "plain":
            return signed_query(self.token, timestamp, openid=openid), content.encode()
        if self.mode == "cloud":
            return "", as_json(content).encode()
        sealed = Cipher(self.aes_key).seal(content.encode(), self.appid.encode(), os.urandom(RANDOM))
        encrypted = b64encode(sealed).decode()
        body = self._envelope(content, encrypted)
        return signed_query(self.token, timestamp, encrypted, openid), body.encode()

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
        if self.mode == "cloud":
            return from_json(text)
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


def as_json(content: str) -> str:
    """A message as WeChat's cloud pushes it, unless it is broken on purpose."""
    with suppress(Unreadable):
        return to_json(parse(content.encode()))
    return content


def from_json(text: str) -> str:
    """The XML of a reply in JSON, as WeChat's cloud reads it; raises ValueError where it is none.

    https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/development/weixin/callback.html
    """
    if text in ("", "success"):
        return text
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("not a JSON object")
    if "ErrCode" in fields:
        return text
    numbers = [fields.get(name, 0) for name in ("CreateTime", "ArticleCount")]
    if not all(type(number) is int for number in numbers) or not isinstance(fields.get("Articles", []), list):
        raise ValueError("CreateTime and ArticleCount are numbers, Articles is a plain list")
    return to_xml(fields)
