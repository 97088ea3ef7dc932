"""The rules that keep the code readable."""

import ast
import configparser
import statistics
import sys
from pathlib import Path

import pytest
from webob import Request

from sandbox.messages import text_message
from tests.conftest import PLAIN, ROOT, TOKEN
from wechat.routing import on
from wechat.settings import read
from wxserver import Application

# A module imports only those above it: errors, settings, system, log <- store <- protocol, message, reply <- routing
# <- platform <- delivery <- serving <- the commands.
ORDER = str.split(
    """
    lean digests errors startup settings system weak masking log world trouble workers pool loop
    store.writes store.base store.memory store.sqlite store.redis store.opening store.owners
    kinds message web protocol.typed protocol.parser protocol.envelope pieces plain reply packing
    texts importing calling marks routing mistakes
    platform.connecting platform.transport platform.answers platform.files
    platform.access_token platform.api platform.menu platform.pushing
    delivery.sessions delivery.answering delivery.lanes delivery.entries delivery.ledger
    delivery.outbox delivery.runner delivery.delivery
    heads channel serving chinese terminal account online why calls __main__
    """
)
WECHAT = sorted(set(ROOT.glob("wechat/**/*.py")) - set(ROOT.glob("wechat/data/**/*.py")))  # without what it copies
CODE = [
    ROOT / "wxserver.py",
    ROOT / "wsgi.py",
    *WECHAT,
    *sorted(ROOT.glob("sandbox/*.py")),
    *sorted(ROOT.glob("handlers/*.py")),
    *sorted(ROOT.glob("examples/*/*.py")),
]
OWN = {"wechat", "handlers", "sandbox", "wxserver", "tests"}
MAY_IMPORT = {
    "wechat": {"wechat"},
    "handlers": {"wechat", "handlers"},
    "examples": {"wechat", "handlers"},
    "sandbox": {"wechat", "sandbox"},
    "wxserver.py": {"wechat"},
    "wsgi.py": {"wxserver"},
}
STUBS = {"wechat.fields", "wechat.signatures"}  # for type checkers alone
MOST_FILES = 10
MAKE_APPLICATIONS = [ROOT / "sandbox/__main__.py", ROOT / "sandbox/testing.py"]


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.partition(".")[0] in OWN} - STUBS


def functions(file: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]


def test_the_list_of_modules_is_whole():
    files = [file.relative_to(ROOT / "wechat") for file in WECHAT if file.stem != "__init__"]
    assert {".".join(file.with_suffix("").parts) for file in files} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_module_of_wechat_imports_only_those_above_it(name):
    above = {f"wechat.{module}" for module in ORDER[: ORDER.index(name)]}
    assert imports(ROOT / "wechat" / f"{name.replace('.', '/')}.py") <= above


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    home = file.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[home] | ({"wxserver"} if file in MAKE_APPLICATIONS else set())
    assert {name.partition(".")[0] for name in imports(file)} <= allowed


def test_a_room_imports_only_from_the_rooms_below_it():
    """Within `wechat/`; what stands in no room is named by its module."""
    below = {
        "store": {"digests", "errors", "system", "log", "trouble", "workers", "world"},
        "protocol": {"digests", "errors", "settings", "message"},
        "platform": {
            "digests",
            "errors",
            "log",
            "settings",
            "trouble",
            "world",
            "workers",
            "store",
            "protocol",
            "message",
            "reply",
            "routing",
        },
        "delivery": {
            "digests",
            "errors",
            "log",
            "masking",
            "settings",
            "trouble",
            "world",
            "workers",
            "loop",
            "store",
            "protocol",
            "message",
            "reply",
            "packing",
            "calling",
            "routing",
            "texts",
            "platform",
        },
    }
    for room, allowed in below.items():
        for file in (ROOT / "wechat" / room).glob("*.py"):
            assert {name.split(".")[1] for name in imports(file)} <= allowed | {room}, file


def test_there_are_eight_modules_to_learn_for_delivery():
    assert len([file for file in ROOT.glob("wechat/delivery/*.py") if file.stem != "__init__"]) <= 8


def test_a_text_message_opens_few_files():
    """Those in which something runs for a text that is answered at once, beside its handler."""
    app = Application(read({"WECHAT_TOKEN": TOKEN}), {("text",): on("text")(lambda msg: "hi")})
    query, body = PLAIN.push(text_message("hello"))
    request, opened = Request.blank("/weixin", {"QUERY_STRING": query}, method="POST", body=body), set()

    def note(frame, event, _):
        file = Path(frame.f_code.co_filename)
        if event == "call" and file in CODE:
            opened.add(str(file.relative_to(ROOT)))

    sys.setprofile(note)
    try:
        response = request.send(app)
    finally:
        sys.setprofile(None)
    assert b"hi" in response.body
    assert len(opened) <= MOST_FILES, sorted(opened)


def test_init_files_hold_a_docstring_and_nothing_else():
    stop_an_old_python = {ROOT / "wechat/__init__.py", ROOT / "sandbox/__init__.py"}
    for file in {*ROOT.glob("[!.]*/__init__.py"), *ROOT.glob("wechat/*/__init__.py")} - stop_an_old_python:
        assert len(tree(file).body) <= 1


def test_no_function_is_over_40_lines_and_the_median_is_under_ten():
    lengths = {
        f"{file.name}: {node.name}": node.end_lineno - node.lineno + 1 for file in CODE for node in functions(file)
    }
    assert {name: length for name, length in lengths.items() if length > 40} == {}
    assert statistics.median(lengths.values()) < 10


def test_no_module_is_over_260_lines():
    lengths = {file.name: file.read_text("utf-8").count("\n") for file in CODE}
    assert {name: length for name, length in lengths.items() if length > 260} == {}


def test_development_tools_are_pinned():
    lines = (ROOT / "requirements-dev.txt").read_text().split()
    assert all("==" in line for line in lines if not line.startswith("-") and not line.endswith(".txt"))
    assert not any("[" in line for line in lines)  # `make run` has them as constraints, in which pip takes no extras


def test_warnings_are_errors():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    assert config["tool:pytest"]["filterwarnings"].split()[0] == "error"
