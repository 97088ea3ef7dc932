"""What docs/troubleshooting.md quotes from the log is what the server writes when these things happen."""

import ast
import logging
import re
import time
from dataclasses import replace

import pytest

from sandbox.messages import USER, compose, text_message
from sandbox.platform import Endpoint, Platform
from sandbox.testing import APPID, SECRET
from tests.conftest import PLAIN, ROOT, SAFE, SEALED, TOKEN
from tests.test_abandoned import leave
from wechat.delivery.delivery import MOST_STARTS
from wechat.errors import StartError
from wechat.log import LineFormatter
from wechat.mistakes import find_mistakes
from wechat.routing import load, prepare
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wxserver import Application

TROUBLE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
HANDLERS = """
import os
import time
from wechat.reply import Article, Transfer
from wechat.routing import on

@on("text", "hello")
def hello(msg): return "Hello!"

@on("text", "report", slow=True)
def report(msg):
    time.sleep(0.8)
    return "The report."

@on("text", "agent", slow=True)
def agent(msg):
    time.sleep(0.8)
    return Transfer()

@on("text", "hang", timeout=0.4)
def hang(msg): time.sleep(0.6)

@on("text", "deadly", slow=True)
def deadly(msg): os._exit(1)

@on("text", "unmarked")
def unmarked(msg): time.sleep(1.1)

@on("text", "broken")
def broken(msg): return 1 / 0

@on("text", "article", slow=True)
def article(msg): return Article("A title")

"""


class Lines(logging.Handler):
    """Every line as a server writes it, without the time."""

    def __init__(self):
        super().__init__()
        self.setFormatter(LineFormatter())
        self.text = ""

    def emit(self, record):
        self.text += self.format(record)[len("2026-11-26 12:00:00,000 ") :] + "\n"


class AwayStore(MemoryStore):
    """A Redis that does not answer."""

    name, failures, is_away = "Redis", (ConnectionError,), False

    def _swap(self, changes):
        if self.is_away:
            raise ConnectionError
        return super()._swap(changes)


class Troubled:
    """Servers to which all that happens which the document speaks of."""

    def __init__(self, folder, cloud, lines):
        (folder / "shop.py").write_text(HANDLERS, "utf-8")
        self.routes, self.cloud, self.lines, self.apps = load(folder), cloud, lines, []
        self.may_push = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}

    def app(self, **environ):
        settings = read({"WECHAT_TOKEN": TOKEN, "WECHAT_REPLY_WITHIN": "0.1", **environ})
        self.apps.append(Application(settings, self.routes))
        return self.apps[-1]

    def say(self, app, *contents):
        for content in contents:
            self.deliver(app, *Platform.of(app.settings).push(text_message(content)))

    def deliver(self, app, query, body):
        list(Endpoint(app.settings.path, app).deliver(query, body, 1))

    def wait_for(self, text):
        end = time.monotonic() + 10
        while text not in self.lines.text and time.monotonic() < end:
            time.sleep(0.02)
        assert text in self.lines.text

    def everything(self):
        self.answers()
        self.refused_replies()
        self.closed()
        self.retried()
        self.given_up()
        self.piled_up()
        self.late_transfer()
        self.mini_program()
        self.refusals()
        self.outage()
        self.start()

    def answers(self):
        app = self.app(WECHAT_THREADS="1")
        self.say(app, "hello", "unmarked", "broken", "report")
        view = compose("event", {"Event": "VIEW", "EventKey": "https://example.com/"})
        self.deliver(app, *PLAIN.push(view))
        self.wait_for(": kept")
        self.say(app, "继续")

    def refused_replies(self):
        for path, errcode in (
            ("message/custom/send", 40001),
            ("message/custom/send", 45015),
            ("message/custom/send", 45047),
            ("message/custom/send", 48001),
        ):
            self.cloud.fail(f"/cgi-bin/{path}", f"code:{errcode}", times=None)
            self.say(self.app(**self.may_push), "report")
            self.wait_for(f"replies are not sent, errcode {errcode}: ")
            self.cloud.heal()

    def closed(self):
        self.cloud.fail("/cgi-bin/stable_token", "code:40164", times=None)
        app = self.app(**self.may_push)
        self.say(app, "report")
        self.wait_for("no customer messages for 600 s")
        self.cloud.heal()
        app.store.delete("no-push")
        self.say(app, "report")
        self.wait_for("over: no customer messages for 600 s")

    def retried(self):
        self.cloud.fail("/cgi-bin/message/custom/send", "busy")
        self.say(self.app(**self.may_push), "report")
        self.wait_for("replies are tried again")

    def given_up(self):
        store = MemoryStore()
        leave(store, text_message("deadly").encode(), MOST_STARTS)
        settings = read({"WECHAT_TOKEN": TOKEN, "WECHAT_STORE": "sqlite:/of/no/use"})
        self.apps.append(Application(settings, self.routes, store=store))
        self.wait_for("is given up")

    def piled_up(self):
        app = self.app(WECHAT_THREADS="1", WECHAT_SLOW_THREADS="1")  # so no attempt is held
        for openid in (USER, f"o{USER}"):
            self.deliver(app, *PLAIN.push(text_message("hang", openid)))
        self.wait_for("is dropped")
        self.wait_for("over: slow: all 1 threads are busy")

    def late_transfer(self):
        self.say(self.app(**self.may_push), "agent")
        self.wait_for("it is too late")

    def mini_program(self):
        self.say(self.app(**self.may_push, WECHAT_ACCOUNT="miniprogram"), "article")
        self.wait_for("dropped")

    def refusals(self):
        text = text_message("hello")
        self.deliver(self.app(), *replace(PLAIN, token="other").push(text))
        Endpoint("/weixin", self.app()).request("GET", "")
        self.deliver(self.app(**SEALED), *replace(SAFE, appid="wx-other").push(text))

    def outage(self):
        store = f"sqlite:{self.cloud.folder}/store.db"
        settings = read({"WECHAT_TOKEN": TOKEN, "WECHAT_REPLY_WITHIN": "0.1", "WECHAT_STORE": store})
        store = AwayStore()
        self.apps.append(Application(settings, self.routes, store=store))
        store.is_away = True
        self.say(self.apps[-1], "hello")

    def start(self):
        folder = self.cloud.folder / "broken"
        folder.mkdir()
        (folder / "shop.py").write_text("import re\n\nimport nowhere\n")
        with pytest.raises(StartError) as stopped:
            prepare({}, folder)
        self.lines.text += "".join(f"wxserver: {fault}\n" for fault in stopped.value.faults)
        (folder / "shop.py").write_text(
            'import re\n\nfrom wechat.routing import on\n\n@on("hello")\ndef hello(msg): return "x"\n'
        )
        for mistake in find_mistakes(folder, load(folder)):
            logging.getLogger("wxserver").warning(mistake)


@pytest.fixture
def troubled(tmp_path, cloud, log, monkeypatch):
    """Those servers; their `lines` are what they have logged."""
    monkeypatch.setattr("wechat.delivery.lanes.FULL", 0.1)
    monkeypatch.setattr("wechat.trouble.EVERY", 0.1)
    lines, cloud.folder = Lines(), tmp_path
    logging.getLogger().addHandler(lines)
    servers = Troubled(tmp_path, cloud, lines)
    yield servers
    logging.getLogger().removeHandler(lines)
    for app in servers.apps:
        app.close()


def alike(line):
    """A line with nothing in it that is another one each time."""
    return re.sub(r"\d[\d.]*", "0", re.sub(r"rid: \S+", "rid", re.sub(r" from \S+\)$", " from 0)", line)))


def test_each_line_of_the_log_is_what_the_server_writes(troubled):
    troubled.everything()
    written = {alike(line).replace("broken/", "handlers/") for line in troubled.lines.text.splitlines()}
    quoted = [line for block in re.findall(r"^```text\n(.*?)^```", TROUBLE, re.M | re.S) for line in block.splitlines()]
    assert len(quoted) > 15
    assert [line for line in quoted if alike(line) not in written] == []


def reasons():
    """Why requests are refused with 403, each as a pattern."""
    for file in (ROOT / "wechat").glob("**/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Forbidden":
                yield from texts(node.args[0])


def texts(node):
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    else:
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        yield "".join(re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in parts)


def test_each_reason_for_a_403_has_a_row():
    rows = re.findall(r"^\| `([^`]+)` \|", TROUBLE, re.MULTILINE)
    assert len(list(reasons())) > 8
    assert [reason for reason in reasons() if not any(re.fullmatch(reason, row) for row in rows)] == []
