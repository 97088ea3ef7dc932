"""The XML of replies, as string templates that no content can break.

https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

from __future__ import annotations

from wechat.message import without_forbidden

DOCUMENT = (
    "<xml><ToUserName>%s</ToUserName><FromUserName>%s</FromUserName>"
    "<CreateTime>%d</CreateTime><MsgType><![CDATA[%s]]></MsgType>%s</xml>"
)
TEXT = "<Content>%s</Content>"
IMAGE = "<Image><MediaId>%s</MediaId></Image>"
VOICE = "<Voice><MediaId>%s</MediaId></Voice>"
VIDEO = "<Video><MediaId>%s</MediaId><Title>%s</Title><Description>%s</Description></Video>"
MUSIC = (
    "<Music><Title>%s</Title><Description>%s</Description><MusicUrl>%s</MusicUrl>"
    "<HQMusicUrl>%s</HQMusicUrl><ThumbMediaId>%s</ThumbMediaId></Music>"
)
NEWS = "<ArticleCount>%d</ArticleCount><Articles>%s</Articles>"
ARTICLE = "<item><Title>%s</Title><Description>%s</Description><PicUrl>%s</PicUrl><Url>%s</Url></item>"
TRANSFER_TO = "<TransInfo><KfAccount>%s</KfAccount></TransInfo>"

SPLIT = "]]]]><![CDATA[>"  # how a `]]>` stands inside CDATA


def cdata(text: str) -> str:
    """The text as a CDATA section that no content can end."""
    return f"<![CDATA[{without_forbidden(text).replace(']]>', SPLIT)}]]>"
