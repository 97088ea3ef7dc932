"""Which Pythons it runs on: `python wxserver.py` on this one, what the others are told, and how they are found."""

import ast
import functools
import itertools
import os
import re
import subprocess
import sys

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint
from tests.conftest import COMPAT, PLAIN, ROOT, SAFE, SEALED
from tests.interpreters import SUPPORTED, Interpreter, ask, find, folders
from tests.test_house import tree

READ_BY_ALL = ["wechat/__init__.py", "sandbox/__init__.py"]
OLDEST_WITH_ANNOTATIONS = (3, 6)  # what is older finds a SyntaxError in wxserver.py
NEW_SYNTAX = (ast.AnnAssign, ast.AsyncFunctionDef, ast.JoinedStr, ast.Match, ast.NamedExpr, ast.Nonlocal, ast.Starred)


@pytest.mark.interpreter
@pytest.mark.parametrize("platform", [PLAIN, COMPAT, SAFE], ids=lambda platform: platform.mode)
def test_a_push_is_answered_in_each_mode_and_nothing_of_ours_is_deprecated(serve, platform):
    sealed = {} if platform is PLAIN else {**SEALED, "WECHAT_MODE": platform.mode}
    server = serve("-W", "always", "wxserver.py", **sealed)
    (attempt,) = Endpoint(server.url).deliver(*platform.push(text_message("三体")), most=1)
    assert "三体" in platform.open(attempt.body)
    server.stop()
    assert server.process.returncode == 0
    warnings = [line for line in server.lines if re.search(r":\d+: \w*Warning: ", line)]
    assert [line for line in warnings if "/site-packages/" not in line] == []


# Pythons that are too old


@functools.cache
def old():
    return [one for one in find(folders()) if one.version < SUPPORTED]


COMMANDS = ["wxserver.py", "-m wechat check", "-m sandbox", "-m sandbox push text 三体"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_old_python_of_this_machine_gets_one_line_that_says_which_is_needed(command):
    for python in old():
        if command == "wxserver.py" and python.version < OLDEST_WITH_ANNOTATIONS:
            continue
        done = subprocess.run([python.path, "-B", *command.split()], cwd=ROOT, capture_output=True, check=False)
        said = f"wxserver needs Python 3.11 or newer; this is {python}, {python.path}\n"
        assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", said)


@pytest.fixture
def old_python(tmp_path):
    """A program that is this Python, and says it is an old one."""
    lie = "import sys; sys.version_info, sys.version = (3, 10, 13, 'final', 0), '3.10.13 (main)'"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/sitecustomize.py").write_text(lie)
    return script(tmp_path / "old/python", f'PYTHONPATH={tmp_path}/old exec {sys.executable} "$@"')


@pytest.mark.parametrize("command", COMMANDS)
def test_a_python_that_says_it_is_old_gets_it_too(old_python, command):
    done = subprocess.run([old_python, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"wxserver needs Python 3.11 or newer; this is 3.10.13, {sys.executable}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("file", READ_BY_ALL)
def test_what_is_read_before_the_version_is_known_is_in_the_syntax_of_python_2(file):
    nodes = list(ast.walk(tree(ROOT / file)))
    assert (ROOT / file).read_text("utf-8").isascii()
    assert [node for node in nodes if isinstance(node, NEW_SYNTAX)] == []
    new = ("annotation", "returns", "kwonlyargs", "cause")  # `raise ... from` is one, too
    assert [node for node in nodes if any(getattr(node, name, None) for name in new)] == []


def test_wxserver_is_in_the_syntax_of_python_3_6():
    source = (ROOT / "wxserver.py").read_text("utf-8")
    ast.parse(source, feature_version=OLDEST_WITH_ANNOTATIONS)
    assert "from __future__" not in source


@pytest.mark.parametrize("file", [*READ_BY_ALL, "wxserver.py"])
def test_nothing_is_imported_before_the_version_is_known_but_what_every_python_has(file):
    imports = [node for node in tree(ROOT / file).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    before = itertools.takewhile(lambda name: name.partition(".")[0] != "wechat", names)
    assert set(before) <= {"os", "sys"}


# make


@pytest.fixture
def make(tmp_path):
    """A function that has make build the virtual environment with a Python, in a folder without the project."""
    for name in ("Makefile", "wechat"):
        (tmp_path / name).symlink_to(ROOT / name)

    def run(python):
        command = ["make", ".venv/bin/python", f"PYTHON={python}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_make_says_so_too_and_leaves_no_environment_behind(make, old_python, tmp_path):
    done = make(old_python)
    assert done.returncode == 2
    assert f"wxserver needs Python 3.11 or newer; this is 3.10.13, {sys.executable}\n" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_keeps_the_environment_of_the_python_it_is_given_and_replaces_that_of_another(make, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    (tmp_path / ".venv/mark").touch()
    assert make(sys.executable).returncode == 0
    assert (tmp_path / ".venv/mark").exists()
    other = script(tmp_path / "other/python", f'[ "$1" = -c ] || exec {sys.executable} "$@"; echo another build')
    assert make(other).returncode == 0
    assert not (tmp_path / ".venv/mark").exists()
    assert ask(tmp_path / ".venv/bin/python").version == tuple(sys.version_info[:3])


# How they are found


def script(file, *lines):
    """Writes a program for the shell."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["#!/bin/sh", *lines]))
    file.chmod(0o755)
    return file


def pretended(file, version):
    """A program that says it is this Python."""
    return script(file, f"echo {version}", f"echo build of {file.parent}")


def test_the_newest_release_of_each_version_is_taken_whatever_its_name(tmp_path):
    pretended(tmp_path / "a/python3.13", "3.13.2")
    pretended(tmp_path / "b/python", "3.13.10")
    pretended(tmp_path / "b/python3.9", "3.9.1")
    pretended(tmp_path / "b/python3.12-config", "3.12.0")
    script(tmp_path / "b/python3.14", "exit 127")
    found = find([tmp_path / "b", tmp_path / "a", tmp_path / "none"])
    assert [(str(one), one.path) for one in found] == [
        ("3.9.1", str(tmp_path / "b/python3.9")),
        ("3.13.10", str(tmp_path / "b/python")),
    ]


def test_pyenvs_folder_is_looked_into(tmp_path):
    pretended(tmp_path / "versions/3.99.1/bin/python", "3.99.1")
    code = "from tests.interpreters import *; print(*find(folders()))"
    environ = {**os.environ, "PYENV_ROOT": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "3.99.1"


def test_two_builds_of_one_version_are_told_apart(tmp_path):
    one, other = (ask(pretended(tmp_path / folder / "python", "3.12.1")) for folder in "ab")
    assert one.version == other.version
    assert one.identity != other.identity
    assert isinstance(one, Interpreter)
