"""What to do about the error codes of the platform's API.

https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html
"""

from __future__ import annotations

import re

# https://developers.weixin.qq.com/doc/subscription/guide/dev/migration
CONSOLE = "developers.weixin.qq.com/platform"
KEYS = f"{CONSOLE} → 我的业务 → 基础信息 → 开发密钥, or mp.weixin.qq.com for a Mini Program"

HINTS = {
    -1: "the platform is busy: try again in a moment",
    40001: "WECHAT_SECRET is wrong, or somebody else fetched a token with force_refresh",
    40002: "grant_type has to be client_credential",
    40003: "no such openid in this account: openids of another account do not count",
    40004: "the kind of media has to be image, voice, video or thumb",
    40005: "this type of file is not taken",
    40006: "the file is too large: image 10 MB, voice 2 MB, video 10 MB, thumb 64 KB",
    40007: "no such media_id: temporary media ends after three days",
    40008: "this account does not take messages of this type",
    40013: f"WECHAT_APPID is wrong: compare it with {KEYS}",
    40014: "the access token is no good: is the same account used with another secret elsewhere?",
    40016: "a menu has one to three buttons",
    40017: "this type of button does not exist",
    40018: "a button's name is too long: 16 bytes at the top, 60 bytes below",
    40019: "a button's key is too long: 128 bytes",
    40020: "a button's url is too long: 1,024 bytes",
    40022: "a menu has two levels",
    40023: "a button has one to five sub-buttons",
    40025: "a sub-button's name is too long: 60 bytes",
    40026: "a sub-button's key is too long: 128 bytes",
    40027: "a sub-button's url is too long: 1,024 bytes",
    40033: "a character in the request is not taken: send UTF-8 without \\u escapes and halves of characters",
    40054: "the domain in a sub-button's url is not allowed",
    40055: "the domain in a button's url is not allowed",
    40125: f"WECHAT_SECRET is wrong: it may have been reset at {KEYS}",
    40164: f"add the IP address of this host to IP白名单 at {KEYS}",
    40243: f"the AppSecret is frozen: thaw it at {KEYS}",
    41001: "the call had no access token",
    41002: "WECHAT_APPID is missing",
    41004: "WECHAT_SECRET is missing",
    42001: "the access token has ended",
    42007: "the user changed the password: let the account be authorised again",
    43002: "this call takes POST",
    43004: "the user does not follow the account",
    45001: "the file is too large",
    45002: "the message is too long",
    45008: "a customer message takes one article",
    45009: "the day's calls are used up: /cgi-bin/clear_quota gives them back ten times a month",
    45010: "too many menus were made: try again tomorrow",
    45011: "too many calls in this minute: wait for the next",
    45015: "the user has not written for 48 hours: only they can begin again",
    45047: "too many messages before the user wrote again: 5 after a message, 3 after a click",
    45065: "the same clientmsgid again",
    45072: "the command has to be Typing or CancelTyping",
    45080: "no word with this user in the last 30 seconds",
    45081: "typing is being shown already",
    46003: "there is no menu yet: python -m wechat menu push",
    47001: "the data is not JSON as the platform reads it",
    48001: f"the account has no right to this call: it needs 微信认证, or to be switched on in 接口管理 at {CONSOLE}",
    48002: "the user refuses messages of the account",
    48004: "the account was banned from this call",
    48006: "the quota cannot be cleared again this month",
    50004: "the account may not use this call",
    50007: "the account was frozen",
    61004: f"add the IP address of this host to IP白名单 at {KEYS}, or to that of the third-party platform",
    65303: "a conditional menu needs a default menu first",
    65304: "the rule of the conditional menu is empty",
    65316: "a menu takes urls of three domains at most",
    65320: "gender, region and language are no longer taken in a matchrule",
    89503: "the account's administrator has to confirm the call",
    89506: "the administrator refused this IP address: ask again after 24 hours",
    89507: "the administrator refused this IP address: ask again after an hour",
}


UNKNOWN_ADDRESS = (40164, 61004)
# No other call can be made then: /cgi-bin/clear_quota would need a token.
NO_CALL_LEFT = "the day's tokens are used up: POST /cgi-bin/clear_quota/v2 takes appid and appsecret instead of a token"


def hint_for(errcode: int, errmsg: str, call: str = "") -> str:
    """What to do about an error of a call, like `GET /cgi-bin/menu/get`; empty where nobody knows."""
    address = re.search(r"(?:invalid ip|requestIP:) *([0-9A-Fa-f.:]+)", errmsg)
    if errcode in UNKNOWN_ADDRESS and address:
        return HINTS[errcode].replace("the IP address of this host", address[1])
    if errcode == 45009 and call.endswith("token"):
        return NO_CALL_LEFT
    return HINTS.get(errcode, "")
