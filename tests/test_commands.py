"""`python -m wechat`, as it is typed."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import warmed
from tests.conftest import ROOT, TOKEN


def run(*arguments, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    return warmed.run(
        [sys.executable, "-m", "wechat", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONUTF8": "1", **environ},
    )


@pytest.fixture
def folder(tmp_path):
    """A copy of the handlers that ship, to be spoiled."""
    return shutil.copytree(ROOT / "handlers", tmp_path / "handlers")


SOUND = {"WECHAT_TOKEN": "a-token-of-some-length", "HOST": "127.0.0.1"}


def test_check_is_content_with_what_ships():
    done = run("check", **SOUND)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout


SAFE = {"WECHAT_AES_KEY": "k" * 43, "WECHAT_APPID": "wx1234567890abcdef", "HOST": "0.0.0.0"}


@pytest.mark.parametrize(
    ("weak", "said"),
    [
        ({"WECHAT_API_URL": "http://api.weixin.qq.com"}, "WECHAT_API_URL is http: "),
        ({"WECHAT_API_URL": "https://api.weixin.qq.com,http://8.8.8.8"}, "WECHAT_API_URL is http: "),
        ({"WECHAT_MAX_AGE": "0"}, "WECHAT_MAX_AGE is 0: "),
        ({"HOST": ""}, "WECHAT_MODE is plain on the public address 0.0.0.0: "),
        ({"HOST": "::"}, "WECHAT_MODE is plain on the public address ::: "),
        ({"HOST": "8.8.8.8"}, "WECHAT_MODE is plain on the public address 8.8.8.8: "),
        ({**SAFE, "WECHAT_MODE": "compat"}, "WECHAT_MODE is compat on the public address 0.0.0.0: "),
        ({"WECHAT_TOKEN": "elevenchars"}, "WECHAT_TOKEN has 11 characters: "),
        ({"WECHAT_TOKEN": "a-token-of-some-length,short"}, "WECHAT_TOKEN has 5 characters: "),
        ({"WECHAT_STORE": "sqlite:{tmp_path}/open.db"}, "WECHAT_STORE: every user of this machine can read "),
        ({"WECHAT_API_URL": "http://127.0.0.1:9090"}, ""),
        ({"HOST": "10.0.0.1"}, ""),
        ({"HOST": "localhost"}, ""),
        (SAFE, ""),
        ({"WECHAT_TOKEN": "twelve-chars"}, ""),
        ({"WECHAT_STORE": "sqlite:{tmp_path}/own.db"}, ""),
    ],
)
def test_check_warns_of_a_weak_setting(tmp_path, weak, said):
    for name, mode in (("open.db", 0o644), ("own.db", 0o640)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    done = run("check", **{**SOUND, **{name: value.format(tmp_path=tmp_path) for name, value in weak.items()}})
    assert (done.returncode, done.stderr) == (0, "")
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert [line.removeprefix("warning: ")[: len(said)] for line in warnings] == ([said] if said else [])
    assert not any(secret in done.stdout for secret in ("short", "elevenchars", "a-token-of-some-length"))


def test_check_names_every_fault_at_once(folder):
    (folder / "broken.py").write_text("import nowhere\n")
    (folder / "twice.py").write_text('from wechat.routing import on\n@on("image")\ndef f(msg): pass\n')
    done = run("--handlers", str(folder), "check", PORT="x")
    assert done.returncode == 1
    for named in ("WECHAT_TOKEN", "PORT", "broken.py:1", "twice.py:2", "media.py"):
        assert named in done.stderr


def test_check_warns_of_menu_keys_that_nobody_handles(folder):
    menu = (folder / "menu.json").read_text("utf-8").replace("BOOKS_GUIDE", "NOBODY")
    (folder / "menu.json").write_text(menu, "utf-8")
    done = run("--handlers", str(folder), "check", WECHAT_TOKEN=TOKEN)
    assert done.returncode == 0
    assert '怎么查书: @on("event", "CLICK", "NOBODY")' in done.stdout


@pytest.mark.parametrize(
    "menu", ["{", "[]", "[" * 100_000, '{"button": [1, {"sub_button": 5}, {"type": [], "key": 1}]}']
)
def test_check_survives_any_menu(folder, menu):
    (folder / "menu.json").write_text(menu, "utf-8")
    done = run("--handlers", str(folder), "check", WECHAT_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" in done.stdout


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8-sig", []), ("gbk", ["save it as UTF-8"]), ("utf-16", ["save it as UTF-8"])]
)
def test_check_reads_a_menu_as_windows_editors_save_it(folder, encoding, said):
    file = folder / "menu.json"
    file.write_text(file.read_text("utf-8"), encoding)
    done = run("--handlers", str(folder), "check", **SOUND)
    assert (done.returncode, done.stderr) == (0, "")
    warnings = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert len(warnings) == len(said)
    assert all(part in line for part, line in zip(said, warnings, strict=True))


def test_check_survives_a_menu_that_is_a_folder(folder):
    (folder / "menu.json").unlink()
    (folder / "menu.json").mkdir()
    done = run("--handlers", str(folder), "check", WECHAT_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "menu.json" in done.stdout


def test_check_warns_of_a_setting_that_is_none():
    assert (
        "WECHAT_TOKN is not a setting of the server: did you mean WECHAT_TOKEN?" in run("check", WECHAT_TOKN="x").stdout
    )


def test_routes_lists_every_path_with_its_function_and_place():
    done = run("routes")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "'解绑'" in line]
    assert line.startswith("handlers.account.unbind (handlers/account.py:")
    assert line.endswith("@on('text', '解绑')")


def test_routes_stand_in_columns_where_functions_have_chinese_names(tmp_path):
    source = "from wechat.routing import on\n@on('text', 'a')\ndef 查书(msg): ...\n@on('text')\ndef book(msg): ...\n"
    (tmp_path / "mine.py").write_text(source, "utf-8")
    wide, narrow = run("--handlers", str(tmp_path), "routes").stdout.splitlines()
    assert wide.index("@on") + len("查书") == narrow.index("@on")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["三体"], ["handlers.books.book_by_words (handlers/books.py:", "by @on('text')"]),
        (["绑定 20260001"], ["handlers.account.bind", "with match ('20260001',)"]),
        (["HELP"], ["handlers.welcome.help_text", "by @on('text', 'help')"]),
        (["--event", "CLICK", "BOOKING_ACTIVITY_9"], ["handlers.menu.booking_activity"]),
        (["--event", "VIEW", "https://example.com/"], ["handlers.fallback.default", "by @on('default')"]),
    ],
)
def test_explain_says_who_would_answer_and_why(arguments, said):
    done = run("explain", *arguments)
    assert done.returncode == 0
    assert all(part in done.stdout for part in said)


def test_explain_and_routes_know_async_handlers(tmp_path):
    source = "from wechat.routing import on\n@on('text')\nasync def think(msg):\n    return 'x'\n"
    (tmp_path / "mine.py").write_text(source)
    assert "by @on('text'), async def" in run("--handlers", str(tmp_path), "explain", "三体").stdout
    assert "handlers.mine.think" in run("--handlers", str(tmp_path), "routes").stdout


def test_explain_says_when_nobody_answers(tmp_path):
    done = run("--handlers", str(tmp_path), "explain", "三体")
    assert done.returncode == 1
    assert "nobody answers" in done.stdout


@pytest.mark.parametrize("command", ["routes", "explain"])
def test_a_broken_handler_is_named_by_every_command(folder, command):
    (folder / "broken.py").write_text("import nowhere\n")
    done = run("--handlers", str(folder), command, *(["x"] if command == "explain" else []))
    assert done.returncode == 1
    assert done.stderr.startswith("handlers/broken.py:1: the module does not import")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["explain"], ["check", "extra"]])
def test_a_wrong_call_is_status_2(arguments):
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("command", ["check", "routes", "explain"])
def test_every_command_has_help(command):
    assert run(command, "--help").returncode == 0


def test_check_opens_the_store_that_the_start_would_open():
    done = run("check", WECHAT_TOKEN=TOKEN, WECHAT_STORE="sqlite:/nowhere/x.db")
    assert done.returncode == 1
    assert done.stderr.startswith("WECHAT_STORE: ")


def test_the_line_of_a_broken_module_is_named_also_in_a_relative_folder(tmp_path):
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/zz.py").write_text("import os\n\n1 / 0\n")
    command = [sys.executable, "-m", "wechat", "routes", "--handlers", "handlers"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("handlers/zz.py:3: ")


def test_the_file_of_a_broken_package_is_named(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("import os\n\n1 / 0\n")
    assert run("--handlers", str(tmp_path), "routes").stderr.startswith(
        "shop/__init__.py:3: the module does not import"
    )


def test_an_event_without_a_key_can_be_explained():
    assert "handlers.welcome.subscribe" in run("explain", "--event", "subscribe").stdout


def test_routes_and_explain_show_what_wraps_a_handler(tmp_path):
    source = "from wechat.routing import around, on\n@on('text')\ndef f(msg): pass\n"
    for name, path in ("inner", "'text'"), ("outer", ""):
        source += f"@around({path})\ndef {name}(msg, answer): return answer()\n"
    (tmp_path / "mine.py").write_text(source)
    routes = run("--handlers", str(tmp_path), "routes").stdout.splitlines()
    assert [line.split()[-1] for line in routes] == ["@around()", "@around('text')", "@on('text')"]
    lines = run("--handlers", str(tmp_path), "explain", "三体").stdout.splitlines()
    assert [re.sub(r" \(\S*:\d+\)", "", line) for line in lines] == [
        "within handlers.mine.outer, by @around()",
        "within handlers.mine.inner, by @around('text')",
        "handlers.mine.f answers",
        "by @on('text')",
    ]
    nobody = run("--handlers", str(tmp_path), "explain", "--event", "VIEW")
    assert nobody.returncode == 1
    assert nobody.stdout.startswith("within handlers.mine.outer")
