"""The account under test: the real callable with the real handlers, asked the way WeChat asks."""

import contextlib
import gc
import itertools
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from base64 import b64decode
from http.server import ThreadingHTTPServer
from pathlib import Path
from wsgiref.validate import validator
from xml.etree import ElementTree

import pytest
import redis
from hypothesis import HealthCheck, settings
from webob import Request

from sandbox.messages import APPID, text_message
from sandbox.platform import Platform, signed_query
from tests.tools import advice, which
from tests.warmed import popen
from wechat.errors import StoreError
from wechat.routing import load
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wechat.store.owners import Identity, Owners
from wechat.trouble import troubles
from wechat.world import REAL, World
from wxserver import Application, make_application

pytest_plugins = ["sandbox.testing"]
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

ROOT = Path(__file__).parents[1]
for name in ("LC_ALL", "LC_MESSAGES"):  # what commands say is compared with English, whatever the developer reads
    os.environ.pop(name, None)
os.environ["LANG"] = "C.UTF-8"
QUIET = ["-W", "ignore:This process:DeprecationWarning"]  # 3.12 warns of a fork with threads, which is what is tried
TOKEN = "testtoken"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
PLAIN, COMPAT, SAFE = (Platform(TOKEN, mode, b64decode(AES_KEY + "="), APPID) for mode in ("plain", "compat", "safe"))
SEALED = {"WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID}
SECONDS = itertools.count(1714037059)  # no two messages of a user are the same
MESSAGES = sorted((ROOT / "tests/messages").glob("*.xml"))


# What takes longest, most of it waiting: each begins before what only computes, so that none is left over at the end.
LONGEST = [
    *("page", "promises", "deploy", "load", "processes", "outage", "yields", "crash_points", "check", "sandbox"),
    *("package", "terminal", "simulation"),
]
# Files whose tests need not run in one worker, and the number of parts they are split into.
PARTS = {"promises": 6, "deploy": 4, "outage": 4, "load": 3, "yields": 3, "sandbox": 2, "page": 2, "terminal": 2}


def pytest_collection_modifyitems(items):
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Each worker imports every test: it reads what another one has compiled, and collects no garbage meanwhile."""
    was, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # no later collection looks at 6,000 tests
        gc.enable()
        sys.dont_write_bytecode = was


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker gets a file at a time, or a part of one."""
    if config.option.dist != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByPart(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            return f"{file} {zlib.crc32(test.encode()) % PARTS.get(Path(file).stem.removeprefix('test_'), 1)}"

    return ByPart(config, log)


def pytest_report_header():
    return advice() or None


def pytest_terminal_summary(terminalreporter):
    if advice():
        terminalreporter.write_line(advice(), yellow=True)


def program(name):
    """The path of a program; without it a test is skipped, but never in CI."""
    if not (path := which(name)):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    return path


class Account:
    """A client that signs like WeChat and holds the application to the WSGI contract."""

    def __init__(self, app, platform=PLAIN):
        self.app = app
        self.platform = platform
        self.checked = validator(app)

    def get(self, path="/weixin", query=""):
        return self.request(path, query, "GET")

    def post(self, body, query=None, path="/weixin"):
        """One push, correctly signed unless a query is given."""
        content = body.encode() if isinstance(body, str) else body
        return self.request(path, signed_query(TOKEN) if query is None else query, "POST", content)

    def request(self, path, query, method, body=b"", **environ):
        request = Request.blank(path, method=method, body=body)
        request.environ.update({"QUERY_STRING": query, **environ})
        response = request.send(self.checked)
        response.body  # noqa: B018, reads and closes, which is part of the contract
        return response

    def deliver(self, content):
        """The response to a push of the content, signed and sealed as the account's mode asks, and the reply in it."""
        query, body = self.platform.push(content)
        response = self.post(body, query)
        return response, self.platform.open(response.body)

    def say(self, content):
        """What a user gets for a text: the reply's nodes by name, or {} for silence."""
        return nodes(self.post(text_message(content)))

    def event(self, event, key="", **more):
        """What a user gets for an event."""
        fields = {"MsgType": "event", "Event": event, "EventKey": key, **more}
        return self.push(**fields)

    def push(self, **fields):
        """What a user gets for a message with these fields."""
        common = {
            "ToUserName": "gh_7f083739789a",
            "FromUserName": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY",
            "CreateTime": str(next(SECONDS)),
        }
        root = ElementTree.Element("xml")
        for name, value in {**common, **fields}.items():
            ElementTree.SubElement(root, name).text = value
        return nodes(self.post(ElementTree.tostring(root, encoding="unicode")))


def nodes(response):
    """The nodes of a passive reply by name, articles under `articles`; {} for `success`."""
    assert response.status_code == 200
    if response.body == b"success":
        return {}
    root = ElementTree.fromstring(response.text)
    assert root.tag == "xml"
    found = {node.tag: node.text or "" for node in root.iter() if not len(node)}
    found["articles"] = [{node.tag: node.text or "" for node in item} for item in root.iter("item")]
    return found


@pytest.fixture
def account():
    """The account that ships, on the bundled list of books."""
    return Account(make_application({"WECHAT_TOKEN": TOKEN}))


@pytest.fixture
def make_account(tmp_path):
    """An account whose handlers are the given source, with further settings and a clock if wanted."""

    made = []

    def make(source, clock=time.time, platform=PLAIN, **environ):
        (tmp_path / "mine.py").write_text("import re\nfrom wechat.routing import on\n" + source, encoding="utf-8")
        sealed = {**SEALED, "WECHAT_MODE": platform.mode} if platform is not PLAIN else {}
        settings = read({"WECHAT_TOKEN": TOKEN, **sealed, **environ})
        made.append(Account(Application(settings, load(tmp_path), clock), platform))
        return made[-1]

    yield make
    for account in made:  # replies that are tried again would be, in the midst of other tests
        account.app.delivery.close()


@pytest.fixture
def http_server():
    """A function that serves a request handler class on a free port of loopback and gives the address."""
    servers = []

    def serve(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class Process:
    """`python wxserver.py` in a process of its own, on a free port; or another command that says so in a like line."""

    def __init__(self, *command, python=sys.executable, cwd=ROOT, sign="listening on ", **environ):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
        self.process = popen(
            [python, *(command or ["wxserver.py"])],
            cwd=cwd,
            env={**clean, "WECHAT_TOKEN": TOKEN, "HOST": "127.0.0.1", "PORT": "0", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        self.url = re.search(r"http://\S+?(?=,|$)", self._wait_for(sign))[0]
        self.port = int(self.url.split(":")[2].split("/")[0])
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def _wait_for(self, text):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return self.lines[-1]
        raise AssertionError("\n".join(self.lines))

    def _drain(self):
        self.lines.extend(line.rstrip() for line in self.process.stdout)

    def wait_for_lines(self, text, number):
        """Whether so many lines with the text have been logged, within a few seconds."""
        deadline = time.monotonic() + 5
        while sum(text in line for line in self.lines) < number and time.monotonic() < deadline:
            time.sleep(0.02)
        return sum(text in line for line in self.lines) == number

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.reader.join(10)
        self.process.stdout.close()


@pytest.fixture
def serve():
    """A function that starts `python wxserver.py`, or another command, and gives the running process."""
    processes = []

    def start(*command, **environ):
        processes.append(Process(*command, **environ))
        return processes[-1]

    yield start
    for process in processes:
        process.stop()


def copy_project(folder):
    """Puts what users deploy into the folder."""
    for name in ("wxserver.py", "wsgi.py", "wechat", "sandbox", "handlers"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


class Sandbox(Process):
    """`python -m sandbox` on a copy of the project, so that a test can change its handlers; the page is at `page`."""

    def __init__(self, folder, **environ):
        copy_project(folder)
        self.handlers = folder / "handlers"
        super().__init__("-m", "sandbox", cwd=folder, sign="Server ", **environ)
        self.page = re.search(r"http://\S+", "\n".join(self.lines))[0]

    def write(self, name, text):
        """Puts a file into `handlers/`."""
        (self.handlers / name).write_text(text, "utf-8")


@pytest.fixture
def sandbox(tmp_path):
    """A function that starts `python -m sandbox`."""
    started = []

    def start(**environ):
        folder = tmp_path / f"project{len(started)}"
        folder.mkdir()
        started.append(Sandbox(folder, **environ))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def log(caplog):
    """The log from INFO on; `log.text` is all of it."""
    caplog.set_level(logging.INFO)
    return caplog


# Below those that connections get, and 2,000 for each worker: what is free stays so until it is listened on.
FIRST_PORT = 20_000 + 2_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
PORTS = itertools.count(os.getpid())


def free_port():
    """A port of this machine that nobody listens on."""
    while True:
        port = FIRST_PORT + next(PORTS) % 2_000
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """The address of a redis-server of our own."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(
        [program("redis-server"), *options], cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL
    )
    wait_for_port(port)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait(10)


def wait_for_port(port):
    """Returns once somebody listens; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on port {port}")


@pytest.fixture(params=["sqlite", "redis"])
def shared_store(request, tmp_path):
    """The address of an empty store that several processes can share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/store.db"
    url = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


class Time(World):
    """A world whose time passes only when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def without_old_troubles():
    """What went wrong in one test is none of the next one's, which may look for the line with which it begins."""
    yield
    troubles().begin()


@pytest.fixture
def world():
    return Time()


class FaultyStore(MemoryStore):
    """A store that is away, or does what it is told and loses the answer, while `fault` says so.

    `times` is how often; `only` the beginning of the keys that it happens to.
    """

    fault, times, only = "", 10**9, ""

    def get(self, key):
        self._fail(key, "away")
        return super().get(key)

    def linked(self, index):
        self._fail(index, "away")
        return super().linked(index)

    def finish(self, write):
        key = write.changes[0].key
        try:
            self._fail(key, "away")
        except StoreError:
            self._writes._waiting.remove(write)
            raise
        is_done = super().finish(write)
        self._fail(key, "lost")
        return is_done

    def _fail(self, key, fault):
        if self.fault == fault and self.times > 0 and key.startswith(self.only):
            self.times -= 1
            raise StoreError(fault)


def is_taken(store, openid="o"):
    """Whether somebody has the user's session just now, or waits for it."""
    return any(store.get(f"{what}:{openid}") for what in ("lock", "queue"))


def begin(ledger, key, openid, is_slow):
    """The message with this key, and whether the caller has to answer it."""
    entry, is_ours = ledger.announce(key, openid, is_slow)
    return entry, is_ours or ledger.attend(entry)


class Machine:
    """Processes that share a store, and can be ended; each sees which of the others on the machine have."""

    def __init__(self, store, world=REAL):
        self.store, self.world, self.ended = store, world, set()

    def start(self, name):
        """A new process, as its `Owners`."""
        owners = Owners(self.store, self.world, lambda: Known(name, self.ended))
        owners.show_life()
        return owners


class Known(Identity):
    """A process of which it is known whether it has ended."""

    def __init__(self, name, ended):
        self.name, self.ended = name, ended

    def has_ended(self, owner):
        return owner in self.ended


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()
