"""The platform's answers, read forgivingly: whatever else is wrong in one, its errcode counts, and what to do about it.

https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from wechat.errors import TransportError, WeChatError

if TYPE_CHECKING:
    from wechat.platform.transport import HttpResponse

NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")  # what could break a line of the log
OPAQUE = re.compile(r"[\w-]{32,}", re.ASCII)  # a token has over 100 such characters, a secret 32, an openid 28
LARGEST_JSON = 16 * 1024 * 1024  # bytes
LONGEST_ERRMSG = 200  # characters
MOST_DIGITS = 640  # which each Python turns into a number: sys.set_int_max_str_digits

# https://developers.weixin.qq.com/doc/subscription/guide/dev/migration
CONSOLE = "developers.weixin.qq.com/platform"
PAGES = f"{CONSOLE} → 我的业务 → 基础信息"
KEYS = f"{PAGES} → 开发密钥, or mp.weixin.qq.com for a Mini Program"
MENU_LIMITS = "a menu has three buttons of five each, names of 16 and 60 bytes, keys of 128 and urls of 1,024"

HINTS = {
    -1: "the platform is busy: try again in a moment",
    40001: "WECHAT_SECRET is wrong, or somebody else fetched a token with force_refresh",
    40003: "no such openid in this account: openids of another account do not count",
    40004: "the kind of media has to be image, voice, video or thumb",
    40005: "the file is of another kind: an image is PNG, JPG or GIF, a voice AMR or MP3, a video MP4, a thumb JPG",
    **dict.fromkeys((40006, 45001), "the file is too large: image 10 MB, voice 2 MB, video 10 MB, thumb 64 KB"),
    40007: "no such media_id: temporary media ends after three days",
    40013: f"WECHAT_APPID is wrong: compare it with {KEYS}",
    40014: "the access token is no good: is the same account used with another secret elsewhere?",
    **dict.fromkeys(range(40016, 40028), MENU_LIMITS),
    40033: "a character in the request is not taken: send UTF-8 without \\u escapes and halves of characters",
    40125: f"WECHAT_SECRET is wrong: it may have been reset at {KEYS}",
    40164: f"add the IP address of this host to IP白名单 at {KEYS}",
    40201: f"the account has no URL: set it at {PAGES} → 域名与消息推送配置, or mp.weixin.qq.com for a Mini Program",
    40243: f"the AppSecret is frozen: thaw it at {KEYS}",
    41001: "the call had no access token: WECHAT_MODE=cloud needs 开放接口服务 to be on, and works in 云托管 alone",
    42001: "the access token has ended",
    42007: "the user changed the password: let the account be authorised again",
    43004: "the user does not follow the account",
    45008: "a customer message takes one article",
    45009: "the day's calls are used up: /cgi-bin/clear_quota gives them back ten times a month",
    45010: "too many menus were made: try again tomorrow",
    45011: "too many calls in this minute: wait for the next",
    45015: "the user has not written for 48 hours: only they can begin again",
    45047: "too many messages before the user wrote again: 5 after a message, 3 after a click",
    46003: "there is no menu yet: python -m wechat menu push",
    47001: "the data is not JSON as the platform reads it",
    48001: f"the account has no right to this call: it needs 微信认证, or to be switched on in 接口管理 at {CONSOLE}",
    48004: "the account was banned from this call",
    50004: "the account may not use this call",
    50007: "the account was frozen",
    61004: f"add the IP address of this host to IP白名单 at {KEYS}, or to that of the third-party platform",
    65303: "a conditional menu needs a default menu first",
    65316: "a menu takes urls of three domains at most",
    65320: "gender, region and language are no longer taken in a matchrule",
    76001: "no such rid: it takes one of this account, and of the last seven days",
    76022: "the platform tells nothing of calls of this path",
    **dict.fromkeys((85107, 85113), "allow the call's path in the console of 云托管, 开放接口服务"),
    89503: "the account's administrator has to confirm the call",
    89506: "the administrator refused this IP address: ask again after 24 hours",
    89507: "the administrator refused this IP address: ask again after an hour",
}
# No other call can be made then: /cgi-bin/clear_quota would need a token.
NO_CALL_LEFT = "the day's tokens are used up: POST /cgi-bin/clear_quota/v2 takes appid and appsecret instead of a token"


def to_text(raw: bytes) -> str:
    """The text in bytes that should be UTF-8 and may be GBK; what is neither has U+FFFD in it."""
    for encoding in ("utf-8-sig", "gb18030"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode(errors="replace")


def parse(body: bytes) -> Any:
    """The JSON in an answer, None where there is none."""
    for text in (to_text(body), body.decode(errors="replace")):  # a half of a character can pass for GBK
        with suppress(ValueError, RecursionError):
            return json.loads(text, strict=False, parse_int=_whole)  # control characters come as they are
    return None


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= MOST_DIGITS else inf


def number(value: object) -> float | None:
    """The number in a field, also where it is written as text; None for anything else."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None


def check_errcode(answer: Mapping[str, Any], call: str = "") -> None:
    """Raises WeChatError where the answer says that the call, like `POST /cgi-bin/stable_token`, has failed.

    An errcode that is no whole number is a failure too, with 0 for its errcode.
    """
    inner = answer.get("base_resp")
    for result in (answer, inner if isinstance(inner, dict) else {}):
        value = result.get("errcode", result.get("ret", 0))
        code = 0 if value == "" else number(value)
        if code == 0:
            continue
        errcode = int(code) if code and code == int(code) else 0
        errmsg = result.get("errmsg", "")
        said = BREAKS.sub(" ", errmsg if isinstance(errmsg, str) else reprlib.repr(errmsg))
        said = OPAQUE.sub("…", said)[:LONGEST_ERRMSG]
        raise WeChatError(errcode, said, hint_for(errcode, said, call))


def hint_for(errcode: int, errmsg: str, call: str = "") -> str:
    """What to do about an error of a call, like `GET /cgi-bin/menu/get`; empty where nobody knows."""
    address = re.search(r"(?:invalid ip|requestIP:) *([0-9A-Fa-f.:]+)", errmsg)
    if errcode in (40164, 61004) and address:
        return HINTS[errcode].replace("the IP address of this host", address[1])
    if errcode == 45009 and call.endswith("token"):
        return NO_CALL_LEFT
    return HINTS.get(errcode, "")


def is_file(received: HttpResponse) -> bool:
    """Whether the answer is a file; an error, or the address of a video, is JSON."""
    kind = received.headers.get_content_maintype()
    return bool(received.headers["Content-Disposition"]) or kind in ("image", "audio", "voice", "video")


def read_json(received: HttpResponse) -> dict[str, Any]:
    """The JSON object in an answer; raises WeChatError where it holds an errcode."""
    answer = parse(received.read(LARGEST_JSON))
    if isinstance(answer, dict):
        check_errcode(answer, received.what)
    if received.status != 200:
        raise TransportError(f"{received.what}: it answered {received.status}")
    if not isinstance(answer, dict):
        raise TransportError(f"{received.what}: the answer is {'not JSON' if answer is None else 'no JSON object'}")
    return answer
