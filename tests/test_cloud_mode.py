"""WECHAT_MODE=cloud: WeChat's own cloud (云托管), from the settings to a conversation in the sandbox."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

import pytest
from webob import Request

from sandbox.check import add_arguments
from sandbox.check import run as run_check
from sandbox.cloud_wire import TOKENLESS
from sandbox.messages import FIELDS, USER, build, text_message, to_json
from sandbox.platform import Endpoint, Platform, signed_query
from sandbox.testing import APPID, SECRET
from tests import warmed
from tests.conftest import AES_KEY, ROOT, TOKEN
from tests.test_push import push
from tests.test_sandbox import answer, events
from tests.test_sandbox import push as push_by_page
from wechat.errors import ApiError, SettingsError, WeChatError
from wechat.platform.api import Api
from wechat.protocol.parser import parse
from wechat.routing import load
from wechat.settings import UNSIGNED, Settings, read
from wechat.store.memory import MemoryStore
from wxserver import Application, start

CLOUD = {"WECHAT_MODE": "cloud"}
MARKED = {"X-WX-Source": "other", "Content-Type": "application/json"}
PROBES = [b'{"action":"CheckContainerPath"}', b"<xml>\n  <action>CheckContainerPath</action>\n</xml>\n"]
ALONE = {"WECHAT_TOKEN": "", **CLOUD}  # in place of the token that a process of the tests has
HANDLERS = """
from wechat.reply import *
from wechat.reply import Article
from wechat.routing import on

RUNS = []
REPLIES = {
    "image": Image("m"), "voice": Voice("m"), "video": Video("m", "T", "D"),
    "music": Music("m", "T", "D", "http://a/", "http://b/"), "transfer": Transfer(), "agent": Transfer("a@b"),
    "articles": News([Article("T", "D", "http://p/", "http://u/")]),
    "raw json": Raw('{"ErrCode":0,"ErrMsg":"success"}'), "raw text": Raw("success"), "nothing": None,
    "raw xml": Raw("<xml><ErrCode>0</ErrCode><ErrMsg>ok</ErrMsg></xml>"),
    "odd": Raw("<xml><Articles>x</Articles><CreateTime><a>1</a></CreateTime></xml>"),
}

@on("text")
def text(msg):
    RUNS.append(msg.Content)
    return REPLIES.get(msg.Content, msg.Content)

@on("text", "slow", slow=True)
def slow(msg):
    import time
    time.sleep(1)
    return "at last"

@on("event", "CLICK", "articles")
def articles(msg):
    return [Article("T1"), Article("T2")]

@on("default")
def default(msg):
    return msg.MsgType
"""


@pytest.fixture
def handlers(tmp_path):
    folder = tmp_path / "handlers"
    folder.mkdir()
    (folder / "mine.py").write_text(HANDLERS, "utf-8")
    return folder


@pytest.fixture
def make(handlers):
    """A function that makes the application in cloud mode, with further settings."""
    made = []

    def make_app(**environ):
        made.append(Application(read({**CLOUD, **environ}), load(handlers)))
        return made[-1]

    yield make_app
    for app in made:
        app.close()


def ask(app, body, headers=MARKED, query="", method="POST"):
    content = body.encode() if isinstance(body, str) else body
    request = Request.blank(f"/weixin?{query}" if query else "/weixin", method=method, body=content, headers=headers)
    return request.send(app)


def in_json(content, kind="text", **fields):
    xml = build(kind, [content]) if kind == "text" else build(kind, list(fields.values()))
    return to_json(parse(xml.encode()))


# The settings


def faults(**environ):
    with pytest.raises(SettingsError) as caught:
        read(environ)
    return caught.value.faults


def test_the_mode_needs_no_token_no_secret_and_calls_the_platform_over_http():
    settings = read(CLOUD)
    assert (settings.mode, settings.tokens, settings.may_call) == ("cloud", (), True)
    assert "http://api.weixin.qq.com" in repr(settings)
    assert "https://" not in repr(settings)
    assert "http://other" in repr(read({**CLOUD, "WECHAT_API_URL": "http://other"}))
    assert read({**CLOUD, "WECHAT_ACCOUNT": "miniprogram"}).account == "miniprogram"
    assert read({"WECHAT_MODE": "Cloud "}).mode == "cloud"


@pytest.mark.parametrize(
    "environ",
    [{"WECHAT_TOKEN": TOKEN}, {"WECHAT_AES_KEY": AES_KEY}, {"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY}],
)
def test_what_belongs_to_a_signed_mode_is_refused_and_never_quoted(environ):
    said = faults(**CLOUD, **environ)
    assert [line.partition(" ")[0] for line in said] == sorted(environ)
    assert all("WECHAT_MODE=cloud" in line and "leave out" in line for line in said)
    assert not any(secret in line for line in said for secret in environ.values())


def test_the_mode_is_never_taken_by_itself():
    assert faults() == (
        "WECHAT_TOKEN is missing: set it to the token typed on the platform's page, 3 to 32 letters and digits",
    )
    assert faults(WECHAT_MODE="clod")[0].startswith("WECHAT_MODE is 'clod'")
    for mode in ("plain", "compat", "safe"):
        assert any("WECHAT_TOKEN is missing" in line for line in faults(WECHAT_MODE=mode))


@pytest.mark.parametrize("store", ["sqlite:store.db", "redis://127.0.0.1/0"])
def test_a_store_that_others_may_share_needs_the_appid_in_place_of_the_token(store):
    assert faults(**CLOUD, WECHAT_STORE=store) == (
        "WECHAT_APPID is missing: in a store, an account without a token is known by it",
    )
    assert read({**CLOUD, "WECHAT_STORE": store, "WECHAT_APPID": APPID}).account_key == APPID
    assert read(CLOUD).account_key  # in memory, nobody else's


def test_the_start_and_check_say_that_public_access_has_to_be_off(handlers, caplog, serve):
    caplog.set_level(logging.WARNING)
    start({**CLOUD, "WECHAT_HANDLERS": str(handlers)}).close()
    assert UNSIGNED in caplog.messages
    assert "公网访问" in UNSIGNED
    caplog.clear()
    start({"WECHAT_TOKEN": TOKEN, "WECHAT_HANDLERS": str(handlers)}).close()
    assert UNSIGNED not in caplog.messages


def shell(*arguments, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WECHAT_")}
    return warmed.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONUTF8": "1", **environ},
    )


def test_check_passes_the_mode_and_warns(handlers):
    done = shell("wechat", "--handlers", str(handlers), "check", **CLOUD)
    assert (done.returncode, f"warning: {UNSIGNED}" in done.stdout) == (0, True)
    assert "settings: good" in done.stdout
    assert done.stdout.count("warning: WECHAT_") == 1  # nothing of tokens, ages and an http API
    online = shell("wechat", "--handlers", str(handlers), "check", "--online", **CLOUD)
    assert (online.returncode, "not to be had in 云托管" in online.stderr) == (1, True)
    refused = shell("wechat", "check", **CLOUD, WECHAT_TOKEN=TOKEN)
    assert refused.returncode == 1
    assert "leave out" in refused.stderr


# Pushes


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({}, "x-wx-source=other"),
        ({}, "HTTP_X_WX_SOURCE=other&openid=x"),
        ({"X-WX-Source": ""}, ""),
        ({"X-WX-Source": ""}, "x-wx-source=other"),
        ({"X-WX-Sources": "other"}, ""),
        ({"X-WX-OpenID": USER, "X-WX-AppID": APPID}, ""),
        ({}, signed_query("")),
        ({}, signed_query(TOKEN)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_cloud_has_not_marked_is_refused_before_it_is_read(make, handlers, caplog, headers, query, method):
    app = make()
    response = ask(app, in_json("hello") if method == "POST" else b"", headers, query + "&echostr=1", method)
    assert (response.status_code, response.body) == (403, b"refused\n")
    assert "x-wx-source" in caplog.text
    assert sys.modules["handlers.mine"].RUNS == []


def test_no_other_mode_believes_the_mark(make_account):
    account = make_account('@on("text")\ndef text(msg): return "hi"')
    assert ask(account.app, in_json("hello")).status_code == 403
    assert ask(account.app, in_json("hello"), query=signed_query(TOKEN)).status_code == 200


@pytest.mark.parametrize("body", PROBES)
@pytest.mark.parametrize("headers", [MARKED, {}])
def test_the_check_of_the_path_is_answered_with_success(make, body, headers):
    response = ask(make(), body, headers)
    assert (response.status_code, response.body) == (200, b"success")


def test_a_get_with_the_mark_gets_its_echostr_and_health_needs_none(make):
    response = ask(make(), b"", query="echostr=a%2Bb", method="GET")
    assert (response.status_code, response.body, response.content_type) == (200, b"a+b", "text/plain")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert Request.blank("/healthz").send(make()).body == b'{"status": "ok"}'


COMMON = {"ToUserName": USER, "FromUserName": "gh_7f083739789a"}


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        ("hello", {"MsgType": "text", "Content": "hello"}),
        ("image", {"MsgType": "image", "Image": {"MediaId": "m"}}),
        ("voice", {"MsgType": "voice", "Voice": {"MediaId": "m"}}),
        ("video", {"MsgType": "video", "Video": {"MediaId": "m", "Title": "T", "Description": "D"}}),
        (
            "music",
            {
                "MsgType": "music",
                "Music": {
                    "Title": "T",
                    "Description": "D",
                    "MusicUrl": "http://a/",
                    "HQMusicUrl": "http://b/",
                    "ThumbMediaId": "m",
                },
            },
        ),
        ("transfer", {"MsgType": "transfer_customer_service"}),
        ("agent", {"MsgType": "transfer_customer_service", "TransInfo": {"KfAccount": "a@b"}}),
        (
            "articles",
            {
                "MsgType": "news",
                "ArticleCount": 1,
                "Articles": [{"Title": "T", "Description": "D", "PicUrl": "http://p/", "Url": "http://u/"}],
            },
        ),
    ],
)
def test_each_kind_of_reply_is_the_json_of_the_documentation(make, content, reply):
    response = ask(make(), in_json(content))
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    found = response.json
    assert abs(found.pop("CreateTime") - time.time()) < 60
    assert found == {**COMMON, **reply}


def test_several_articles_answer_an_event(make):
    found = ask(make(), to_json(parse(build("event", ["CLICK", "articles"]).encode()))).json
    assert ([article["Title"] for article in found["Articles"]], found["ArticleCount"]) == (["T1", "T2"], 2)


@pytest.mark.parametrize(
    ("content", "body"),
    [
        ("raw json", b'{"ErrCode":0,"ErrMsg":"success"}'),
        ("raw xml", b'{"ErrCode": 0, "ErrMsg": "ok"}'),
        ("raw text", b"success"),
        ("nothing", b"success"),
        ("odd", b'{"Articles": "x", "CreateTime": {"a": "1"}}'),
    ],
)
def test_a_body_of_the_handlers_own_and_silence(make, content, body):
    response = ask(make(), in_json(content))
    assert (response.status_code, response.body) == (200, body)


@pytest.mark.parametrize(
    "text",
    [
        '"}, "MsgType": "image',
        "]]></Content><MsgType>image</MsgType>",
        "a\\b\n\u2028'",
        "<xml>&amp;",
        "😀界",
        "{}",
        "]]>",
    ],
)
def test_no_text_can_break_the_json(make, text):
    for body in (in_json(text), text_message(text)):
        found = ask(make(), body).json
        assert (found["MsgType"], found["Content"]) == ("text", text)


def test_a_push_in_xml_is_answered_in_json_too(make):
    assert (
        ask(make(), text_message("hello"), {"X-WX-Source": "other", "Content-Type": "text/xml"}).json["Content"]
        == "hello"
    )


def test_the_same_bytes_run_no_handler_twice(make, handlers):
    app, body = make(), in_json("once")
    first, second = ask(app, body), ask(app, body)
    assert first.body == second.body
    assert sys.modules["handlers.mine"].RUNS == ["once"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"MsgType": "text"}', 400),
        (b'{"MsgType": ["text"], "FromUserName": "a", "ToUserName": "b"}', 400),
        (b'{"action": "Other"}', 400),
        (b'{"Encrypt": "' + b"A" * 64 + b'"}', 400),
        (b"<!DOCTYPE xml [<!ENTITY a 'b'>]><xml/>", 400),
        (b"x" * 300_000, 413),
        (b'{"a":' * 5000, 400),
    ],
)
def test_bad_bodies_are_refused_with_the_mark_and_without(make, body, status):
    app = make()
    assert ask(app, body).status_code == status
    assert ask(app, body, {}).status_code == (status if status == 413 else 403)


# Calls to the platform


class Recorder(BaseHTTPRequestHandler):
    """Answers every call, and keeps what came."""

    seen: ClassVar = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.seen.append((self.path, dict(self.headers), body))
        answer = json.dumps({"errcode": 0, "media_id": "m"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_GET(self):
        self.do_POST()

    def log_message(self, *_):
        pass


def test_no_call_has_a_token_or_a_secret_even_where_there_is_one(http_server, tmp_path, monkeypatch):
    monkeypatch.setattr(Recorder, "seen", [])
    url = http_server(Recorder)
    api = Api(read({**CLOUD, "WECHAT_API_URL": url, "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}), MemoryStore())
    api.send(USER, "hi")
    api.typing(USER)
    api.get("/cgi-bin/get_api_domain_ip")
    api.create_menu({"button": []})
    with (ROOT / "docs/page.png").open("rb") as file:
        assert api.upload("image", "page.png", file) == "m"
    assert [path for path, *_ in Recorder.seen] == [
        "/cgi-bin/message/custom/send",
        "/cgi-bin/message/custom/typing",
        "/cgi-bin/get_api_domain_ip",
        "/cgi-bin/menu/create",
        "/cgi-bin/media/upload?type=image",
    ]
    assert not any(
        word in repr(call[:2]) for call in Recorder.seen for word in (SECRET, "access_token", "Authorization")
    )
    with pytest.raises(ApiError, match="without an access token"):
        api.token()
    api.close()


@pytest.mark.parametrize("errcode", [85107, 85113, 41001])
def test_a_call_that_the_cloud_does_not_let_through_says_where_to_allow_it_and_closes_customer_messages(
    make, cloud, caplog, errcode
):
    app = make(WECHAT_API_URL=cloud.url + TOKENLESS, WECHAT_REPLY_WITHIN="0.5")
    cloud.fail("/cgi-bin/message", f"code:{errcode}", times=None)
    with pytest.raises(WeChatError, match="开放接口服务"):
        app.api.send(USER, "hi")
    user = Platform("", "cloud")
    endpoint = Endpoint("/weixin", app, hang_up=0.6, headers=user.headers)
    attempts = list(endpoint.deliver(*user.push(text_message("slow"))))
    assert "at last" in user.open(attempts[-1].body)
    assert f"no customer messages for 600 s, slow replies wait for 继续: {errcode}" in caplog.text


def test_outside_the_cloud_the_platform_asks_for_a_token(cloud, handlers):
    done = shell("wechat", "send", USER, "hi", **CLOUD, WECHAT_API_URL=cloud.url)
    assert done.returncode == 1
    assert "41001" in done.stderr
    assert "开放接口服务" in done.stderr
    assert shell("wechat", "send", USER, "hi", **CLOUD, WECHAT_API_URL=cloud.url + TOKENLESS).stdout == "sent\n"
    assert cloud.sent == [(USER, {"touser": USER, "msgtype": "text", "text": {"content": "hi"}})]


def test_what_was_promised_is_sent_by_the_next_process_without_a_token(serve, handlers, cloud, tmp_path):
    environ = {
        **ALONE,
        "WECHAT_STORE": f"sqlite:{tmp_path / 'store.db'}",
        "WECHAT_APPID": APPID,
        "WECHAT_API_URL": cloud.url + TOKENLESS,
        "WECHAT_REPLY_WITHIN": "0.3",
        "WECHAT_HANDLERS": str(handlers),
    }
    first, user = serve(**environ), Platform("", "cloud")
    headers = user.headers
    attempts = list(Endpoint(first.url, headers=headers).deliver(*user.push(text_message("slow"))))
    assert attempts[-1].body == b"success"
    first.process.kill()
    assert cloud.sent == []
    serve(**environ)
    message = cloud.messages_to(USER, 1, 20)[0]
    assert message["text"]["content"] == "at last"


def test_a_mini_program_is_answered_by_a_customer_message(make, cloud):
    app = make(WECHAT_ACCOUNT="miniprogram", WECHAT_API_URL=cloud.url + TOKENLESS)
    assert ask(app, in_json("hello")).body == b"success"
    assert cloud.messages_to(USER, 1, 10)[0]["text"]["content"] == "hello"


# The sandbox


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (b'{"ToUserName": "u", "FromUserName": "a", "CreateTime": 1, "MsgType": "text", "Content": "x"}', ""),
        (b'{"ToUserName": "u", "FromUserName": "a", "CreateTime": "1", "MsgType": "text", "Content": "x"}', "JSON"),
        (b'{"ToUserName": "u", "FromUserName": "a", "CreateTime": 1, "MsgType": "news", "Articles": {}}', "JSON"),
        (b"<xml><ToUserName>u</ToUserName></xml>", "JSON"),
        (b"[]", "JSON"),
        (b"1", "JSON"),
        (b"\xff", "JSON"),
        (b'{"ErrCode": 0}', ""),
        (b"success", ""),
        (b"", ""),
    ],
)
def test_the_sandbox_takes_what_the_documentation_shows_and_nothing_else(reply, fault):
    from sandbox.platform import Attempt
    from sandbox.verdict import judge

    verdict = judge(Platform("", "cloud"), Attempt(200, reply, 0.1))
    assert (fault in verdict.fault) == bool(verdict.fault or not fault)
    assert bool(verdict.fault) == bool(fault)


@pytest.fixture(scope="module")
def cloud_server(tmp_path_factory):
    from tests.conftest import Process

    folder = tmp_path_factory.mktemp("cloud")
    (folder / "mine.py").write_text(HANDLERS, "utf-8")
    process = Process(**ALONE, WECHAT_HANDLERS=str(folder), WECHAT_DRAIN="1")
    yield process
    process.stop()


@pytest.mark.parametrize("kind", FIELDS)
def test_every_kind_of_message_is_pushed_from_a_shell(cloud_server, kind):
    done = push(kind, "--mode", "cloud", "--url", cloud_server.url)
    assert done.returncode == 0, done.stdout
    assert done.stderr.startswith("attempt 1: 200")
    said = json.loads(done.stdout)
    assert said["Content"] == ("你好" if kind == "text" else kind)
    assert push(kind, "--url", cloud_server.url, "--token", TOKEN).returncode == 1  # signed, but not marked


def test_push_takes_the_mode_from_the_settings_and_refuses_a_token_with_it(cloud_server):
    port = str(cloud_server.port)
    assert json.loads(push("text", "hi", PORT=port, **CLOUD).stdout)["Content"] == "hi"
    assert push("text", "hi", "--mode", "cloud", PORT=port, WECHAT_TOKEN=TOKEN, WECHAT_AES_KEY=AES_KEY).returncode == 0
    assert push("text", "nothing", "--mode", "cloud", PORT=port).stdout == "(nothing)\n"
    done = push("text", "hi", "--mode", "cloud", "--token", TOKEN, PORT=port)
    assert (done.returncode, "leave out" in done.stderr) == (2, True)


def check(capsys, url, *arguments):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    status = run_check(parser.parse_args([url, *arguments]))
    said = capsys.readouterr()
    return status, (said.out + said.err).splitlines()


def test_our_own_server_passes_the_check_of_the_mode(cloud_server, capsys):
    status, lines = check(capsys, cloud_server.url, "--mode", "cloud")
    assert (status, lines[-1]) == (0, "19 checks in cloud mode: 19 ok, 0 warn, 0 FAIL")
    assert "ok    a push without x-wx-source: status 403" in lines
    assert "ok    CheckContainerPath as XML: status 200" in lines


def test_check_finds_who_believes_every_push_and_who_answers_in_xml(http_server, capsys):
    class Believer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = b"success"
            if b"CheckContainerPath" in body:
                answer = b"no"
            elif b'"Content"' in body:
                message = json.loads(body)
                answer = json.dumps(
                    {
                        "ToUserName": message["FromUserName"],
                        "FromUserName": message["ToUserName"],
                        "CreateTime": 1,
                        "MsgType": "text",
                        "Content": "hi",
                    }
                ).encode()
            elif b"<Content>" in body:
                answer = b"<xml><Content>hi</Content></xml>"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    status, lines = check(capsys, http_server(Believer), "--mode", "cloud")
    assert status == 1
    assert any(line.startswith("FAIL  CheckContainerPath as JSON") for line in lines)
    assert any(line.startswith("FAIL  a push without x-wx-source: taken") for line in lines)
    assert any(line.startswith("warn  a text as XML: neither success nor JSON") for line in lines)


def test_check_without_a_token_is_a_wrong_call_in_the_other_modes(capsys):
    status, lines = check(capsys, "http://127.0.0.1:1/")
    assert (status, lines[0].startswith("--token is missing")) == (2, True)
    assert check(capsys, "http://127.0.0.1:1/", "--mode", "cloud", "--token", TOKEN)[0] == 2


def test_a_conversation_of_every_kind_by_the_page_in_cloud_mode(sandbox):
    process = sandbox(WECHAT_TOKEN="")
    (process.handlers / "zz.py").write_text(
        'from wechat.routing import on\n@on("text", "later", slow=True)\ndef later(msg, api):\n'
        '    api.send(msg.FromUserName, "first")\n    return "second"\n',
        "utf-8",
    )
    events(process, lambda event: event["kind"] == "handlers")
    for kind, fields in FIELDS.items():
        found = answer(process, push_by_page(process, mode="cloud", type=kind, fields=dict(fields)))
        assert not found["fault"], (kind, found)
        assert found["reply"], kind
        assert json.loads(found["body"])["MsgType"] == found["reply"]["MsgType"]
        assert found["content"] == found["body"]
    sent = [event for event in events(process, lambda event: event["kind"] == "answered") if event["kind"] == "sent"]
    assert all(event["request"]["query"] == "" and event["request"]["body"].startswith("{") for event in sent)
    push_by_page(process, mode="cloud", fields={"Content": "later"})
    said = events(process, lambda event: event["kind"] == "customer")[-1]
    assert said["message"]["text"]["content"] == "first"


def test_in_cloud_mode_the_sandbox_itself_has_no_token_and_the_page_all_modes(sandbox):
    process = sandbox(**ALONE)
    assert "WECHAT_MODE=cloud" in "\n".join(process.lines)
    assert "重庆出版社" in push("text", "三体", "--mode", "cloud", "--url", process.url).stdout
    for mode in ("cloud", "safe", "plain"):
        assert answer(process, push_by_page(process, mode=mode))["reply"]["MsgType"] == "news", mode
    push_by_page(process, mode="cloud", account="miniprogram", fields={"Content": "帮助"})
    assert "发送书名" in events(process, lambda event: event["kind"] == "customer")[-1]["message"]["text"]["content"]


def test_what_is_refused_to_an_unverified_account_in_the_cloud_closes_nothing_for_the_others(sandbox):
    process = sandbox(WECHAT_REPLY_WITHIN="0.8")
    (process.handlers / "zz.py").write_text(
        'import time\nfrom wechat.routing import on\n@on("text", "later", slow=True)\ndef later(msg):\n'
        "    time.sleep(1.8)\n    return 'second'\n",
        "utf-8",
    )
    events(process, lambda event: event["kind"] == "handlers")
    unverified = push_by_page(process, mode="cloud", account="unverified", fields={"Content": "later"}, hang_up=1.2)
    assert answer(process, unverified)["reply"]["Content"] == "second"  # a second attempt: nothing may be pushed
    number = push_by_page(process, mode="cloud", fields={"Content": "later"})
    assert answer(process, number)["reply"] is None
    assert events(process, lambda event: event["kind"] == "customer")[-1]["message"]["text"]["content"] == "second"


def test_a_token_on_a_call_from_the_cloud_is_refused_by_the_stand_in(cloud):
    request = Request.blank(f"{TOKENLESS}/cgi-bin/menu/get?access_token=x")
    assert request.send(cloud).json["errcode"] == 40001
    assert Request.blank(f"{TOKENLESS}/cgi-bin/menu/get").send(cloud).json["errcode"] == 46003
    assert Request.blank("/cgi-bin/menu/get").send(cloud).json["errcode"] == 41001


# The image


def instructions():
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    return [tuple(line.split(" ", 1)) for line in text.splitlines()]


def ignored(name):
    """Whether the context leaves it out: what begins with `!` is in, everything else is not."""
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    return f"!{name}" not in lines


def test_the_image_is_slim_has_no_root_and_the_drain_its_time():
    steps = dict(instructions())
    assert re.fullmatch(r"python:3\.1[1-4]-slim", steps["FROM"])
    assert steps["USER"] == "nobody"
    assert [name for name, _ in instructions()].index("USER") > [name for name, _ in instructions()].index("RUN")
    assert int(steps["EXPOSE"]) == Settings.port
    assert Settings.drain < 30  # what Kubernetes gives
    assert steps["RUN"].endswith("--require-hashes -r requirements.lock")
    assert ignored(".env")
    assert ignored("tests")


def test_the_steps_of_the_dockerfile_done_here_serve_a_push_and_end_at_sigterm(serve, tmp_path):
    """Without a daemon: what is copied, installed and run; pip finds everything there already."""
    image = tmp_path / "app"
    image.mkdir()
    environ, command = {}, []
    for name, value in instructions():
        if name == "COPY":
            *sources, target = value.split()
            for source in sources:
                assert not ignored(source)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, image / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, image / target)
        elif name == "RUN":
            python, *rest = value.split()
            assert python == "python"
            done = subprocess.run(
                [sys.executable, *rest, "--dry-run", "--no-index"],
                cwd=image,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        elif name == "ENV":
            environ = dict(pair.split("=") for pair in value.split())
        elif name == "CMD":
            command = json.loads(value)
        else:
            assert name in ("FROM", "WORKDIR", "USER", "EXPOSE")
    assert command[0] == "python"
    process = serve(*command[1:], cwd=image, **environ, **ALONE)
    attempt = Endpoint(process.url, headers=Platform("", "cloud").headers).request("POST", "", in_json("三体").encode())
    assert json.loads(attempt.body)["MsgType"] == "news"
    assert UNSIGNED in "\n".join(process.lines)
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(20) == 0
    assert not list(image.rglob("__pycache__"))
