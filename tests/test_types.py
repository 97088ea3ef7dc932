"""What type checkers know: mypy and pyright on handlers that are right, and on handlers with a fault each."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import MESSAGES, ROOT
from wechat import message as messages
from wechat.kinds import CLASSES, EVENTS, MSG_TYPES, class_name
from wechat.message import Message
from wechat.protocol.parser import parse

FOLDER = ROOT / "tests/typing"
FIELDS = ast.parse((ROOT / "wechat/fields.pyi").read_text("utf-8"))
CLASSES_OF_FIELDS = {node.name: node for node in FIELDS.body if isinstance(node, ast.ClassDef)}
ALIASES = {node.targets[0].id: node.value.id for node in FIELDS.body if isinstance(node, ast.Assign)}


def mypy(folder):
    command = ["mypy", "--strict", "--config-file", "empty.ini", "--no-error-summary", "--cache-dir", "cache", "."]
    return run(folder, command, MYPYPATH=str(ROOT))


def pyright(folder):
    """Without the network: the package has pyright and Node.js in it."""
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "strict" if folder.name == "good" else "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["pyright", "--pythonpath", sys.executable, "-p", "."]
    return run(folder, command, PYRIGHT_PYTHON_IGNORE_WARNINGS="1")


def run(folder, command, **environ):
    """The lines at which something is wrong."""
    (folder / "empty.ini").write_text("[mypy]\n")
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**clean_environment(), **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    lines = {int(number) for number in re.findall(r"^\s*\S*\.py:(\d+)(?::\d+)?(?: -|:) error", said, re.MULTILINE)}
    assert bool(lines) == bool(done.returncode), said
    return lines


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("MYPY", "PYRIGHT"))}


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("folder", ["good", "bad"])
def test_each_handler_that_is_wrong_is_named_and_no_other(checker, folder, tmp_path):
    (file,) = (FOLDER / folder).glob("*.py")
    shutil.copytree(FOLDER / folder, tmp_path / folder)
    wrong = {number for number, line in enumerate(file.read_text().splitlines(), 1) if line.endswith("# wrong")}
    assert checker(tmp_path / folder) == wrong
    assert len(wrong) == {"good": 0, "bad": 20}[folder]


# The fields


def fields_of(name):
    """The declared fields of a class, with those that it inherits, as name and type."""
    if name == "Message":
        return dict.fromkeys(Message.__annotations__, "str")
    node = CLASSES_OF_FIELDS[ALIASES.get(name, name)]
    own = {item.target.id: ast.unparse(item.annotation) for item in node.body if isinstance(item, ast.AnnAssign)}
    return {**fields_of(node.bases[0].id), **own}


def undeclared(came, name):
    """The fields that came and are not declared, or as another type."""
    declared = fields_of(name)
    for field, value in came.items():
        kind = declared.get(field)
        if isinstance(value, list) and kind and kind.startswith("list["):
            value, kind = value[0], kind.removeprefix("list[").removesuffix("]")
        if isinstance(value, Message) and kind in CLASSES_OF_FIELDS:
            yield from (f"{field}.{inner}" for inner in undeclared(value, kind))
        elif kind != "str" or not isinstance(value, str):
            yield field


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_each_field_that_comes_is_declared(file):
    came = parse(file.read_bytes())
    kind = came["MsgType"]
    if kind == "event" and came["Event"] not in EVENTS:
        assert came["Event"] == "something_new_2031"
        return
    name = class_name(came["Event"], "Event") if kind == "event" else class_name(kind, "Message")
    assert list(undeclared(came, name)) == []


def test_each_kind_has_a_class_of_its_own_name():
    declared = {name for name in (*CLASSES_OF_FIELDS, *ALIASES) if name[0] != "_"}
    assert declared == {*CLASSES, "Anything"}
    assert len(CLASSES) == len(set(CLASSES)) == len(MSG_TYPES) + len(EVENTS)
    assert {"TextMessage", "ScanEvent", "MassSendJobFinishEvent", "SubscribeMsgPopupEvent"} <= declared


def test_whatever_comes_has_the_fields_of_all():
    (anything,) = [node for node in FIELDS.body if getattr(node, "name", "") == "Anything"]
    bases = {base.id for base in anything.bases}
    assert {ALIASES.get(name, name) for name in CLASSES} - bases <= {"EventMessage"}


@pytest.mark.parametrize("name", CLASSES)
def test_all_of_them_are_message_when_it_runs(name):
    assert getattr(messages, name) is Message


def test_a_name_that_is_none_is_no_class():
    with pytest.raises(ImportError):
        exec("from wechat.message import TxtMessage")


def test_what_a_handler_is_annotated_with_changes_nothing(make_account):
    source = "from wechat.message import TextMessage\n@on('text')\ndef f(msg: TextMessage) -> str: return msg.Content\n"
    assert make_account(source).say("hello")["Content"] == "hello"


def test_the_package_says_that_it_has_types():
    assert (ROOT / "wechat/py.typed").exists()
