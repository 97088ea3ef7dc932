"""What the log says of a handler's error: what it says, without the user's own words."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechat.masking import mask
from wechat.message import Message

OPENID = "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
MESSAGE = Message(
    {
        "ToUserName": "gh_7f083739789a",
        "FromUserName": OPENID,
        "MsgType": "text",
        "MsgId": "24563189712345678",
        "Content": "绑定 学号 20260001 please, Müller's room 12",
        "SendLocationInfo": Message({"Label": "7", "PicList": [Message({"PicMd5Sum": "5a75aaca956d97be"})]}),
    }
)


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("division by zero", "division by zero"),
        ("the shelf is empty", "the shelf is empty"),
        ("[Errno 28] No space left on device: '/var/x.db'", "[Errno 28] No space left on device: '/var/x.db'"),
        ("invalid literal for int() with base 10: '20260001'", "invalid literal for int() with base 10: '…'"),
        ("invalid literal for int() with base 10: '绑'", "invalid literal for int() with base 10: '…'"),
        ("could not convert string to float: 'ROOM'", "could not convert string to float: '…'"),
        ("没有学号的人", "没有…的人"),
        (repr("绑定 学号"), "'…'"),
        (ascii("绑定"), "'…'"),
        (repr("绑定".encode()), "b'…'"),
        ('"Müller\'s"', '"…"'),
        (f"no such file: /data/{OPENID}.json", "no such file: /data/….json"),
        ("no row 12, 7 or 17", "no row …, … or 17"),
        ("no picture 5a75aaca956d97be", "no picture …"),
        ("GET /search/%E5%AD%A6%E5%8F%B7 failed", "GET /search/… failed"),
        (
            "no Contnt in this message; there are MsgType, Content",
            "no Contnt in this message; there are MsgType, Content",
        ),
        ("MsgId 24563189712345678", "MsgId 24563189712345678"),
        ("url: https://me:pw@example.com/a?token=x&b=1 (timed out)", "url: https://…@example.com/a?… (timed out)"),
    ],
)
def test_what_the_user_said_too_is_masked(said, logged):
    assert mask(said, MESSAGE) == logged


def test_a_short_word_is_masked_where_it_is_all_that_was_said():
    assert mask("no hi here", Message({"Content": " Hi "})) == "no … here"
    assert mask("no hi here", Message({"Content": "Hi you"})) == "no hi here"


def test_the_value_of_an_environment_variable_that_holds_a_secret_is_masked(monkeypatch):
    monkeypatch.setenv("MODEL_API_KEY", "sk-1234567")
    assert mask("Incorrect API key: sk-1234567", MESSAGE) == "Incorrect API key: …"


def test_the_old_and_the_new_value_of_a_setting_are_masked_each(monkeypatch):
    monkeypatch.setenv("WECHAT_TOKEN", "newtoken, oldtoken")
    assert mask("neither newtoken nor oldtoken", MESSAGE) == "neither … nor …"


@pytest.mark.parametrize("secret", ["sk-1234567", "https://user:sk-1234567@host/", "https://host/?key=sk-1234567"])
def test_where_the_end_cuts_a_secret_nothing_of_it_stays(monkeypatch, secret):
    monkeypatch.setenv("MODEL_API_KEY", "sk-1234567")
    for length in range(960, 1_000):
        assert "sk-" not in mask("x" * length + f" {secret} more", MESSAGE)


def test_where_a_message_is_very_long_nothing_is_said():
    assert mask("the shelf is empty", Message({"Content": "a b" * 30_000})) == "…"


def test_what_an_error_says_has_an_end():
    assert len(mask("x " * 2_500, MESSAGE)) == 1_000
    assert mask("x" * 5_000, MESSAGE) == "…"


@given(st.text(min_size=4).filter(lambda text: text.isalnum()), st.text(max_size=20), st.text(max_size=20))
def test_no_word_of_the_user_stays(word, before, after):
    logged = mask(f"{before} {word} {after} {word!r}", Message({"Content": word}))
    assert word not in logged or word in before + after


@pytest.fixture
def logged(make_account, caplog):
    """A function that gives the error line and what is below it, for a handler with this body and a text."""

    def log(body, text="hello 学号 20260001", more=""):
        caplog.set_level(logging.INFO)
        imports = "from wechat.platform.answers import check_errcode\nfrom wechat.reply import *\n"
        source = f"{imports}{more}\n@on('text')\ndef fails(msg, match): {body}\n"
        account = make_account(source)
        assert account.say(text) == {}
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        return record.getMessage(), record.exc_text

    return log


def test_the_line_names_the_handler_the_end_of_the_openid_and_the_msgid(logged):
    line, _ = logged("raise OSError('the shelf is empty')")
    assert line.startswith("handlers.mine.fails failed on text from …iE3bGY, MsgId ")
    assert OPENID not in line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise OSError('the shelf is empty')", "OSError: the shelf is empty"),
        ("int(msg.Content)", "ValueError: invalid literal for int() with base 10: '…'"),
        ("{}[msg.FromUserName]", "KeyError: '…'"),
        ("raise OSError", "OSError"),
        ("msg.Contnt", "AttributeError: no Contnt in this message; there are "),
        ("return 5", "TypeError: a handler returns a text, a reply value, articles or None, not int"),
        (
            "return ['a', 'b']",
            "TypeError: a handler returns a text, a reply value, articles or None, not list: "
            "`yield` each of several replies",
        ),
        ("return Text", "TypeError: a handler returns a text, a reply value, articles or None, not type"),
        ("return Text(5)", "TypeError: Text: content takes a text, not int"),
        ("return Image('')", "ValueError: Image: media_id is empty"),
        ("return Article(5)", "TypeError: Article: title takes a text, not int"),
        ("check_errcode({'errcode': 40037, 'errmsg': f'no {msg.Content}'})", "WeChatError: 40037: no …"),
    ],
)
def test_it_says_what_failed(logged, body, said):
    _, below = logged(body)
    assert below.splitlines()[-1].startswith(said)
    assert "学号" not in below


def test_what_the_server_itself_says_of_a_result_is_never_masked(logged):
    _, below = logged("return 5", "a handler returns a text, a reply value, articles or None, not int")
    assert below.endswith("TypeError: a handler returns a text, a reply value, articles or None, not int")


def test_a_cause_is_masked_too(logged):
    body = "\n    try: int(msg.Content)\n    except ValueError as error: raise RuntimeError('no number') from error"
    _, below = logged(body)
    assert "ValueError: invalid literal for int() with base 10: '…'" in below
    assert below.endswith("RuntimeError: no number")


@pytest.mark.parametrize("second", ["OSError", "SystemExit"])
def test_an_error_that_cannot_speak_is_logged(logged, second):
    more = f"class Mute(Exception):\n    def __str__(self): raise {second}\n"
    _, below = logged("raise Mute", more=more)
    assert below.endswith(f"Mute: str() of it raises {second}")


def test_a_message_of_odd_values_is_handed_on_and_logged(make_account, caplog):
    source = """
from wechat.message import Message
class Mute:
    def __str__(self): raise OSError
@on("text")
def first(msg): return Message({**msg, "MsgType": "image", "Content": Mute()})
@on("image")
def fails(msg): raise KeyError("x")
@on("error")
def failed(msg, error): return "sorry"
"""
    assert make_account(source).say("hello")["Content"] == "sorry"
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_the_error_handler_and_async_handlers_are_heard_too(make_account, caplog, kind):
    source = f"@on('text')\n{kind} fails(msg): int(msg.Content)\n@on('error')\n{kind} failed(msg, error): return 5\n"
    assert make_account(source).say("学号20260001") == {}
    assert "invalid literal for int() with base 10: '…'" in caplog.text
    assert "handlers.mine.failed, the error handler, failed on text from …iE3bGY, MsgId " in caplog.text
    assert "articles or None, not int" in caplog.text
    assert "学号" not in caplog.text
