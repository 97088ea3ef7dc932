"""The processes that are forked instead of started: nothing tells them from others but the time they take."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT, TOKEN
from tests.warmed import Forked, can_fork, popen, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each is started")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_", "PYTHON"))}
COMMANDS = [
    *("-m wechat --help", "-m wechat routes", "-m wechat check", "-m wechat explain 三体", "-m wechat explain"),
    *("-m sandbox --help", "-m sandbox push text 😀 --url nowhere", "wxserver.py --help", "wxserver.py nothing"),
    *("-c import&sys;print(sys.argv,sys.path,__name__,sys.stdout,sys.stdin,sys.stderr)", "-c raise&SystemExit(7)"),
    *("-c import&os;print(os.getcwd(),*sorted(os.environ.items()))", "-c import&os;os.kill(os.getpid(),9)"),
]


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_forked_command_says_what_a_started_one_says_and_ends_as_it_does(typed):
    command = [sys.executable, *(word.replace("&", " ") for word in typed.split())]
    options = {"cwd": ROOT, "env": {**CLEAN, "WECHAT_TOKEN": TOKEN}}
    assert can_fork(command, options["env"])
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    forked = run(command, **options)
    assert (forked.returncode, forked.stdout, forked.stderr) == (done.returncode, done.stdout, done.stderr)


def test_a_forked_process_is_read_ended_and_waited_for():
    sleeps = "import sys, time; print(input(), file=sys.stderr, flush=True); time.sleep(60)"
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with popen([sys.executable, "-c", sleeps], env=CLEAN, stderr=subprocess.STDOUT, text=True, **pipes) as process:
        assert isinstance(process, Forked)
        process.stdin.write("hello\n")
        process.stdin.flush()
        assert process.stdout.readline() == "hello\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.terminate()
        assert process.wait(10) == process.poll() == -signal.SIGTERM
        assert process.stdout.read() == ""


def test_a_copy_of_the_code_is_what_its_command_runs(tmp_path):
    (tmp_path / "wechat").mkdir()
    (tmp_path / "wechat/__main__.py").write_text("print('a copy')")
    assert run([sys.executable, "-m", "wechat"], cwd=tmp_path, env=CLEAN).stdout == "a copy\n"


@pytest.mark.parametrize(
    ("command", "environ"),
    [
        (["-W", "error", "wxserver.py"], {}),
        (["-m", "wechat"], {"PYTHONIOENCODING": "gbk"}),
        (["-m", "wechat"], {"PYTHONPATH": "elsewhere"}),
        (["-m", "wechat"], {"LC_ALL": "C"}),
    ],
)
def test_what_may_depend_on_the_start_of_the_interpreter_is_started(command, environ):
    assert not can_fork([sys.executable, *command], {**CLEAN, **environ})
    assert not can_fork(["python3.99", "-m", "wechat"], CLEAN)
