"""The fixtures that users' own tests of handlers have."""

import re
import subprocess
import sys

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint
from sandbox.testing import SETTINGS, User
from tests.conftest import AES_KEY, ROOT, copy_project
from wechat.routing import load
from wechat.settings import read
from wxserver import Application

pytestmark = pytest.mark.interpreter
IMPORTS = "import time\nfrom wechat.reply import *\nfrom wechat.routing import on\n"
FAILING = """
def test_this_fails(user):
    assert user.says("hello").Content == "Good bye"
"""


@pytest.fixture
def make_user(tmp_path, cloud):
    """A function that gives a user of an account with these handlers."""
    apps = []

    def make(source, **environ):
        (tmp_path / "mine.py").write_text(
            "import time\nfrom wechat.reply import *\nfrom wechat.routing import on\n" + source
        )
        settings = read({**SETTINGS, "WECHAT_API_URL": cloud.url, **environ})
        apps.append(Application(settings, load(tmp_path)))
        return User(apps[-1], cloud)

    yield make
    for app in apps:
        app.close()


def test_a_book_is_found_by_its_title(user):
    assert user.says("三体").Articles.item[0].Title == "三体"


def test_silence_is_an_empty_message(user):
    assert user.does("unsubscribe") == {}


def test_other_messages_have_fields_of_their_own(user):
    assert user.sends("image").Image.MediaId == "sandbox-image"
    assert user.sends("image", MediaId="mine").Image.MediaId == "mine"
    scanned = {"ScanType": "barcode", "ScanResult": "EAN_13,9787536692930"}
    assert user.does("scancode_waitmsg", "BOOKS_SCAN", ScanCodeInfo=scanned).Articles.item[0].Title == "三体"


def test_what_would_show_the_banner_fails_the_test(make_user):
    user = make_user("@on('text')\ndef text(msg):\n    return Raw('<xml>')\n")
    with pytest.raises(AssertionError, match=r"该公众号提供的服务出现故障，请稍后再试 \(neither success nor XML"):
        user.says("hi")


def test_an_answer_that_is_no_message_has_its_fields_all_the_same(make_user):
    """What a payment push demands has no MsgType."""
    user = make_user(
        "@on('event', 'xpay_coin_pay_notify')\ndef pay(msg):\n    return Raw('<xml><ErrCode>0</ErrCode></xml>')\n"
    )
    assert user.does("xpay_coin_pay_notify") == {"ErrCode": "0"}


def test_a_customer_message_can_be_waited_for(make_user):
    user = make_user(
        "@on('text', slow=True)\ndef text(msg):\n    time.sleep(0.5)\n    return 'later'\n", WECHAT_REPLY_WITHIN="0.1"
    )
    assert user.says("hi") == {}
    assert user.waits_for_message()["text"]["content"] == "later"
    with pytest.raises(AssertionError, match="no customer message"):
        user.waits_for_message(0.1)


def test_messages_for_other_users_are_not_taken_for_ones_own(make_user, cloud):
    user = make_user("@on('text')\ndef text(msg, api):\n    api.send('o_other', Text('x'))\n")
    user.says("hi")
    assert [openid for openid, _ in cloud.sent] == ["o_other"]
    with pytest.raises(AssertionError):
        user.waits_for_message(0.1)


def test_two_users_write_to_one_account(make_user):
    count = "session['n'] = session.get('n', 0) + 1\n    return str(session['n'])\n"
    user = make_user(f"@on('text')\ndef text(msg, session):\n    {count}")
    other = user.another("o_other")
    assert [user.says("x").Content, user.says("x").Content, other.says("x").Content] == ["1", "2", "1"]


def test_two_clicks_are_two_events(make_user):
    user = make_user("seen = []\n@on('event')\ndef event(msg):\n    seen.append(1)\n    return str(len(seen))\n")
    assert [user.does("CLICK", "K").Content for _ in range(3)] == ["1", "2", "3"]


def test_a_type_that_is_none_is_an_error_unless_it_has_fields(make_user):
    user = make_user("@on('file')\ndef file(msg):\n    return msg.Title\n")
    assert user.sends("file", Title="a.pdf").Content == "a.pdf"
    with pytest.raises(ValueError, match="film needs its fields"):
        user.sends("film")


def test_the_log_says_what_a_handler_raised(user, monkeypatch, caplog):
    def fail(msg):
        raise ValueError("what is wrong")

    monkeypatch.setattr("handlers.books.answer", lambda *_: fail(None))
    user.says("三体")
    assert "what is wrong" in caplog.text


class TestOtherSettings:
    @pytest.fixture
    def account_settings(self):
        return {"WECHAT_AES_KEY": AES_KEY, "WECHAT_PATH": "/other"}

    def test_a_module_can_have_settings_of_its_own(self, user):
        assert user.says("三体").Articles.item[0].Title == "三体"


def test_an_endpoint_without_a_server_behaves_like_one(make_user):
    user = make_user("@on('text')\ndef text(msg):\n    time.sleep(0.3)\n    return 'x'\n")
    endpoint = Endpoint("/weixin?from=here", user._app, hang_up=0.1)
    attempts = list(endpoint.deliver("signature=bad", b""))
    assert [attempt.status for attempt in attempts] == [403, 403, 403]
    query, body = user._platform.push("<xml></xml>")
    assert endpoint.request("POST", query, body).status == 400
    late = endpoint.request("POST", *user._platform.push(text_message("x")))
    assert (late.status, late.problem) == (None, "")
    assert late.seconds >= 0.1


def test_what_a_callable_raises_is_raised():
    def broken(environ, start_response):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Endpoint("/", broken).request("GET", "")


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_a_project_of_ones_own_is_tested_as_the_readme_says(tmp_path, readme):
    handler, tests = re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text("utf-8"), re.DOTALL)
    copy_project(tmp_path)
    (tmp_path / "handlers/mine.py").write_text(handler)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/conftest.py").write_text('pytest_plugins = ["sandbox.testing"]\n')
    (tmp_path / "tests/test_mine.py").write_text(tests + FAILING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "1 failed, 1 passed" in done.stdout
    assert "Good bye" in done.stdout
