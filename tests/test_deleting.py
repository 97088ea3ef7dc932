"""Any module that ships may be deleted, and nothing else breaks: each one, each pair, and the files beside them."""

import itertools
import logging
import shutil

import pytest

from sandbox.messages import FIELDS, build
from tests.conftest import PLAIN, ROOT, TOKEN, Account
from wxserver import make_application

MODULES = sorted(file.name for file in (ROOT / "handlers").glob("[!_]*.py"))
FILES = [*MODULES, "__init__.py", "books.csv", "menu.json"]
BOOKS = ("books.py", "_book_sources.py", "_isbn.py", "books.csv")  # the names with `_` are parts of books.py
GONE = [(), *((name,) for name in FILES), *itertools.combinations(FILES, 2), BOOKS, tuple(FILES)]
TEXTS = ["三体", "9787536692930", "9787536692931", "帮助", "绑定", "绑定 2026010203", "解绑"]
EVENTS = [
    ("subscribe", ""),
    ("subscribe", "qrscene_9787536692930"),
    ("subscribe", "qrscene_9787536692931"),
    ("subscribe", "qrscene_poster"),
    ("SCAN", "9787536692930"),
    ("SCAN", "poster"),
    ("CLICK", "BOOKS_GUIDE"),
    ("CLICK", "BOOKING_ACTIVITY_1"),
    ("CLICK", "ACCOUNT_STATUS"),
    ("VIEW", "https://example.com/"),
    ("user_enter_tempsession", ""),
    ("unsubscribe", ""),
]
SCAN = "<ScanCodeInfo><ScanType>barcode</ScanType><ScanResult>EAN_13,9787536692930</ScanResult></ScanCodeInfo></xml>"


def pushes():
    """One of each kind that a handler which ships may answer."""
    yield from (build("text", [text]) for text in TEXTS)
    yield from (build("event", list(event)) for event in EVENTS)
    yield build("event", ["scancode_waitmsg", "BOOKS_SCAN"]).replace("</xml>", SCAN)
    yield from (build(kind, []) for kind in FIELDS)


@pytest.fixture
def account_without(tmp_path):
    """A function that makes the account that ships, less some files."""
    made = []

    def make(names, **environ):
        folder = shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
        for name in names:
            (folder / name).unlink()
        made.append(make_application({"WECHAT_TOKEN": TOKEN, **environ}, folder))
        return Account(made[-1])

    yield make
    for app in made:
        app.close()


@pytest.mark.parametrize("names", GONE, ids=" ".join)
def test_what_is_left_answers_every_kind_of_push_without_an_error(account_without, names, log):
    account = account_without(names)
    for content in pushes():
        assert account.post(content, PLAIN.push(content)[0]).status_code == 200
    faults = [record.message for record in log.records if record.levelno >= logging.ERROR]
    assert faults == []


def test_without_its_list_the_book_search_finds_nothing_and_a_warning_says_why(account_without, log):
    account = account_without(["books.csv"])
    assert account.say("三体")["Content"].startswith("没有找到“三体”")
    assert [record.message.partition(":")[0] for record in log.records if record.levelname == "WARNING"] == [
        "books.csv is not there"
    ]


def test_without_the_book_search_an_isbn_on_a_sticker_is_a_scene_like_any_other(account_without):
    account = account_without(["books.py"])
    assert account.event("SCAN", "9787536692930")["Content"] == "你扫描的场景是：9787536692930"
    assert account.event("subscribe", "qrscene_9787536692930")["Content"].startswith("欢迎关注！")


STICKERS = ["【收到不支持的消息类型，暂无法显示】", "[Unsupported Message]", " [unsupported message]\n"]


@pytest.mark.parametrize("text", STICKERS)
@pytest.mark.parametrize("source", ["catalogue", "openlibrary"])
def test_a_sticker_gets_the_default_reply_and_no_book_is_looked_up(account_without, text, source):
    """WeChat sends this text in its place."""
    account = account_without([], BOOKS_SOURCE=source, BOOKS_URL="http://127.0.0.1:9")
    assert account.say(text)["Content"] == "暂时看不懂这类消息。发送“帮助”看看我会什么。"
