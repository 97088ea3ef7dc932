import io
import json
import logging
import os
import subprocess
import sys
import time

import pytest

from sandbox.messages import text_message
from sandbox.platform import signed_query
from tests.conftest import QUIET, ROOT, TOKEN
from tests.fuzz.hostile import FORGED, LINE
from tests.test_wxserver import exchange
from wechat.log import BatchHandler, LineFormatter, log_error, note, trace
from wechat.masking import printable, shorten
from wechat.message import Message, kind_of, label

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


def test_an_openid_is_shortened_to_its_end_which_followers_of_one_account_do_not_share():
    assert shorten("o9AgO5Kd5ggOC-bXrbNODIiE3bGY") == "…iE3bGY"
    assert shorten("o9AgO5Kd5ggOC-bXrbNODIiE3b\n\x1b").isprintable()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"MsgType": "text", "MsgId": "24563189712345678"}, "text from …iE3bGY, MsgId 24563189712345678"),
        ({"MsgType": "event", "Event": "CLICK"}, "event/CLICK from …iE3bGY"),
        ({"MsgType": "text", "MsgId": "1\n" + FORGED}, f"text from …iE3bGY, MsgId '1\\n{FORGED}'"),
        ({"MsgType": None, "MsgId": 5}, "None from …iE3bGY, MsgId 5"),  # as a handler may hand it on
    ],
)
def test_a_message_is_named_by_kind_end_of_the_openid_and_msgid(fields, said):
    assert label(Message({"FromUserName": "o9AgO5Kd5ggOC-bXrbNODIiE3bGY", **fields})) == said


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


def test_where_nobody_reads_the_log_those_who_log_go_on_and_later_lines_come():
    """Each worker that logged an error would wait for ever, and SIGTERM too."""
    reading, writing = os.pipe()
    handler = BatchHandler(open(writing, "w", encoding="utf-8"))  # noqa: SIM115, its thread writes to it
    began = time.monotonic()
    for _ in range(100):
        handler.handle(record(logging.WARNING, "x" * 10_000))
    handler.flush()
    assert time.monotonic() - began < 5
    with open(reading, encoding="utf-8") as log:
        assert sum("x" * 10_000 in log.readline() for _ in range(100)) == 100
        handler.handle(record(logging.WARNING, "read again"))
        assert "read again" in log.readline()


def test_a_note_is_written_as_any_other_line(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [BatchHandler(written)])
    logger = logging.getLogger("tests.note")
    note(logger, "100% \x1b[31m")
    logger.error("100%% %s", "\x1b[31m")
    assert all(LINE.match(line) for line in written.getvalue().splitlines())
    assert [line.split(" ", 2)[2] for line in written.getvalue().splitlines()] == [
        "INFO tests.note: 100% \\x1b[31m",
        "ERROR tests.note: 100% \\x1b[31m",
    ]


@pytest.mark.parametrize("place", ["root", "wxserver"])
def test_a_note_goes_to_whatever_handler_somebody_has_added(caplog, monkeypatch, place):
    monkeypatch.setattr(logging.root, "handlers", [BatchHandler(io.StringIO())])
    logging.getLogger("" if place == "root" else place).addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "wxserver"):
            note(logging.getLogger("wxserver"), "100% said")
    finally:
        logging.getLogger("" if place == "root" else place).removeHandler(caplog.handler)
    assert caplog.messages == ["100% said"]


def test_as_json_each_record_is_an_object_on_one_line(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(logging.root, "handlers", [BatchHandler(written, "json")])
    logger = logging.getLogger("tests.note")
    note(logger, "答 \x1b\ud800\n" + FORGED)
    log_error(logger, "it failed", error_about(WORDS))
    first, second = map(json.loads, written.getvalue().splitlines())
    assert written.getvalue().isascii()
    assert list(first) == ["time", "level", "logger", "message"]
    assert (first["level"], first["logger"]) == ("INFO", "tests.note")
    assert first["message"] == "答 \x1b\ud800\n" + FORGED
    assert (second["level"], second["message"]) == ("ERROR", "it failed")
    assert "RuntimeError" in second["traceback"]
    assert WORDS not in written.getvalue()


def test_a_record_that_cannot_be_formatted_is_a_line_without_its_values(capsys):
    """logging itself would print the values, over many lines."""
    written = io.StringIO()
    handler = BatchHandler(written)
    broken = record(logging.INFO, "%d books")
    broken.args = (WORDS,)
    handler.handle(broken)
    handler.handle(record(logging.WARNING, "after"))
    first, second = written.getvalue().splitlines()
    assert first.endswith(" INFO wxserver: a line cannot be formatted, TypeError: %d books")
    assert second.endswith("after")
    assert capsys.readouterr().err == ""


def test_a_console_that_cannot_show_a_character_gets_it_escaped():
    """As Windows has one in China; a lone surrogate fits into no encoding."""
    written = io.BytesIO()
    handler = BatchHandler(io.TextIOWrapper(written, "gbk"))
    handler.handle(record(logging.WARNING, "查书 😀 \udc80"))
    assert written.getvalue().decode("gbk").endswith(" WARNING wxserver: 查书 \\U0001f600 \\udc80\n")


# Lines


def line_of(record):
    return LineFormatter().format(record)


def test_a_line_begins_as_that_of_the_standard_library():
    made = record(logging.INFO, "listening")
    made.created, made.msecs = int(made.created) + 0.0075, 7.0
    assert line_of(made) == logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s").format(made)


@pytest.mark.parametrize(
    "char",
    [*"\n\r\t\x00\x0b\x1b\x1c\x7f\x85\x9b\u2028\u2029\u202a\u202e\u2066\u2069\u200f\ufeff\ud800\udfff", "\r\n"],
    ids=ascii,
)
def test_what_does_not_print_is_escaped_in_a_line(char):
    line = line_of(record(logging.INFO, f"GET /{char}{FORGED}"))
    assert line.isprintable()
    assert line.endswith(f"GET /{char.encode('unicode_escape').decode()}{FORGED}")
    assert LINE.match(line)


@pytest.mark.parametrize("text", ["三体，刘慈欣", "😀", "é", "→ “quoted” …"])
def test_what_prints_stays_as_it_is(text):
    assert line_of(record(logging.INFO, text)).endswith(" INFO wxserver: " + text)


def test_the_lines_of_a_traceback_are_indented_and_cannot_pass_for_others():
    made = record(logging.ERROR, "failed\n" + FORGED)
    error = error_about(f"said\n{FORGED}\u2028{FORGED}\x1b[2J")
    made.exc_info, made.stack_info = (type(error), error, error.__traceback__), "Stack:\n" + FORGED
    first, *below = line_of(made).splitlines()
    assert LINE.match(first)
    assert len(below) > 8
    assert [line for line in below if not line.startswith("    ") or not line.isprintable()] == []


def test_a_traceback_that_another_formatter_has_made_is_indented_too():
    made = record(logging.ERROR, "failed")
    error = error_about(FORGED)
    made.exc_info = (type(error), error, error.__traceback__)
    logging.Formatter().format(made)
    assert [line for line in line_of(made).splitlines() if FORGED in line and not line.startswith("    ")] == []


def test_an_error_is_logged_with_its_way_by_any_formatter(caplog):
    caplog.set_level(logging.INFO, "wechat.log")
    log_error(logging.getLogger("wxserver"), "handlers.mine.fails failed", error_about(WORDS))
    (made,) = caplog.records
    assert made.getMessage() == "handlers.mine.fails failed"
    assert line_of(made).endswith("\n    RuntimeError (LOG_LEVEL=DEBUG shows what it says)")
    for shown in (line_of(made), logging.Formatter().format(made)):
        assert "test_log.py" in shown
        assert WORDS not in shown


def test_at_debug_what_an_error_says_stays_on_its_line(caplog):
    caplog.set_level(logging.DEBUG, "wechat.log")
    assert trace(error_about("said\n" + FORGED)).endswith(f"\nRuntimeError: said\\n{FORGED}")


FOREIGN = f"""
import logging, sys
from wechat.log import configure, log_error
logging.basicConfig(format="%(message)s", level="INFO", stream=sys.stdout)
configure("INFO")
logging.getLogger("waitress").info("Client disconnected while serving %s" % "/\\n{FORGED}")
logging.getLogger("wxserver").info("%d%% of %s", 5, "\\x1b\\ud800")
"""


def test_what_a_process_logs_that_has_logging_set_up_is_escaped_too():
    done = subprocess.run([sys.executable, "-c", FOREIGN], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"Client disconnected while serving /\\n{FORGED}",
        "5% of \\x1b\\ud800",
    ]
    assert done.stderr == ""


# The process


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


LEFT_BEHIND = """
import asyncio, threading
from concurrent.futures import Future
from wechat.routing import on

def fail(text): raise ValueError(text)
async def fail_later(text): fail(text)
class Finalizer:
    def __init__(self, text): self.text = text
    def __del__(self): fail(self.text)

@on("text", "mysecret task")
async def task(msg):
    asyncio.create_task(fail_later(msg.Content))
    await asyncio.sleep(0.05)
    return "ok"

@on("text", "mysecret callback")
async def callback(msg):
    asyncio.get_running_loop().call_soon(fail, msg.Content)
    await asyncio.sleep(0.05)
    return "ok"

@on("text", "mysecret thread")
def thread(msg):
    threading.Thread(target=fail, args=[msg.Content]).start()
    return "ok"

@on("text", "mysecret future")
def future(msg):
    future = Future()
    future.add_done_callback(lambda _: fail(msg.Content))
    future.set_result(None)
    return "ok"

@on("text", "mysecret coroutine")
def coroutine(msg):
    fail_later(msg.Content)
    return "ok"

@on("text", "mysecret finalizer")
def finalizer(msg):
    Finalizer(msg.Content)
    return "ok"
"""


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_handler_leaves_behind_fails_in_lines_of_the_log_that_quote_nobody(serve, tmp_path, style):
    """asyncio says what a callback was given, and Python writes the tracebacks of threads past the log."""
    (tmp_path / "mine.py").write_text(LEFT_BEHIND, "utf-8")
    server = serve(WECHAT_HANDLERS=str(tmp_path), LOG_FORMAT=style)
    for what in ("task", "callback", "thread", "future", "finalizer", "coroutine"):
        push = f"/weixin?{signed_query(TOKEN)}", text_message(f"mysecret {what}").encode()
        assert b"ok" in exchange(server.port, "POST", *push)[1]
    time.sleep(0.2)
    server.stop()
    said = "\n".join(server.lines)
    assert said.count("what a handler left behind failed") == 5
    assert said.count("ValueError (LOG_LEVEL=DEBUG shows what it says)") == 5
    assert "coroutine 'fail_later' was never awaited" in said
    assert "mysecret" not in said
    assert all(line.startswith(("{", "2", "    ")) for line in server.lines)
