import pytest

from sandbox.messages import ACCOUNT
from sandbox.platform import Attempt
from sandbox.verdict import judge
from tests.conftest import PLAIN, SAFE
from wechat.message import Message
from wechat.protocol.envelope import envelope_for
from wechat.reply import Article, Image, Music, News, Text, Transfer, Video, Voice, to_xml
from wechat.settings import read

TEXT = Message({"MsgType": "text", "FromUserName": "o_user", "ToUserName": "gh_account"})
EVENT = Message({**TEXT, "MsgType": "event"})


def verdict(body, status=200, platform=PLAIN, is_event=False):
    content = body.encode() if isinstance(body, str) else body
    return judge(platform, Attempt(status, content, 0.1), is_event)


@pytest.mark.parametrize("body", ["", "success"])
@pytest.mark.parametrize("platform", [PLAIN, SAFE])
def test_success_and_an_empty_body_show_nothing(body, platform):
    assert verdict(body, platform=platform) == ("", "")


REPLIES = [Text("你好"), Image("m"), Voice("m"), Video("m"), Music("m"), News([Article("t")]), Transfer()]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply.kind)
def test_every_kind_of_our_replies_is_shown(reply):
    document = to_xml(reply, TEXT, 1714037059)
    assert verdict(document) == (document, "")


PAYMENT = ['{"ErrCode":0,"ErrMsg":"success"}', "<xml><ErrCode>0</ErrCode><ErrMsg><![CDATA[success]]></ErrMsg></xml>"]


@pytest.mark.parametrize("body", PAYMENT)
def test_what_a_payment_push_demands_is_no_banner(body):
    assert verdict(body) == (body, "")
    assert verdict(body.replace("ErrCode", "Code")).fault


@pytest.mark.parametrize("status", [201, 204, 302, 403, 500])
def test_every_other_status_is_the_banner(status):
    assert verdict("success", status).fault == f"status {status}: WeChat takes 200 alone"


def test_no_answer_is_the_banner():
    assert judge(PLAIN, Attempt(None, b"", 5.0)).fault == "no answer within 5.0 s"


def test_a_connection_that_fails_is_the_banner():
    assert judge(PLAIN, Attempt(None, b"", 0.1, "Connection refused")).fault == "Connection refused"


@pytest.mark.parametrize(("openid", "is_banner"), [("o_user", False), ("o_other", True)])
def test_a_reply_goes_to_the_user_who_wrote(openid, is_banner):
    document = to_xml(Text("x"), Message({**TEXT, "ToUserName": ACCOUNT}), 1)
    assert (judge(PLAIN, Attempt(200, document.encode(), 0.1), openid=openid)[1] != "") == is_banner


@pytest.mark.parametrize(
    "body", ["Success", "success\n", "{}", "<html></html>", "<xml>", b"\xff", "<xml/>", "OK", '{"a":' * 99_999]
)
def test_whatever_else_is_the_banner(body):
    assert verdict(body).fault


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("<Content><![CDATA[x]]></Content>", "", "no Content in the reply"),
        ("[x]", "[]", "no Content in the reply"),
        ("[x]", f"[{'x' * 2048}]", "a text of 2048 bytes, 2047 are taken"),
        ("[text]", "[film]", "MsgType is 'film', which is not a reply"),
        ("CreateTime", "Created", "no CreateTime in the reply"),
    ],
)
def test_a_reply_that_wechat_would_not_take_is_the_banner(old, new, fault):
    assert verdict(to_xml(Text("x"), TEXT, 1).replace(old, new)).fault == fault


@pytest.mark.parametrize(("is_event", "most"), [(False, 1), (True, 8)])
def test_news_have_as_many_articles_as_they_may_and_as_they_say(is_event, most):
    document = to_xml(News([Article("t")] * 8), EVENT, 1)
    assert verdict(document, is_event=is_event).fault == ("" if is_event else f"8 articles, {most} are taken here")
    assert verdict(document.replace(">8<", ">7<"), is_event=True).fault == "ArticleCount is 7, there are 8 articles"


def test_in_safe_mode_a_reply_has_to_be_sealed():
    document = to_xml(Text("x"), TEXT, 1)
    assert verdict(document, platform=SAFE).fault.startswith("neither success nor sealed XML")
    environ = {"WECHAT_TOKEN": SAFE.token, "WECHAT_AES_KEY": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}
    envelope = envelope_for(read({**environ, "WECHAT_APPID": SAFE.appid}))
    query, body = SAFE.push(document)
    fields = dict(pair.split("=") for pair in query.split("&"))
    _, seal = envelope.open(body, fields)
    sealed = seal(document.encode())
    assert verdict(sealed, platform=SAFE) == (document, "")
    assert verdict(sealed.replace(b"<Nonce><![CDATA[", b"<Nonce><![CDATA[0"), platform=SAFE).fault
