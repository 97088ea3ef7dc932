"""`python -m wechat check --online` and `why`, against the stand-in over HTTP."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from sandbox.messages import APPID, USER
from sandbox.testing import SECRET
from tests.conftest import ROOT
from tests.connect_proxy import ConnectProxy
from tests.raw_server import RawServer, read_head
from wechat.__main__ import main

TOKEN = "a-token-of-some-length"
MENU = json.loads((ROOT / "handlers/menu.json").read_text("utf-8"))
CLICK = {"type": "click", "name": "查书", "key": "BOOKS_GUIDE"}
SEND, TYPING, UPLOAD = "/cgi-bin/message/custom/send", "/cgi-bin/message/custom/typing", "/cgi-bin/media/upload"
FETCH = "/cgi-bin/stable_token"
KEYS_PAGE = "developers.weixin.qq.com/platform → 我的业务 → 基础信息 → 开发密钥"
URL_PAGE = "developers.weixin.qq.com/platform → 我的业务 → 基础信息 → 域名与消息推送配置"
PUSH_MENU = " -> python -m wechat menu push"


@pytest.fixture
def environ(cloud):
    """The environment of the account, whose menu stands on the platform."""
    cloud.menus.create(MENU)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    account = {"WECHAT_TOKEN": TOKEN, "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "WECHAT_HANDLERS": str(ROOT / "handlers"), **account}


@pytest.fixture
def run(cloud, environ, monkeypatch, capsys):
    """A function that does what `python -m wechat` does, in this process; nothing secret is ever said."""

    def run_command(*arguments, **more):
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", {**environ, **more})
            try:
                status = main(list(arguments))
            except SystemExit as end:
                status = end.code
        done = subprocess.CompletedProcess(arguments, status, *capsys.readouterr())
        said = done.stdout + done.stderr
        assert not [secret for secret in (SECRET, TOKEN, *cloud._tokens) if secret in said and arguments != ("token",)]
        return done

    return run_command


def lines(done, mark=""):
    """What was checked, without the summary."""
    return re.findall(rf"^{mark or '(?:ok  |warn|FAIL)'}  .*", done.stdout, re.MULTILINE)


def test_an_account_that_is_well_has_nothing_but_ok(environ, cloud):
    command = [sys.executable, "-m", "wechat", "check", "--online"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in lines(done, "ok  ")] == [
        *("ok    platform", "ok    clock", "ok    token", "ok    push", "ok    menu", "ok    callback"),
        *["ok    quota"] * 3,
    ]
    assert done.stdout.endswith("9 checks: 9 ok, 0 warn, 0 FAIL\n")
    assert cloud.sent == []


def test_a_follower_who_is_named_is_shown_that_somebody_is_typing(run, cloud):
    done = run("check", "--online", "--openid", USER)
    assert done.returncode == 0
    assert "ok    push: customer messages may be sent; the user sees that somebody is typing" in lines(done)
    assert [call.body["touser"] for call in cloud.journal if call.path == TYPING] == [USER]


def failing(path, *kinds):
    return lambda cloud: cloud.fail(path, *kinds, times=None)


def limited(path, limit, used=0):
    def limit_calls(cloud):
        cloud.diagnosis.limits[path], cloud.diagnosis._used[path] = limit, used

    return limit_calls


def with_callback(answer):
    return lambda cloud: setattr(cloud.diagnosis, "callback", answer)


def with_clock(seconds):
    return lambda cloud: setattr(cloud, "clock", lambda: time.time() + seconds)


def well(_):
    pass


NO_PING = {
    "dns": [{"ip": "5.6.7.8", "real_operator": "UNICOM"}],
    "ping": [{"ip": "5.6.7.8", "from_operator": "UNICOM", "package_loss": "100%", "time": "0ms"}],
}
FAULTS = {
    "the secret is wrong": (well, {"WECHAT_SECRET": "5" * 32}, "token: 40125: ", KEYS_PAGE),
    "the appid is wrong": (well, {"WECHAT_APPID": "wx" + "0" * 16}, "token: 40013: ", KEYS_PAGE),
    "the secret is frozen": (failing(FETCH, "code:40243"), {}, "token: 40243: ", f"thaw it at {KEYS_PAGE}"),
    "the address is not in the whitelist": (
        *(failing(FETCH, "not-allowed"), {}, "token: 40164: invalid ip 1.2.3.4 "),
        f"add 1.2.3.4 to IP白名单 at {KEYS_PAGE}",
    ),
    "the whitelist holds for calls with a token too": (
        *(
            failing("/cgi-bin/menu/get", "code:61004"),
            {},
            "menu: 61004: ",
            f"add the IP address of this host to IP白名单 at {KEYS_PAGE}",
        ),
    ),
    "the administrator has to confirm": (failing(FETCH, "code:89503"), {}, "token: 89503: ", "has to confirm the call"),
    "the account is frozen": (failing(FETCH, "code:50007"), {}, "token: 50007: ", "the account was frozen"),
    "no token is left today": (limited(FETCH, 0), {}, "token: 45009: ", "POST /cgi-bin/clear_quota/v2"),
    "there is no right to send": (limited(SEND, 0), {}, "push: no customer messages may be sent", "微信认证"),
    "there is no menu": (lambda cloud: cloud.menus.delete(), {}, "menu: menu.json is not on the platform", PUSH_MENU),
    "there is another menu": (
        *(lambda cloud: cloud.menus.create({"button": [CLICK]}), {}),
        *("menu: the platform has 查书  click  BOOKS_GUIDE, where menu.json has 查书 -> ", PUSH_MENU),
    ),
    "there is a button less": (
        *(lambda cloud: cloud.menus.create({"button": MENU["button"][:2]}), {}),
        *("menu: the platform has nothing, where menu.json has 我的账号  click  ACCOUNT_STATUS", PUSH_MENU),
    ),
    "menus are not allowed": (failing("/cgi-bin/menu", "unauthorized"), {}, "menu: 48001: ", "接口管理"),
    "there is no URL": (with_callback(40201), {}, "callback: 40201: ", URL_PAGE),
    "the name of the URL has no address": (
        *(with_callback({"dns": [], "ping": []}), {}, "callback: WeChat finds no address for the URL's name", URL_PAGE),
    ),
    "a quota is used up": (limited(UPLOAD, 100, 100), {}, f"quota: 100 of 100 calls of {UPLOAD} today", "clear_quota"),
    "this clock is an hour behind": (with_clock(3600), {}, "clock: N s behind the platform's", "NTP"),
    "this clock is two minutes ahead": (with_clock(-120), {}, "clock: N s ahead of the platform's", "NTP"),
    "something else answers": (
        *(failing("/cgi-bin/get_api_domain_ip", "html"), {}),
        *("platform: http://127.0.0.1:", "the answer is not JSON -> does a firewall"),
    ),
    "the platform is down": (failing("/cgi-bin/", "status:502"), {}, "platform: http://127.0.0.1:", "it answered 502"),
    "nobody can be reached": (
        *(well, {"WECHAT_API_URL": "http://127.0.0.1:1"}),
        *("platform: http://127.0.0.1:1: GET /cgi-bin/get_api_domain_ip: ConnectionRefusedError", "WECHAT_PROXY"),
    ),
    "the proxy is away": (
        *(well, {"WECHAT_PROXY": "http://user:password@127.0.0.1:1"}),
        *("platform: http://127.0.0.1:", "the proxy 127.0.0.1:1: ConnectionRefusedError"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_that_says_what_to_do(run, cloud, name):
    spoil, environ, said, cure = FAULTS[name]
    spoil(cloud)
    done = run("check", "--online", **environ)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = lines(done, "FAIL")
    assert re.sub(r"\d+ s ", "N s ", line).startswith(f"FAIL  {said}")
    assert cure in line
    assert " -> " in line


def test_a_user_who_may_not_be_written_to_now_shows_that_others_may(run, cloud):
    for errcode in (45015, 45047, 45080, 45081):
        cloud.fail(TYPING, f"code:{errcode}")
        done = run("check", "--online", "--openid", USER)
        assert done.returncode == 0
        assert "ok    push: customer messages may be sent, though not to this user now" in done.stdout


@pytest.mark.parametrize(
    ("errcode", "cure"),
    [(48001, "接口管理 at developers.weixin.qq.com/platform"), (40003, "no such openid"), (43004, "follow")],
)
def test_typing_that_is_refused_is_a_fault_of_the_account_or_of_the_openid(run, cloud, errcode, cure):
    cloud.fail(TYPING, f"code:{errcode}")
    (line,) = lines(run("check", "--online", "--openid", USER), "FAIL")
    assert line.startswith(f"FAIL  push: {errcode}: ")
    assert cure in line


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (with_callback(NO_PING), "warn  callback: WeChat gets no answer to a ping from 5.6.7.8"),
        (limited(SEND, 100, 90), f"warn  quota: 90 of 100 calls of {SEND} today"),
    ],
    ids=["no answer to a ping", "a quota that is nearly used up"],
)
def test_what_may_be_well_is_a_warning(run, cloud, spoil, line):
    spoil(cloud)
    done = run("check", "--online")
    assert done.returncode == 0
    assert [said.split(" -> ")[0] for said in lines(done, "warn")] == [line]


def test_a_date_that_is_none_is_left_out(run):
    def talk(connection, _):
        while read_head(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
            connection.sendall(b"Date: Mon, 01 Jan 2024 00:00:00 +99999999999999999\r\n\r\n{}")

    with RawServer(talk) as server:
        done = run("check", "--online", WECHAT_API_URL=server.url)
    assert (done.returncode, done.stderr) == (1, "")
    assert "ok    platform" in done.stdout
    assert "clock: " not in done.stdout


def test_a_second_server_is_checked_as_the_first_is(run, cloud):
    done = run("check", "--online", WECHAT_API_URL=f"http://127.0.0.1:1,{cloud.url}")
    assert done.returncode == 1
    assert [line.split(":")[0] for line in lines(done, "FAIL")] == ["FAIL  platform"]
    assert "127.0.0.1:1: " in lines(done, "FAIL")[0]
    assert "ok    token" in done.stdout
    assert "ok    menu" in done.stdout


def test_each_call_goes_through_the_proxy(run, cloud):
    with ConnectProxy("user:p@ss") as proxy:
        url = proxy.url.replace("//", "//user:p%40ss@")
        assert run("check", "--online", WECHAT_PROXY=url).returncode == 0
        assert len(proxy.heads) == len(cloud.journal)  # the stand-in keeps no connection
        assert {call.path for call in cloud.journal} > {FETCH, "/cgi-bin/menu/get", "/cgi-bin/callback/check"}
        (line,) = lines(run("check", "--online", WECHAT_PROXY=url.replace("user:", "other:")), "FAIL")
    assert "answered 407: are the user and the password in WECHAT_PROXY right?" in line
    assert "p%40ss" not in line


def test_a_token_that_the_server_has_kept_hides_no_wrong_secret(run, tmp_path):
    store = {"WECHAT_STORE": f"sqlite:{tmp_path}/store.db"}
    assert run("token", **store).returncode == 0
    assert lines(run("check", "--online", WECHAT_SECRET="5" * 32, **store), "FAIL")[0].startswith("FAIL  token: 40125")


def test_without_its_keys_an_account_cannot_be_asked_about(run, cloud):
    done = run("check", "--online", WECHAT_SECRET="", WECHAT_APPID="")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["WECHAT_APPID", "WECHAT_SECRET"]
    assert cloud.journal == []


def test_an_openid_without_online_is_a_wrong_call(run, cloud):
    done = run("check", "--openid", USER)
    assert done.returncode == 2
    assert "--openid goes with --online" in done.stderr


def test_the_platform_is_not_asked_where_the_settings_are_wrong(run, cloud):
    done = run("check", "--online", PORT="x")
    assert done.returncode == 1
    assert cloud.journal == []


def test_a_mini_program_has_no_menu_to_check(run, cloud):
    done = run("check", "--online", "--openid", USER, WECHAT_ACCOUNT="miniprogram")
    assert done.returncode == 0
    assert "menu" not in done.stdout.replace("menu.json", "")
    assert "/cgi-bin/message/custom/business/typing" in {call.path for call in cloud.journal}


@pytest.mark.parametrize("has_menu", [True, False])
def test_without_a_menu_in_the_handlers_any_menu_is_right(run, cloud, tmp_path, has_menu):
    (tmp_path / "empty").mkdir()
    if not has_menu:
        cloud.menus.delete()
    done = run("check", "--online", "--handlers", str(tmp_path / "empty"))
    assert done.returncode == 0
    assert "ok    menu: there is no menu.json" in done.stdout


def test_a_menu_that_the_platform_would_not_take_is_a_fault(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/menu.json").write_text('{"button": []}')
    (line,) = lines(run("check", "--online", "--handlers", str(tmp_path / "mine")), "FAIL")
    assert "menu.json: the menu: `button` takes a list of 1 to 3 buttons" in line


@pytest.mark.parametrize(
    "menu",
    [None, 5, {}, {"button": 5}, {"button": [5, {"name": "x", "sub_button": {"list": []}}, {"sub_button": [5]}]}],
)
def test_an_odd_menu_is_another_one(run, cloud, menu):
    cloud._endpoints["/cgi-bin/menu/get"] = "GET", lambda _: {"menu": menu}
    (line,) = lines(run("check", "--online"), "FAIL")
    assert line.startswith("FAIL  menu: ")
    assert PUSH_MENU in line


@pytest.mark.parametrize("odd", [{}, {"dns": "x", "ping": 5}, {"dns": [5], "ping": [None]}, {"dns": None}])
def test_an_odd_answer_is_no_traceback(run, cloud, odd):
    cloud.diagnosis.callback = odd
    assert lines(run("check", "--online"), "FAIL")[0].startswith("FAIL  callback: WeChat finds no address")


def test_a_path_that_the_platform_does_not_count_is_left_out(run, cloud):
    del cloud.diagnosis.limits[UPLOAD]
    done = run("check", "--online")
    assert done.returncode == 0
    assert UPLOAD not in done.stdout


# why


def failed(run, cloud):
    """What a customer message to nobody is refused with."""
    cloud.fail(SEND, "code:40003")
    done = run("send", USER, "words of a user")
    assert done.returncode == 1
    return done.stderr


def test_why_says_what_the_platform_saw_and_what_to_do(run, cloud):
    rid = failed(run, cloud).split("rid: ")[1].split()[0]
    done = run("why", rid)
    assert (done.returncode, done.stderr) == (0, "")
    came, sent, answered, cure = done.stdout.splitlines()
    assert re.fullmatch(r"came      \d{4}-\d\d-\d\d \d\d:\d\d:\d\d from 127\.0\.0\.1, took 30 ms", came)
    assert sent == "sent      access_token, touser, msgtype, text"
    assert answered == f"answered  40003: invalid openid rid: {rid}"
    assert cure == "cure      no such openid in this account: openids of another account do not count"


def test_why_shows_no_value_that_was_sent(run, cloud):
    done = run("why", "--json", failed(run, cloud))
    for sent in (USER, "words", *cloud._tokens):
        assert sent not in done.stdout
    assert json.loads(done.stdout)["sent"] == ["access_token", "touser", "msgtype", "text"]


def test_why_takes_a_line_of_the_log_as_it_is(run, cloud):
    line = f"2026-11-27 10:00:00 ERROR wxserver: the text reply of handlers.shop was not sent: {failed(run, cloud)}"
    assert run("why", line).returncode == 0


def test_why_explains_a_token_that_was_refused_for_the_address(run, cloud):
    cloud.fail(FETCH, "not-allowed")
    done = run("why", run("token").stderr)
    assert "add 1.2.3.4 to IP白名单" in done.stdout
    assert "sent      grant_type, appid, secret, force_refresh" in done.stdout


def test_why_knows_no_rid_of_another_account_or_of_more_than_seven_days(run, cloud):
    said = failed(run, cloud)
    for rid in ("617682e0-09059ac5-34a8e2ea", said):
        cloud.clock = lambda: time.time() + 7 * 86_400
        done = run("why", rid)
        assert done.returncode == 1
        assert done.stderr.startswith("76001: ")
        assert "of the last seven days" in done.stderr


@pytest.mark.parametrize(
    "odd",
    [{}, {"invoke_time": 10**14, "response_body": "["}, {"invoke_time": "x", "cost_in_ms": [], "request_body": "[]"}],
)
def test_why_makes_the_best_of_an_odd_answer(run, cloud, odd):
    rid = "617682e0-09059ac5-34a8e2ea"
    cloud._endpoints["/cgi-bin/openapi/rid/get"] = "POST", lambda _: {"request": odd}
    done = run("why", rid)
    assert done.returncode == 0
    assert done.stdout.startswith("came      at an unknown time from ")


@pytest.mark.parametrize("rid", ["", "x", "48001", "2026-11-27"])
def test_why_wants_a_rid(run, cloud, rid):
    done = run("why", rid)
    assert done.returncode == 2
    assert "like 617682e0-09059ac5-34a8e2ea" in done.stderr
    assert cloud.journal == []
