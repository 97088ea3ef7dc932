"""`python -m sandbox` as a process, over HTTP: the server, the stand-in API and what stands behind the page."""

import http.client
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import pytest

from sandbox.__main__ import listen
from sandbox.chat import KEPT, USERS, Order
from sandbox.messages import build, text_message
from sandbox.reload import Folder, snapshot
from sandbox.timeline import MOST, Timeline
from tests.conftest import AES_KEY, PLAIN, ROOT, TOKEN
from wechat.errors import StartError
from wechat.protocol.parser import parse

ORDER = {
    "type": "text",
    "fields": {"Content": "三体"},
    "openid": USERS[0],
    "account": "official",
    "mode": "plain",
    "format": "xml",
    "hang_up": 5.0,
}
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


def ask(process, method, path, body=None, headers=None):
    """Status and body of the page's server."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(process.page).port, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def push(process, **changes):
    """Sends a message as the page does; gives its number."""
    status, body = ask(process, "POST", "/push", json.dumps({**ORDER, **changes}), JSON)
    assert status == 200, body
    return json.loads(body)["id"]


def events(process, until, after=0):
    """What has happened since that event, up to the one that is waited for."""
    deadline, found = time.monotonic() + 15, []
    while time.monotonic() < deadline:
        last = found[-1]["seq"] if found else after
        for event in json.loads(ask(process, "GET", f"/events?after={last}")[1])["events"]:
            found.append(event)
            if until(event):
                return found
    raise AssertionError(found)


def loaded(process, after=0):
    """The event that says how the handlers were loaded."""
    return events(process, lambda event: event["kind"] == "handlers", after)[-1]


def answer(process, number):
    """What became of the message with this number."""
    return events(process, lambda event: event["kind"] == "answered" and event["id"] == number)[-1]


@pytest.mark.parametrize("mode", ["plain", "compat", "safe"])
@pytest.mark.parametrize("format", ["xml", "json"])
def test_a_message_is_answered_in_every_mode_and_format(sandbox, mode, format):
    process = sandbox()
    reply = answer(process, push(process, mode=mode, format=format))
    assert reply["reply"]["Articles"]["item"][0]["Title"] == "三体"
    assert ("Encrypt" in reply["body"]) == (mode != "plain")
    assert not reply["fault"]


@pytest.mark.parametrize("mode", ["plain", "safe"])
def test_a_mini_program_is_answered_by_a_customer_message(sandbox, mode):
    process = sandbox()
    push(process, account="miniprogram", mode=mode, format="json", fields={"Content": "帮助"})
    found = events(process, lambda event: event["kind"] == "customer")
    assert "发送书名" in found[-1]["message"]["text"]["content"]


def test_a_session_outlives_a_change_of_mode_and_of_handlers(sandbox):
    process = sandbox()
    assert answer(process, push(process, fields={"Content": "绑定 2026010203"}))["reply"]
    process.write("new.py", "")
    loaded(process)
    status = answer(process, push(process, mode="safe", fields={"Content": "绑定"}))
    assert "2026010203" in status["reply"]["Content"]


def test_each_log_line_is_that_of_its_message(sandbox):
    process = sandbox()
    process.write(
        "slow.py",
        "import logging, time\nfrom wechat.routing import on\n"
        "@on('text', 'slow', slow=True)\ndef slow(msg):\n    time.sleep(0.5)\n    logging.warning('slow is done')\n",
    )
    loaded(process)
    slow, fast = push(process, fields={"Content": "slow"}), push(process)
    found = events(process, lambda event: event["kind"] == "answered" and event["id"] == slow)
    lines = {event["line"].split(": ", 1)[1]: event["id"] for event in found if event["kind"] == "log"}
    assert lines["slow is done"] == slow
    assert [line for line, number in lines.items() if number == fast and "handlers.books.book_by_words" in line]
    named = [event for event in found if event.get("handler") == "handlers.slow.slow"]
    assert named[0]["where"].startswith("handlers/slow.py:")


def test_a_part_of_a_file_is_given_and_its_name(sandbox):
    process = sandbox()
    path = "/media?video/%E6%88%91%2F%22%0D%0A.mp4"
    _, made = ask(process, "POST", path, b"0123456789", {"Content-Type": "application/octet-stream"})
    file = "/media/" + json.loads(made)["media_id"]
    assert ask(process, "GET", file, headers={"Range": "bytes=2-4"}) == (206, b"234")
    assert ask(process, "GET", file, headers={"Range": "bytes=99-"})[0] == 416
    with urllib.request.urlopen(urljoin(process.page, file)) as response:
        assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%E6%88%91%2F%22%0D%0A.mp4"
        assert (response.headers["Content-Length"], response.headers["Accept-Ranges"]) == ("10", "bytes")


@pytest.mark.interpreter
def test_what_handlers_send_and_upload_reaches_the_page(sandbox):
    process = sandbox()
    process.write(
        "mine.py",
        "import io\nfrom wechat.reply import Image, Text\nfrom wechat.routing import on\n"
        "@on('text', 'send')\ndef send(msg, api):\n    api.send(msg.FromUserName, Text('later'))\n"
        "    return Image(api.upload('image', 'a.png', io.BytesIO(b'png')))\n",
    )
    loaded(process)
    reply = answer(process, push(process, fields={"Content": "send"}))
    media_id = reply["reply"]["Image"]["MediaId"]
    assert reply["media"] == {media_id: "image"}
    assert ask(process, "GET", f"/media/{media_id}") == (200, b"png")
    assert events(process, lambda event: event["kind"] == "customer")[-1]["message"]["text"]["content"] == "later"


def test_a_file_of_a_user_can_be_downloaded_by_a_handler(sandbox):
    process = sandbox()
    process.write(
        "mine.py",
        "import tempfile\nfrom wechat.routing import on\n"
        "@on('image')\ndef image(msg, api):\n    return api.download(msg.MediaId, tempfile.mkdtemp()).read_text()\n",
    )
    (process.handlers / "media.py").unlink()
    loaded(process)
    body = ask(process, "POST", "/media?image/a.png", b"bytes of a picture", BYTES)[1]
    media_id = json.loads(body)["media_id"]
    reply = answer(process, push(process, type="image", fields={"PicUrl": "x", "MediaId": media_id}))
    assert reply["reply"]["Content"] == "bytes of a picture"


def handler(answer, line="pass"):
    head = "import logging\nfrom wechat.routing import on\n@on('text', 'v')\n"
    return head + f"def v(msg):\n    {line}\n    return '{answer}'\n"


def version(process):
    return answer(process, push(process, fields={"Content": "v"}))["reply"]["Content"]


@pytest.mark.interpreter
def test_a_broken_handler_is_said_and_the_last_good_version_answers(sandbox):
    process = sandbox()
    process.write("mine.py", handler("one"))
    well = loaded(process)
    assert (well["faults"], version(process)) == ([], "one")
    process.write("mine.py", handler("two").replace("(msg):", "(msg)"))
    broken = loaded(process, well["seq"])
    assert broken["faults"][0].startswith("handlers/mine.py:4: the module does not import: SyntaxError")
    assert process.wait_for_lines("handlers/mine.py:4", 1)
    assert version(process) == "one"
    process.write("mine.py", handler("two"))
    assert loaded(process, broken["seq"])["faults"] == []
    assert version(process) == "two"


def test_a_change_within_the_same_second_and_of_the_same_length_is_seen(sandbox):
    process = sandbox()
    seq = 0
    for digit in "12345":
        process.write("mine.py", handler(digit))
        seq = loaded(process, seq)["seq"]
        assert version(process) == digit


def test_a_changed_menu_is_shown_and_a_bad_one_is_said(sandbox):
    process = sandbox()
    process.write("menu.json", '{"button": [{"type": "click", "name": "新的", "key": "NEW"}]}')
    seq = events(process, lambda event: event["kind"] == "menu" and event["buttons"][0]["name"] == "新的")[-1]["seq"]
    process.write("menu.json", '{"button": []}')
    found = events(process, lambda event: event["kind"] == "handlers" and event["faults"], seq)
    assert found[-1]["faults"] == ["menu.json: the menu: `button` takes a list of 1 to 3 buttons"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "a film"}, "type takes a MsgType"),
        ({"openid": "o_other"}, "openid takes"),
        ({"mode": "open"}, "mode takes plain, compat, safe"),
        ({"hang_up": 0}, "hang_up takes seconds"),
        ({"hang_up": "5"}, "hang_up takes seconds"),
        ({"hang_up": float("nan")}, "hang_up takes seconds"),
        ({"fields": {"a b": "x"}}, "fields takes names"),
        ({"fields": {"<a>": "x"}}, "fields takes names"),
        ({"fields": {"Content": 1}}, "fields takes names"),
        ({"fields": "x"}, "fields takes names"),
        ({"account": "bank"}, "account takes official"),
        ({"format": "yaml"}, "format takes xml, json"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Order(**{**ORDER, **changes})


def test_the_page_is_for_this_machine_and_for_its_own_requests_alone(sandbox):
    process = sandbox()
    assert ask(process, "GET", "/")[0] == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example:80", ""):
        assert ask(process, "GET", "/", headers={"Host": host})[0] == 403
        assert ask(process, "POST", "/push", json.dumps(ORDER), {**JSON, "Host": host})[0] == 403
    # What a page elsewhere could send without being asked: no JSON, no bytes.
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert ask(process, "POST", "/push", json.dumps(ORDER), {"Content-Type": content_type})[0] == 415
        assert ask(process, "POST", "/media?image/a.png", b"x", {"Content-Type": content_type})[0] == 415


@pytest.mark.parametrize("event", [["subscribe"], {"a": "b"}])
def test_an_event_without_a_name_holds_up_no_later_message(sandbox_of_module, event):
    push(sandbox_of_module, type="event", fields={"Event": event}, openid=USERS[1])
    number = push(sandbox_of_module, openid=USERS[1])
    events(sandbox_of_module, lambda event: event["kind"] == "answered" and event["id"] == number)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_no_page_from_elsewhere_reaches_the_stand_in_api(sandbox_of_module, headers):
    token = "/cgi-bin/token?grant_type=client_credential&appid=wx1234567890abcdef&secret=sandbox-secret"
    assert "access_token" in json.loads(ask(sandbox_of_module, "GET", token)[1])
    for path in (token, "/events?after=0", "/media/x", "/video/x"):
        assert ask(sandbox_of_module, "GET", path, headers=headers)[0] == 403
    assert ask(sandbox_of_module, "POST", "/push", json.dumps(ORDER), {**JSON, **headers})[0] == 403


@pytest.mark.parametrize("path", ["/nowhere", "/sns/oauth2/access_token", "/cgi-bin/nothing", "/wxa/msg_sec_check"])
def test_what_the_stand_in_lacks_has_an_errcode(sandbox_of_module, path):
    status, body = ask(sandbox_of_module, "GET", path)
    assert (status, json.loads(body)["errcode"]) == (200, 40066)


@pytest.mark.parametrize("secret", ["", "my-own-secret"])
def test_the_welcome_has_what_the_commands_need(sandbox, secret):
    process = sandbox(**({"WECHAT_SECRET": secret} if secret else {}))
    said = "\n".join(process.lines)
    url, appid, shown = re.search(r"API +(\S+), .*, AppID: (\S+), secret: (.*)", said).groups()
    assert secret == "" or (secret not in said and shown == "the one in WECHAT_SECRET")
    account = {"WECHAT_API_URL": url, "WECHAT_APPID": appid, "WECHAT_SECRET": secret or shown}
    command = [sys.executable, "-m", "wechat", "menu", "get"]
    environ = {"PATH": "/usr/bin", "PYTHONUTF8": "1", **account}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert "怎么查书" in done.stdout, done


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/events?after=x", None, {}, 400),
        ("GET", "/events", None, {}, 400),
        ("PUT", "/push", b"{}", JSON, 404),
        ("POST", "/push", b"{", JSON, 200),
        ("POST", "/push", b"[]", JSON, 200),
        ("POST", "/push", b"\xff", JSON, 200),
        ("POST", "/push", b"[" * 60_000, JSON, 200),
        ("POST", "/push", b"{}", JSON, 200),
        ("POST", "/push", b" " * 70_000, JSON, 200),
        ("POST", "/push", json.dumps({**ORDER, "format": "json", "fields": {"CreateTime": "<"}}), JSON, 200),
        ("POST", "/push", json.dumps({**ORDER, "format": "json", "fields": {"FromUserName": ""}}), JSON, 200),
        ("POST", "/media?image/a.exe", b"x", BYTES, 200),
        ("POST", "/media?film/a.png", b"x", BYTES, 200),
        ("POST", "/media?image/a.png", b"", BYTES, 200),
        ("POST", "/media", b"x", BYTES, 200),
        ("GET", "/media/nothing", None, {}, 404),
        ("GET", "/media/%ff", None, {}, 404),
    ],
)
def test_a_bad_request_is_refused_and_says_why(sandbox_of_module, method, path, body, headers, status):
    answered, content = ask(sandbox_of_module, method, path, body, headers)
    assert answered == status
    assert json.loads(content)["error"]


@pytest.fixture(scope="module")
def sandbox_of_module(tmp_path_factory):
    from tests.conftest import Sandbox

    process = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield process
    process.stop()


TYPES = {
    ("GET", "/"): "text/html; charset=utf-8",
    ("GET", "/events?after=0"): "application/json",
    ("GET", "/nowhere"): "application/json; encoding=utf-8",
    ("POST", "/push"): "application/json",
    ("GET", "/media/nothing"): "application/json",
    ("POST", "/media?image/a.png"): "application/json",
    ("GET", "/cgi-bin/token"): "application/json; encoding=utf-8",
    ("GET", "/cgi-bin/nowhere"): "application/json; encoding=utf-8",
    ("GET", "/video/nothing"): "application/json; encoding=utf-8",
}


@pytest.mark.parametrize(("method", "path", "kind"), [(*asked, kind) for asked, kind in TYPES.items()])
def test_every_answer_says_of_what_type_it_is(sandbox_of_module, method, path, kind):
    """WebOb's `headers=` replaces all headers, and the page had no Content-Type."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(sandbox_of_module.page).port, timeout=30)
    connection.request(method, path, b"x" if method == "POST" else None, JSON)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.headers["Content-Type"] == kind
    if path == "/":
        assert "script-src" in response.headers["Content-Security-Policy"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def addresses(port):
    """Those of this machine's addresses, beside loopback, that take a connection to the port."""
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        own.add(probe.getsockname()[0])
    return [ip for ip in own if not ip.startswith("127.") and not refuses(ip, port)]


def refuses(ip, port):
    with socket.socket() as client:
        client.settimeout(2)
        return client.connect_ex((ip, port)) != 0


def test_it_listens_on_loopback_only_whatever_host_says(sandbox):
    process = sandbox(HOST="0.0.0.0")
    assert addresses(process.port) == []
    assert addresses(urlsplit(process.page).port) == []


def test_nothing_of_the_sandbox_is_reachable_through_the_server(serve):
    process = serve(HOST="0.0.0.0")
    for path in ("/", "/events?after=0", "/push", "/media", "/console.html", "/sandbox/console.html", "/cgi-bin/token"):
        for method in ("GET", "POST"):
            connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
            connection.request(
                method, path, b"{}" if method == "POST" else None, {"X-Sandbox-Account": "safe/official"}
            )
            assert connection.getresponse().status == 404
            connection.close()
    code = "import sys, wxserver; wxserver.make_application({'WECHAT_TOKEN': 'testtoken'}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.partition(".")[0] == "sandbox"]


@contextmanager
def taken_port_behind_a_free_one():
    """A port at which somebody listens; nobody does at the one before it, even with other tests beside this one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port - 1)).close()
            except OSError:
                continue
            yield port
            return


def test_a_port_that_is_taken_ends_with_status_2_and_names_the_setting():
    with taken_port_behind_a_free_one() as port:
        for own in (port, port - 1):
            done = subprocess.run(
                [sys.executable, "-m", "sandbox"],
                cwd=ROOT,
                env={"PORT": str(own), "WECHAT_TOKEN": TOKEN, "PATH": "/usr/bin"},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 2
            setting = re.escape("PORT" if own == port else "PORT + 1")
            said = rf"wxserver: {setting}: the sandbox cannot listen on 127\.0\.0\.1:({port}|{own}): [^(]*; another"
            assert re.match(said, done.stderr)


@pytest.mark.interpreter
def test_it_ends_at_once_with_status_0_while_a_page_is_open(sandbox):
    process = sandbox()
    seen = json.loads(ask(process, "GET", "/events?after=0")[1])["events"][-1]["seq"]
    with socket.create_connection(("127.0.0.1", urlsplit(process.page).port)) as client:
        client.sendall(b"GET /events?after=%d HTTP/1.1\r\nHost: localhost:1\r\n\r\n" % seen)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        process.process.terminate()
        assert process.process.wait(5) == 0


def test_the_token_of_the_settings_is_not_printed(sandbox):
    lines = "\n".join(sandbox(WECHAT_TOKEN="mysecrettoken").lines)
    assert "mysecrettoken" not in lines
    assert "WECHAT_TOKEN" in lines


@pytest.mark.parametrize("environ", [{}, {"WECHAT_AES_KEY": AES_KEY}, {"WECHAT_TOKEN": "another"}])
def test_the_printed_command_gets_a_book(sandbox, environ):
    process = sandbox(**environ)
    line = next(line.partition(": ")[2] for line in process.lines if "push text" in line)
    command = [sys.executable, *line.split()[1:]]
    clean = {"PATH": "/usr/bin", "PYTHONUTF8": "1", "WECHAT_TOKEN": TOKEN, **environ}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "重庆出版社" in done.stdout) == (0, True)


def test_a_timeline_keeps_the_latest_events_and_what_stands():
    timeline = Timeline()
    timeline.add("menu", buttons=["old"])
    timeline.add("menu", buttons=["new"])
    for number in range(MOST + 10):
        timeline.add("log", number=number)
    menu, *kept = timeline.after(0, 0)
    assert menu["buttons"] == ["new"]
    assert (len(kept), kept[-1]["number"]) == (MOST, MOST + 9)
    assert timeline.after(kept[-1]["seq"], 0) == []


def test_a_pushed_reply_names_the_message_it_answers(sandbox):
    process = sandbox(WECHAT_REPLY_WITHIN="0.1")
    process.write("mine.py", handler("late", "import time; time.sleep(0.5)").replace("'v')", "'v', slow=True)"))
    loaded(process)
    number = push(process, fields={"Content": "v"})
    push(process)
    customer = events(process, lambda event: event["kind"] == "customer")[-1]
    assert (customer["id"], customer["message"]["text"]["content"]) == (number, "late")


def test_a_handler_that_failed_is_named_beside_the_one_that_spoke_for_it(sandbox):
    process = sandbox()
    process.write("mine.py", handler("", "raise ValueError('x')"))
    loaded(process)
    number = push(process, fields={"Content": "v"})
    found = events(process, lambda event: event["kind"] == "answered" and event["id"] == number)
    failed = [event for event in found if event.get("failed")]
    assert (failed[0]["failed"], failed[0]["where"]) == ("handlers.mine.v", "handlers/mine.py:3")
    assert [event["handler"] for event in found if event.get("handler")] == ["handlers.fallback.error"]


def test_a_user_who_has_not_written_gets_no_customer_message(sandbox):
    process = sandbox()
    source = f"def v(msg, api):\n    api.send('{USERS[1]}', 'hello')\n"
    process.write("mine.py", "from wechat.routing import on\n@on('text', 'v')\n" + source)
    loaded(process)
    push(process, fields={"Content": "v"})
    refused = events(process, lambda event: event["kind"] == "refused")[-1]
    assert (refused["openid"], refused["errcode"]) == (USERS[1], 45015)
    push(process, openid=USERS[1])
    push(process, fields={"Content": "v"})
    assert events(process, lambda event: event["kind"] == "customer")[-1]["openid"] == USERS[1]


# What an audit found


def test_no_proxy_stands_before_the_stand_in(sandbox):
    process = sandbox(WECHAT_PROXY="http://user:password@127.0.0.1:1", WECHAT_API_URL="https://x.invalid")
    process.write(
        "mine.py",
        "from wechat.routing import on\n@on('text', 'ask')\ndef ask(msg, api):\n    api.typing(msg.FromUserName)\n"
        "    return 'typing'\n",
    )
    loaded(process)
    assert answer(process, push(process, fields={"Content": "ask"}))["reply"]["Content"] == "typing"


def test_the_store_of_the_real_account_is_left_alone(sandbox, tmp_path):
    process = sandbox(WECHAT_STORE=f"sqlite:{tmp_path}/real.db")
    assert answer(process, push(process))["reply"]
    assert not (tmp_path / "real.db").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mine.py", "raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("menu.json", "[" * 100_000, "RecursionError|recursion|Stack overflow"),
        ("menu.json", '{"button": [{"type": "click", "name": "\\ud800", "key": ""}]}', "needs key"),
        ("menu.json", "\x00", "menu.json"),
    ],
)
def test_whatever_is_in_a_file_is_said_and_survived(sandbox, name, text, said):
    process = sandbox()
    process.write(name, text)
    assert re.search(said, loaded(process)["faults"][0])
    assert answer(process, push(process))["reply"]


def test_an_object_that_answers_with_errors_is_passed_over(sandbox):
    process = sandbox()
    source = "class Lazy:\n    def __getattr__(self, name):\n        raise RuntimeError(name)\nlazy = Lazy()\n"
    process.write("mine.py", source + handler("one"))
    assert loaded(process)["faults"] == []
    assert version(process) == "one"


def test_a_module_that_does_not_end_is_said_and_holds_up_neither_messages_nor_the_end(sandbox):
    process = sandbox()
    process.write("mine.py", "import time\nwhile True:\n    time.sleep(0.1)\n")
    assert loaded(process)["faults"] == ["handlers/: a module is still being imported"]
    assert answer(process, push(process))["reply"]
    process.process.terminate()
    assert process.process.wait(5) == 0


STOPPED_IN_A_LINE = """
import logging, os, signal, time
from sandbox.__main__ import end
from wechat.log import configure
signal.signal(signal.SIGINT, end)
configure("info")
with logging.root.handlers[0].writing:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
time.sleep(30)
"""


def test_ctrl_c_ends_it_also_while_a_line_is_written():
    assert subprocess.run([sys.executable, "-c", STOPPED_IN_A_LINE], cwd=ROOT, timeout=20, check=False).returncode == 0


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site", "Host"])
def test_no_page_elsewhere_can_have_a_handler_run(sandbox, header):
    process = sandbox()
    query, body = PLAIN.push(text_message("三体"))
    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=10)
    connection.request("POST", f"/weixin?{query}", body, {header: "evil.example"})
    assert connection.getresponse().status == 403
    connection.close()
    push(process, fields={"Content": "帮助"})
    assert process.wait_for_lines("help_text", 1)
    assert not any("book_by_words" in line for line in process.lines)


CHATTY = """
import asyncio, logging
logger = logging.getLogger(__name__)
logging.getLogger("httpcore.http11").debug("send_request_headers.started")
logger.debug("my own")
"""


def test_the_log_has_the_debug_lines_of_handlers_and_of_no_library(sandbox):
    process = sandbox()
    process.write("mine.py", CHATTY + handler("fine").replace("def", "async def"))
    loaded(process)
    assert version(process) == "fine"
    assert process.wait_for_lines("DEBUG handlers.mine: my own", 1)
    assert not [line for line in process.lines if "DEBUG" in line and "handlers.mine" not in line]


def test_a_warning_of_pythons_quotes_the_line_that_is_there_now(sandbox):
    process, seen = sandbox(), 0
    for line in ("asyncio.sleep(0)", "asyncio.sleep(9)"):
        process.write("mine.py", "import asyncio\n" + handler(line, line).replace("def", "async def"))
        seen = loaded(process, seen)["seq"]
        assert version(process) == line
        assert process.wait_for_lines(f"  {line}", 1)


def test_a_log_line_that_cannot_be_formatted_costs_no_answer(sandbox):
    process = sandbox()
    process.write(
        "mine.py", "import logging\n" + handler("fine").replace("    return", "    logging.info('%d', 'x')\n    return")
    )
    loaded(process)
    assert version(process) == "fine"


def test_a_line_of_a_handlers_own_names_no_handler(sandbox):
    process = sandbox(LOG_LEVEL="warning")
    process.write(
        "mine.py", "import logging\n" + handler("x").replace("    return", "    logging.info('1 -> 2: ok')\n    return")
    )
    loaded(process)
    number = push(process, fields={"Content": "v"})
    found = events(process, lambda event: event["kind"] == "answered" and event["id"] == number)
    assert {event["handler"] for event in found if "handler" in event} == {"handlers.mine.v"}


def test_two_clicks_in_one_second_are_two():
    created = [parse(build("event", ["CLICK", "K"]).encode()).CreateTime for _ in range(5)]
    assert len(set(created)) == 5


def test_a_page_of_an_earlier_run_is_answered_at_once(sandbox):
    process = sandbox()
    started = time.monotonic()
    assert json.loads(ask(process, "GET", "/events?after=100000")[1])["events"] == []
    assert time.monotonic() - started < 3


def test_the_page_is_told_of_the_account_in_the_settings(sandbox):
    process = sandbox(WECHAT_MODE="safe", WECHAT_ACCOUNT="miniprogram")
    offer = json.loads(ask(process, "GET", "/events?after=0")[1])
    assert offer["defaults"] == {"mode": "safe", "account": "miniprogram"}


def test_modules_in_use_import_one_another_also_while_a_file_is_broken(sandbox):
    process = sandbox()
    process.write("_helper.py", "answer = 'one'\n")
    process.write(
        "mine.py", handler("x").replace("return 'x'", "from handlers import _helper\n    return _helper.answer")
    )
    seq = loaded(process)["seq"]
    assert version(process) == "one"
    process.write("_helper.py", "answer = \n")
    process.write("other.py", "from handlers import _helper\n")
    assert loaded(process, seq)["faults"]
    assert version(process) == "one"


def test_what_editors_write_beside_a_file_is_no_change(tmp_path):
    (tmp_path / "a.py").write_text("")
    before = snapshot(tmp_path)
    for name in ("a.py~", ".a.py.swp", "4913", "#a.py#~"):
        (tmp_path / name).write_text("x")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_text("x")
    assert snapshot(tmp_path) == before
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/data.csv").write_text("x")
    assert snapshot(tmp_path) != before


class Watched:
    """A folder that is looked after without a server."""

    def __init__(self, folder, errcode=0):
        self.told = []
        (folder / "hello.py").write_text(handler("hello"))  # a folder without a handler is spoken of
        self.folder = Folder(folder, {}, {}, lambda routes: None, lambda menu: errcode, self.told.append)


def test_a_folder_that_goes_away_while_it_is_read_ends_nothing(tmp_path, monkeypatch):
    watched = Watched(tmp_path)
    monkeypatch.setattr(type(tmp_path), "rglob", lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    watched.folder.look()
    assert watched.told == []
    monkeypatch.undo()
    (tmp_path / "mine.py").write_text("")
    watched.folder.look()
    assert watched.told == [[]]


def test_a_menu_that_wechat_refuses_is_said_at_every_change(tmp_path):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "a", "key": "K"}]}')
    watched = Watched(tmp_path, errcode=40016)
    for number in range(2):
        (tmp_path / f"mine{number}.py").write_text("")
        watched.folder.look()
    assert watched.told == [["menu.json: WeChat refuses the menu with 40016"]] * 3


@pytest.mark.parametrize(
    ("encoding", "faults"), [("utf-8-sig", []), ("gbk", ["menu.json: it is not UTF-8: save it as UTF-8"])]
)
def test_a_menu_is_read_as_windows_editors_save_it(tmp_path, encoding, faults):
    (tmp_path / "menu.json").write_text('{"button": [{"type": "click", "name": "查书", "key": "K"}]}', encoding)
    watched = Watched(tmp_path)
    watched.folder.look()
    assert watched.told[-1] == faults


def test_a_menu_that_is_deleted_is_no_more_shown(sandbox):
    process = sandbox()
    (process.handlers / "menu.json").unlink()
    assert events(process, lambda event: event["kind"] == "menu" and not event["buttons"])


def test_the_platform_of_the_sandbox_does_not_keep_everything(sandbox):
    process = sandbox()
    ids = [json.loads(ask(process, "POST", "/media?image/a.png", b"x", BYTES)[1])["media_id"] for _ in range(KEPT + 1)]
    push(process, account="miniprogram", fields={"Content": "帮助"})
    events(process, lambda event: event["kind"] == "customer")
    assert ask(process, "GET", f"/media/{ids[0]}")[0] == 404
    assert ask(process, "GET", f"/media/{ids[-1]}")[0] == 200


@pytest.mark.parametrize("environ", [{}, {"WECHAT_MODE": "safe"}, {"WECHAT_ACCOUNT": "miniprogram"}])
def test_push_takes_the_sandboxs_own_account_where_the_settings_say_nothing(environ):
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "push", "text", "x", "--url", "http://127.0.0.1:1/"],
        cwd=ROOT,
        env={"PATH": "/usr/bin", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, "Connection refused" in done.stdout) == (1, True)


def test_a_port_beyond_the_last_is_named():
    with pytest.raises(StartError, match=r"PORT: the sandbox cannot listen on 127\.0\.0\.1:65536"):
        listen(65_536)
