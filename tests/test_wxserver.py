"""Whole scenarios: signed requests through the real callable, then through real waitress and real HTTP."""

import http.client
import io
import os
import re
import socket
import subprocess
import sys
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wxserver
from sandbox.messages import text_message
from sandbox.platform import signed_query
from tests import warmed
from tests.conftest import MESSAGES, ROOT, TOKEN, Account, free_port, nodes, wait_for_port
from tests.vectors import VECTORS
from wechat.errors import StartError

pytestmark = pytest.mark.interpreter
ECHO = '@on("text")\ndef echo(msg): return msg.Content\n'
TEXT = text_message("三体")


# Verification of the URL


def test_the_official_verification_is_answered_with_its_echostr(make_account):
    vector = VECTORS["G_get"]
    account = make_account("", clock=lambda: int(vector["timestamp"]), WECHAT_TOKEN=vector["token"])
    query = {name: vector[name] for name in ("signature", "echostr", "timestamp", "nonce")}
    response = account.get(query=urlencode(query))
    assert (response.status_code, response.body) == (200, b"4375120948345356249")
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("sent", "came"),
    [("a%2Bb%20c", b"a+b c"), ("%E4%BD%A0", "你".encode()), ("%ff%00", b"\xff\x00"), ("", b""), ("%3Cb%3E", b"<b>")],
)
def test_an_echostr_comes_back_byte_for_byte(account, sent, came):
    assert account.get(query=f"{signed_query(TOKEN)}&echostr={sent}").body == came


def test_a_signed_get_without_echostr_is_400(account):
    assert account.get(query=signed_query(TOKEN)).status_code == 400


# Refusals


def test_a_get_without_a_query_is_403(account):
    assert account.get().status_code == 403


@pytest.mark.parametrize("name", ["signature", "timestamp", "nonce"])
def test_a_push_without_part_of_its_signature_is_403(account, name):
    query = "&".join(part for part in signed_query(TOKEN).split("&") if not part.startswith(name))
    assert account.post(TEXT, query).status_code == 403


def test_a_forged_push_is_403_and_the_log_says_why_without_quoting_it(account, log):
    query = signed_query("othertoken")
    response = account.post(text_message("secret words"), query)
    assert (response.status_code, response.body) == (403, b"refused\n")
    assert "WECHAT_TOKEN" in log.text
    for secret in (TOKEN, "secret words", query.split("signature=")[1][:40]):
        assert secret not in log.text


def test_a_stale_push_is_403_and_a_fresh_one_is_not(make_account):
    account = make_account(ECHO, clock=lambda: 1714037059.5)
    assert account.post(TEXT, signed_query(TOKEN, 1714037059 - 299)).status_code == 200
    assert account.post(TEXT, signed_query(TOKEN, 1714037059 - 301)).status_code == 403
    assert account.post(TEXT, signed_query(TOKEN, 1714037059 + 301)).status_code == 403


def test_a_replay_within_max_age_is_answered_for_wechats_retries_are_the_same_bytes(account):
    query = signed_query(TOKEN)
    assert account.post(TEXT, query).status_code == account.post(TEXT, query).status_code == 200


@pytest.mark.parametrize("query", ["a=%ff", "%", "&&&", "=", "a" * 5000, "&".join("abc=%41" for _ in range(99)), "é=1"])
def test_any_query_is_refused_without_a_500(account, query):
    query = query.encode().decode("latin-1")
    assert account.get(query=query).status_code == 403
    assert account.post(TEXT, query).status_code == 403


@pytest.mark.parametrize("path", ["/", "/weixin/x", "/WEIXIN", "/weixin//", "/favicon.ico", "/%ff", "//weixin"])
def test_another_path_is_404(account, path):
    assert account.post(TEXT, path=path).status_code == 404


def test_a_trailing_slash_is_accepted(account):
    assert account.post(TEXT, path="/weixin/").status_code == 200


def test_the_path_can_be_chosen_and_may_be_the_root(make_account):
    account = make_account(ECHO, WECHAT_PATH="/bot/")
    assert account.post(TEXT, path="/bot").status_code == account.post(TEXT, path="/bot/").status_code == 200
    assert account.post(TEXT).status_code == 404
    assert make_account(ECHO, WECHAT_PATH="/").post(TEXT, path="/").status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_another_method_is_405_with_those_allowed(account, method):
    response = account.request("/weixin", signed_query(TOKEN), method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, POST")


def test_healthz_says_ok_to_get_and_head(account):
    response = account.get("/healthz")
    assert (response.json, response.content_type) == ({"status": "ok"}, "application/json")
    assert account.request("/healthz", "", "HEAD").body == b""
    response = account.post("", path="/healthz")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("body", ["", "hello", "<xml/>", '<!DOCTYPE xml [<!ENTITY a "b">]><xml>&a;</xml>', "<a>" * 100])
def test_a_signed_body_that_is_no_message_is_400(account, body):
    assert account.post(body).status_code == 400


class Endless(io.BytesIO):
    """A body that never ends, and counts what is read of it."""

    taken = 0

    def read(self, size=-1):
        assert size >= 0, "read without a limit"
        self.taken += size
        return b"x" * size


def test_a_body_over_256_kib_is_413_before_it_is_read(account):
    body = Endless()
    response = account.request("/weixin", "", "POST", **{"wsgi.input": body, "CONTENT_LENGTH": str(256 * 1024 + 1)})
    assert (response.status_code, body.taken) == (413, 0)


def test_a_chunked_body_is_read_to_its_limit_and_no_further(account):
    body = Endless()
    chunked = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    assert account.request("/weixin", signed_query(TOKEN), "POST", **chunked).status_code == 413
    assert body.taken <= 256 * 1024 + 1


def test_a_body_of_256_kib_is_looked_at(account):
    body = text_message("?")
    assert account.post(body.replace("?", "x" * (256 * 1024 - len(body) + 1))).status_code == 200


@pytest.mark.parametrize("length", ["-1", "many", "1_0", "", "99"])
def test_a_length_that_is_not_true_is_no_500(account, length):
    account.checked = account.app  # the validator refuses what no server should send
    assert account.request("/weixin", signed_query(TOKEN), "POST", b"x" * 10, CONTENT_LENGTH=length).status_code == 400


def test_a_connection_that_breaks_inside_the_body_is_400(account):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise ConnectionResetError

    environ = {"wsgi.input": Broken(), "CONTENT_LENGTH": "10"}
    assert account.request("/weixin", signed_query(TOKEN), "POST", **environ).status_code == 400


@given(st.binary(max_size=200), st.text(st.characters(max_codepoint=255), max_size=50))
def test_no_request_gets_a_500(body, query):
    account = Account(wxserver.make_application({"WECHAT_TOKEN": TOKEN}, ROOT / "tests/bench/handlers"))
    for signed in (signed_query(TOKEN), query):
        assert account.post(body, signed).status_code in (200, 400, 403)


# The way of a message


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_every_kind_of_message_is_answered(account, file):
    response = account.post(file.read_bytes())
    assert response.status_code == 200
    reply = nodes(response)
    if reply:
        assert reply["ToUserName"] == "o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
        assert response.headers["Content-Type"] == "application/xml; charset=utf-8"
    else:
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_handler_that_says_nothing_is_success(make_account):
    assert make_account('@on("text")\ndef silent(msg): pass\n').post(TEXT).body == b"success"


def test_a_raw_reply_goes_out_as_it_is(make_account):
    account = make_account(
        "from wechat.reply import Raw\n"
        '@on("event", "xpay_goods_deliver_notify")\ndef paid(msg): return Raw(\'{"ErrCode":0}\')\n'
        '@on("text")\ndef xml(msg): return Raw("<xml><ErrCode>0</ErrCode></xml>")\n'
    )
    (file,) = [file for file in MESSAGES if file.stem == "event_xpay_goods_deliver_notify"]
    response = account.post(file.read_bytes())
    assert (response.body, response.content_type) == (b'{"ErrCode":0}', "application/json")
    assert account.post(TEXT).content_type == "application/xml"


def test_text_that_breaks_other_servers_comes_back_whole(make_account):
    hard = "]]> & < \x1d 😀 <![CDATA[ ]]]]>"
    assert make_account(ECHO).say(hard)["Content"] == hard.replace("\x1d", "")


RAISES = '@on("text")\ndef fails(msg): raise ValueError(msg.Content)\n'


def test_a_handler_that_raises_is_answered_by_the_error_handler(make_account, log):
    account = make_account(RAISES + '@on("error")\ndef sorry(msg, error): return "sorry " + type(error).__name__\n')
    assert account.say("secret words")["Content"] == "sorry ValueError"
    assert "handlers.mine.fails failed on text from …iE3bGY, MsgId " in log.text
    assert "mine.py" in log.text
    assert "secret words" not in log.text


@pytest.mark.parametrize(
    "source",
    [
        RAISES,
        RAISES + '@on("error")\ndef sorry(msg): raise KeyError("again")\n',
        RAISES + '@on("error")\ndef sorry(msg): return 5\n',
        '@on("text")\ndef leaves(msg): raise SystemExit\n',
        '@on("text")\ndef deep(msg): return deep(msg)\n',
        '@on("text")\ndef wrong(msg): return 5\n',
        'from wechat.reply import Text\n@on("text")\ndef wrong(msg): return Text(5)\n',
        'from wechat.reply import News\n@on("text")\ndef wrong(msg): return News(["no article"])\n',
    ],
)
def test_a_handler_that_fails_without_an_apology_is_success(make_account, source, log):
    assert make_account(source).post(TEXT).body == b"success"
    assert "failed" in log.text


def test_a_message_that_a_handler_returns_is_routed_in_its_place(make_account):
    account = make_account(
        "from wechat.message import Message\n"
        '@on("voice")\ndef voice(msg): return Message({**msg, "MsgType": "text", "Content": msg.Recognition})\n'
        '@on("text", re.compile("say (.*)"))\ndef say(msg, match): return match[1]\n'
        '@on("image")\ndef again(msg): return msg\n'
    )
    assert account.push(MsgType="voice", Recognition="say hello")["Content"] == "hello"
    assert account.push(MsgType="image") == {}


def test_what_is_handed_on_and_claimed_by_nobody_is_not_handed_back(make_account, log):
    source = (
        "from wechat.message import Message\n@on('voice')\ndef voice(msg): return Message({**msg, 'MsgType': 'text'})\n"
    )
    assert make_account(source).push(MsgType="voice", MediaId="m") == {}
    assert "failed" not in log.text


# The log


def test_each_message_has_one_line_that_quotes_nobody(make_account, log):
    make_account(ECHO).post(text_message("secret words").replace("<MsgId>", "<MsgId>4711"))
    (record,) = log.records
    assert record.levelname == "INFO"
    assert re.match(r"text from …iE3bGY, MsgId 4711\d+ -> handlers.mine.echo: text, ", record.message)
    assert record.message.endswith(" ms")
    assert "secret words" not in log.text


@pytest.mark.parametrize("source", ["", '@on("default")\ndef rest(msg): pass\n'])
def test_a_message_that_nobody_claims_logs_the_decorator_to_write(make_account, source, log):
    make_account(source).event("CLICK", "my_key")
    (record,) = log.records
    assert record.message.endswith("to answer these: @on('event', 'CLICK')")


# Making the application


def test_importing_reads_no_environment_and_application_is_made_on_first_use():
    code = "import wxserver; print(wxserver.application is wxserver.application, len(wxserver.application.paths))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WECHAT_")}
    bare = subprocess.run(
        [sys.executable, "-c", "import wxserver"], cwd=ROOT, env=clean, capture_output=True, check=False
    )
    assert (bare.returncode, bare.stderr) == (0, b"")
    good = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**clean, "WECHAT_TOKEN": TOKEN}, capture_output=True, check=False
    )
    assert good.stdout.split() == [b"True", b"2"]


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'app'"):
        _ = wxserver.app


def test_what_stops_the_start_is_raised_with_every_fault(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(StartError) as caught:
        wxserver.make_application({"PORT": "x"}, tmp_path)
    assert len(caught.value.faults) == 3


def run(*command, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WECHAT_")}
    return warmed.run([sys.executable, *command], cwd=ROOT, env={**clean, **environ})


@pytest.mark.parametrize("command", [["wxserver.py"], ["-m", "waitress", "--port", "0", "wxserver:application"]])
def test_a_wrong_setting_ends_the_start_with_status_2_and_one_line(command):
    done = run(*command, WECHAT_TOKEN=TOKEN, WECHAT_MAX_AGE="x")
    assert done.returncode == 2
    assert done.stderr == "wxserver: WECHAT_MAX_AGE is 'x': it takes seconds, a whole number from 0 to 86400\n"


def test_a_port_that_is_taken_ends_the_start_with_status_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("wxserver.py", WECHAT_TOKEN=TOKEN, HOST="127.0.0.1", PORT=str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr.splitlines()[-1]


# Real waitress, real HTTP


def exchange(port, method, path, body=None, headers=None, **more):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {}, **more)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_every_kind_of_message_is_answered_over_http(serve):
    server = serve()
    for file in MESSAGES:
        status, body = exchange(server.port, "POST", f"/weixin?{signed_query(TOKEN)}", file.read_bytes())
        assert status == 200, file.name
        assert body == b"success" or ElementTree.fromstring(body).tag == "xml", file.name
    assert server.wait_for_lines(" -> handlers.", len(MESSAGES))


def test_a_chunked_push_is_answered_and_a_chunked_flood_refused(serve):
    server = serve()
    path = f"/weixin?{signed_query(TOKEN)}"
    pieces = [TEXT[:50].encode(), TEXT[50:].encode()]
    status, body = exchange(server.port, "POST", path, iter(pieces), encode_chunked=True)
    assert status == 200
    assert "浪潮" not in body.decode()
    assert "三体" in body.decode()
    for flood in (lambda: (b"x" * 65536 for _ in range(8)), lambda: b"x" * (256 * 1024 + 1)):
        try:
            status, _ = exchange(server.port, "POST", path, flood())
        except OSError:  # the answer came, and the connection was closed, while we still sent
            continue
        assert status == 413
    assert exchange(server.port, "GET", "/healthz")[0] == 200


def test_the_length_alone_is_refused_before_a_byte_of_the_body_is_sent(serve):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /weixin HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_waitress_serve_and_another_wsgi_server_work_too(serve):
    assert exchange(serve("-c", WSGIREF).port, "POST", f"/weixin?{signed_query(TOKEN)}", TEXT.encode())[0] == 200


WSGIREF = """
from wsgiref.simple_server import make_server
import wxserver
with make_server("127.0.0.1", 0, wxserver.application) as server:
    print(f"listening on http://127.0.0.1:{server.server_port}/weixin", flush=True)
    server.serve_forever()
"""


# What an audit found


@pytest.mark.parametrize(
    "source",
    [
        'from wechat.reply import News, Article\n@on("text")\ndef t(msg): return News(Article(x) for x in "a")\n',
        'from wechat.reply import Reply\n@on("text")\ndef t(msg): return Reply()\n',
        '@on("text")\ndef t(msg):\n    error = ValueError()\n    raise error from error\n',
    ],
)
def test_odd_things_that_handlers_do_are_answered_and_end(make_account, source):
    account = make_account(source)
    assert account.post(text_message("x")).status_code == 200
    assert account.app.delivery.is_idle()


def test_a_pattern_of_bytes_stops_the_start(make_account):
    with pytest.raises(StartError, match="not of bytes"):
        make_account('@on("text", re.compile(b"x"))\ndef t(msg): pass\n')


def test_a_log_that_cannot_be_written_costs_no_answer():
    environ = {
        **os.environ,
        "WECHAT_TOKEN": TOKEN,
        "HOST": "127.0.0.1",
        "WECHAT_THREADS": "2",
        "PORT": str(free_port()),
    }
    with open("/dev/full", "w") as full:
        process = subprocess.Popen([sys.executable, "wxserver.py"], cwd=ROOT, env=environ, stderr=full)
    try:
        wait_for_port(int(environ["PORT"]))
        for _ in range(6):
            assert exchange(int(environ["PORT"]), "GET", "/weixin")[0] == 403
        assert exchange(int(environ["PORT"]), "GET", "/healthz")[0] == 200
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("serve", 2)])
def test_a_command_line_is_no_way_to_set_anything(argument, status):
    command = [sys.executable, "wxserver.py", argument]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == status
    assert "usage: wxserver.py [-h]" in done.stdout + done.stderr
