"""docs/architecture.md names what there is: modules, functions, threads, locks and keys."""

import re
import time

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint
from sandbox.testing import APPID, SECRET
from tests.conftest import PLAIN, ROOT, TOKEN
from tests.test_house import CODE, ORDER, functions
from wechat.routing import load
from wechat.settings import read
from wechat.store.memory import MemoryStore
from wxserver import Application

PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
SOURCES = {
    str(file): file.read_text("utf-8") for file in CODE if file.relative_to(ROOT).parts[0] in ("wechat", "wxserver.py")
}
HANDLERS = """
import time
from wechat.routing import on

@on("text", "slow", slow=True)
def slow(msg, session):
    session["was here"] = True
    time.sleep(0.3)
    return "done" * 600
"""


def part(title):
    """The section with this heading."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def first_cells(title):
    """What stands between backticks in the first column of a section's table."""
    cells = re.findall(r"^\| (.+?) \|", part(title), re.MULTILINE)[2:]
    return [name for cell in cells for name in re.findall("`([^`]+)`", cell)]


def test_the_modules_are_all_there_in_the_order_in_which_they_import():
    assert first_cells("Modules") == ORDER


def test_each_function_that_is_named_exists():
    """`Ledger.begin()` is a method of that class, `parse()` a function of any module."""
    named = set(re.findall(r"`(?:(\w+)\.)?(\w+)\(\)`", PAGE))
    defined = {function.name for file in CODE for function in functions(file)}
    assert len(named) > 20
    assert {name for _, name in named} - defined == set()
    for owner, name in named:
        assert not owner or any(
            re.search(rf"^class {owner}\b(?:(?!^class ).)*?^    def {name}\(", source, re.MULTILINE | re.DOTALL)
            for source in SOURCES.values()
        ), f"{owner}.{name}"


def test_each_thread_has_a_row():
    named = r'(?:, name=|(?:Lanes|Pool|Timer)\([\w.]+, |Timer\(|world\.start\([\w.]+, )"(\w+)"'
    started = {name for source in SOURCES.values() for name in re.findall(named, source)}
    assert set(first_cells("Threads")) == started


def test_each_lock_has_a_row():
    lock = r"self\.(\w+) = (?:threading\.Lock|(?:self\._)?world\.lock)\(\)"
    made = {name for source in SOURCES.values() for name in re.findall(lock, source)}
    owners = {"Ledger", "Lanes", "Troubles", "Answering", "Loop", "Pool", "Crowd", "TokenCache"}
    in_the_store = {"lock:", "token:lock", "token:forced", "BEGIN IMMEDIATE"}
    assert set(first_cells("Locks")) == made | owners | {"lock"} | in_the_store


def shape(key):
    """A key without the user, the message or the process that it is about."""
    parts = key.split(":")
    return parts[0], *({"lock", "forced"} & set(parts[1:]))


class NotingStore(MemoryStore):
    """Remembers what keys were written."""

    def __init__(self):
        super().__init__()
        self.written = set()

    def _swap(self, changes):
        for change in changes:
            self.written |= {change.key, *change.link}
        return super()._swap(changes)


@pytest.fixture
def written(tmp_path, cloud):
    """What stood in the store while a slow handler was late, its long reply was sent, and then refused."""
    (tmp_path / "mine.py").write_text(HANDLERS, "utf-8")
    account = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    shared = {"WECHAT_STORE": f"sqlite:{tmp_path}/store.db", "WECHAT_REPLY_WITHIN": "0.1"}
    app = Application(read({"WECHAT_TOKEN": TOKEN, **account, **shared}), load(tmp_path), store=NotingStore())
    cloud.fail("/cgi-bin/message/custom/send", "code:40001", "code:48001")
    query, body = PLAIN.push(text_message("slow"))
    for _ in range(2):
        list(Endpoint("/weixin", app).deliver(query, body, 1))
    end = time.monotonic() + 10
    while "no-push" not in app.store.written and time.monotonic() < end:
        time.sleep(0.02)
    app.close()
    return app.store.written


def test_each_key_of_the_store_has_a_row(written):
    assert set(map(shape, written)) == set(map(shape, first_cells("What stands in the store")))
