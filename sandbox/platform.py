"""Plays WeChat towards a server: builds messages and signs them."""

from __future__ import annotations

import secrets
import time
from urllib.parse import urlencode

from wechat.reply import cdata
from wechat.signature import sign

ACCOUNT = "gh_7f083739789a"
USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"


def signed_query(token: str, timestamp: int | None = None, **more: str) -> str:
    """The query of a URL that WeChat posts to; `timestamp` is in seconds since 1970, now unless given."""
    seconds = str(int(time.time()) if timestamp is None else timestamp)
    nonce = str(secrets.randbelow(10**10))
    signature = sign(token, seconds, nonce)
    return urlencode({"signature": signature, "timestamp": seconds, "nonce": nonce, **more})


def text_message(content: str, openid: str = USER) -> str:
    """A text as the user `openid` would send it, as XML."""
    return (
        f"<xml><ToUserName>{cdata(ACCOUNT)}</ToUserName><FromUserName>{cdata(openid)}</FromUserName>"
        f"<CreateTime>{int(time.time())}</CreateTime><MsgType><![CDATA[text]]></MsgType>"
        f"<Content>{cdata(content)}</Content><MsgId>{secrets.randbits(62)}</MsgId></xml>"
    )
