"""What a user would see of an answer, as strictly as WeChat reads it.

https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

import json
from typing import NamedTuple
from xml.etree import ElementTree

from sandbox.facts import FACTS
from sandbox.messages import ACCOUNT
from sandbox.platform import Attempt, Platform
from wechat.reply import NEWS_LIMIT_EVENT, NEWS_LIMIT_MESSAGE, TEXT_LIMIT

BANNER = "该公众号提供的服务出现故障，请稍后再试"
ENVELOPE = ("ToUserName", "FromUserName", "CreateTime", "MsgType")
# What each type of reply must hold, as paths in its XML.
NEEDS: dict[str, list[str]] = FACTS["replies"]


class Verdict(NamedTuple):
    """What the user sees: the `reply`, nothing where it is empty, or the banner where there is a `fault`."""

    reply: str = ""
    fault: str = ""


def judge(platform: Platform, attempt: Attempt, is_event: bool = False, openid: str = "") -> Verdict:
    """The verdict on one answer to a push; with the `openid` of the user also on whom it is for."""
    if attempt.status is None:
        return Verdict(fault=attempt.problem or f"no answer within {attempt.seconds:.1f} s")
    if attempt.status != 200:
        return Verdict(fault=f"status {attempt.status}: WeChat takes 200 alone")
    if attempt.body in (b"", b"success"):
        return Verdict()
    try:
        document = platform.open(attempt.body)
        if document.startswith("{") and "ErrCode" in json.loads(document):  # so may a payment push be answered
            return Verdict(document)
        root = ElementTree.fromstring(document)
    except (ValueError, KeyError, TypeError, RecursionError, ElementTree.ParseError) as error:
        how = {"safe": "sealed XML", "cloud": "JSON"}.get(platform.mode, "XML")
        return Verdict(fault=f"neither success nor {how}: {type(error).__name__}")
    fault = _fault(root, is_event, openid)
    return Verdict(fault=fault) if fault else Verdict(document)


def _fault(root: ElementTree.Element, is_event: bool, openid: str) -> str:
    """What WeChat would not take in a reply; empty where it takes it."""
    if root.find("ErrCode") is not None:  # the answer that a payment push demands
        return ""
    kind = root.findtext("MsgType") or ""
    if kind not in NEEDS:
        return f"MsgType is {kind!r}, which is not a reply"
    missing = [path for path in (*ENVELOPE, *NEEDS[kind]) if not (root.findtext(path) or "").strip()]
    if missing:
        return f"no {', '.join(missing)} in the reply"
    if openid and (root.findtext("ToUserName"), root.findtext("FromUserName")) != (openid, ACCOUNT):
        return "ToUserName and FromUserName are not those of the push, exchanged"
    size = len((root.findtext("Content") or "").encode())
    if size > TEXT_LIMIT:
        return f"a text of {size} bytes, {TEXT_LIMIT} are taken"
    return _news_fault(root, NEWS_LIMIT_EVENT if is_event else NEWS_LIMIT_MESSAGE) if kind == "news" else ""


def _news_fault(root: ElementTree.Element, most: int) -> str:
    count, articles = root.findtext("ArticleCount"), len(root.findall("Articles/item"))
    if count != str(articles):
        return f"ArticleCount is {count}, there are {articles} articles"
    return f"{articles} articles, {most} are taken here" if articles > most else ""
