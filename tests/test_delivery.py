import re
import time
from http.server import BaseHTTPRequestHandler

import pytest

from sandbox.messages import USER, text_message, to_json
from sandbox.testing import APPID, SECRET
from tests.conftest import COMPAT, MESSAGES, PLAIN, SAFE
from wechat.errors import StoreError
from wechat.protocol.parser import parse
from wechat.reply import Text

MINI = {"WECHAT_ACCOUNT": "miniprogram", "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
PLATFORMS = [PLAIN, COMPAT, SAFE]
ECHO = '@on("text")\ndef echo(msg): return msg.Content\n'
CAPTURE = 'SEEN = []\n@on(re.compile(".*"))\ndef see(msg):\n    SEEN.append(msg)\n    return repr(sorted(msg))\n'


def by_mode(platform):
    return platform.mode


@pytest.fixture
def make_mini(make_account, cloud):
    """An account of a Mini Program, whose customer messages go to the stand-in."""

    def make(source, **more):
        return make_account(source, **MINI, WECHAT_API_URL=cloud.url, **more)

    return make


def sent(account, cloud):
    """The customer messages, once all have gone out."""
    account.app.delivery.close()
    return cloud.sent


# The same message, however it came


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_a_message_is_the_same_in_xml_and_json_and_in_every_mode(make_account, file):
    message = parse(file.read_bytes())
    replies = set()
    for platform in PLATFORMS:
        for content in (file.read_text("utf-8"), to_json(message)):
            account = make_account(CAPTURE, platform=platform, clock=lambda: 1714037059, WECHAT_MAX_AGE="0")
            response, reply = account.deliver(content)
            assert response.status_code == 200
            replies.add(reply)
            found = account.app.delivery._answering.router.find(message)
            assert found.handler.function.__globals__["SEEN"] == [message]
    assert len(replies) == 1


@pytest.mark.parametrize("platform", PLATFORMS, ids=by_mode)
@pytest.mark.parametrize("probe", ["debug_demo", "json", "xml"])
def test_the_platforms_own_probes_are_answered(make_account, platform, probe):
    account = make_account("", platform=platform)
    if probe == "debug_demo":
        (file,) = [file for file in MESSAGES if file.stem == "event_debug_demo"]
        assert account.deliver(file.read_text("utf-8"))[1] == "success"
    else:
        body = (
            '{"action": "CheckContainerPath"}' if probe == "json" else "<xml><action>CheckContainerPath</action></xml>"
        )
        for query in (None, ""):
            assert account.post(body, query).body == b"success"


@pytest.mark.parametrize("body", ['{"action": "Other"}', '{"action": "CheckContainerPath", "MsgType": "text"}'])
def test_nothing_else_passes_for_a_probe(account, body):
    assert account.post(body, "").status_code == 403


# Mini programs


@pytest.mark.parametrize("platform", PLATFORMS, ids=by_mode)
@pytest.mark.parametrize("as_json", [False, True], ids=["xml", "json"])
def test_a_mini_program_is_answered_by_a_customer_message(make_mini, cloud, platform, as_json):
    account = make_mini(ECHO, platform=platform)
    content = text_message("你好")
    response, reply = account.deliver(to_json(parse(content.encode())) if as_json else content)
    assert (response.body, reply) == (b"success", "success")
    ((openid, body),) = sent(account, cloud)
    assert (openid, body["msgtype"], body["text"]) == (USER, "text", {"content": "你好"})


@pytest.mark.parametrize(
    "name", ["text", "image", "miniprogrampage", "event_user_enter_tempsession", "event_wxa_media_check"]
)
def test_each_push_of_a_mini_program_is_acknowledged(make_mini, cloud, name):
    (file,) = [file for file in MESSAGES if file.stem == name]
    message = parse(file.read_bytes())
    for number, content in enumerate((file.read_text("utf-8"), to_json(message)), 1):
        account = make_mini('@on("default")\ndef rest(msg): return "seen " + msg.MsgType\n')
        assert account.deliver(content)[1] == "success"
        assert len(sent(account, cloud)) == number
        assert cloud.sent[-1][1]["text"] == {"content": "seen " + message.MsgType}


def test_the_chat_of_a_mini_program_is_welcomed_by_what_ships(account):
    assert "你好" in account.event("user_enter_tempsession", SessionFrom="")["Content"]


@pytest.mark.parametrize("platform", PLATFORMS, ids=by_mode)
@pytest.mark.parametrize("as_json", [False, True], ids=["xml", "json"])
def test_a_transfer_is_the_direct_answer_as_xml(make_mini, cloud, platform, as_json):
    source = 'from wechat.reply import Transfer\n@on("text")\ndef human(msg): return Transfer()\n'
    account = make_mini(source, platform=platform)
    content = text_message("x")
    _, reply = account.deliver(to_json(parse(content.encode())) if as_json else content)
    assert parse(reply.encode()).MsgType == "transfer_customer_service"
    assert sent(account, cloud) == []


@pytest.mark.parametrize("reply", ['Voice("m")', 'Video("m")', 'Music("t")', 'News([Article("t")])'])
def test_a_reply_that_mini_programs_lack_is_dropped_and_logged_with_its_handler(make_mini, cloud, reply, log):
    source = (
        f'from wechat.reply import *\nfrom wechat.reply import Article\n@on("text")\ndef wrong(msg): return {reply}\n'
    )
    account = make_mini(source)
    assert account.deliver(text_message("x"))[1] == "success"
    assert sent(account, cloud) == []
    assert re.search(r"handlers\.mine\.wrong for …iE3bGY, MsgId \d+: Mini Programs have no", log.text)


@pytest.mark.parametrize(("fault", "hint"), [("code:45015", "48 hours"), ("code:48001", "认证")])
def test_a_customer_message_that_fails_is_logged_with_its_hint_and_the_push_still_succeeds(
    make_mini, cloud, fault, hint, log
):
    cloud.fail("/cgi-bin/message", fault, times=None)
    account = make_mini(ECHO)
    assert account.deliver(text_message("secret words"))[1] == "success"
    assert sent(account, cloud) == []
    assert re.search(r"the text reply of handlers\.mine\.echo for …iE3bGY, MsgId \d+: ", log.text)
    assert hint in log.text
    for secret in (USER, SECRET, "secret words"):
        assert secret not in log.text


def test_a_long_text_goes_out_in_pieces():
    messages = Text("界" * 1000).customer_messages()
    assert "".join(message["text"]["content"] for message in messages) == "界" * 1000
    assert all(len(message["text"]["content"].encode()) <= 2047 for message in messages)


def test_the_log_says_that_a_mini_programs_reply_goes_another_way(make_mini, log):
    assert make_mini(ECHO).deliver(text_message("x"))[1] == "success"
    assert ": text, later, " in log.text


# Whatever goes wrong while a reply is sent


PUSHING = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_REPLY_WITHIN": "0.1"}
SLOW = """
import time
@on("text", "go", slow=True)
def go(msg):
    time.sleep(0.3)
    return "the reply"
"""


def answering(body):
    """A platform that gives a token, shows that somebody types, and answers customer messages with these bytes."""

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            said = b'{"access_token":"t","expires_in":7200}' if "send" not in self.path else body
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    return Server


def wait_for(log, text):
    end = time.monotonic() + 10
    while text not in log.text and time.monotonic() < end:
        time.sleep(0.02)
    assert text in log.text


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"errcode":"--5"}', b'{"errcode":null}', b'{"errcode":[48001]}', b'{"errcode":1e999}', b'{"errcode":{}}'),
        b'{"errcode":%s}' % (b"9" * 5000),
        b'{"errcode":45015,"errmsg":"\xe5\x9b\xde"}',
        b'{"errcode":45015,"errmsg":["\\ud800"]}',
    ],
)
def test_a_reply_that_an_odd_answer_refuses_waits_for_the_user(make_account, http_server, log, body):
    account = make_account(SLOW, **PUSHING, WECHAT_API_URL=http_server(answering(body)))
    assert account.post(text_message("go")).body == b"success"
    wait_for(log, ": kept")
    assert account.say("继续")["Content"] == "the reply"
    assert account.app.store.linked(f"user:{USER}") == {}


class Raising:
    """An API that raises, where it sends, what no call should."""

    def __init__(self, error):
        self.error = error

    def typing(self, openid):
        pass

    def send_message(self, openid, message):
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("odd"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "x"), StoreError("x"), KeyError(1)]
)
def test_a_reply_waits_for_the_user_whatever_is_raised_while_it_is_sent(make_account, log, error):
    account = make_account(SLOW, **PUSHING)
    account.app.delivery._outbox._api = Raising(error)
    assert account.post(text_message("go")).body == b"success"
    wait_for(log, ": kept")
    assert f"{type(error).__name__} (LOG_LEVEL=DEBUG shows what it says)" in log.text
    assert account.say("继续")["Content"] == "the reply"
    assert account.app.store.linked(f"user:{USER}") == {}
