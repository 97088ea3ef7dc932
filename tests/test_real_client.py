"""A client that others wrote, wechatpy's, against the stand-in API."""

import io

import pytest

from sandbox.testing import APPID, SECRET

wechatpy = pytest.importorskip("wechatpy")  # it is among the peers of the benchmarks: tests/bench/requirements.txt

USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
MENU = {"button": [{"type": "click", "name": "查书", "key": "BOOKS"}]}


@pytest.fixture
def client(cloud):
    """Its client, whose addresses are those of the stand-in."""

    class Client(wechatpy.WeChatClient):
        API_BASE_URL = f"{cloud.url}/cgi-bin/"

        def _fetch_access_token(self, url, params):
            return super()._fetch_access_token(url.replace("https://api.weixin.qq.com", cloud.url), params)

    client = Client(APPID, SECRET)
    yield client
    client._http.close()


def refused(call, *arguments):
    with pytest.raises(wechatpy.exceptions.WeChatClientException) as error:
        call(*arguments)
    return error.value.errcode


def test_it_makes_and_reads_a_menu(client):
    assert client.menu.create(MENU)["errcode"] == 0
    assert client.menu.get()["menu"]["button"][0]["key"] == "BOOKS"
    client.menu.delete()
    assert client.menu.get() is None  # what it makes of 46003


def test_it_sends_messages_and_media(client, cloud):
    media_id = client.media.upload("image", ("a.png", io.BytesIO(b"picture"), "image/png"))["media_id"]
    assert client.media.download(media_id).content == b"picture"
    client.message.send_text(USER, "你好")
    client.message.send_image(USER, media_id)
    assert [message["msgtype"] for _, message in cloud.sent] == ["text", "image"]
    assert refused(client.message.send_text, "no openid!", "x") == 40003


def test_it_asks_for_the_platforms_addresses(client):
    assert "106.55.206.146" in client.misc.get_wechat_ips()


def test_it_asks_for_users_and_tags_them(client, cloud):
    cloud.note_action(USER, "subscribe")
    assert client.user.get(USER)["subscribe"] == 1
    assert client.user.get_followers()["data"]["openid"] == [USER]
    assert client.user.get_batch([USER])[0]["openid"] == USER
    number = client.tag.create("读者")["id"]
    client.tag.tag_user(number, USER)
    assert client.tag.get_user_tag(USER) == [number]
    assert client.tag.get_tag_users(number)["data"]["openid"] == [USER]
    client.tag.update(number, "书友")
    assert client.tag.get()[-1] == {"id": number, "name": "书友", "count": 1}
    assert refused(client.tag.create, "书友") == 45157
    client.tag.delete(number)
    assert client.user.get(USER)["tagid_list"] == []
    cloud.note_action(USER, "unsubscribe")
    assert client.user.get(USER)["subscribe"] == 0


def test_it_makes_a_qr_code_and_sends_a_template_message(client, cloud):
    asked = {"expire_seconds": 1800, "action_name": "QR_STR_SCENE", "action_info": {"scene": {"scene_str": "book-1"}}}
    assert {"ticket", "url", "expire_seconds"} <= set(client.qrcode.create(asked))
    assert refused(client.qrcode.create, {"action_name": "QR_SCENE"}) == 40053
    data = {"first": {"value": "到货了"}}
    assert client.message.send_template(USER, "template-1", data)["errcode"] == 0
    assert cloud.followers.notices[0][1]["data"] == data
    assert refused(client.message.send_template, USER, "", data) == 40037
    cloud.note_action(USER, "unsubscribe")
    assert refused(client.message.send_template, USER, "template-1", data) == 43004


def test_what_the_stand_in_lacks_is_said_in_the_platforms_shape(client):
    with pytest.raises(wechatpy.exceptions.WeChatClientException, match="stand-in has no such endpoint") as error:
        client.material.get_count()
    assert error.value.errcode == 40066
