import logging

from wechat.log import kind_of, printable, shorten, trace
from wechat.message import Message

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
