"""`python -m sandbox push`, as it is typed, against the real server."""

import os
import sys
from http.server import BaseHTTPRequestHandler

import pytest

from sandbox.messages import FIELDS, build
from sandbox.testing import APPID
from tests import warmed
from tests.conftest import AES_KEY, ROOT, SEALED, TOKEN
from wechat.protocol.parser import parse


def push(*arguments, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "PORT"))}
    return warmed.run(
        [sys.executable, "-m", "sandbox", "push", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONUTF8": "1", **environ},
    )


@pytest.mark.parametrize("kind", FIELDS)
def test_every_kind_of_message_is_built_with_its_fields(kind):
    message = parse(build(kind, [f"value {name}" for name in FIELDS[kind]]).encode())
    assert {name: message[name] for name in FIELDS[kind]} == {name: f"value {name}" for name in FIELDS[kind]}
    assert ("MsgId" in message) == (kind != "event")


@pytest.mark.parametrize(("kind", "values"), [("film", []), ("text", ["a", "b"])])
def test_what_cannot_be_built_is_said(kind, values):
    with pytest.raises(ValueError, match=kind):
        build(kind, values)


def test_the_reply_is_printed(serve):
    port = str(serve().port)
    done = push("text", "三体", WECHAT_TOKEN=TOKEN, PORT=port)
    assert done.returncode == 0
    assert "重庆出版社" in done.stdout
    assert done.stderr.startswith("attempt 1: 200, ")
    assert "读书会" not in push("event", "CLICK", "BOOKING_ACTIVITY_1", WECHAT_TOKEN=TOKEN, PORT=port).stdout
    assert push("event", "VIEW", "https://example.com/", WECHAT_TOKEN=TOKEN, PORT=port).stdout == "(nothing)\n"
    assert "看不懂" in push("location", "23.1", "113.3", "--json", WECHAT_TOKEN=TOKEN, PORT=port).stdout


def test_a_sealed_push_goes_to_any_address(serve):
    url = serve(**SEALED).url
    given = ["--url", url, "--token", TOKEN, "--aes-key", AES_KEY, "--appid", APPID]
    assert "重庆出版社" in push("text", "三体", *given).stdout
    assert push("text", "三体", "--url", url, "--token", TOKEN).returncode == 1


def test_the_banner_is_exit_status_1(http_server):
    class Broken(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(201)
            self.end_headers()
            self.wfile.write(b"success")

        def log_message(self, *_):
            pass

    done = push("text", "x", "--url", http_server(Broken))
    assert done.returncode == 1
    assert "该公众号提供的服务出现故障" in done.stdout
    assert "status 201" in done.stdout
    assert done.stderr.count("attempt") == 3


def test_what_is_pushed_later_is_printed_too(sandbox):
    process = sandbox(WECHAT_REPLY_WITHIN="0.2")
    slow = "import time\nfrom wechat.routing import on\n@on('text', 'slow', slow=True)\ndef slow(msg):\n"
    process.write("mine.py", slow + "    time.sleep(1)\n    yield 'first'\n    yield 'second'\n")
    assert process.wait_for_lines("the handlers are loaded", 1)
    done = push("text", "slow", "--url", process.url, WECHAT_TOKEN=TOKEN)
    first, second = (line for line in done.stdout.splitlines() if line.startswith("later: "))
    assert done.stdout.startswith("(nothing)\n")
    assert ('"first"' in first, '"second"' in second) == (True, True)
    assert "later" not in push("text", "slow", "--wait", "0", "--url", process.url, WECHAT_TOKEN=TOKEN).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["film"],
        ["text", "a", "b"],
        ["text", "--token", "x"],
        ["text", "--openid", ""],
        ["event", "a]]>b", "--json"],
    ],
)
def test_a_wrong_call_is_status_2(arguments):
    done = push(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize(
    "url",
    ["foo", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://127.0.0.1/路径", "http:///", "http://my..host/"],
)
def test_an_address_that_is_none_is_a_wrong_call(url):
    done = push("text", "x", "--url", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--url takes an address" in done.stderr
