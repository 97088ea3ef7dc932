"""What every command needs before it begins: `.env`, the folder of handlers, the version."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import warmed
from tests.conftest import ROOT, TOKEN
from wechat.errors import SettingsError
from wechat.startup import handlers_folder, read_env_file, version

COMMANDS = {
    "wxserver": ["wxserver.py"],
    "wechat": ["-m", "wechat", "check"],
    "sandbox": ["-m", "sandbox"],
    "sandbox push": ["-m", "sandbox", "push", "text"],
}
SECRET = "a-secret-that-nobody-prints"
ECHO = 'from wechat.routing import on\n@on("text")\ndef {name}(msg):\n    return "{name}"\n'


def read_env(tmp_path, content, **environ):
    """The environment once a file with this content has been read."""
    file = tmp_path / ".env"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    read_env_file(environ, file)
    return environ


def run(command, folder, **environ):
    """The command in a folder: its status, and what it says on stderr and stdout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    done = warmed.run(
        [sys.executable, *command],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **environ},
    )
    return done.returncode, done.stderr + done.stdout


LINES = {
    "NAME=value": "value",
    "NAME = value ": "value",
    "export NAME=value": "value",
    "  export\tNAME=value": "value",
    "NAME=": "",
    "NAME= # a comment": "",
    "NAME=a value # a comment": "a value",
    "NAME=a\t# a comment": "a",
    "NAME=a#b": "a#b",
    "NAME=#b": "#b",
    "NAME=a=b==": "a=b==",
    "NAME='a # b'": "a # b",
    'NAME="a # b" # a comment': "a # b",
    "NAME=''": "",
    r"NAME='a\n$b'": r"a\n$b",
    r'NAME="a\n\"b\" \\ \$c"': 'a\n"b" \\ $c',
    r"NAME=a\n": r"a\n",
    "NAME=it's": "it's",
    "NAME=三体": "三体",
    "NAME=a\u2028b": "a\u2028b",
}


@pytest.mark.parametrize(("line", "value"), LINES.items(), ids=LINES)
def test_a_line_is_read_as_users_of_such_files_expect(tmp_path, line, value):
    assert read_env(tmp_path, f"# first\n\n{line}\nLAST=1") == {"NAME": value, "LAST": "1"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_may_begin_with_a_byte_order_mark_and_have_any_line_ends(tmp_path, end):
    assert read_env(tmp_path, b"\xef\xbb\xbf" + f"A=1{end}{end}B='2'{end}".encode()) == {"A": "1", "B": "2"}


def test_the_environment_wins_and_the_last_of_two_lines(tmp_path):
    assert read_env(tmp_path, "A=1\nB=2\nB=3\nC=4", A="mine", C="") == {"A": "mine", "B": "3", "C": ""}


@pytest.mark.parametrize(
    "line", ["{}", "export {}", "={}", "1A={}", "A B={}", "A='{}", 'A="{}', "A='{}' b", "名={}", "A=\0{}"]
)
def test_a_bad_line_is_named_by_its_number_and_never_quoted(tmp_path, line):
    with pytest.raises(SettingsError) as caught:
        read_env(tmp_path, f"GOOD=1\r\n\r\n{line.format(SECRET)}\r\n")
    (fault,) = caught.value.faults
    assert fault.startswith(f"{tmp_path / '.env'}, line 3: ")
    assert SECRET not in fault


def test_all_bad_lines_are_named_at_once_and_nothing_is_set(tmp_path):
    environ = {}
    (tmp_path / ".env").write_text("A=1\nB\nC=3\nD='\n")
    with pytest.raises(SettingsError) as caught:
        read_env_file(environ, tmp_path / ".env")
    assert [fault.split(":")[0].split()[-1] for fault in caught.value.faults] == ["2", "4"]
    assert environ == {}


@pytest.mark.parametrize(("encoding", "line"), [("gbk", 3), ("utf-16", 1)])
def test_another_encoding_is_named_with_the_line(tmp_path, encoding, line):
    """PowerShell's `echo ... > .env` writes UTF-16."""
    with pytest.raises(SettingsError) as caught:
        read_env(tmp_path, "A=1\n\nNAME=三体\n".encode(encoding))
    assert caught.value.faults == (f"{tmp_path / '.env'}, line {line}: it is not UTF-8; save the file as UTF-8",)


def test_without_a_file_and_with_a_folder_of_that_name_nothing_happens(tmp_path):
    environ = {}
    read_env_file(environ, tmp_path / ".env")
    (tmp_path / ".env").mkdir()  # some people's virtual environment
    read_env_file(environ, tmp_path / ".env")
    assert environ == {}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_names_a_bad_line_and_ends_with_status_2(tmp_path, command):
    (tmp_path / ".env").write_text(f"WECHAT_TOKEN={TOKEN}\nWECHAT_SECRET {SECRET}\n")
    if command[0].endswith(".py"):
        command = [str(ROOT / command[0])]
    assert run(command, tmp_path) == (2, ".env, line 2: it takes NAME=value\n")


def test_the_application_of_another_wsgi_server_reads_the_file_too(tmp_path):
    (tmp_path / ".env").write_text("WECHAT_TOKEN=a,b\n")
    assert run(["-c", "import wxserver; wxserver.application"], tmp_path) == (
        2,
        "wxserver: WECHAT_TOKEN is not a token: it takes 3 to 32 letters and digits, or two of those as new,old\n",
    )
    (tmp_path / ".env").write_text("WECHAT_TOKEN\n")
    assert run(["-c", "from wsgi import application"], tmp_path)[1].startswith("wxserver: .env, line 1: ")


def test_the_locale_does_not_matter(tmp_path):
    (tmp_path / ".env").write_text(f"WECHAT_TOKEN={TOKEN}\nNAME=三体\n", "utf-8")
    assert run(["-m", "wechat", "check"], tmp_path, LC_ALL="C", PYTHONUTF8="0")[0] == 0


def test_check_looks_at_what_the_file_says(tmp_path):
    (tmp_path / ".env").write_text(f"WECHAT_TOKEN={TOKEN}\nWECHAT_TOKN=x\nWECHAT_HANDLERS=mine\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/one.py").write_text(ECHO.format(name="one"))
    status, said = run(["-m", "wechat", "check"], tmp_path)
    assert (status, "did you mean WECHAT_TOKEN?" in said, "1 functions for 1 paths" in said) == (0, True, True)


# The folder of handlers


def test_the_handlers_are_those_of_the_setting_else_beside_the_server(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert handlers_folder({}) == handlers_folder({"WECHAT_HANDLERS": " "}) == ROOT / "handlers"
    assert (tmp_path / handlers_folder({"WECHAT_HANDLERS": "mine"})) == tmp_path / "mine"


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_option_says_the_same_before_and_behind_a_commands_name_and_wins(tmp_path, place):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}/mine.py").write_text(ECHO.format(name=name))
    option, command = ["--handlers", "two"], ["explain", "x"]
    arguments = [*option, *command] if place == "before" else [*command, *option]
    assert "handlers.mine.two " in run(["-m", "wechat", *arguments], tmp_path, WECHAT_HANDLERS="one")[1]
    assert "handlers.mine.one " in run(["-m", "wechat", *command], tmp_path, WECHAT_HANDLERS="one")[1]


def test_server_and_sandbox_take_the_folder_from_setting_and_option(tmp_path, serve):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/mine.py").write_text(ECHO.format(name="mine"))
    push = ["-m", "sandbox", "push", "text", "x", "--url"]
    for command, sign in ((["wxserver.py"], "listening on "), (["-m", "sandbox"], "Server ")):
        by_option = serve(*command, "--handlers", str(tmp_path / "mine"), sign=sign, WECHAT_HANDLERS="nowhere")
        by_setting = serve(*command, sign=sign, WECHAT_HANDLERS=str(tmp_path / "mine"))
        for process in (by_option, by_setting):
            assert run([*push, process.url], tmp_path, WECHAT_TOKEN=TOKEN)[1].count("[mine]") == 1


def test_a_folder_that_is_not_there_is_named_with_what_to_set(tmp_path):
    status, said = run(["-m", "wechat", "check"], tmp_path, WECHAT_TOKEN=TOKEN, WECHAT_HANDLERS="nowhere")
    assert (status, said) == (
        1,
        f"WECHAT_HANDLERS, --handlers: {tmp_path}/nowhere is not a folder: put the handlers there\n",
    )


def test_the_users_of_a_package_have_their_handlers_in_the_working_directory(tmp_path):
    """pip writes a folder of this name beside what it installs."""
    shutil.copytree(ROOT / "wechat", tmp_path / "site/wechat")
    (tmp_path / "site/wxserver-7.8.9.dist-info").mkdir()
    (tmp_path / "site/handlers").mkdir()  # somebody else's package
    source = "from wechat.startup import *; print(version(), handlers_folder({}))"
    assert run(["-c", source], tmp_path, PYTHONPATH=str(tmp_path / "site"))[1] == "7.8.9 handlers\n"


# What is not installed


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_says_which_python_lacks_the_packages(command):
    """`python` is often another one than that of the environment that was made for the server."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_", "PYTHON"))}
    env = {**clean, "WECHAT_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-S", *command], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"wxserver needs WebOb and waitress, which {sys.executable} does not have:\n"
        "activate the environment that has them, or install them: python -m pip install -r requirements.txt\n"
    )


# The version


@pytest.mark.parametrize("command", [*COMMANDS.values(), ["-m", "wechat"], ["-m", "wechat", "menu", "push"]])
def test_every_command_tells_the_version(command):
    assert run([*command, "--version"], ROOT) == (0, f"wxserver {version()}\n")
