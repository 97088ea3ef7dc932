"""What every command prints on: pipes that are closed, streams that are not there, encodings that lack a character."""

import argparse
import contextlib
import io
import json
import os
import signal
import subprocess
import sys

import pytest

from sandbox.__main__ import make_parser
from tests.conftest import ROOT, TOKEN
from tests.warmed import popen
from wechat.__main__ import _parser
from wechat.terminal import Parser, complain, to_json

NOBODY = "http://127.0.0.1:9/weixin"
COMMANDS = {  # what is typed, and the exit status that it has by itself
    "wechat --help": 0,
    "wechat menu push --help": 0,
    "wechat routes": 0,
    "wechat check": 0,
    "wechat explain 三体": 0,
    "wechat": 2,
    "wechat explain": 2,
    "wechat --handlers nowhere routes": 1,
    "wechat token": 2,
    "sandbox --help": 0,
    f"sandbox push text 😀 --url {NOBODY}": 1,
    "sandbox push text 😀 --url nowhere": 2,
    f"sandbox check {NOBODY} --token {TOKEN}": 1,
    f"sandbox load {NOBODY} --token {TOKEN} --rate 20 --seconds 0.1": 1,
    "wxserver.py --help": 0,
    "wxserver.py nothing": 2,
    "wxserver.py": 2,
}
each_command = pytest.mark.parametrize(("typed", "status"), COMMANDS.items(), ids=COMMANDS)
clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_", "PYTHON"))}


def start(typed, *prefix, **options):
    """The command as a process; where its streams do not go elsewhere, they can be read."""
    program, *rest = typed.split()
    name = [program] if program.endswith(".py") else ["-m", program]
    token = "not a token" if typed == "wxserver.py" else TOKEN
    environ = {**clean, "WECHAT_TOKEN": token, **options.pop("environ", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return popen([*prefix, sys.executable, *name, *rest], cwd=ROOT, env=environ, **streams)


@contextlib.contextmanager
def closed_pipe():
    """The writing end of a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


def ended(process):
    """The exit status of the process, and what it said, in bytes."""
    said = b"".join(filter(None, process.communicate(timeout=30)))
    assert b"Traceback" not in said, said.decode(errors="replace")
    assert b"Error" not in said, said.decode(errors="replace")
    return process.returncode, said


@each_command
def test_a_closed_pipe_ends_a_command_quietly_and_changes_no_status_but_that_of_success(typed, status):
    with closed_pipe() as pipe:
        returncode, said = ended(start(typed, stdout=pipe))
        assert returncode == (status or 1)
        assert b"Broken pipe" not in said
        assert ended(start(typed, stderr=pipe))[0] == status
        assert ended(start(typed, stdout=pipe, stderr=pipe))[0] == (status or 1)


@each_command
def test_a_stream_that_is_closed_at_the_start_changes_nothing(typed, status):
    for closing in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        assert ended(start(typed, "sh", "-c", f'exec "$@" {closing}', "-"))[0] == status


@each_command
@pytest.mark.parametrize(
    "environ",
    [{"PYTHONIOENCODING": "gbk"}, {"PYTHONIOENCODING": "ascii:strict"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}],
    ids=["gbk", "ascii", "LC_ALL=C"],
)
def test_an_encoding_that_lacks_characters_breaks_no_command(typed, status, environ):
    returncode, said = ended(start(typed, environ=environ))
    assert (returncode, bool(said)) == (status, True)


def test_a_disk_that_is_full_is_named_in_one_line():
    with open("/dev/full", "wb") as full:
        returncode, said = ended(start("wechat routes", stdout=full))
    assert (returncode, said.count(b"\n")) == (1, 1)
    assert b"No space left on device" in said


def test_control_c_ends_a_command_without_a_traceback():
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_AND_WAIT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


RUN_AND_WAIT = """
import signal, time
from wechat.terminal import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started the tests in the background
def main(arguments):
    print("waiting", flush=True)
    time.sleep(60)
run(main)
"""


def test_json_holds_no_escape_but_jsons_own(monkeypatch):
    """`backslashreplace` writes é as \\xe9, which no JSON parser takes."""
    value = {"name": "é三体😀", "half": "\ud800"}
    for encoding in ("gbk", "ascii", "utf-8"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        monkeypatch.setattr(sys, "stdout", stream)
        print(to_json(value))
        stream.flush()
        assert json.loads(stream.buffer.getvalue().decode(encoding)) == value


def parsers(parser):
    """The parser and those of all its sub-commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


ALL = [*parsers(_parser()), *parsers(make_parser({}))]


@pytest.mark.parametrize("parser", ALL, ids=lambda parser: parser.prog)
def test_every_command_says_what_it_does_and_tells_how_to_pass_a_dash(parser, capsys):
    assert isinstance(parser, Parser)
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--help"])
    assert parser.description
    assert " ".join(parser.description.split()) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("given", ["-abc", "-obc", "--abc-_"])
def test_a_value_that_begins_with_a_dash_is_told_where_it_goes(given):
    said = ended(start(f"wechat media get {given}"))[1]
    assert b"put a value that begins with a dash after --" in said
    parsed = _parser().parse_args(["media", "get", "--", given])
    assert parsed.media_id == given


@pytest.mark.parametrize("typed", ["wechat media get", "wechat media get --json"])
def test_a_wrong_call_without_such_a_value_hints_at_none(typed):
    assert b"behind --" not in ended(start(typed))[1]


def test_what_cannot_be_said_stops_nothing(monkeypatch):
    with closed_pipe() as pipe, open(os.dup(pipe), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        complain("nobody hears this")
        with contextlib.suppress(OSError):
            stream.close()
