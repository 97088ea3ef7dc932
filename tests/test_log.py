import io
import logging
import os
import subprocess
import sys
import time

import pytest

from tests.conftest import QUIET, ROOT
from wechat.log import BatchHandler, printable, shorten, trace
from wechat.message import Message, kind_of

pytestmark = pytest.mark.interpreter
WORDS = "what the user said"


def error_about(words):
    """An error, with a cause, that quotes the words."""
    try:
        try:
            int(words)
        except ValueError as cause:
            raise RuntimeError(words) from cause
    except RuntimeError as error:
        return error


def test_kinds_are_named_and_cannot_break_a_line():
    assert kind_of(Message({"MsgType": "text"})) == "text"
    assert kind_of(Message({"MsgType": "event", "Event": "CLICK"})) == "event/CLICK"
    assert kind_of(Message({"MsgType": "event"})) == "event/"
    assert "\n" not in kind_of(Message({"MsgType": "text\nERROR forged"}))
    assert len(printable("x" * 1000)) == 64


def test_an_openid_is_shortened():
    assert shorten("o9AgO5Kd5ggOC-bXrbNODIiE3bGY") == "o9AgO5…"


def test_a_traceback_shows_the_way_and_not_what_the_errors_say(caplog):
    caplog.set_level(logging.INFO, "wechat.log")
    shown = trace(error_about(WORDS))
    assert "test_log.py" in shown
    assert shown.index("ValueError") < shown.index("RuntimeError")
    assert WORDS not in shown


def test_at_debug_the_errors_speak(caplog):
    caplog.set_level(logging.DEBUG, "wechat.log")
    assert f"RuntimeError: {WORDS}" in trace(error_about(WORDS))


def record(level, said):
    return logging.LogRecord("wxserver", level, "", 0, said, (), None)


def test_lines_are_written_together_and_soon():
    written = io.StringIO()
    handler = BatchHandler(written)
    for number in range(100):
        handler.handle(record(logging.INFO, f"line {number}"))
    assert written.getvalue() == ""
    deadline = time.monotonic() + 5
    while not written.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    lines = written.getvalue().splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"line {number}" for number in range(100)]


def test_a_warning_is_written_at_once_after_what_came_before_it():
    written = io.StringIO()
    handler = BatchHandler(written)
    handler.handle(record(logging.INFO, "before"))
    handler.handle(record(logging.WARNING, "now"))
    assert [line.split(": ")[1] for line in written.getvalue().splitlines()] == ["before", "now"]


def test_a_record_that_cannot_be_formatted_costs_only_itself(capsys):
    written = io.StringIO()
    handler = BatchHandler(written)
    broken = record(logging.INFO, "%d")
    broken.args = ("no number",)
    handler.handle(broken)
    handler.handle(record(logging.WARNING, "after"))
    assert "after" in written.getvalue()
    assert "Logging error" in capsys.readouterr().err


def test_nothing_is_lost_at_the_end_of_the_process():
    code = "import logging; from wechat.log import configure; configure('INFO'); logging.info('last words')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.endswith(" INFO root: last words\n")


def test_a_process_that_has_logging_set_up_keeps_it():
    code = "import logging; from wechat.log import configure; logging.basicConfig(level='ERROR'); configure('INFO')"
    code += "; logging.info('silent'); logging.error('loud')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "ERROR:root:loud\n"


def test_a_process_that_is_forked_writes_its_own_lines_and_no_others():
    """gunicorn --preload forks while the thread that writes may hold the lock and lines are waiting."""
    done = subprocess.run([sys.executable, *QUIET, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(line.split(": ")[1] for line in done.stderr.splitlines()) == ["from the child", "from the parent"]


FORK = """
import logging, os, signal, sys
from wechat.log import configure
configure("INFO")
logging.info("from the parent")
with logging.root.handlers[0].writing:
    child = os.fork()
    if not child:
        signal.alarm(5)
        logging.warning("from the child")
        os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


def test_the_log_of_a_server_that_imports_the_application_stays_whole():
    """gunicorn's lines name the process, which `python wxserver.py` does without."""
    code = "import logging, sys, wxserver; wxserver.application; logging.basicConfig("
    code += "stream=sys.stdout, force=True, format='%(process)d %(threadName)s %(lineno)d'); logging.error('x')"
    environ = {**os.environ, "WECHAT_TOKEN": "testtoken", "WECHAT_STORE": "memory:"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[1:] == ["MainThread", "1"]
    assert done.stderr == ""
