"""The Procfile and the files in `deploy/`, tried: real honcho, real nginx with TLS, processes that share a store."""

import argparse
import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sandbox.check import add_arguments, run
from sandbox.messages import APPID, text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import SECRET
from tests.conftest import AES_KEY, PLAIN, ROOT, SAFE, SEALED, TOKEN, free_port, program, wait_for_port
from tests.test_promises import SERVE, shown, wait_until
from wechat.settings import Settings

CERTIFICATE = """
req -x509 -newkey rsa:2048 -nodes -days 1 -keyout key.pem -out cert.pem -subj /CN=localhost
-addext subjectAltName=DNS:localhost -addext keyUsage=digitalSignature,keyCertSign
"""
NGINX = """
daemon off; user root; pid nginx.pid; worker_processes 2;
events {}
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""


def replaced(text, places):
    """The text with what stands for a place on the host replaced, each of which has to be there."""
    for old, new in places.items():
        assert old in text, old
        text = text.replace(old, str(new))
    return text


def clean_environ():
    return {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}


# The Procfile


class Library(BaseHTTPRequestHandler):
    """A source of books that takes its time."""

    def do_GET(self):
        time.sleep(1.5)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"docs": []}')

    def log_message(self, *_):
        pass


def test_the_procfile_serves_on_port_under_honcho_and_ends_with_status_0_once_all_is_answered(http_server, tmp_path):
    """honcho, like many a PaaS, has a shell run the line, and sends SIGTERM to both; the server replaces the shell."""
    port, attempts, output = free_port(), [], tmp_path / "output"
    environ = {**clean_environ(), "WECHAT_TOKEN": TOKEN, "HOST": "127.0.0.1", "PORT": str(port)}
    environ |= {"BOOKS_SOURCE": "openlibrary", "BOOKS_URL": http_server(Library)}
    bin_folder = Path(sys.executable).parent
    environ["PATH"] = f"{bin_folder}:{environ['PATH']}"
    with output.open("w") as file:
        honcho = subprocess.Popen([bin_folder / "honcho", "start"], cwd=ROOT, env=environ, stdout=file, stderr=file)
    try:
        wait_for_port(port)
        url, query, body = f"http://127.0.0.1:{port}/weixin", signed_query(TOKEN), text_message("三体").encode()
        thread = threading.Thread(target=lambda: attempts.extend(Endpoint(url).deliver(query, body, most=1)))
        thread.start()
        time.sleep(0.5)
    finally:
        honcho.terminate()
        honcho.wait(10)
    said = output.read_text()
    thread.join()
    assert "三体" in shown(attempts[0].body)
    assert "wxserver: stopped" in said
    assert "web.1 stopped (rc=0)" in said
    assert honcho.returncode == 128 + signal.SIGTERM  # honcho's own, for having been stopped


# The unit


class EveryLine(dict):
    """The lines of a section; systemd reads each of those that have one name."""

    def __setitem__(self, name, value):
        super().__setitem__(name, [*self[name], *value] if name in self and isinstance(value, list) else value)


def unit():
    """The unit's sections; a name that stands more than once has its lines joined by line ends."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, dict_type=EveryLine)
    parser.optionxform = str
    parser.read(ROOT / "deploy/wxserver@.service", "utf-8")
    return parser


def environment_of(folder, port, *files):
    """What a process of the unit finds in its environment, where /etc is in the folder and has these files."""
    service = unit()["Service"]
    state = {"/var/lib/" + service["StateDirectory"]: folder, "%i": port}
    lines = shlex.split(replaced(service["Environment"], state))
    named = [line.removeprefix("-").replace("%i", str(port)) for line in service["EnvironmentFile"].split("\n")]
    assert named == ["/etc/wxserver.env", f"/etc/wxserver/{port}.env"]
    lines += [line for content in files for line in content.split()]
    return {**clean_environ(), **dict(line.split("=", 1) for line in lines)}


def test_the_unit_starts_a_server_waits_until_it_answers_and_stops_it(tmp_path):
    port, service = free_port(), unit()["Service"]
    start = shlex.split(replaced(service["ExecStart"], {"/opt/wxserver/.venv/bin/python": sys.executable}))
    wait = shlex.split(replaced(service["ExecStartPost"], {"%i": port}))
    environ = environment_of(tmp_path, port, f"WECHAT_TOKEN={TOKEN}\n")
    program("curl")  # for ExecStartPost
    folder = replaced(service["WorkingDirectory"], {"/opt/wxserver": ROOT})
    process = subprocess.Popen(start, cwd=folder, env=environ, stderr=subprocess.DEVNULL)
    try:
        environ["MAINPID"] = str(process.pid)  # systemd sets it
        assert subprocess.run(wait, env=environ, timeout=30, check=False).returncode == 0
        assert (
            Endpoint(f"http://127.0.0.1:{port}/weixin").request("GET", signed_query(TOKEN) + "&echostr=1").body == b"1"
        )
    finally:
        process.send_signal(signal.Signals[service["KillSignal"]])
        status = process.wait(10)
    assert status == 0
    assert (tmp_path / "store.db").exists()
    assert subprocess.run(wait, env=environ, timeout=30, check=False).returncode == 1  # nobody is waited for


def test_the_unit_gives_the_drain_its_time_and_tries_again_until_its_store_answers():
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > Settings.drain
    assert service["Restart"] == "on-failure"
    assert "RestartPreventExitStatus" not in service
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0"


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    text = (ROOT / "deploy/wxserver@.service").read_text("utf-8")
    file = tmp_path / "wxserver@.service"
    file.write_text(replaced(text, {"/opt/wxserver/.venv/bin/python": sys.executable, "=/opt/wxserver": f"={ROOT}"}))
    done = subprocess.run([program("systemd-analyze"), "verify", file], capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "wxserver" in line]  # not what others lack
    assert (done.returncode, said) == (0, [])


def test_little_of_the_host_is_exposed_to_the_service():
    """What is left: the network, sockets of asyncio's own, and /proc/sys, where the boot's id stands."""
    unit = ROOT / "deploy/wxserver@.service"
    command = [program("systemd-analyze"), "security", "--offline=true", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert float(re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)[1]) <= 1.0


# nginx


class Nginx:
    """The real nginx with the site of `deploy/`, in front of two ports."""

    def __init__(self, folder, certificate, ports, second):
        self.folder, self.port = folder, free_port()
        self.url = f"https://localhost:{self.port}/weixin"
        folder.mkdir()
        site = (ROOT / "deploy/nginx.conf").read_text("utf-8")
        places = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "server_name your.host;": "server_name localhost;",
            "/etc/letsencrypt/live/your.host/fullchain.pem": certificate / "cert.pem",
            "/etc/letsencrypt/live/your.host/privkey.pem": certificate / "key.pem",
            "/var/log/nginx/": f"{folder}/",
            "127.0.0.1:8081": f"127.0.0.1:{ports[0]}",
            "127.0.0.1:8082": f"127.0.0.1:{ports[1]}",
        }
        if second:
            site = re.sub(r"^( *)#(?! \S)", r"\1", site, flags=re.MULTILINE)  # prose has one blank behind the mark
            places |= {f"127.0.0.1:{8091 + number}": f"127.0.0.1:{port}" for number, port in enumerate(second)}
        (folder / "site.conf").write_text(replaced(site, places))
        (folder / "nginx.conf").write_text(NGINX)
        command = [program("nginx"), "-p", folder, "-c", "nginx.conf", "-e", "main.log"]
        self.process = subprocess.Popen(command, cwd=folder)
        wait_for_port(self.port)

    def logs(self):
        return {file.name: file.read_text() for file in self.folder.glob("*.log")}

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A folder with a certificate and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run([program("openssl"), *CERTIFICATE.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def nginx(tmp_path, monkeypatch, certificate):
    """A function that starts nginx in front of two ports; the tests' side trusts its certificate."""
    started = []

    def start(*ports, second=()):
        started.append(Nginx(tmp_path / "nginx", certificate, ports, second))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.mark.parametrize("mode", ["plain", "safe"])
def test_check_finds_nothing_through_tls_and_no_log_of_nginx_holds_a_signature(serve, nginx, redis_url, capsys, mode):
    sealed = {} if mode == "plain" else SEALED
    servers = [serve(WECHAT_STORE=redis_url, **sealed) for _ in range(2)]
    front = nginx(*(server.port for server in servers))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with_key = ["--aes-key", AES_KEY, "--appid", APPID] if sealed else []
    assert run(parser.parse_args([front.url, "--token", TOKEN, *with_key])) == 0
    assert f"in {mode} mode" in (said := capsys.readouterr().out)
    assert " 0 warn, 0 FAIL" in said
    push = (SAFE if sealed else PLAIN).push(text_message("帮助"))
    servers[0].stop()
    assert Endpoint(front.url).request("POST", *push).status == 200
    servers[1].stop()
    assert Endpoint(front.url).request("POST", *push).status == 502
    assert wait_until(lambda: "POST /weixin 502 " in front.logs()["wxserver.log"])  # written after the answer
    assert [name for name, text in front.logs().items() if "signature" in text or "nonce" in text] == []


def test_what_nobody_has_to_see_is_404_without_asking_the_server(nginx):
    front = nginx(1, 1)
    for path in ("/", "/weixin/x", "/weixinx", "/metrics"):
        assert Endpoint(front.url.replace("/weixin", path)).request("GET", "").status == 404


TWICE = """
from wechat.routing import on
from wechat.settings import own

@on("text", slow=True)
def count(msg, session):
    session["seen"] = session.get("seen", 0) + 1
    return f"{own('NAME')} {session['seen']}"
"""


def test_two_accounts_on_one_host_share_nginx_and_a_store_and_nothing_else(serve, nginx, tmp_path):
    """Each process has the environment that the unit gives it; the same user writes the same to both accounts."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/mine.py").write_text(TWICE)
    ports = [free_port() for _ in range(4)]
    shared = f"WECHAT_HANDLERS={tmp_path}/handlers\n"
    first = f"WECHAT_TOKEN={TOKEN}\nNAME=first\n"
    second = "WECHAT_TOKEN=secondtoken\nWECHAT_PATH=/second\nNAME=second\n"
    for port, own in zip(ports, (first, first, second, second), strict=True):
        environ = environment_of(tmp_path, port, shared, own)
        assert environ["WECHAT_STORE"] == f"sqlite:{tmp_path}/store.db"
        serve("-m", "wxserver", **environ)
    front = nginx(*ports[:2], second=ports[2:])

    def say(path, token, number):
        push = signed_query(token, openid=f"o{number:027}"), text_message("hello", f"o{number:027}").encode()
        return [shown(attempt.body) for attempt in Endpoint(front.url.replace("/weixin", path)).deliver(*push)][-1]

    users = range(8)  # so that each process gets some
    for count in "12":
        assert {say("/weixin", TOKEN, user) for user in users} == {f"first {count}"}
        assert {say("/second", "secondtoken", user) for user in users} == {f"second {count}"}
    assert Endpoint(front.url.replace("/weixin", "/second")).request("POST", signed_query(TOKEN)).status == 403


HANDLERS = """
import os, re, time
from wechat.routing import on

@on("text", re.compile("fast .*"))
def fast(msg):
    time.sleep(0.03)
    return msg.Content

@on("text", re.compile("slow .*"), slow=True)
def slow(msg):
    time.sleep(0.25)
    return msg.Content

@on("text", re.compile("note .*"), slow=True)
def note(msg, session):
    time.sleep(0.02)
    session["notes"] = session.get("notes", "") + msg.Content[5:]
    return f"{os.getpid()} {session['notes']}"
"""
SENDERS, PAUSE = 12, 0.4  # seconds


class Load:
    """Messages that arrive while a block runs, each delivered as WeChat does; `seen` has the attempts at each."""

    def __init__(self, url):
        self.url, self.seen, self.numbers, self.is_over = url, {}, iter(range(10**9)), threading.Event()
        self.threads = [threading.Thread(target=self.send, args=(kind,)) for kind in ("fast", "slow") * (SENDERS // 2)]

    def send(self, kind):
        while not self.is_over.is_set():
            number = next(self.numbers)
            content, openid = f"{kind} {number}", f"o{number % 97:027}"
            body = text_message(content, openid).encode()
            self.seen[content] = list(Endpoint(self.url).deliver(signed_query(TOKEN, openid=openid), body))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        time.sleep(PAUSE)
        return self

    def __exit__(self, *_):
        time.sleep(PAUSE)
        self.is_over.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def start_behind_nginx(serve, nginx, tmp_path):
    """A function that starts two processes on one store; gives nginx, and what ends and restarts one of them."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/mine.py").write_text(HANDLERS)

    def start(**environ):
        ports = [free_port(), free_port()]

        def begin(place):
            return serve("-c", SERVE, str(tmp_path / "handlers"), **environ, PORT=str(ports[place]))

        servers = [begin(0), begin(1)]

        def end(place, number):
            servers[place].process.send_signal(number)
            status = servers[place].process.wait(10)
            time.sleep(PAUSE)
            servers[place] = begin(place)
            return status

        return nginx(*ports), end

    return start


def test_killing_either_of_two_processes_under_load_costs_no_message_an_attempt(start_behind_nginx, shared_store):
    """nginx passes on what the process died over, and the other one takes it over."""
    front, end = start_behind_nginx(WECHAT_STORE=shared_store)
    with Load(front.url) as load:
        for number in range(4):
            end(number % 2, signal.SIGKILL)
            time.sleep(PAUSE)
    assert len(load.seen) > 100
    first = {content: (attempts[0].status, shown(attempts[0].body)) for content, attempts in load.seen.items()}
    assert first == {content: (200, content) for content in load.seen}
    assert " 502, 200\n" in front.logs()["wxserver.log"]  # some were passed on


def test_restarting_either_of_two_processes_under_load_costs_no_message_an_attempt(start_behind_nginx, redis_url):
    front, end = start_behind_nginx(WECHAT_STORE=redis_url)
    with Load(front.url) as load:
        assert [end(place, signal.SIGTERM) for place in (0, 1)] == [0, 0]
    first = {content: (attempts[0].status, shown(attempts[0].body)) for content, attempts in load.seen.items()}
    assert first == {content: (200, content) for content in load.seen}


def test_what_was_acknowledged_before_a_kill_is_pushed_by_the_other_process(start_behind_nginx, redis_url, cloud):
    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    front, end = start_behind_nginx(WECHAT_STORE=redis_url, WECHAT_REPLY_WITHIN="0.1", **credentials)
    with Load(front.url) as load:
        end(0, signal.SIGKILL)
    said = {content: shown(attempts[-1].body) for content, attempts in load.seen.items()}
    assert {content for content in said if said[content] not in ("", content)} == set()
    owed = {content for content in said if not said[content]}
    assert len(owed) > 10
    assert wait_until(lambda: owed <= {message["text"]["content"] for _, message in cloud.sent}, 15)


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_user_sends_is_answered_in_order_behind_nginx(start_behind_nginx, shared_store, is_killed):
    front, end = start_behind_nginx(WECHAT_STORE=shared_store)

    def send(openid, number):
        time.sleep(number * 0.15)  # so that they come in this order on a busy machine, too
        push = signed_query(TOKEN, openid=openid), text_message(f"note {number}", openid).encode()
        return shown(next(iter(Endpoint(front.url).deliver(*push))).body)

    pids = set()
    with ThreadPoolExecutor(6) as pool:
        for turn in range(8):
            if is_killed and turn == 4:
                end(0, signal.SIGKILL)
            answers = list(pool.map(send, [f"o{turn:027}"] * 6, range(6)))
            assert [answer.split()[1] for answer in answers] == ["012345"[: number + 1] for number in range(6)]
            pids |= {answer.split()[0] for answer in answers}
            assert is_killed or len({answer.split()[0] for answer in answers}) == 1
    assert len(pids) >= 2
