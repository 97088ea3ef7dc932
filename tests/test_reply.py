from xml.etree import ElementTree

import pytest

from wechat.message import Message
from wechat.reply import (
    Article,
    Image,
    Music,
    News,
    Raw,
    Text,
    Transfer,
    Video,
    Voice,
    to_reply,
    to_xml,
)

TEXT = Message({"MsgType": "text", "FromUserName": "o_user", "ToUserName": "gh_account"})
EVENT = Message({"MsgType": "event", "FromUserName": "o_user", "ToUserName": "gh_account"})


def tree(reply, message=TEXT):
    return ElementTree.fromstring(to_xml(reply, message, 1714037059))


def shape(node):
    return {child.tag: shape(child) if len(child) else child.text or "" for child in node}


def body(reply):
    fields = shape(tree(reply))
    for name in ("ToUserName", "FromUserName", "CreateTime"):
        del fields[name]
    return fields


def test_a_reply_goes_back_to_who_wrote():
    fields = shape(tree(Text("好")))
    assert fields == {
        "ToUserName": "o_user",
        "FromUserName": "gh_account",
        "CreateTime": "1714037059",
        "MsgType": "text",
        "Content": "好",
    }


def test_the_nodes_of_each_kind_are_wechats():
    assert body(Image("m")) == {"MsgType": "image", "Image": {"MediaId": "m"}}
    assert body(Voice("m")) == {"MsgType": "voice", "Voice": {"MediaId": "m"}}
    video = {"MediaId": "m", "Title": "t", "Description": "d"}
    assert body(Video("m", "t", "d", "thumb")) == {"MsgType": "video", "Video": video}
    music = {"Title": "t", "Description": "d", "MusicUrl": "u", "HQMusicUrl": "hq", "ThumbMediaId": "th"}
    assert body(Music("th", "t", "d", "u", "hq")) == {"MsgType": "music", "Music": music}
    item = {"Title": "t", "Description": "d", "PicUrl": "p", "Url": "u"}
    news = {"MsgType": "news", "ArticleCount": "1", "Articles": {"item": item}}
    assert body(News([Article("t", "d", "p", "u")])) == news
    assert body(Transfer()) == {"MsgType": "transfer_customer_service"}
    transfer = {"MsgType": "transfer_customer_service", "TransInfo": {"KfAccount": "test1@test"}}
    assert body(Transfer("test1@test")) == transfer


@pytest.mark.parametrize("make", [Text, Image, Voice, Video, Music, Transfer, Raw, Article])
def test_a_field_that_is_no_text_is_an_error_where_the_reply_is_made(make):
    with pytest.raises(TypeError, match=f"{make.__name__}: .* takes a text, not int"):
        make(5)


@pytest.mark.parametrize("make", [Image, Voice, Video, Music, Article])
@pytest.mark.parametrize("nothing", ["", " \n", "\x00\x1d", "\ud800"])
def test_a_reply_without_what_wechat_demands_is_an_error_where_it_is_made(make, nothing):
    """<MediaId></MediaId> in a push came back as a picture without one, which is the banner."""
    with pytest.raises(ValueError, match=f"{make.__name__}: .* is empty"):
        make(nothing)


def test_what_has_a_default_may_be_empty():
    assert Video("m", "", "", "") == Video("m")
    assert Transfer("") == Transfer()


def test_news_that_hold_no_articles_are_an_error_where_they_are_made():
    with pytest.raises(TypeError, match="articles"):
        News(["no article"])


def test_raw_is_the_whole_body():
    assert to_xml(Raw('{"ErrCode":0}'), EVENT, 1) == '{"ErrCode":0}'


def articles(number):
    return [Article(f"article {n}") for n in range(number)]


@pytest.mark.parametrize(("message", "most"), [(TEXT, 1), (EVENT, 8)])
def test_news_keeps_what_wechat_takes_and_logs_what_it_dropped(message, most, log):
    assert len(tree(News(articles(most)), message).findall("Articles/item")) == most
    assert not log.records
    document = tree(News(articles(10)), message)
    assert [title.text for title in document.iter("Title")] == [f"article {n}" for n in range(most)]
    assert document.findtext("ArticleCount") == str(most)
    assert f"WeChat takes {most} here" in log.text


@pytest.mark.parametrize("content", ["a" * 2047, "界" * 682 + "a", "😀" * 511 + "abc"])
def test_a_text_of_2047_bytes_stays_whole(content, log):
    assert len(content.encode()) == 2047
    assert tree(Text(content)).findtext("Content") == content
    assert not log.records


@pytest.mark.parametrize("content", ["a" * 2048, "界" * 683, "😀" * 512, "a" * 2046 + "😀"])
def test_a_longer_text_is_cut_between_characters_and_the_loss_is_logged(content, log):
    kept = tree(Text(content)).findtext("Content")
    assert content.startswith(kept)
    assert 2044 <= len(kept.encode()) <= 2047
    assert "dropped" in log.text
    assert kept not in log.text


@pytest.mark.parametrize(
    "nothing", [None, "", [], Text(""), News([]), Raw(""), Raw("\n"), "\x00\x1d", " ", "\n", Text("\u3000 \x00")]
)
def test_nothing_to_say_is_no_reply(nothing):
    assert to_reply(nothing) is None


@pytest.mark.parametrize("ended", ["a ", "a\n\n", Text("a\u3000"), "x" * 2047 + "\n" * 2000])
def test_blanks_at_the_end_of_a_text_are_dropped(ended):
    said = to_reply(ended)
    assert said == Text((ended.content if isinstance(ended, Text) else ended).strip())
    assert len(said.customer_messages()) == 1


def test_short_forms_stand_for_reply_values():
    article = Article("t")
    assert to_reply("好") == Text("好")
    assert to_reply(article) == News([article]) == to_reply([article])
    assert to_reply(Image("m")) == Image("m")


@pytest.mark.parametrize(
    "value", [0, 1, True, False, b"bytes", {}, {"a": 1}, (), [1], ["a"], [Article("t"), "x"], object()]
)
def test_anything_else_is_an_error_that_names_its_type(value):
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        to_reply(value)
