"""The XML of replies, as string templates that no content can break.

https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

from __future__ import annotations

from wechat.message import without_forbidden

DOCUMENT = (
    "<xml><ToUserName>%s</ToUserName><FromUserName>%s</FromUserName>"
    "<CreateTime>%d</CreateTime><MsgType><![CDATA[%s]]></MsgType>%s</xml>"
)
NODES = {  # of each kind of reply, by the names of its fields
    "text": "<Content>%(content)s</Content>",
    "image": "<Image><MediaId>%(media_id)s</MediaId></Image>",
    "voice": "<Voice><MediaId>%(media_id)s</MediaId></Voice>",
    "video": (
        "<Video><MediaId>%(media_id)s</MediaId>"
        "<Title>%(title)s</Title><Description>%(description)s</Description></Video>"
    ),
    "music": (
        "<Music><Title>%(title)s</Title><Description>%(description)s</Description><MusicUrl>%(music_url)s</MusicUrl>"
        "<HQMusicUrl>%(hq_music_url)s</HQMusicUrl><ThumbMediaId>%(thumb_media_id)s</ThumbMediaId></Music>"
    ),
    "article": (
        "<item><Title>%(title)s</Title><Description>%(description)s</Description>"
        "<PicUrl>%(pic_url)s</PicUrl><Url>%(url)s</Url></item>"
    ),
    "news": "<ArticleCount>%d</ArticleCount><Articles>%s</Articles>",
    "transfer_customer_service": "<TransInfo><KfAccount>%(kf_account)s</KfAccount></TransInfo>",
}

SPLIT = "]]]]><![CDATA[>"  # how a `]]>` stands inside CDATA


def cdata(text: str) -> str:
    """The text as a CDATA section that no content can end."""
    if not text.isprintable():
        text = without_forbidden(text)
    return f"<![CDATA[{text.replace(']]>', SPLIT)}]]>"
