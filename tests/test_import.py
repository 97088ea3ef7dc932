"""`python -m wechat import`, and the handler that answers from what it wrote."""

import csv
import json
import os
import re
import subprocess
import sys

import pytest

from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN, Account
from wechat.account import OldAnswers
from wechat.errors import StartError
from wechat.platform.menu import read_menu
from wxserver import make_application

REPLIES = ROOT / "wechat/data/replies.py"


def run_import(cloud, folder, *options):
    """The command's status, and what it says on stdout and stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    account = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    done = subprocess.run(
        [sys.executable, "-m", "wechat", "import", "--handlers", str(folder), *options],
        cwd=ROOT,
        env={**clean, **account, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def rows_of(folder):
    with (folder / "replies.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def account(tmp_path):
    """A function that makes the account with these rows, and further source, in a folder of handlers."""
    made = []

    def make(rows, source="", encoding="utf-8"):
        (tmp_path / "replies.py").write_text(REPLIES.read_text("utf-8"), "utf-8")
        text = rows if isinstance(rows, str) else "keyword,match,reply\r\n" + "\r\n".join(rows)
        (tmp_path / "replies.csv").write_text(text, encoding, newline="")
        (tmp_path / "zz.py").write_text("from wechat.routing import on\n" + source, "utf-8")
        made.append(make_application({"WECHAT_TOKEN": TOKEN}, tmp_path))
        return Account(made[-1])

    yield make
    for app in made:
        app.close()


def fault(account, rows, encoding="utf-8"):
    """The one line that stops the start."""
    with pytest.raises(StartError) as caught:
        account(rows, encoding=encoding)
    (line,) = caught.value.faults
    return line


# The command


def test_the_answers_of_the_documented_samples_become_rows_and_what_is_no_text_is_named(cloud, tmp_path):
    status, said, warnings = run_import(cloud, tmp_path)
    assert (status, said.split(";")[0]) == (0, "6 replies")
    head, news, text, subscribe, default, *clicks = rows_of(tmp_path)
    assert head == ["keyword", "match", "reply"]
    assert (tmp_path / "replies.csv").read_bytes().startswith(b"\xef\xbb\xbfkeyword,")  # for Excel
    assert news[:2] == ["news测试", "contains"]
    assert re.sub(r"http\S+", "URL", news[2]) == "it's news\nURL\n\nMULTI_NEWS\nURL\n\nMULTI_NEWS4\nURL"
    assert text == ["text测试", "contains", "hello!text!"]
    assert subscribe == ["", "subscribe", "Thanks for your attention!"]
    assert default == ["", "default", "Hello, this is autoreply!"]
    assert [row[:2] for row in clicks] == [["CONSOLE_1", "click"], ["CONSOLE_4", "click"]]
    named = re.findall(r"not imported, as it is no text: the (\w+ [\w-]+): (\w+)", warnings)
    assert named == [
        ("button video", "video"),
        ("button voice", "voice"),
        ("button photo", "img"),
        ("rule autoreply-voice", "voice"),
        ("rule autoreply-video", "video"),
    ]
    assert "media get -- NESsxgHEvAcg3eg" in warnings


def test_the_menu_is_one_that_wechat_takes_whose_texts_are_clicks(cloud, tmp_path):
    run_import(cloud, tmp_path)
    menu = read_menu(tmp_path / "menu.json")
    first, second, third = menu["button"]
    assert first["sub_button"][0] == {"type": "view", "name": "view_url", "url": "http://www.qq.com"}
    assert second == {"type": "click", "name": "text", "key": "CONSOLE_4"}
    assert third["key"] == "CONSOLE_5"
    keys = [button["key"] for button in first["sub_button"][1:]] + [second["key"], third["key"]]
    assert len(set(keys)) == 5


def test_the_account_answers_as_it_did(cloud, tmp_path):
    run_import(cloud, tmp_path)
    account = Account(make_application({"WECHAT_TOKEN": TOKEN}, tmp_path))
    assert account.say("some text测试, please")["Content"] == "hello!text!"
    assert account.event("subscribe")["Content"] == "Thanks for your attention!"
    assert account.event("subscribe", "qrscene_1")["Content"] == "Thanks for your attention!"
    assert account.event("CLICK", "CONSOLE_4")["Content"] == "This is text!"
    assert account.say("anything")["Content"] == "Hello, this is autoreply!"
    assert account.event("CLICK", "OTHER") == account.event("unsubscribe") == {}
    account.app.close()


@pytest.mark.parametrize("name", ["replies.csv", "menu.json"])
def test_nothing_is_overwritten_and_nothing_half_written(cloud, tmp_path, name):
    (tmp_path / name).write_text("mine")
    status, said, complaint = run_import(cloud, tmp_path)
    assert (status, said) == (1, "")
    assert f"{tmp_path / name} is there, and is not overwritten" in complaint
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_a_handler_of_ones_own_that_reads_the_file_stays(cloud, tmp_path):
    (tmp_path / "replies.py").write_text("# mine\n")
    assert run_import(cloud, tmp_path)[0] == 0
    assert (tmp_path / "replies.py").read_text() == "# mine\n"


def test_programs_get_json(cloud, tmp_path):
    said = json.loads(run_import(cloud, tmp_path / "new", "--json")[1])
    assert sorted(said["files"]) == sorted(map(str, (tmp_path / "new").iterdir()))
    assert len(said["not_imported"]) == 5


def test_an_account_without_rules_and_without_a_menu_gets_an_empty_list(tmp_path):
    old = OldAnswers({"is_add_friend_reply_open": 0, "is_autoreply_open": 0}, {"is_menu_open": 0, "selfmenu_info": {}})
    assert [file.name for file in old.write(tmp_path)] == ["replies.csv", "replies.py"]
    assert rows_of(tmp_path) == [["keyword", "match", "reply"]]


def test_half_of_a_character_is_written_as_a_question_mark(tmp_path):
    cut = {"content": "half \ud83d", "type": "text"}
    button = {"name": "cut \ud83d", "type": "click", "key": "k"}
    old = OldAnswers({"add_friend_autoreply_info": cut}, {"selfmenu_info": {"button": [button]}})
    assert len(old.write(tmp_path)) == 3
    assert rows_of(tmp_path)[1:] == [["", "subscribe", "half ?"]]
    assert json.loads((tmp_path / "menu.json").read_text())["button"][0]["name"] == "cut ?"


@pytest.mark.parametrize(
    "odd", ["x", 1, ["x"], {"list": "x"}, {"list": [1, {"reply_list_info": [1]}]}, {"button": [1]}]
)
def test_what_cannot_be_read_is_left_out(odd):
    replies = dict.fromkeys(("keyword_autoreply_info", "add_friend_autoreply_info"), odd)
    assert OldAnswers(replies, {"selfmenu_info": odd}).rows == []


def test_one_of_several_replies_is_a_row_of_its_own_and_all_of_them_are_one_text():
    def rule(mode):
        words = [{"match_mode": "equal", "content": "a"}, {"match_mode": "contain", "content": "b"}]
        replies = [{"type": "text", "content": "1"}, {"type": "text", "content": "2"}]
        return {"reply_mode": mode, "keyword_list_info": words, "reply_list_info": replies}

    info = {"keyword_autoreply_info": {"list": [rule("random_one"), rule("reply_all")]}}
    assert OldAnswers(info, {}).rows == [
        ("a", "exact", "1"),
        ("a", "exact", "2"),
        ("b", "contains", "1"),
        ("b", "contains", "2"),
        ("a", "exact", "1\n\n2"),
        ("b", "contains", "1\n\n2"),
    ]


def test_a_menu_that_was_made_by_a_call_stays_as_it_is(cloud):
    buttons = json.loads((ROOT / "handlers/menu.json").read_text("utf-8"))["button"]
    assert cloud.menus.create({"button": buttons}) == 0
    assert OldAnswers({}, cloud.menus.current()).menu == {"button": buttons}


# The handler


def test_a_text_that_is_a_keyword_comes_before_one_that_contains_it(account):
    asked = account(["Price,contains,about prices", "price,exact,the price", "a.b,contains,a dot"])
    assert asked.say(" PRICE ")["Content"] == "the price"
    assert asked.say("what\nprice?")["Content"] == "about prices"
    assert asked.say("axb") == {}
    assert asked.say("see a.b")["Content"] == "a dot"


def test_handlers_in_code_come_first(account):
    source = '@on("text", "price")\ndef f(msg): return "code"\n@on("event", "subscribe")\ndef g(msg): return "code"\n'
    asked = account(["price,exact,csv", "x,contains,csv", ",subscribe,csv", ",default,csv"], source)
    assert asked.say("price")["Content"] == asked.event("subscribe")["Content"] == "code"
    assert asked.say("x")["Content"] == asked.say("y")["Content"] == "csv"


def test_every_text_of_an_account_that_claims_them_is_still_its_own(account):
    """`@on("text")`, as the book look-up has it."""
    asked = account(["a,exact,csv", ",default,csv"], '@on("text")\ndef f(msg): return "code"\n')
    assert (asked.say("a")["Content"], asked.say("b")["Content"]) == ("csv", "code")


def test_one_of_several_rows_answers_at_random(account):
    asked = account(["a,exact,1", "a,exact,2"])
    assert {asked.say("a")["Content"] for _ in range(60)} == {"1", "2"}


def test_what_excel_writes_is_read(account):
    rows = '\ufeffKeyword,Match,Reply,\r\n"a,b",Exact,"one\r\ntwo, ""three""",\r\n,,,\r\n价格,contains,十元,\r\n'
    asked = account(rows)
    assert asked.say("a,b")["Content"].split() == ["one", "two,", '"three"']
    assert asked.say("价格？")["Content"] == "十元"


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_file_in_another_encoding_is_named(account, encoding):
    line = fault(account, ["价格,exact,十元"], encoding)
    assert "/replies.py:" in line
    assert line.endswith("replies.csv is not UTF-8 (Excel writes GBK): save it as “CSV UTF-8”")


@pytest.mark.parametrize(
    ("rows", "number"),
    [
        ("word,match,reply\na,exact,b", 1),
        ("", 1),
        ("keyword;match;reply\na;exact;b", 1),
        (["a,exact,b", "a,equals,b"], 3),
        (["a,exact,b,c"], 2),
        ([",exact,b"], 2),
        (["a,exact,one", '"b', 'c",,x'], 4),
    ],
)
def test_a_wrong_line_stops_the_start_and_is_named(account, rows, number):
    assert f"replies.csv, line {number}: it takes " in fault(account, rows)


def test_without_the_file_nobody_answers(tmp_path):
    (tmp_path / "replies.py").write_text(REPLIES.read_text("utf-8"), "utf-8")
    app = make_application({"WECHAT_TOKEN": TOKEN}, tmp_path)
    assert Account(app).say("a") == Account(app).event("subscribe") == {}
    app.close()


def test_the_sandbox_loads_a_change_of_the_file_at_once(sandbox):
    """The handler that ships with `import`, beside those that ship with the server."""
    running = sandbox()
    running.write("replies.py", REPLIES.read_text("utf-8"))
    running.write("replies.csv", "keyword,match,reply\n开放时间,contains,每天九点\n")
    assert running.wait_for_lines("the handlers are loaded", 1) or running.wait_for_lines("the handlers are loaded", 2)
    command = [sys.executable, "-m", "sandbox", "push", "text", "开放时间？", "--url", running.url, "--token", TOKEN]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False).stdout
    assert "每天九点" in said
