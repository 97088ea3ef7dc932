"""The client against the stand-in, over real HTTP."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import pytest

from sandbox.cloud_wire import Media
from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN, FaultyStore, Machine
from wechat.errors import ApiError, TransportError, WeChatError
from wechat.platform.access_token import TokenCache
from wechat.platform.answers import HINTS, hint_for, read_json
from wechat.platform.api import Api, Call
from wechat.platform.files import LARGEST_FILE, LONGEST_NAME, multipart, safe_name
from wechat.reply import Article, Image, Music, News, Raw, Text, Transfer, Video, Voice
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wechat.store.opening import open_store
from wechat.store.owners import Owners
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


class Scripted(BaseHTTPRequestHandler):
    """Answers each path with the bytes that stand for it, and notes the paths with their queries."""

    answers, asked = {}, []

    def do_GET(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.asked.append(self.path)
        status, kind, body = self.answers.get(self.path.partition("?")[0], (200, "application/json", b'{"errcode":0}'))
        body = body.replace(b"HOST", self.headers["Host"].encode())
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


TOKEN_PATH = "/cgi-bin/stable_token"


@pytest.fixture
def script(http_server, make_api):
    """A function that makes an Api for a platform which answers these paths with these bytes; `api.asked` notes."""

    def make(answers, **environ):
        full = {TOKEN_PATH: b'{"access_token":"t","expires_in":7200}', **answers}
        full = {
            path: said if isinstance(said, tuple) else (200, "application/json", said) for path, said in full.items()
        }
        server = type("Server", (Scripted,), {"answers": full, "asked": []})
        api = make_api(http_server(server), **environ)
        api.asked = server.asked
        return api

    return make


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        *(('"7200"', 6900), ("7200.0", 6900), ('"7199.5"', 6899.5), ("86400", 6900), ("1e12", 6900), ('"10"', 5)),
        *((said, 60) for said in ("null", '""', "-1", "0", '"soon"', "[7200]", "{}", "NaN", "9" * 400, "9" * 5000)),
    ],
)
def test_a_token_is_kept_for_a_sensible_time_whatever_is_said_about_it(script, clock, expires_in, life):
    api = script({TOKEN_PATH: b'{"access_token":"t","expires_in":%s}' % expires_in.encode()})
    api._tokens._clock = clock
    assert api.token() == "t"
    clock.now += life - 0.5
    api.token()
    assert len(api.asked) == 1
    clock.now += 1
    api.token()
    assert len(api.asked) == 2


def test_a_token_without_an_end_is_kept_for_a_minute(script, clock):
    api = script({TOKEN_PATH: b'{"access_token":"t"}'})
    api._tokens._clock = clock
    assert (api.token(), api.token(), len(api.asked)) == ("t", "t", 1)
    clock.now += 61
    assert (api.token(), len(api.asked)) == ("t", 2)


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize(
    "token",
    [
        '"\\ud800"',
        '"a\\nb"',
        '"a\\u0000"',
        '"\\u007f"',
        '"令牌"',
        '""',
        "null",
        "5",
        "true",
        "[]",
        '["t"]',
        "{}",
        f'"{"t" * 5000}"',
    ],
)
def test_an_access_token_that_cannot_be_used_is_a_transport_error_that_does_not_quote_it(
    script, tmp_path, token, store
):
    answer = b'{"access_token":%s,"expires_in":7200}' % token.encode()
    api = script({TOKEN_PATH: answer}, store=f"sqlite:{tmp_path}/s.db" if store == "sqlite" else store)
    with pytest.raises(TransportError, match="the platform's answer holds no access_token that can be used"):
        api.get("/cgi-bin/get_api_domain_ip")


@pytest.mark.parametrize("fault", ["invalid", "expired", "code:40014"])
@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.get("/cgi-bin/get_api_domain_ip", access_token="theirs"),
        lambda api: api.get("/cgi-bin/get_api_domain_ip?access_token=theirs"),
        lambda api: api.get("/cgi-bin/get_api_domain_ip?a=1&access%5Ftoken=theirs", b="2"),
        lambda api: api.get("/cgi-bin/get_api_domain_ip", access_token=""),
        lambda api: api.get("/cgi-bin/get_api_domain_ip", component_access_token="theirs"),
        lambda api: api.post("/cgi-bin/clear_quota?access_token=theirs", {}),
    ],
    ids=["query", "path", "escaped", "empty", "component", "post"],
)
def test_25_refusals_of_a_callers_own_token_renew_nothing(api, cloud, call, fault):
    cloud.fail("/cgi-bin/", fault, times=None)
    for _ in range(25):
        with pytest.raises(WeChatError, match=r"4\d{4}"):
            call(api)
    assert {call.path for call in cloud.journal} <= {"/cgi-bin/get_api_domain_ip", "/cgi-bin/clear_quota"}
    assert len(cloud.journal) == 25


def test_a_callers_own_token_is_the_one_that_is_sent(script):
    api = script({})
    api.get("/x", access_token="theirs")
    api.get("/y?access_token=theirs", a="1")
    assert api.asked == ["/x?access_token=theirs", "/y?access_token=theirs&a=1"]


@pytest.mark.parametrize("path", ["/sns/jscode2session", "/cgi-bin/clear_quota/v2", "/cgi-bin/token"])
def test_a_call_that_has_keys_of_its_own_needs_no_token(script, path):
    api = script({path: b'{"errcode":40001}'})
    with pytest.raises(WeChatError, match="40001"):
        api.get(path, appid="a")
    assert api.asked == [f"{path}?appid=a"]


def test_a_query_with_half_a_character_is_sent(script):
    api = script({})
    api.get("/x", access_token="t", openid="a\ud800")
    assert api.asked == ["/x?access_token=t&openid=a%3F"]


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


def test_a_forced_refresh_is_made_also_where_a_plain_fetch_is_under_way():
    """Else each call would get a 40001 for the 30 s in which nobody may force another one."""
    store, asked, other = MemoryStore(), [], []
    owners, is_under_way = Owners(store), threading.Event()

    def fetch(force):
        if threading.current_thread() in other:
            is_under_way.set()
            time.sleep(0.1)
        asked.append(force)
        return {"access_token": "new" if any(asked) else "stale", "expires_in": 7200}

    tokens, take = TokenCache(store, owners, fetch), owners.take

    def take_it_while_another_thread_fetches(key, *rest):
        if key == "token:forced" and not other:
            other.append(threading.Thread(target=tokens.renew, args=("stale",)))
            other[0].start()
            is_under_way.wait(5)
        return take(key, *rest)

    owners.take = take_it_while_another_thread_fetches
    tokens.get()
    assert tokens.renew("stale") == "new"
    other[0].join(5)
    assert asked.count(True) == 1


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


def test_a_token_that_another_process_fetches_for_too_long_is_a_transport_error(world):
    """So a reply that waits for it is tried again: seeds 8411, 20159 and 34487 of the simulation lost one."""
    machine = Machine(FaultyStore(world), world)
    machine.start("first").take("token:lock", 3600)
    machine.store.wait = lambda key, seen, seconds: world.sleep(seconds)
    tokens = TokenCache(machine.store, machine.start("second"), None, world=world)
    with pytest.raises(TransportError, match="for too long"):
        tokens.get()


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


DEVICES = ["CON", "nul", "Aux.txt", "COM1.jpg", "lpt9", "COM¹", "con .jpg", "PRN.", "NUL...", "CONIN$", "nul.tar.gz"]


@pytest.mark.parametrize("name", DEVICES)
def test_a_name_that_is_a_device_on_windows_is_another_one(name):
    safe = safe_name(name)
    assert safe.startswith("_")
    assert not safe.endswith((".", " "))


@pytest.mark.parametrize("name", ["a.jpg.", "a.jpg ", "a.jpg. . ", ". a.jpg"])
def test_dots_and_blanks_around_a_name_go(name):
    assert safe_name(name) == "a.jpg"


@pytest.mark.parametrize("name", ["console.jpg", "com.jpg", "com10", "nullable", "auxiliary.py"])
def test_a_name_that_only_begins_like_a_device_stays(name):
    assert safe_name(name) == name


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_download_overwrites_nothing(http_server, make_api, tmp_path):
    (tmp_path / "wxserver2.py").write_text("mine")
    (tmp_path / "wxserver2-2.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "wxserver2-3.py").mkdir()
    api = make_api(http_server(file_server(name="wxserver2.py")))
    files = [api.download("media", tmp_path).name for _ in range(2)]
    assert files == ["wxserver2-4.py", "wxserver2-5.py"]
    assert (tmp_path / "wxserver2.py").read_text() == "mine"
    assert names(tmp_path) == ["wxserver2-2.py", "wxserver2-3.py", *files, "wxserver2.py"]


def test_downloads_at_the_same_time_have_a_file_each(http_server, make_api, tmp_path):
    api = make_api(http_server(file_server(name="照片.jpg", size=4096)))
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda _: api.download("media", tmp_path), range(16)))
    assert len(set(files)) == 16
    assert {file.stat().st_size for file in files} == {4096}
    assert names(tmp_path) == sorted(file.name for file in files)


def test_a_download_among_thousands_of_its_name_finds_another_one(http_server, make_api, tmp_path):
    for number in range(300):
        (tmp_path / (f"x-{number}" if number > 1 else "x")).touch()
    file = make_api(http_server(file_server(name="x"))).download("media", tmp_path)
    assert file.name.startswith("x-")
    assert file.read_bytes() == b"x" * 10


def test_a_name_in_gbk_is_read(http_server, make_api, tmp_path):
    class Server(FileServer):
        def wfile_header(self, line):
            self._headers_buffer.append(line.replace("NAME", "照片").encode("gbk") + b"\r\n")

    assert make_api(http_server(type("S", (Server,), {"name": "NAME.jpg"}))).download("m", tmp_path).name == "照片.jpg"


@pytest.mark.parametrize(
    "name", ['a"; filename*0*=a; filename*0*=b; filename*1=c\x00', "a\"; filename*=x%\x00''y; a=\""]
)
def test_a_name_that_pythons_parser_stumbles_over_is_passed_over(http_server, make_api, tmp_path, name):
    assert make_api(http_server(file_server(name=name))).download("media", tmp_path).read_bytes() == b"x" * 10


def test_a_download_into_a_folder_that_is_not_there_is_an_oserror(api, cloud, tmp_path):
    media_id = cloud.keep(Media("image", "a.jpg", b"x", int(time.time())))
    with pytest.raises(FileNotFoundError):
        api.download(media_id, tmp_path / "nowhere")
    assert names(tmp_path) == []


def test_a_file_that_says_that_it_is_too_large_is_not_begun(http_server, make_api, tmp_path):
    api = make_api(http_server(file_server(size=LARGEST_FILE + 1)))
    with pytest.raises(TransportError, match=f"over {LARGEST_FILE} bytes"):
        api.download("media", tmp_path)
    assert names(tmp_path) == []


# A video is an address


VIDEO = "/cgi-bin/media/get"


@pytest.fixture
def inside(http_server):
    """A server that only this machine should reach, whose `asked` notes who did; and its port."""
    server = type("Inside", (Scripted,), {"asked": []})
    return server, http_server(server).rpartition(":")[2]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1", "0x7f000001", "127.1"),
        *("0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"),
        *("user@127.0.0.1", "127.0.0.1:80@127.0.0.1", "8.8.8.8@localhost", "169.254.169.254", "10.0.0.1", "224.0.0.1"),
    ],
)
def test_a_video_on_an_address_that_is_not_public_is_not_fetched(script, inside, tmp_path, scheme, host):
    server, port = inside
    api = script({VIDEO: b'{"video_url":"%s://%s:%s/secret"}' % (scheme.encode(), host.encode(), port.encode())})
    with pytest.raises(TransportError, match="is not a public address"):
        api.download("media", tmp_path)
    assert server.asked == []
    assert names(tmp_path) == []


AT_HOME = b'{"video_url":"http://HOST/video?sign=1"}'


def test_a_video_on_the_very_server_of_the_api_is_fetched(script, tmp_path):
    api = script({VIDEO: AT_HOME, "/video": (200, "video/mp4", b"film")})
    assert api.download("media", tmp_path).read_bytes() == b"film"
    assert api.asked[-1] == "/video?sign=1"


def test_a_redirect_of_a_video_is_not_followed(script, inside, tmp_path):
    server, port = inside
    api = script({VIDEO: AT_HOME, "/video": (302, f"video/mp4\r\nLocation: http://127.0.0.1:{port}/", b"")})
    with pytest.raises(TransportError, match="GET /video: it answered 302"):
        api.download("media", tmp_path)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        '"ftp://HOST/v"',
        '"file:///etc/passwd"',
        '"/v"',
        '""',
        "null",
        "5",
        "{}",
        '"http://["',
        '"http://"',
        '"http://a:99999/"',
        '"http://HOST:0x/"',
        '"http://HOST/\\ud800"',
        '"http://HOST/a b\\r\\nX: y"',
        '"http://\\ud800/"',
        f'"http://{"a" * 300}/"',
    ],
)
def test_an_address_of_a_video_that_is_none_is_a_transport_error(script, tmp_path, url):
    with pytest.raises(TransportError):
        script({VIDEO: b'{"video_url":%s}' % url.encode()}).download("media", tmp_path)
    assert names(tmp_path) == []


# What goes up


GBK_NAME = os.fsdecode("照片.jpg".encode("gbk"))  # as Python has it where the file system speaks GBK


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        (GBK_NAME, "照片.jpg"),
        ("a\ud800.jpg", "a_.jpg"),
        ('a"b\r\nContent-Type: x\r\n\r\n.jpg', "a_b__Content-Type_ x____.jpg"),
        ("a\x7f\x00/\\.jpg", "a____.jpg"),
        ("照片 😀.jpg", "照片 😀.jpg"),
    ],
)
def test_a_file_goes_up_whatever_its_name_is(api, cloud, name, sent):
    api.upload("image", name, io.BytesIO(b"picture"))
    assert cloud.journal[-1].body == {"filename": sent, "content": b"picture"}


def test_a_file_that_grows_while_it_goes_up_is_sent_as_it_was():
    """The rest would be read as the next call on the connection."""
    file = io.BytesIO(b"abc")
    body, headers = multipart("a.png", file)
    pieces = body()
    sent = [next(pieces)]
    file.seek(0, os.SEEK_END)
    file.write(b"more")
    file.seek(0)
    sent += pieces
    assert len(b"".join(sent)) == int(headers["Content-Length"])


def test_no_file_can_hold_the_boundary_of_its_upload():
    headers = {multipart("a.jpg", io.BytesIO(b"x"))[1]["Content-Type"] for _ in range(10)}
    assert len(headers) == 10


def test_a_download_that_breaks_off_leaves_nothing_behind(http_server, make_api, tmp_path):
    api = make_api(http_server(file_server(size=4096, cut=2048)))
    with pytest.raises(TransportError, match="cut off"):
        api.download("media", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_10_mb_are_written_to_disk_a_piece_at_a_time(http_server, make_api, tmp_path):
    api = make_api(http_server(file_server(size=10 * 1024 * 1024)))
    api.token()
    tracemalloc.start()
    file = api.download("media", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.stat().st_size == 10 * 1024 * 1024
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


def test_a_string_is_sent_as_a_text(api, cloud):
    api.send(USER, "你好\x01")
    api.send(USER, "界" * 1000)
    assert [message["text"]["content"] for _, message in cloud.sent] == ["你好", "界" * 682, "界" * 318]


@pytest.mark.parametrize("reply", [Transfer(), Raw("x"), ""])
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


NOT_REGISTERED = b'{"errcode":61004,"errmsg":"access clientip is not registered hint: [x] requestIP: 1.2.3.4"}'
CONSOLE = "developers.weixin.qq.com/platform"


def test_a_host_that_is_not_registered_is_told_the_same(script):
    with pytest.raises(WeChatError, match=r"add 1\.2\.3\.4 to IP白名单"):
        script({TOKEN_PATH: NOT_REGISTERED}).token()


@pytest.mark.parametrize("errcode", [40013, 40125, 40164, 40243, 61004])
def test_a_fault_of_the_keys_names_the_page_where_they_are(errcode):
    hint = hint_for(errcode, "")
    for part in (CONSOLE, "我的业务 → 基础信息 → 开发密钥", "mp.weixin.qq.com"):
        assert part in hint


def test_what_is_missing_on_the_console_names_its_page():
    assert f"接口管理 at {CONSOLE}" in hint_for(48001, "")
    assert not any("the platform's page" in hint for hint in HINTS.values())


def test_an_escape_that_the_platform_does_not_take_is_explained(script):
    with pytest.raises(WeChatError, match=r"40033.*UTF-8"):
        script({"/cgi-bin/menu/create": b'{"errcode":40033}'}).create_menu(MENU)


def test_a_quota_that_leaves_no_token_names_the_only_call_that_helps(script):
    used_up = b'{"errcode":45009}'
    with pytest.raises(WeChatError, match="/cgi-bin/clear_quota/v2"):
        script({TOKEN_PATH: used_up}).token()
    with pytest.raises(WeChatError, match="/cgi-bin/clear_quota gives"):
        script({"/cgi-bin/menu/get": used_up}).get_menu()


@pytest.mark.parametrize("status", [200, 400, 502])
def test_an_errcode_counts_whatever_the_status_and_the_bytes_are(script, status):
    body = '{"errcode":"45015","errmsg":"回复\x1d"}'.encode("gbk")
    with pytest.raises(WeChatError, match="48 hours") as caught:
        script({"/cgi-bin/message/custom/send": (status, "text/plain", body)}).send(USER, "x")
    assert (caught.value.errcode, caught.value.errmsg) == (45015, "回复 ")


@pytest.mark.parametrize("body", ["[]", "5", '"ok"', "null", "{", "", "<html>"])
def test_an_answer_that_is_no_object_is_a_transport_error(script, body):
    with pytest.raises(TransportError, match="GET /x: the answer is"):
        script({"/x": body.encode()}).get("/x")


def test_a_call_that_is_too_slow_ends(api, cloud):
    api.token()
    cloud.fail("/cgi-bin/clear_quota", "slow:2")
    with pytest.raises(TransportError, match="POST /cgi-bin/clear_quota: TimeoutError"):
        api._call(Call("POST", "/cgi-bin/clear_quota", {}, timeout=0.2), read_json)


def test_retries_stay_within_the_time_of_the_call(http_server, make_api):
    tries = []

    class Silent(Scripted):
        def do_GET(self):
            tries.append(1)
            time.sleep(5)

    api = make_api(http_server(Silent))
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        api._call(Call("GET", "/x", {"access_token": "t"}, is_repeatable=True, timeout=0.3), read_json)
    assert (len(tries), api.pauses) == (1, [])


def test_no_pause_is_begun_that_the_time_of_the_call_does_not_hold(script):
    api = script({"/x": b'{"errcode":-1}'})
    with pytest.raises(WeChatError, match="-1"):
        api._call(Call("GET", "/x", {"access_token": "t"}, is_repeatable=True, timeout=1), read_json)
    assert api.pauses == [0.5]
    assert len(api.asked) == 2
