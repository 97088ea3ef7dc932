"""What a handler answers: reply values, and the XML that WeChat takes as the direct answer to a push.

https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html
"""

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from wechat.message import Message, cdata, without_forbidden
from wechat.pieces import TEXT_LIMIT as TEXT_LIMIT
from wechat.pieces import split_text as split_text
from wechat.plain import plain as plain

logger = logging.getLogger(__name__)

NEWS_LIMIT_MESSAGE = 1  # articles in answer to a message, since October 2018
NEWS_LIMIT_EVENT = 8  # articles in answer to an event


class Fields:
    """Texts that are checked, and freed of forbidden characters, where the value is made and not where it is sent."""

    kind: ClassVar[str]
    xml: ClassVar[str]  # its nodes, with the names of the fields
    may_be_empty: ClassVar[bool] = False  # whether that says nothing; else what has no default has to be there

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            if not isinstance(text, str):
                raise TypeError(f"{type(self).__name__}: {name} takes a text, not {type(text).__name__}")
            object.__setattr__(self, name, without_forbidden(text))
            if not (self.may_be_empty or hasattr(type(self), name) or getattr(self, name).strip()):
                raise ValueError(f"{type(self).__name__}: {name} is empty, which would cost the user the whole answer")

    def nodes(self) -> str:
        """The XML nodes that this kind of reply has of its own, which no content can break."""
        return self.xml % {name: cdata(text) for name, text in vars(self).items()}

    def customer_fields(self) -> dict[str, Any]:
        """The fields as customer messages have them: `picurl`, but `media_id`."""
        return {name.replace("_", "") if name.endswith("url") else name: text for name, text in vars(self).items()}


@dataclass(frozen=True)
class Reply(Fields):
    """The base of the reply values. `kind` is WeChat's MsgType."""

    is_direct: ClassVar[bool] = False  # whether it can only be the direct answer

    def customer_messages(self) -> list[dict[str, Any]]:
        """The JSON that sends the reply as customer messages, without `touser`; none where the platform has no such.

        https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage.html
        """
        return [] if self.is_direct else [{"msgtype": self.kind, self.kind: self.customer_fields()}]

    def is_empty(self) -> bool:
        """Whether there is nothing to say, so that `success` is the answer."""
        return self.may_be_empty and not any(vars(self).values())

    def fitted(self, to_event: bool) -> "Reply":
        """The reply within WeChat's limits; what is dropped for them is logged."""
        return self


@dataclass(frozen=True, init=False)
class Text(Reply):
    """A text; `<a href>` works in it, line breaks are kept."""

    kind = "text"
    may_be_empty = True
    content: str

    def __init__(self, content: str) -> None:
        object.__setattr__(self, "content", content)
        if content.__class__ is not str:  # the common case, without a loop
            self.__post_init__()

    def customer_messages(self) -> list[dict[str, Any]]:
        return [{"msgtype": self.kind, self.kind: {"content": piece}} for piece in split_text(self.content)]

    def is_empty(self) -> bool:
        return not without_forbidden(self.content).strip()

    def nodes(self) -> str:
        return f"<Content>{cdata(self.content)}</Content>"

    def fitted(self, to_event: bool) -> Reply:
        if len(self.content) * 4 <= TEXT_LIMIT or not is_long(self):  # nearly all are short, and cost no call
            return self
        logger.warning("a text over %d bytes is cut, the rest is dropped", TEXT_LIMIT)
        return Text(split_text(self.content)[0])


def is_long(text: Text) -> bool:
    """Whether the text has more bytes than WeChat takes at once."""
    # A character has 4 bytes at most.
    return len(text.content) * 4 > TEXT_LIMIT < len(without_forbidden(text.content).encode())


@dataclass(frozen=True)
class Image(Reply):
    """A picture that was uploaded, or received, under this media_id."""

    kind = "image"
    xml = "<Image><MediaId>%(media_id)s</MediaId></Image>"
    media_id: str


@dataclass(frozen=True)
class Voice(Reply):
    """A voice message that was uploaded, or received, under this media_id."""

    kind = "voice"
    xml = "<Voice><MediaId>%(media_id)s</MediaId></Voice>"
    media_id: str


@dataclass(frozen=True)
class Video(Reply):
    """A video; only a customer message shows the thumb."""

    kind = "video"
    xml = (
        "<Video><MediaId>%(media_id)s</MediaId>"
        "<Title>%(title)s</Title><Description>%(description)s</Description></Video>"
    )
    media_id: str
    title: str = ""
    description: str = ""
    thumb_media_id: str = ""


@dataclass(frozen=True)
class Music(Reply):
    """A piece of music; `hq_music_url` is what plays over Wi-Fi."""

    kind = "music"
    xml = (
        "<Music><Title>%(title)s</Title><Description>%(description)s</Description><MusicUrl>%(music_url)s</MusicUrl>"
        "<HQMusicUrl>%(hq_music_url)s</HQMusicUrl><ThumbMediaId>%(thumb_media_id)s</ThumbMediaId></Music>"
    )
    thumb_media_id: str
    title: str = ""
    description: str = ""
    music_url: str = ""
    hq_music_url: str = ""


@dataclass(frozen=True)
class Article(Fields):
    """One article of a News reply; the picture is JPG or PNG, 360*200 or 200*200 pixels."""

    kind = "article"
    xml = (
        "<item><Title>%(title)s</Title><Description>%(description)s</Description>"
        "<PicUrl>%(pic_url)s</PicUrl><Url>%(url)s</Url></item>"
    )
    title: str
    description: str = ""
    pic_url: str = ""
    url: str = ""


@dataclass(frozen=True)
class News(Reply):
    """Articles: one in answer to a message, up to eight in answer to an event."""

    kind = "news"
    xml = "<ArticleCount>%d</ArticleCount><Articles>%s</Articles>"
    may_be_empty = True
    articles: Sequence[Article]

    def __post_init__(self) -> None:
        object.__setattr__(self, "articles", tuple(self.articles))
        if not all(isinstance(article, Article) for article in self.articles):
            raise TypeError("News takes a list of articles")

    def nodes(self) -> str:
        return self.xml % (len(self.articles), "".join(article.nodes() for article in self.articles))

    def customer_fields(self) -> dict[str, Any]:
        return {"articles": [article.customer_fields() for article in self.fitted(to_event=False).articles]}

    def fitted(self, to_event: bool) -> "News":
        limit = NEWS_LIMIT_EVENT if to_event else NEWS_LIMIT_MESSAGE
        if len(self.articles) <= limit:
            return self
        logger.warning("news with %d articles: WeChat takes %d here, the rest are dropped", len(self.articles), limit)
        return News(self.articles[:limit])


@dataclass(frozen=True)
class Transfer(Reply):
    """Hands the user's message to a human agent: any who is free, or the one named."""

    kind = "transfer_customer_service"
    xml = "<TransInfo><KfAccount>%(kf_account)s</KfAccount></TransInfo>"
    is_direct = True
    kf_account: str = ""

    def nodes(self) -> str:
        return super().nodes() if self.kf_account else ""


@dataclass(frozen=True)
class Raw(Reply):
    """A whole body, XML or JSON, for the pushes that demand an answer of their own."""

    kind = "raw"
    is_direct = may_be_empty = True
    body: str

    def is_empty(self) -> bool:
        return not self.body.strip()


def to_reply(value: Any) -> Reply | None:
    """What a handler returned, as a reply value; None where it says nothing.

    A string is a Text; an Article, or a list of them, is News. Blanks at the end of a text are dropped: an empty one
    costs the banner, https://github.com/dodgepudding/wechat-php-sdk/issues/342. Raises TypeError for what is no reply.
    """
    if value is None:
        return None
    if value.__class__ is str and value.isprintable() and value[-1:] != " ":  # the common case: nothing to clean
        return Text(value) if value else None
    own: Any = next((each for each in type(value).__mro__ if each.__module__ == __name__), Reply)
    if isinstance(value, str):
        value = Text(value)
    elif isinstance(value, Article):
        value = News([value])
    elif isinstance(value, list) and all(isinstance(item, Article) for item in value):
        value = News(value)
    elif isinstance(value, Coroutine):
        value.close()  # else Python warns of it, at no place that helps
        raise TypeError("a handler returned a coroutine: await it, in a handler that is an `async def` itself")
    elif own in (Fields, Reply) or (value.kind, len(fields(value))) != (own.kind, len(own.__annotations__)):
        said = "list: `yield` each of several replies" if isinstance(value, list) else type(value).__name__
        raise TypeError(f"a handler returns a text, a reply value, articles or None, not {said}")
    if isinstance(value, Text) and value.content[-1:].isspace():
        value = replace(value, content=value.content.rstrip())
    return None if value.is_empty() else value


def to_xml(reply: Reply, message: Message, created: int) -> str:
    """The document that answers the message, within WeChat's limits; `created` is in seconds since 1970."""
    if isinstance(reply, Raw):
        return reply.body
    user, account = cdata(message["FromUserName"]), cdata(message["ToUserName"])
    nodes = reply.fitted(to_event=message["MsgType"] == "event").nodes()
    return (
        f"<xml><ToUserName>{user}</ToUserName><FromUserName>{account}</FromUserName>"
        f"<CreateTime>{created}</CreateTime><MsgType><![CDATA[{reply.kind}]]></MsgType>{nodes}</xml>"
    )
