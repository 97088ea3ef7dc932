import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request as HttpRequest
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import pytest
from webob import Request

from sandbox.cloud import Cloud
from sandbox.followers import Window
from sandbox.messages import USER
from sandbox.testing import APPID
from tests.conftest import ROOT

SECRET = "s" * 32
KEYS = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET}
CLICK = {"type": "click", "name": "查书", "key": "BOOKS"}
VIEW = {"type": "view", "name": "豆瓣", "url": "https://book.douban.com/"}
TEXT = {"touser": USER, "msgtype": "text", "text": {"content": "你好"}}
SEND = "message/custom/send"
FORM = (
    '--b\r\nContent-Disposition: form-data; name="{}"; filename="{}"\r\nContent-Type: application/octet-stream\r\n\r\n'
)


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


class Client:
    """One that holds the cloud to the WSGI contract; `token` goes with every call, unless it is empty."""

    def __init__(self, cloud):
        self.checked = validator(cloud)
        self.token = ""

    def request(self, method, path, body=b"", content_type="application/json", **query):
        query = ({"access_token": self.token} if self.token else {}) | query
        request = Request.blank(f"/cgi-bin/{path}?{urlencode(query)}", method=method, body=body)
        request.content_type = content_type
        response = request.send(self.checked)
        response.body  # noqa: B018, reads and closes, which is part of the contract
        return response

    def get(self, path, **query):
        return json.loads(self.request("GET", path, **query).body)

    def post(self, path, data, **query):
        body = data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()
        return json.loads(self.request("POST", path, body, **query).body)

    def upload(self, kind, filename, content=b"bytes", field="media"):
        form = "multipart/form-data; boundary=b"
        return json.loads(
            self.request("POST", "media/upload", multipart(filename, content, field), form, type=kind).body
        )

    def fetch(self, **more):
        return self.post("stable_token", {**KEYS, **more})


def multipart(filename, content, field="media"):
    return FORM.format(field, filename).encode() + content + b"\r\n--b--\r\n"


def leaf(**fields):
    return {"button": [fields]}


def branch(*subs):
    return {"button": [{"name": "更多", "sub_button": list(subs)}]}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cloud(clock):
    return Cloud(APPID, SECRET, clock)


@pytest.fixture
def stranger(cloud):
    return Client(cloud)


@pytest.fixture
def client(cloud):
    known = Client(cloud)
    known.token = known.fetch()["access_token"]
    return known


# Tokens


def test_the_stable_token_stays_the_same_and_its_rest_shrinks(stranger, clock, cloud):
    first = stranger.fetch()
    clock.now += 7200 - 345
    assert first["expires_in"] == 7200
    assert stranger.fetch() == {**first, "expires_in": 345}
    assert cloud.fetches == 2


def test_the_stable_token_is_renewed_five_minutes_before_its_end_and_both_are_good(client, clock):
    clock.now += 6900
    renewed = client.fetch()
    assert renewed["expires_in"] == 7200
    assert renewed["access_token"] != client.token
    assert "ip_list" in client.get("getcallbackip")
    assert "ip_list" in client.get("getcallbackip", access_token=renewed["access_token"])


def test_a_token_ends_with_its_time(client, clock):
    clock.now += 7199
    assert "ip_list" in client.get("getcallbackip")
    clock.now += 1
    assert client.get("getcallbackip")["errcode"] == 42001


def test_a_forced_refresh_ends_the_former_token_at_once(client):
    assert client.fetch(force_refresh=True)["access_token"] != client.token
    assert client.get("getcallbackip")["errcode"] == 40001


def test_forced_refreshes_are_30_seconds_apart(stranger, clock):
    assert "access_token" in stranger.fetch(force_refresh=True)
    clock.now += 29
    assert stranger.fetch(force_refresh=True)["errcode"] == 45011
    clock.now += 1
    assert "access_token" in stranger.fetch(force_refresh=True)


def test_20_forced_refreshes_a_day_are_taken(stranger, clock):
    answers = []
    for _ in range(21):
        answers.append(stranger.fetch(force_refresh=True))
        clock.now += 60
    assert [answer.get("errcode") for answer in answers] == [None] * 20 + [45011]
    assert "access_token" in stranger.fetch()
    clock.now += 86400
    assert "access_token" in stranger.fetch(force_refresh=True)


def test_the_plain_token_is_new_each_time_and_the_former_stays_good_five_minutes(stranger, clock):
    former, latest = (stranger.get("token", **KEYS)["access_token"] for _ in range(2))
    assert former != latest
    clock.now += 299
    assert "ip_list" in stranger.get("getcallbackip", access_token=former)
    clock.now += 1
    assert stranger.get("getcallbackip", access_token=former)["errcode"] == 40001
    assert "ip_list" in stranger.get("getcallbackip", access_token=latest)


def test_plain_and_stable_tokens_are_apart(client, clock):
    plain = client.get("token", **KEYS)["access_token"]
    clock.now += 300
    assert "ip_list" in client.get("getcallbackip")
    client.fetch(force_refresh=True)
    assert "ip_list" in client.get("getcallbackip", access_token=plain)


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
        ({"grant_type": "password"}, 40002),
        ({"appid": "wx0"}, 40013),
        ({"secret": "x" * 32}, 40125),
    ],
)
def test_wrong_credentials_get_no_token(stranger, cloud, change, errcode):
    assert stranger.fetch(**change)["errcode"] == errcode
    assert stranger.get("token", **{**KEYS, **change})["errcode"] == errcode
    assert cloud.fetches == 0


def test_the_stable_token_is_not_for_get(stranger):
    assert stranger.get("stable_token", **KEYS)["errcode"] == 43002


def test_a_call_needs_a_token_that_is_known(stranger):
    assert stranger.get("menu/get")["errcode"] == 41001
    assert stranger.get("menu/get", access_token="made-up")["errcode"] == 40001


def test_tokens_end_on_demand(client, cloud):
    cloud.expire()
    assert client.get("menu/get")["errcode"] == 42001
    client.token = client.fetch()["access_token"]
    cloud.revoke()
    assert client.get("menu/get")["errcode"] == 40001
    client.token = client.fetch()["access_token"]
    assert client.get("menu/get")["errcode"] == 46003


def test_many_threads_get_one_stable_token():
    def slow_clock():
        sleep(0.001)
        return 1_700_000_000.0

    cloud = Cloud(APPID, SECRET, slow_clock)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: Client(cloud).fetch()["access_token"], range(40)))
    assert len(set(answers)) == 1
    assert cloud.fetches == len(cloud.journal) == 40


# Menus


def test_a_menu_is_given_back_with_an_empty_sub_button_on_each_leaf(client):
    assert client.get("menu/get")["errcode"] == 46003
    assert client.post("menu/create", {"button": [CLICK, *branch(VIEW)["button"]]}) == {"errcode": 0, "errmsg": "ok"}
    menu = client.get("menu/get")
    assert list(menu) == ["menu"]
    assert menu["menu"]["button"] == [
        {**CLICK, "sub_button": []},
        {"name": "更多", "sub_button": [{**VIEW, "sub_button": []}]},
    ]
    assert client.post("menu/create", menu["menu"])["errcode"] == 0


def test_a_menu_with_half_a_character_is_given_back_without_it(client):
    assert (
        client.post("menu/create", rb'{"button": [{"type": "click", "name": "a\ud800", "key": "k"}]}')["errcode"] == 0
    )
    assert client.get("menu/get")["menu"]["button"][0]["name"] == "a?"


def test_the_current_menu_is_the_consoles_until_a_call_changes_it_and_has_its_submenus_in_a_list(client):
    assert client.get("get_current_selfmenu_info")["selfmenu_info"]["button"][1]["value"] == "This is text!"
    client.get("menu/delete")
    assert client.get("get_current_selfmenu_info") == {"is_menu_open": 0, "selfmenu_info": {"button": []}}
    client.post("menu/create", {"button": [CLICK, *branch(VIEW)["button"]]})
    buttons = [CLICK, {"name": "更多", "sub_button": {"list": [VIEW]}}]
    assert client.get("get_current_selfmenu_info") == {"is_menu_open": 1, "selfmenu_info": {"button": buttons}}


def test_the_menu_that_ships_is_taken(client):
    assert client.post("menu/create", (ROOT / "handlers/menu.json").read_bytes())["errcode"] == 0


@pytest.mark.parametrize(
    ("menu", "errcode"),
    [
        ({}, 40016),
        ({"button": []}, 40016),
        ({"button": [CLICK] * 4}, 40016),
        ({"button": ["查书"]}, 40016),
        (leaf(**{**CLICK, "name": ""}), 40018),
        (leaf(**{**CLICK, "name": "六个字的名字"}), 40018),
        (leaf(**{**CLICK, "key": ""}), 40019),
        (leaf(**{**CLICK, "key": "k" * 129}), 40019),
        (leaf(**{**VIEW, "url": "u" * 1025}), 40020),
        (leaf(type="view", name="豆瓣"), 40020),
        (leaf(**{**CLICK, "type": "press"}), 40017),
        (leaf(name="查书"), 40023),
        (leaf(**CLICK, sub_button=[VIEW]), 40017),
        (leaf(type="media_id", name="图"), 40007),
        (leaf(type="miniprogram", name="程序", url="https://a.cn/", pagepath="p"), 40013),
        (leaf(type="miniprogram", name="程序", url="https://a.cn/", appid="wx1"), 40035),
        (branch(), 40023),
        (branch(*[CLICK] * 6), 40023),
        (branch(branch(CLICK)["button"][0]), 40022),
        (branch({**CLICK, "name": "二" * 21}), 40025),
        (branch({**CLICK, "type": "press"}), 40024),
        (branch({**CLICK, "key": "k" * 129}), 40026),
        (branch({**VIEW, "url": "u" * 1025}), 40027),
    ],
)
def test_a_menu_over_the_limits_is_refused_and_the_former_stays(client, menu, errcode):
    client.post("menu/create", {"button": [VIEW]})
    assert client.post("menu/create", menu)["errcode"] == errcode
    assert client.get("menu/get")["menu"]["button"][0]["name"] == "豆瓣"


@pytest.mark.parametrize(
    "menu",
    [
        {"button": [CLICK] * 3},
        branch(*[CLICK] * 5),
        branch({**CLICK, "name": "二" * 20}),
        leaf(**{**CLICK, "name": "五个字名字", "key": "k" * 128}),
        leaf(type="miniprogram", name="程序", url="https://a.cn/", appid="wx1", pagepath="p"),
        leaf(type="article_id", name="文章", article_id="A1"),
    ],
)
def test_a_menu_within_the_limits_is_taken(client, menu):
    assert client.post("menu/create", menu)["errcode"] == 0


def test_a_conditional_menu_needs_a_default_and_a_rule_that_still_exists(client):
    menu = {"button": [VIEW], "matchrule": {"tag_id": "2"}}
    assert client.post("menu/addconditional", menu)["errcode"] == 65303
    client.post("menu/create", {"button": [CLICK]})
    assert client.post("menu/addconditional", {**menu, "matchrule": {}})["errcode"] == 65304
    assert client.post("menu/addconditional", {**menu, "matchrule": {"tag_id": "2", "sex": "1"}})["errcode"] == 65320
    assert client.post("menu/addconditional", {**menu, "button": []})["errcode"] == 40016


def test_the_newest_conditional_menu_that_matches_wins(client, cloud):
    client.post("menu/create", {"button": [CLICK]})
    for name in ("旧", "新"):
        client.post("menu/addconditional", {"button": [{**VIEW, "name": name}], "matchrule": {"tag_id": "2"}})
    cloud.menus.users[USER] = {"tag_id": "2"}
    assert client.post("menu/trymatch", {"user_id": USER})["button"][0]["name"] == "新"
    assert client.post("menu/trymatch", {"user_id": "somebody"})["button"][0]["name"] == "查书"
    assert client.post("menu/trymatch", {})["errcode"] == 65302


def test_conditional_menus_are_listed_and_deleted(client):
    client.post("menu/create", {"button": [CLICK]})
    made = client.post("menu/addconditional", {"button": [VIEW], "matchrule": {"tag_id": "2"}})
    listed = client.get("menu/get")["conditionalmenu"]
    assert [(menu["matchrule"], str(menu["menuid"])) for menu in listed] == [({"group_id": "2"}, made["menuid"])]
    assert client.post("menu/delconditional", made)["errcode"] == 0
    assert client.post("menu/delconditional", made)["errcode"] == 65301
    assert "conditionalmenu" not in client.get("menu/get")


def test_deleting_the_menu_deletes_the_conditional_ones(client):
    client.post("menu/create", {"button": [CLICK]})
    client.post("menu/addconditional", {"button": [VIEW], "matchrule": {"tag_id": "2"}})
    assert client.get("menu/delete")["errcode"] == 0
    assert client.get("menu/get")["errcode"] == 46003
    client.post("menu/create", {"button": [CLICK]})
    assert "conditionalmenu" not in client.get("menu/get")


# Media


@pytest.mark.parametrize(
    ("kind", "filename", "content_type"),
    [
        ("image", "三体.png", "image/png"),
        ("image", "三体.JPG", "image/jpeg"),
        ("voice", "a.amr", "audio/amr"),
        ("thumb", "a.jpg", "image/jpeg"),
    ],
)
def test_a_file_comes_back_as_it_went_up(client, cloud, clock, kind, filename, content_type):
    content = b"\x00\xff\r\n--bytes"
    made = client.upload(kind, filename, content)
    media_id = made["thumb_media_id" if kind == "thumb" else "media_id"]
    assert (len(made), made["type"], made["created_at"]) == (3, kind, int(clock.now))
    assert cloud.media[media_id].filename == filename
    response = client.request("GET", "media/get", media_id=media_id)
    name = f"{media_id}.{filename[-3:].lower()}"
    assert (response.body, response.content_type) == (content, content_type)
    assert response.headers["Content-disposition"] == f'attachment; filename="{name}"'


def test_a_video_is_fetched_by_its_url_without_a_token(client, cloud):
    media_id = client.upload("video", "a.mp4", b"film")["media_id"]
    url = client.get("media/get", media_id=media_id)["video_url"]
    assert url == f"http://localhost/video/{media_id}"
    response = Request.blank(url).send(cloud)
    assert (response.body, response.content_type) == (b"film", "video/mp4")


def test_a_voice_comes_as_speex_from_jssdk(client):
    voice, image = client.upload("voice", "a.amr")["media_id"], client.upload("image", "a.gif")["media_id"]
    response = client.request("GET", "media/get/jssdk", media_id=voice)
    assert (response.body, response.content_type) == (b"bytes", "voice/speex")
    assert client.get("media/get/jssdk", media_id=image)["errcode"] == 40007


def test_a_media_id_dies_after_three_days(client, clock):
    media_id = client.upload("image", "a.png")["media_id"]
    clock.now += 3 * 86400
    client.token = client.fetch()["access_token"]
    assert client.get("media/get", media_id=media_id)["errcode"] == 40007
    assert client.get("media/get", media_id="made-up")["errcode"] == 40007


@pytest.mark.parametrize(
    ("kind", "filename", "size", "errcode"),
    [
        ("file", "a.pdf", 1, 40004),
        ("image", "a.amr", 1, 40005),
        ("image", "png", 0, 40006),
        ("thumb", "a.jpg", 64 * 1024 + 1, 40006),
        ("voice", "a.mp3", 2 * 1024 * 1024 + 1, 40006),
    ],
)
def test_a_file_of_the_wrong_kind_or_size_is_refused(client, cloud, kind, filename, size, errcode):
    assert client.upload(kind, filename, b"x" * size)["errcode"] == errcode
    assert cloud.media == {}


def test_an_upload_is_a_multipart_file_called_media(client):
    assert client.upload("image", "a.png", field="file")["errcode"] == 41005
    assert client.upload("image", "")["errcode"] == 41005
    assert client.post("media/upload", {"media": "x"}, type="image")["errcode"] == 41005
    assert client.post("media/upload", b"x", type="image", content_type="multipart/form-data")["errcode"] == 41005


# Customer messages


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("text", {"content": "x" * 2048}),
        ("image", {"media_id": "M"}),
        ("voice", {"media_id": "M"}),
        ("video", {"media_id": "M", "thumb_media_id": "T", "title": "", "description": ""}),
        ("music", {"musicurl": "http://a/", "hqmusicurl": "http://b/", "thumb_media_id": "T"}),
        ("news", {"articles": [{"title": "三体"}]}),
        ("mpnews", {"media_id": "M"}),
        ("mpnewsarticle", {"article_id": "A"}),
        ("msgmenu", {"head_content": "?", "list": [{"id": "1", "content": "好"}], "tail_content": "!"}),
        ("wxcard", {"card_id": "C"}),
        ("miniprogrampage", {"title": "t", "appid": "wx1", "pagepath": "p", "thumb_media_id": "T"}),
        ("link", {"title": "t", "description": "d", "url": "u", "thumb_url": "p"}),
    ],
)
def test_each_kind_of_message_is_taken_and_kept(client, cloud, kind, part):
    message = {"touser": USER, "msgtype": kind, kind: part}
    assert client.post(SEND, message) == {"errcode": 0, "errmsg": "ok"}
    assert cloud.sent == [(USER, message)]
    assert client.post(SEND, {**message, kind: {}})["errcode"] in (40007, 40035, 44003, 44004)


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"touser": ""}, 40003),
        ({"touser": "谁"}, 40003),
        ({"touser": 1}, 40003),
        ({"msgtype": "fax"}, 40008),
        ({"text": "你好"}, 44004),
        ({"text": {"content": "字" * 683}}, 45002),
        ({"msgtype": "image", "image": {"media_id": 1}}, 40007),
        ({"msgtype": "news", "news": {"articles": [{"title": "一"}, {"title": "二"}]}}, 45008),
    ],
)
def test_a_message_against_the_rules_is_refused(client, cloud, change, errcode):
    assert client.post(SEND, {**TEXT, **change})["errcode"] == errcode
    assert cloud.sent == []


def test_a_user_gets_as_many_messages_as_the_window_has(client, cloud):
    cloud.followers.windows = {USER: {60: Window(2)}}
    assert [client.post(SEND, TEXT)["errcode"] for _ in range(3)] == [0, 0, 45047]
    assert client.post(SEND, {**TEXT, "touser": "somebody"})["errcode"] == 0
    cloud.followers.windows[USER] = {}
    assert client.post(SEND, TEXT)["errcode"] == 45015
    assert len(cloud.sent) == 3


def test_what_a_user_does_opens_a_window_for_so_many_messages(client, cloud, clock):
    def sent():
        return [client.post(SEND, TEXT)["errcode"] for _ in range(6)].count(0)

    cloud.note_action(USER, "CLICK")
    assert sent() == 3
    cloud.note_action(USER)
    assert sent() == 5
    cloud.note_action(USER, "user_enter_tempsession")
    cloud.note_action(USER, "VIEW")
    assert (sent(), client.post(SEND, TEXT)["errcode"]) == (2, 45047)
    cloud.note_action(USER)
    clock.now += 48 * 3600
    assert cloud.followers.count_message(USER) == 45015
    clock.now -= 48 * 3600
    cloud.note_action(USER)
    cloud.note_action(USER, "unsubscribe")
    assert client.post(SEND, TEXT)["errcode"] == 45015


@pytest.mark.parametrize("path", ["message/custom/typing", "message/custom/business/typing"])
def test_typing_lasts_15_seconds_or_until_it_is_ended(client, clock, path):
    def type(command="Typing"):
        return client.post(path, {"touser": USER, "command": command})["errcode"]

    assert [type(), type(), type("CancelTyping"), type()] == [0, 45081, 0, 0]
    clock.now += 15
    assert [type(), client.post(SEND, TEXT)["errcode"], type()] == [0, 0, 0]
    assert type("Shouting") == 45072
    assert client.post(path, {"command": "Typing"})["errcode"] == 40003


# The rest of the API


def test_the_lists_of_addresses(client):
    assert all(client.get(path)["ip_list"] for path in ("getcallbackip", "get_api_domain_ip"))


def test_quotas_are_cleared_ten_times_a_month(client):
    assert client.post("clear_quota", {"appid": "wx0"})["errcode"] == 40013
    assert [client.post("clear_quota", {"appid": APPID})["errcode"] for _ in range(11)] == [0] * 10 + [48006]


def test_where_no_token_is_left_only_a_call_without_one_gives_the_quota_back(cloud, client):
    cloud.diagnosis.limits["/cgi-bin/stable_token"] = 2  # of which the fixture has taken one
    assert [client.fetch().get("errcode") for _ in range(2)] == [None, 45009]
    keys = {"appid": APPID, "appsecret": SECRET}
    client.token = ""
    assert client.post("clear_quota", {"appid": APPID})["errcode"] == 41001
    assert client.post("clear_quota/v2", {**keys, "appsecret": "wrong"})["errcode"] == 40125
    assert client.post("clear_quota/v2", keys)["errcode"] == 0
    assert "access_token" in client.fetch()
    assert "appsecret" not in str(cloud.journal)


def test_what_it_lacks_is_an_errcode_that_says_so(client):
    response = client.request("GET", "material/get_materialcount")
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.json["errcode"] == 40066
    assert "the sandbox's stand-in has no such endpoint" in response.json["errmsg"]


def test_an_error_has_status_200_and_a_request_id(client):
    response = client.request("GET", "menu/get")
    assert (response.status_code, response.content_type) == (200, "application/json")
    assert response.json["errmsg"].startswith("menu no exist rid: ")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'\xef\xbb\xbf{"button":[]}', b"{'button': 1}", b"[" * 99_999])
def test_a_body_that_is_no_json_object_is_refused(client, body):
    assert client.post("menu/create", body)["errcode"] == 47001


def test_the_methods_are_those_of_the_documentation(client):
    assert client.get("menu/create")["errcode"] == 43002
    assert client.post("menu/get", {})["errcode"] == 43001
    assert client.post("menu/create", b"")["errcode"] == 44002


# The journal


def test_the_journal_holds_each_call_and_no_secret(client, cloud):
    client.get("token", **KEYS)
    client.post(SEND, TEXT, access_token="made-up", lang="zh")
    client.upload("image", "三体.png")
    client.post(SEND, b'{"secret": "' + SECRET.encode())
    fetched, plain, sent, uploaded, broken = cloud.journal
    assert (fetched.path, fetched.body) == (
        "/cgi-bin/stable_token",
        {"grant_type": "client_credential", "appid": APPID},
    )
    assert (plain.method, plain.query) == ("GET", {"grant_type": "client_credential", "appid": APPID})
    assert (sent.query, sent.body, sent.token_ok, sent.errcode) == ({"lang": "zh"}, TEXT, False, 40001)
    assert (uploaded.body, uploaded.token_ok) == ({"filename": "三体.png", "content": b"bytes"}, True)
    assert (broken.body, broken.errcode) == (None, 47001)
    assert not any(hidden in repr(cloud.journal) for hidden in (SECRET, client.token, "made-up"))


@pytest.mark.parametrize(
    ("content", "escaped"),
    [
        ("你好 \\n \\u001d \\\\u4e00", False),
        ("\\u4f60\\u597d", True),
        ("\\\\\\u4f60", True),
        ("\\u00e9", True),
    ],
)
def test_escapes_beyond_ascii_are_noticed(client, cloud, content, escaped):
    client.post(SEND, json.dumps(TEXT, ensure_ascii=False).replace("你好", content).encode())
    assert cloud.journal[-1].escaped is escaped
    assert cloud.journal[-1].errcode == 0


def test_the_bytes_of_a_file_are_no_escapes(client, cloud):
    client.upload("image", "a.png", b"\\u4f60")
    assert (cloud.journal[-1].escaped, cloud.journal[-1].body["content"]) == (False, b"\\u4f60")


# Faults


@pytest.mark.parametrize(
    ("kind", "errcode"),
    [
        ("busy", -1),
        ("expired", 42001),
        ("invalid", 40001),
        ("unauthorized", 48001),
        ("code:45015", 45015),
    ],
)
def test_a_fault_answers_once_and_nothing_is_done(client, cloud, kind, errcode):
    cloud.fail("/cgi-bin/message", kind)
    assert client.get("menu/get")["errcode"] == 46003
    assert client.post(SEND, TEXT)["errcode"] == errcode
    assert cloud.sent == []
    assert client.post(SEND, TEXT)["errcode"] == 0
    assert [(call.fault, call.errcode, call.token_ok) for call in cloud.journal[-2:]] == [
        (kind, errcode, True),
        ("", 0, True),
    ]


def test_a_revoked_token_stays_so(client, cloud):
    cloud.fail("/", "revoked")
    assert [client.post(SEND, TEXT)["errcode"] for _ in range(2)] == [40001, 40001]
    assert client.fetch()["access_token"] != client.token


def test_an_address_that_is_not_on_the_list(client, cloud):
    cloud.fail("/cgi-bin/stable_token", "not-allowed")
    answer = client.fetch()
    assert answer["errcode"] == 40164
    assert answer["errmsg"].startswith("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: ")


def test_faults_come_in_order_and_as_often_as_asked(client, cloud):
    cloud.fail("/", "busy", "expired", times=2)
    cloud.fail("/", "code:1")
    assert [client.get("menu/get")["errcode"] for _ in range(6)] == [-1, 42001, -1, 42001, 1, 46003]


def test_faults_without_an_end_are_healed(client, cloud):
    cloud.fail("/", "busy", times=None)
    assert {client.get("menu/get")["errcode"] for _ in range(50)} == {-1}
    cloud.heal()
    assert client.get("menu/get")["errcode"] == 46003


@pytest.mark.parametrize("kind", ["lazy", "slow", "status:", "code:x", "slow:.", "busy "])
def test_an_unknown_fault_is_an_error_of_the_test(cloud, kind):
    with pytest.raises(ValueError, match="no such fault"):
        cloud.fail("/", kind)


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        ("html", 200, "text/html"),
        ("status:502", 502, "text/html"),
        ("garbage", 200, "application/json"),
        ("empty", 200, "application/json"),
    ],
)
def test_an_answer_that_is_no_json(client, cloud, kind, status, content_type):
    cloud.fail("/", kind)
    response = client.request("POST", SEND, json.dumps(TEXT).encode())
    assert (response.status_code, response.content_type, cloud.sent) == (status, content_type, [])
    assert (kind == "empty") is (response.body == b"")
    with pytest.raises(ValueError, match=r"."):
        json.loads(response.body)


def test_a_control_character_stands_raw_in_the_json(client, cloud):
    cloud.fail("/cgi-bin/stable_token", "control")
    body = client.request("POST", "stable_token", json.dumps(KEYS).encode()).body
    with pytest.raises(json.JSONDecodeError, match="control character"):
        json.loads(body)
    assert json.loads(body, strict=False)["access_token"] == client.token


# Over real HTTP


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def url(cloud):
    server = make_server("127.0.0.1", 0, cloud, Server, Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url, data=None, content_type="application/json"):
    with urlopen(HttpRequest(url, data, {"Content-Type": content_type}), timeout=5) as response:
        return response.read()


def test_a_file_with_a_chinese_name_over_http(client, cloud, url):
    target = f"{url}/cgi-bin/media/upload?access_token={client.token}&type=video"
    made = json.loads(ask(target, multipart("三体 第一集.mp4", b"film"), "multipart/form-data; boundary=b"))
    assert cloud.media[made["media_id"]].filename == "三体 第一集.mp4"
    answer = ask(f"{url}/cgi-bin/media/get?access_token={client.token}&media_id={made['media_id']}")
    assert ask(json.loads(answer)["video_url"]) == b"film"


def test_a_cut_answer_is_shorter_than_it_says_and_the_work_is_done(client, cloud, url):
    cloud.fail("/cgi-bin/message", "cut")
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(f"{url}/cgi-bin/{SEND}?access_token={client.token}", json.dumps(TEXT).encode())
    assert caught.value.partial == b'{"errcode": 0, '
    assert caught.value.expected > 0
    assert len(cloud.sent) == 1


def test_a_slow_answer_holds_up_nobody_else(client, cloud, url):
    cloud.fail("/cgi-bin/message", "slow:0.3")
    started = monotonic()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, f"{url}/cgi-bin/{SEND}?access_token={client.token}", json.dumps(TEXT).encode())
        while not cloud.sent and not slow.done():
            client.get("getcallbackip")
        assert not slow.done()
        assert json.loads(slow.result())["errcode"] == 0
    assert monotonic() - started >= 0.3


def test_a_status_over_http(cloud, url):
    cloud.fail("/", "status:502")
    with pytest.raises(HTTPError) as caught:
        ask(f"{url}/cgi-bin/menu/get")
    assert caught.value.code == 502
    caught.value.close()
