"""The client against the stand-in, over real HTTP."""

import io
import logging
import subprocess
import sys
import threading
import time
import tracemalloc
from http.server import BaseHTTPRequestHandler

import pytest

from sandbox.cloud_wire import Media
from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN, FaultyStore, Machine
from wechat.errors import ApiError, TransportError, WeChatError
from wechat.platform.access_token import TokenCache
from wechat.platform.api import Api, Call, check_errcode, read_json
from wechat.platform.files import LONGEST_NAME, safe_name
from wechat.reply import Article, Image, Music, News, Raw, Text, Transfer, Video, Voice
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.world import World

USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
MENU = {"button": [{"type": "click", "name": "今日歌曲", "key": "SONG"}]}


@pytest.fixture
def make_api():
    """A function that makes an Api for an address; it does not really sleep, but notes how long it would have."""
    made = []

    def make(url, store="memory:", **environ):
        credentials = {"WECHAT_TOKEN": TOKEN, "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
        settings = read({**credentials, "WECHAT_API_URL": url, "WECHAT_STORE": store, **environ})
        world = World()
        api, api_pauses = Api(settings, open_store(settings.store), world=world), []
        world.sleep, api.pauses = api_pauses.append, api_pauses
        made.append(api)
        return api

    yield make
    for api in made:
        api.close()
        api._tokens._store.close()


@pytest.fixture
def api(make_api, cloud):
    return make_api(cloud.url)


# The token


def test_the_token_is_fetched_once_and_kept(api, cloud):
    assert api.token() == api.token()
    api.get("/cgi-bin/get_api_domain_ip")
    assert cloud.fetches == 1


def test_50_threads_that_need_a_token_at_once_fetch_one(api, cloud):
    cloud.fail("/cgi-bin/stable_token", "slow:0.2")
    tokens = []
    threads = [threading.Thread(target=lambda: tokens.append(api.token())) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 50
    assert len(set(tokens)) == 1
    assert cloud.fetches == 1


PROCESS = """
import sys, threading
from wechat.platform.api import Api
from wechat.settings import read
from wechat.store.opening import open_store
settings = read(dict(pair.split("=", 1) for pair in sys.argv[1:]))
api, tokens = Api(settings, open_store(settings.store)), []
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=lambda: tokens.append(api.token())) for _ in range(50)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(tokens), *set(tokens))
"""


def test_50_threads_of_two_processes_fetch_one_token(cloud, shared_store):
    cloud.fail("/cgi-bin/stable_token", "slow:0.3", times=None)
    environ = {"WECHAT_TOKEN": TOKEN, "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    pairs = [f"{name}={value}" for name, value in {**environ, "WECHAT_STORE": shared_store}.items()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, *pairs], **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=30)[0] for process in processes}
    assert len(answers) == 1
    assert answers.pop().split()[0] == "50"
    assert cloud.fetches == 1


@pytest.mark.parametrize(("expires_in", "life"), [(7200, 6900), (301, 1), (300, 150), (10, 5)])
def test_a_token_is_kept_until_five_minutes_before_its_end_or_for_half_of_a_short_life(
    make_api, cloud, expires_in, life
):
    now = [1_000_000.0]
    api = make_api(cloud.url)
    api._tokens._clock = lambda: now[0]
    api._tokens._fetch = lambda force: {"access_token": f"token at {now[0]}", "expires_in": expires_in}
    first = api.token()
    now[0] += life - 0.5
    assert api.token() == first
    now[0] += 1
    assert api.token() != first


@pytest.mark.parametrize("fault", ["revoked", "expired", "code:40014"])
def test_a_token_that_is_refused_is_renewed_once_and_the_call_made_again(api, cloud, fault):
    api.token()
    cloud.fail("/cgi-bin/get_api_domain_ip", fault)
    assert api.get("/cgi-bin/get_api_domain_ip")["ip_list"]


def test_a_token_that_somebody_else_replaced_is_renewed(api, cloud):
    api.token()
    cloud.revoke()
    assert api.get("/cgi-bin/get_api_domain_ip")["ip_list"]


def test_a_newer_token_is_not_dropped_for_an_older_one(make_api, cloud, tmp_path):
    store = f"sqlite:{tmp_path}/tokens.db"
    mine, theirs = make_api(cloud.url, store), make_api(cloud.url, store)
    stale = mine.token()
    cloud.revoke()
    theirs.get("/cgi-bin/get_api_domain_ip")
    fetches = cloud.fetches
    assert mine._tokens.renew(stale) == theirs.token()
    assert cloud.fetches == fetches


def test_the_same_token_again_is_answered_with_force_refresh(api, cloud):
    api.token()
    cloud.fail("/cgi-bin/get_api_domain_ip", "invalid")
    assert api.get("/cgi-bin/get_api_domain_ip")["ip_list"]
    assert [call.body["force_refresh"] for call in cloud.journal if call.path == "/cgi-bin/stable_token"] == [
        False,
        False,
        True,
    ]


def test_a_40001_that_never_ends_costs_each_call_one_renewal_and_one_retry(api, cloud):
    api.token()
    cloud.fail("/cgi-bin/get_api_domain_ip", "invalid", times=None)
    for _ in range(3):
        cloud.journal.clear()
        with pytest.raises(WeChatError) as caught:
            api.get("/cgi-bin/get_api_domain_ip")
        assert caught.value.errcode == 40001
        paths = [call.path for call in cloud.journal]
        assert paths.count("/cgi-bin/get_api_domain_ip") <= 2
        assert sum(call.body["force_refresh"] for call in cloud.journal if call.path == "/cgi-bin/stable_token") <= 1
        assert paths.count("/cgi-bin/stable_token") <= 2


def test_a_token_is_forced_once_in_30_seconds_whoever_asks(make_api, cloud, tmp_path):
    """The platform allows no more, and each one ends everybody's token."""
    apis = [make_api(cloud.url, f"sqlite:{tmp_path}/tokens.db") for _ in range(2)]
    cloud.fail("/cgi-bin/get_api_domain_ip", "invalid", times=None)
    for api in apis * 3:
        with pytest.raises(WeChatError):
            api.get("/cgi-bin/get_api_domain_ip")
    assert sum(call.body["force_refresh"] for call in cloud.journal if call.path == "/cgi-bin/stable_token") == 1


# Processes that die while they have the token's locks


class Killed(BaseException):
    """The process ends here: nothing is given back."""


def cache(machine, name, fetch):
    """The token as a process of the machine sees it; its `fetch` gives the token, or raises Killed."""
    owners = machine.start(name)
    if isinstance(fetch, str):
        return TokenCache(machine.store, owners, lambda force: {"access_token": fetch, "expires_in": 7200})

    def die(force):
        machine.ended.add(name)
        machine.store.fault, machine.store.only = "away", "token:"  # its locks stay
        raise Killed

    return TokenCache(machine.store, owners, die)


@pytest.fixture
def machine():
    return Machine(FaultyStore())


def test_a_fetch_whose_process_is_killed_blocks_nobody(machine):
    """Else each call would wait for 30 s, and what waits for it would be kept without a word."""
    with pytest.raises(Killed):
        cache(machine, "dying", None).get()
    machine.store.fault = ""
    assert machine.store.get("token:lock").startswith("dying")
    started = time.monotonic()
    assert cache(machine, "next", "fresh").get() == "fresh"
    assert time.monotonic() - started < 10
    assert machine.store.get("token:lock") is None


def test_a_forced_refresh_whose_process_is_killed_blocks_nobody(machine):
    cache(machine, "first", "stale").get()
    dying = cache(machine, "dying", "stale")
    dying._fetch_and_keep = lambda force=False: "stale" if not force else machine.ended.add("dying") or kill()

    def kill():
        raise Killed

    with pytest.raises(Killed):
        dying.renew("stale")
    assert machine.store.get("token:forced").startswith("dying")
    forced = []
    survivor = cache(machine, "next", "stale")
    fetch = survivor._fetch
    survivor._fetch = lambda force: forced.append(force) or fetch(force)
    survivor.renew("stale")
    assert True in forced


def test_a_process_that_is_alive_keeps_the_others_from_fetching(machine):
    first, second = cache(machine, "first", "one"), cache(machine, "second", "two")
    fetching, may_go_on, given = threading.Event(), threading.Event(), []
    fetch = first._fetch
    first._fetch = lambda force: fetching.set() or (may_go_on.wait(10) and fetch(force))
    threads = [threading.Thread(target=lambda: given.append(first.get()))]
    threads[0].start()
    fetching.wait(5)
    threads.append(threading.Thread(target=lambda: given.append(second.get())))
    threads[1].start()
    time.sleep(0.1)
    assert given == []
    may_go_on.set()
    for thread in threads:
        thread.join(10)
    assert given == ["one", "one"]


@pytest.mark.parametrize("fault", ["away", "lost"])
def test_a_token_is_had_though_the_store_fails(machine, fault):
    machine.store.only, tokens = "token", cache(machine, "me", "token")
    machine.store.fault = fault
    assert tokens.get() == "token"
    assert tokens.get() == "token"
    machine.store.fault = ""
    assert tokens.get() == "token"


def test_without_credentials_a_call_says_what_is_missing(make_api, cloud):
    api = make_api(cloud.url, WECHAT_SECRET="")
    with pytest.raises(ApiError, match="WECHAT_APPID and WECHAT_SECRET are missing"):
        api.get("/cgi-bin/get_api_domain_ip")
    assert cloud.journal == []


@pytest.mark.parametrize("secret", ["wrongsecret"])
def test_a_wrong_secret_is_named_and_not_shown(make_api, cloud, secret):
    with pytest.raises(WeChatError, match=r"40125.*WECHAT_SECRET is wrong") as caught:
        make_api(cloud.url, WECHAT_SECRET=secret).token()
    assert secret not in str(caught.value)


# Menus, media, customer messages


def test_a_menu_goes_up_comes_back_and_goes_away(api, cloud):
    api.create_menu(MENU)
    assert api.get_menu()["menu"]["button"][0]["name"] == "今日歌曲"
    menuid = api.add_conditional_menu({**MENU, "matchrule": {"tag_id": "2"}})
    assert [menu["menuid"] for menu in api.get_menu()["conditionalmenu"]] == [menuid] or menuid
    assert api.try_match_menu(USER)
    api.delete_conditional_menu(menuid)
    api.delete_menu()
    with pytest.raises(WeChatError, match=r"46003.*menu push"):
        api.get_menu()


def test_no_json_goes_out_with_escapes(api, cloud):
    api.create_menu(MENU)
    api.send(USER, Text("你好😀\ud800"))
    assert not any(call.escaped for call in cloud.journal)


@pytest.mark.parametrize("kind", ["image", "voice", "thumb", "video"])
def test_media_go_up_and_come_down_the_same(api, cloud, tmp_path, kind):
    suffix = {"image": "jpg", "voice": "mp3", "thumb": "jpg", "video": "mp4"}[kind]
    content = bytes(range(256)) * 200
    media_id = api.upload(kind, f'照片 "一".{suffix}', io.BytesIO(content))
    file = api.download(media_id, tmp_path)
    assert file.parent == tmp_path
    assert file.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_the_voice_of_a_web_page_has_an_endpoint_of_its_own(api, cloud, tmp_path):
    media_id = api.upload("voice", "a.mp3", io.BytesIO(b"sound"))
    assert api.download(media_id, tmp_path, is_jssdk=True).exists()
    assert cloud.journal[-1].path == "/cgi-bin/media/get/jssdk"


def test_an_upload_is_begun_anew_where_the_platform_was_busy(api, cloud, tmp_path):
    cloud.fail("/cgi-bin/media/upload", "busy")
    media_id = api.upload("image", "a.jpg", io.BytesIO(b"picture"))
    assert api.download(media_id, tmp_path).read_bytes() == b"picture"


def test_a_medium_that_does_not_exist_leaves_nothing_behind(api, tmp_path):
    with pytest.raises(WeChatError, match=r"40007.*three days"):
        api.download("nothing", tmp_path)
    assert list(tmp_path.iterdir()) == []


class FileServer(BaseHTTPRequestHandler):
    """Gives a token, and then one file under a name of its own choosing."""

    name, size, cut = "x", 10, 0

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b'{"access_token": "t", "expires_in": 7200}', "application/json")

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(self.size))
        self.wfile_header(f'Content-disposition: attachment; filename="{self.name}"')
        self.end_headers()
        for _ in range((self.size - self.cut) // 1024 or 1):
            self.wfile.write(b"x" * min(self.size - self.cut, 1024))

    def wfile_header(self, line):
        self._headers_buffer.append(line.encode() + b"\r\n")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def file_server(**fields):
    return type("Server", (FileServer,), fields)


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "..", ".", "", "a/b\\c.jpg", "C:\\x.jpg", ".bashrc", "x" * 500, "界" * 300, "a\x01b"],
)
def test_no_file_is_written_outside_the_folder(http_server, make_api, tmp_path, name):
    folder = tmp_path / "inner"
    folder.mkdir()
    file = make_api(http_server(file_server(name=name))).download("media", folder)
    assert file.parent == folder
    assert file.read_bytes() == b"x" * 10
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert list(folder.iterdir()) == [file]
    assert not file.name.startswith(".")


def test_a_chinese_file_name_stays():
    assert safe_name("照片 1.jpg") == "照片 1.jpg"
    assert not safe_name("a" * 200 + "." + "b" * (LONGEST_NAME - 1)).startswith(".")


def test_a_download_that_cannot_have_its_name_leaves_nothing_behind(api, cloud, tmp_path):
    media_id = cloud.keep(Media("image", "a.jpg", b"x", int(time.time())))
    (tmp_path / safe_name(f"{media_id}.jpg")).mkdir()
    with pytest.raises(OSError, match="directory"):
        api.download(media_id, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [safe_name(f"{media_id}.jpg")]


def test_a_download_that_breaks_off_leaves_nothing_behind(http_server, make_api, tmp_path):
    api = make_api(http_server(file_server(size=4096, cut=2048)))
    with pytest.raises(TransportError, match="cut off"):
        api.download("media", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_10_mb_are_written_to_disk_a_piece_at_a_time(http_server, make_api, tmp_path):
    api, seen = make_api(http_server(file_server(size=10 * 1024 * 1024))), []
    api.token()
    tracemalloc.start()
    file = api.download("media", tmp_path, on_progress=lambda done, size: seen.append((done, size)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.stat().st_size == 10 * 1024 * 1024
    assert seen[-1] == (10 * 1024 * 1024, 10 * 1024 * 1024)
    assert peak < 1024 * 1024


REPLIES = {
    "text": Text("你好"),
    "image": Image("m"),
    "voice": Voice("m"),
    "video": Video("m", "t", "d", "th"),
    "music": Music("th", "t", "d", "https://a/b", "https://a/c"),
    "news": News([Article("t", "d", "https://a/p", "https://a/u"), Article("dropped")]),
}


@pytest.mark.parametrize("kind", REPLIES)
def test_every_kind_of_reply_is_taken_as_a_customer_message(api, cloud, kind):
    api.send(USER, REPLIES[kind])
    ((openid, message),) = cloud.sent
    assert (openid, message["msgtype"]) == (USER, kind)


@pytest.mark.parametrize("reply", [Transfer(), Raw("x")])
def test_what_is_no_customer_message_is_not_sent(api, cloud, reply):
    api.send(USER, reply)
    assert cloud.sent == []


@pytest.mark.parametrize(
    ("account", "path"), [("official", "custom/typing"), ("miniprogram", "custom/business/typing")]
)
def test_typing_goes_to_the_accounts_own_endpoint(make_api, cloud, account, path):
    make_api(cloud.url, WECHAT_ACCOUNT=account).typing(USER)
    assert cloud.journal[-1].path == f"/cgi-bin/message/{path}"
    assert cloud.journal[-1].body == {"touser": USER, "command": "Typing"}


# Faults


CALLS = {
    "get": ("/cgi-bin/get_api_domain_ip", lambda api, folder: api.get("/cgi-bin/get_api_domain_ip")),
    "post": ("/cgi-bin/clear_quota", lambda api, folder: api.post("/cgi-bin/clear_quota", {"appid": APPID})),
    "create_menu": ("/cgi-bin/menu/create", lambda api, folder: api.create_menu(MENU)),
    "get_menu": ("/cgi-bin/menu/get", lambda api, folder: api.get_menu()),
    "delete_menu": ("/cgi-bin/menu/delete", lambda api, folder: api.delete_menu()),
    "upload": ("/cgi-bin/media/upload", lambda api, folder: api.upload("image", "a.jpg", io.BytesIO(b"x"))),
    "download": ("/cgi-bin/media/get", lambda api, folder: api.download("m", folder)),
    "send": ("/cgi-bin/message/custom/send", lambda api, folder: api.send(USER, Text("x"))),
    "typing": ("/cgi-bin/message/custom/typing", lambda api, folder: api.typing(USER)),
    "token": ("/cgi-bin/stable_token", lambda api, folder: api.token()),
}
FAULTS = [
    *("busy", "expired", "revoked", "invalid", "not-allowed", "unauthorized"),
    *("cut", "html", "status:502", "garbage", "empty", "code:45015", "code:99999"),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_each_fault_of_each_call_is_a_typed_error_without_a_secret(api, cloud, tmp_path, caplog, call, fault):
    caplog.set_level(logging.DEBUG)
    path, make = CALLS[call]
    token = api.token() if call != "token" else "-no token-"
    cloud.fail(path, fault, times=None)
    with pytest.raises(ApiError) as caught:
        make(api, tmp_path)
    said = f"{caught.value!r} {caught.value} {api!r} {caplog.text}"
    for secret in (token, SECRET):
        assert secret not in said
    if isinstance(caught.value, WeChatError):
        assert caught.value.hint or fault == "code:99999"
    else:
        assert isinstance(caught.value, TransportError) or fault == "empty"
    assert list(tmp_path.iterdir()) == []


REPEATABLE = {"get", "create_menu", "upload", "token", "delete_menu"}


@pytest.mark.parametrize("fault", ["busy", "status:502", "html", "cut", "garbage"])
@pytest.mark.parametrize("call", ["get", "create_menu", "upload", "token", "delete_menu", "send", "post"])
def test_a_call_is_tried_again_where_that_does_no_harm_and_only_there(api, cloud, tmp_path, call, fault):
    path, make = CALLS[call]
    if call != "token":
        api.token()
    cloud.fail(path, fault, times=1)
    if call in REPEATABLE:
        make(api, tmp_path)
        assert api.pauses == [0.5]
    else:
        with pytest.raises(ApiError):
            make(api, tmp_path)
        assert api.pauses == []


def test_a_control_character_in_an_answer_is_no_fault(api, cloud):
    api.token()
    cloud.fail("/cgi-bin/get_api_domain_ip", "control")
    assert api.get("/cgi-bin/get_api_domain_ip") is not None


def test_a_host_that_is_not_allowed_is_told_the_address_to_add(api, cloud):
    cloud.fail("/cgi-bin/stable_token", "not-allowed")
    with pytest.raises(WeChatError, match=r"add 1\.2\.3\.4 to IP白名单"):
        api.token()


@pytest.mark.parametrize(
    ("answer", "errcode"),
    [
        ({"errcode": "40013", "errmsg": "x"}, 40013),
        ({"base_resp": {"ret": 45015, "errmsg": "x"}}, 45015),
        ({"errcode": "odd"}, 0),
        ({"errcode": "9" * 5000}, 0),
        ({"errcode": None}, 0),
    ],
)
def test_an_errcode_is_read_in_every_form(answer, errcode):
    with pytest.raises(WeChatError) as caught:
        check_errcode(answer)
    assert caught.value.errcode == errcode


@pytest.mark.parametrize("answer", [{}, {"errcode": 0}, {"errcode": "0", "errmsg": "ok"}, {"base_resp": {"ret": 0}}])
def test_errcode_0_is_no_error(answer):
    check_errcode(answer)


def test_a_call_that_is_too_slow_ends(api, cloud):
    api.token()
    cloud.fail("/cgi-bin/clear_quota", "slow:2")
    with pytest.raises(TransportError, match="POST /cgi-bin/clear_quota: TimeoutError"):
        api._call(Call("POST", "/cgi-bin/clear_quota", {}, timeout=0.2), read_json)
