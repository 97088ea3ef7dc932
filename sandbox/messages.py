"""Messages and events as a user would send them.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from sandbox.platform import ACCOUNT, USER
from wechat.templates import cdata

# The fields of each type that a user fills, in the order of a command line, and what they are otherwise.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "text": {"Content": "你好"},
    "image": {"PicUrl": "https://example.com/picture.jpg", "MediaId": "sandbox-image"},
    "voice": {"Recognition": "你好", "MediaId": "sandbox-voice", "Format": "amr"},
    "video": {"MediaId": "sandbox-video", "ThumbMediaId": "sandbox-thumb"},
    "shortvideo": {"MediaId": "sandbox-video", "ThumbMediaId": "sandbox-thumb"},
    "location": {"Location_X": "39.9", "Location_Y": "116.4", "Label": "北京", "Scale": "15"},
    "link": {"Title": "标题", "Description": "", "Url": "https://example.com/"},
    "miniprogrampage": {"Title": "标题", "AppId": "wx1234567890abcdef", "PagePath": "pages/index"},
    "event": {"Event": "subscribe", "EventKey": ""},
}


def build(kind: str, values: Sequence[str], openid: str = USER) -> str:
    """The XML of a message of this MsgType; the values fill its fields in their order.

    Raises ValueError for a kind that nobody knows, and for more values than it has fields.
    """
    if kind not in FIELDS:
        raise ValueError(f"{kind} is no type of message: there are {', '.join(FIELDS)}")
    names = list(FIELDS[kind])
    if len(values) > len(names):
        raise ValueError(f"{kind} takes {', '.join(names)} at most")
    fields = {**FIELDS[kind], **dict(zip(names, values, strict=False))}
    if kind != "event":
        fields["MsgId"] = str(secrets.randbits(62))
    return to_xml(kind, fields, openid)


def to_xml(kind: str, fields: Mapping[str, str], openid: str) -> str:
    """The fields of a message inside the nodes that all messages have."""
    common = {"ToUserName": ACCOUNT, "FromUserName": openid, "CreateTime": str(int(time.time())), "MsgType": kind}
    nodes = (f"<{name}>{cdata(value)}</{name}>" for name, value in {**common, **fields}.items())
    return f"<xml>{''.join(nodes)}</xml>"
