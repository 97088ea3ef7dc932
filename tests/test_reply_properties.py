"""Replies of whatever content: what WeChat reads out of them is the content, within its limits."""

import json
import time
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox.platform import Attempt
from sandbox.verdict import judge
from tests.conftest import PLAIN, TOKEN, Account
from wechat.message import Message, without_forbidden
from wechat.reply import (
    NEWS_LIMIT_EVENT,
    TEXT_LIMIT,
    Article,
    Image,
    Music,
    News,
    Raw,
    Text,
    Transfer,
    Video,
    Voice,
    split_text,
    to_reply,
    to_xml,
)
from wechat.routing import on
from wechat.settings import read
from wechat.texts import Texts
from wxserver import Application

MORE = f"\n\n{Texts.more}"

TEXT = Message({"MsgType": "text", "FromUserName": "o_user", "ToUserName": "gh_account"})
EVENT = Message({"MsgType": "event", "FromUserName": "o_user", "ToUserName": "gh_account"})

# Surrogates too, which `text()` alone leaves out.
HARD = [
    "]]>",
    "]]",
    ">",
    "<![CDATA[",
    "]]]]>",
    "%s",
    "{}",
    "\x00",
    "\x1d",
    "\ud800",
    "\udfff",
    "\ufffe",
    "\r\n",
    "&lt;",
]
STRINGS = st.text(st.characters()) | st.sampled_from(HARD)
TEXTS = st.lists(STRINGS, max_size=6).map("".join)
LONG_TEXTS = TEXTS | st.builds(lambda text, times: (text * times)[:2500], TEXTS, st.integers(100, 2500))
PRESENT = TEXTS.filter(lambda text: without_forbidden(text).strip())
ARTICLES = st.builds(Article, PRESENT, TEXTS, TEXTS, TEXTS)
TEXT_REPLIES = st.builds(Text, LONG_TEXTS)
REPLIES = st.one_of(
    TEXT_REPLIES,
    st.builds(Image, PRESENT),
    st.builds(Voice, PRESENT),
    st.builds(Video, PRESENT, TEXTS, TEXTS, TEXTS),
    st.builds(Music, PRESENT, TEXTS, TEXTS, TEXTS, TEXTS),
    st.builds(Transfer, TEXTS),
    st.builds(News, st.lists(ARTICLES, min_size=1, max_size=10)),
).filter(to_reply)


def as_parsed(text):
    """The text as it comes out of a CDATA section: every XML parser makes one line break of the three there are."""
    return without_forbidden(text).replace("\r\n", "\n").replace("\r", "\n")


def expected(reply, most):
    """The nodes of the reply as WeChat documents them, with what the handler gave."""
    match reply:
        case Text(content):
            return {"Content": "".join(split_text(content)[:1])}
        case Image(media_id):
            return {"Image": {"MediaId": media_id}}
        case Voice(media_id):
            return {"Voice": {"MediaId": media_id}}
        case Video(media_id, title, description):
            return {"Video": {"MediaId": media_id, "Title": title, "Description": description}}
        case Music(thumb, title, description, url, hq_url):
            texts = {"Title": title, "Description": description, "MusicUrl": url, "HQMusicUrl": hq_url}
            return {"Music": {**texts, "ThumbMediaId": thumb}}
        case Transfer(account):
            return {"TransInfo": {"KfAccount": account}} if without_forbidden(account) else {}
        case News(articles):
            names = ("Title", "Description", "PicUrl", "Url")
            items = [dict(zip(names, vars(article).values(), strict=True)) for article in articles[:most]]
            return {"ArticleCount": str(len(items)), "Articles": [{"item": item} for item in items]}


def parsed(value):
    """The same, as it comes out of an XML parser."""
    if isinstance(value, dict):
        return [(name, parsed(inner)) for name, inner in value.items()]
    return [pair for item in value for pair in parsed(item)] if isinstance(value, list) else as_parsed(value)


def found(node):
    return [(child.tag, found(child)) for child in node] or (node.text or "")


@given(REPLIES, st.sampled_from([TEXT, EVENT]))
def test_wechat_reads_just_what_the_handler_gave(reply, message):
    document = to_xml(reply, message, 1)
    head = {"ToUserName": "o_user", "FromUserName": "gh_account", "CreateTime": "1", "MsgType": reply.kind}
    nodes = expected(reply, NEWS_LIMIT_EVENT if message is EVENT else 1)
    assert found(ElementTree.fromstring(document.encode())) == parsed({**head, **nodes})


@given(REPLIES, st.sampled_from([TEXT, EVENT]))
def test_wechat_shows_no_banner_for_any_reply_that_can_be_made(reply, message):
    document = to_xml(reply, message, 1).encode()
    assert not judge(PLAIN, Attempt(200, document, 0.0), message is EVENT).fault


@given(PRESENT, PRESENT)
def test_no_openid_breaks_the_document(sender, receiver):
    message = Message({"MsgType": "text", "FromUserName": sender, "ToUserName": receiver})
    document = ElementTree.fromstring(to_xml(Text("x"), message, 1))
    assert document.findtext("ToUserName") == as_parsed(sender)
    assert document.findtext("FromUserName") == as_parsed(receiver)


@given(TEXTS)
def test_a_raw_body_is_sent_as_it_is_but_for_what_no_parser_takes(body):
    assert to_xml(Raw(body), TEXT, 1) == without_forbidden(body)


def as_sent(reply):
    """The customer messages as they go over the wire, in strict UTF-8, and back."""
    return json.loads(json.dumps(reply.customer_messages(), ensure_ascii=False).encode())


@given(REPLIES)
def test_every_customer_message_is_utf_8_without_forbidden_characters(reply):
    for text in texts_in(as_sent(reply)):
        assert text == without_forbidden(text)


def texts_in(value):
    if isinstance(value, str):
        yield value
        return
    for inner in value.values() if isinstance(value, dict) else value:
        yield from texts_in(inner)


@given(TEXT_REPLIES)
def test_the_customer_messages_of_a_text_are_within_the_limit_and_make_the_whole(reply):
    contents = [message["text"]["content"] for message in as_sent(reply)]
    assert "".join(contents).split() == without_forbidden(reply.content).split()
    assert all(content.strip() and len(content.encode()) <= TEXT_LIMIT for content in contents)


@given(REPLIES.filter(lambda reply: not isinstance(reply, Text | Transfer)))
def test_a_customer_message_has_the_fields_of_the_reply(reply):
    (message,) = as_sent(reply)
    assert message["msgtype"] == reply.kind
    sent = message[reply.kind]
    (sent,) = sent["articles"] if reply.kind == "news" else [sent]
    given = vars(reply.articles[0] if reply.kind == "news" else reply)
    names = {"pic_url": "picurl", "music_url": "musicurl", "hq_music_url": "hqmusicurl"}
    assert sent == {names.get(name, name): text for name, text in given.items()}


SAID = []


@on("text")
def say_it(msg):
    return SAID[-1]


@pytest.fixture(scope="module")
def talker():
    """An account that says what was put into SAID last."""
    return Account(Application(read({"WECHAT_TOKEN": TOKEN}), {("text",): say_it}))


def answer(account, said):
    content = account.push(MsgType="text", Content=said)["Content"]
    while not account.app.delivery.is_idle():  # the rest is being put away
        time.sleep(0.001)
    return content


@given(text=LONG_TEXTS)
def test_whoever_asks_for_more_gets_the_whole_text(talker, text):
    text = text.replace("\r", "\n")  # at the end of a piece it would be one line break with the first of MORE
    assume(without_forbidden(text).strip() and MORE not in text)
    SAID.append(text)
    pieces = [answer(talker, "x")]
    while pieces[-1].endswith(MORE) and len(pieces) < 10:
        pieces.append(answer(talker, Texts.next))
    assert all(len(piece.encode()) <= TEXT_LIMIT for piece in pieces)
    assert "".join(piece.removesuffix(MORE) for piece in pieces).split() == as_parsed(text).split()
