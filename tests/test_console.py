"""The platform from a shell, against the stand-in."""

import json
import os
import sys
import time

import pytest

from sandbox.cloud_wire import Media
from sandbox.testing import APPID, SECRET
from tests import warmed
from tests.conftest import ROOT

USER = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"


@pytest.fixture
def run(cloud, tmp_path):
    """A function that runs `python -m wechat` with the stand-in as its platform."""

    def run_command(*arguments, **environ):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
        account = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url, "PYTHONUTF8": "1"}
        return warmed.run(
            [sys.executable, "-m", "wechat", "--handlers", str(ROOT / "handlers"), *arguments],
            cwd=tmp_path,
            env={**clean, "PYTHONPATH": str(ROOT), **account, **environ},
        )

    return run_command


def test_a_menu_is_pushed_shown_and_deleted(run, cloud):
    assert "pushed; followers" in run("menu", "push").stdout
    shown = run("menu", "get").stdout.splitlines()
    assert shown[0] == "查书"
    assert "  怎么查书  click  BOOKS_GUIDE" in shown
    assert json.loads(run("menu", "get", "--json").stdout)["menu"]["button"][2]["key"] == "ACCOUNT_STATUS"
    assert run("menu", "delete").stdout == "deleted\n"
    done = run("menu", "get")
    assert done.returncode == 1
    assert "46003" in done.stderr
    assert "python -m wechat menu push" in done.stderr


@pytest.mark.parametrize(
    "odd", [{"menu": "x"}, {"menu": None, "conditionalmenu": 1}, {"menu": {"button": [1, {"sub_button": "x"}]}}]
)
def test_an_odd_menu_is_shown_as_far_as_it_goes(run, cloud, odd):
    cloud._endpoints["/cgi-bin/menu/get"] = "GET", lambda _: odd
    done = run("menu", "get")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_wrong_menu_is_not_sent(run, cloud, tmp_path):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "far too long a name", "key": "K"}]}')
    done = run("menu", "push", "menu.json")
    assert done.returncode == 1
    assert done.stderr == "menu.json: button 1: name has 19 bytes, 1 to 16 are taken\n"
    assert cloud.journal == []


@pytest.mark.parametrize("content", ["{", "[]", "\x00", ""])
def test_what_is_no_menu_is_said(run, tmp_path, content):
    (tmp_path / "menu.json").write_text(content)
    done = run("menu", "push", "menu.json")
    assert done.returncode == 1
    assert done.stderr.startswith("menu.json: ")
    assert "Traceback" not in done.stderr


def test_a_menu_with_a_byte_order_mark_is_pushed(run, cloud, tmp_path):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "查书", "key": "K"}]}', "utf-8-sig")
    assert run("menu", "push", "menu.json").returncode == 0
    assert cloud.menus.get()["menu"]["button"][0]["name"] == "查书"


@pytest.mark.parametrize("encoding", ["gbk", "utf-16"])
def test_a_menu_in_another_encoding_is_one_line(run, cloud, tmp_path, encoding):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "查书", "key": "K"}]}', encoding)
    done = run("menu", "push", "menu.json")
    assert (done.returncode, done.stderr) == (1, "menu.json: it is not UTF-8: save it as UTF-8\n")
    assert cloud.journal == []


def test_a_key_that_nobody_handles_is_a_warning(run, tmp_path):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "x", "key": "NOBODY"}]}')
    done = run("menu", "push", "menu.json")
    assert done.returncode == 0
    assert '@on("event", "CLICK", "NOBODY")' in done.stderr


def test_a_file_that_is_not_there_is_said(run):
    for arguments in (("menu", "push", "nothing.json"), ("media", "upload", "image", "nothing.jpg")):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{arguments[-1]}: No such file or directory\n"
        assert "Traceback" not in done.stderr


def test_media_go_up_and_come_down(run, tmp_path):
    (tmp_path / "照片.jpg").write_bytes(b"picture")
    media_id = run("media", "upload", "image", "照片.jpg").stdout.strip()
    done = run("media", "get", "--", media_id)
    assert (tmp_path / done.stdout.strip()).read_bytes() == b"picture"
    assert json.loads(run("media", "get", "-o", "mine.jpg", "--json", "--", media_id).stdout) == {"file": "mine.jpg"}
    assert (tmp_path / "mine.jpg").read_bytes() == b"picture"
    assert run("media", "get", "nothing").returncode == 1


@pytest.fixture
def medium(cloud):
    """The media_id of a picture."""
    cloud.media["m1"] = Media("image", "a.jpg", b"picture", int(time.time()))
    return "m1"


def test_a_download_overwrites_no_file_of_this_folder(run, tmp_path, medium):
    (tmp_path / "m1.jpg").write_text("mine")
    assert run("media", "get", medium).stdout == "m1-2.jpg\n"
    assert (tmp_path / "m1.jpg").read_text() == "mine"
    assert (tmp_path / "m1-2.jpg").read_bytes() == b"picture"


def test_a_file_that_was_named_is_not_overwritten(run, cloud, tmp_path, medium):
    (tmp_path / "mine.jpg").write_text("mine")
    done = run("media", "get", medium, "-o", "mine.jpg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mine.jpg is there, and is not overwritten: name another file\n"
    assert (tmp_path / "mine.jpg").read_text() == "mine"
    assert cloud.journal == []


def test_a_file_whose_name_is_gbk_goes_up(run, cloud, tmp_path):
    name = os.fsdecode("照片.jpg".encode("gbk"))
    (tmp_path / name).write_bytes(b"picture")
    assert run("media", "upload", "image", name).returncode == 0
    assert cloud.journal[-1].body == {"filename": "照片.jpg", "content": b"picture"}


def test_a_text_is_sent(run, cloud):
    assert run("send", USER, "你好").stdout == "sent\n"
    ((openid, message),) = cloud.sent
    assert (openid, message["text"]) == (USER, {"content": "你好"})


def test_the_token_is_printed(run, cloud):
    assert run("token").stdout.strip() == json.loads(run("token", "--json").stdout)["access_token"]


def test_any_endpoint_can_be_called(run):
    assert json.loads(run("call", "GET", "/cgi-bin/get_api_domain_ip").stdout)["ip_list"]
    done = run(
        "call", "POST", "/cgi-bin/message/custom/typing", f'{{"touser": "{USER}", "command": "Typing"}}', "--json"
    )
    assert json.loads(done.stdout)["errcode"] == 0


@pytest.mark.parametrize("missing", ["WECHAT_APPID", "WECHAT_SECRET"])
def test_missing_credentials_are_status_2_with_their_name(run, missing):
    done = run("token", **{missing: ""})
    assert (done.returncode, done.stderr) == (2, f"{missing} is missing: calls to the platform need it\n")


def test_an_error_comes_with_its_hint_and_without_a_secret(run, cloud):
    cloud.fail("/cgi-bin/stable_token", "not-allowed")
    done = run("token")
    assert done.returncode == 1
    assert "add 1.2.3.4 to IP白名单" in done.stderr
    assert SECRET not in done.stderr


def test_a_store_that_is_not_there_is_status_2(run):
    done = run("token", WECHAT_STORE="redis://:hidden@127.0.0.1:1/0")
    assert done.returncode == 2
    assert done.stderr.startswith("WECHAT_STORE")
    assert "hidden" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["menu"],
        ["media", "upload", "film", "x"],
        ["call", "PUT", "/x"],
        ["call", "GET", "/x", "{"],
        ["send", "x"],
        ["call", "POST", "/x", "[" * 99_999],
    ],
)
def test_a_wrong_call_is_status_2(run, arguments):
    done = run(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    "command", ["menu get", "menu push", "menu delete", "media get", "media upload", "send", "token", "call"]
)
def test_every_command_has_help(run, command):
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout


@pytest.mark.parametrize("data", ["[1]", '"x"', "{"])
def test_a_get_with_odd_data_is_status_2(run, data):
    done = run("call", "GET", "/cgi-bin/get_api_domain_ip", data)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_query_in_the_path_and_a_field_named_path_are_sent(run, cloud):
    run("call", "GET", "/cgi-bin/get_api_domain_ip?a=1", '{"path": "x"}')
    assert cloud.journal[-1].query == {"a": "1", "path": "x"}
    assert cloud.journal[-1].token_ok


@pytest.mark.parametrize("path", ["cgi-bin/menu/get", "https://example.com/", "/a b", "/路径", "/a\r\nb"])
def test_a_path_of_another_kind_is_never_called(run, cloud, path):
    assert run("call", "GET", path).returncode == 2
    assert cloud.journal == []


@pytest.mark.parametrize("text", ["", "\x01"])
def test_an_empty_text_is_not_said_to_be_sent(run, text):
    assert run("send", USER, text).returncode == 2


def test_a_download_into_a_folder_stays_there(run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"picture")
    (tmp_path / "folder").mkdir()
    media_id = run("media", "upload", "image", "a.jpg").stdout.strip()
    file = run("media", "get", "-o", "folder", "--", media_id).stdout.strip()
    assert file.startswith("folder/")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [file.removeprefix("folder/")]
