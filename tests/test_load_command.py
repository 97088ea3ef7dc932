"""`python -m sandbox load` against our own server and against worse ones, over real HTTP."""

import argparse
import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from xml.etree import ElementTree

import pytest

from sandbox.load import Load, Tally, add_arguments, check_target, run
from sandbox.messages import ACCOUNT
from sandbox.plot import Chart, percentiles, to_svg
from sandbox.testing import APPID
from tests.conftest import AES_KEY, PLAIN, ROOT, SEALED, TOKEN, free_port
from wechat.message import Message
from wechat.reply import Text, to_xml

REPLY = to_xml(
    Text("好"), Message({"MsgType": "text", "FromUserName": "o_user", "ToUserName": ACCOUNT}), 1714037059
).encode()
COMMAND = """
import argparse, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is off in what a shell runs in the background
from sandbox.load import add_arguments, run
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""
SVG = "{http://www.w3.org/2000/svg}"


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.fixture
def load(capsys):
    """A function that runs the command; gives its exit status, the counts in the table, and all of the table."""

    def run_command(url, *more, rate=40, seconds=0.5):
        options = parse(url, "--token", TOKEN, "--rate", rate, "--seconds", seconds, *more)
        status, shown = run(options), capsys.readouterr()
        assert shown.err == "", "the progress is for a terminal alone"
        return status, counts(shown.out), shown.out

    return run_command


def counts(table):
    rows = re.findall(r"^(\S.*?)? {2,}([\d,]+)(?:  (.*))?$", table, re.MULTILINE)
    return {name or remark: int(count.replace(",", "")) for name, count, remark in rows}


class Server:
    """Answers as `answer(body, number of the attempt)` says, with a status and a body, whoever wrote.

    It keeps what came, and when.
    """

    def __init__(self, http_server, answer):
        self.bodies, self.times, self.answer = [], [], answer
        self.lock = threading.Lock()
        self.url = http_server(type("Bound", (Handler,), {"owner": self})) + "/weixin"

    def take(self, body):
        with self.lock:
            self.times.append(time.monotonic())
            self.bodies.append(body)
            attempt = self.bodies.count(body)
        status, content = self.answer(body, attempt)
        sender = re.search(rb"<FromUserName><!\[CDATA\[(.*?)\]", body)
        return status, content.replace(b"o_user", sender[1]) if sender else content


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        status, content = self.owner.take(self.rfile.read(int(self.headers["Content-Length"])))
        with contextlib.suppress(OSError):  # it hung up
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(http_server):
    """A function that starts a server of our own making."""
    return lambda answer: Server(http_server, answer)


def good(*_):
    return 200, REPLY


def test_an_answer_to_another_user_is_a_banner(load, server):
    assert load(server(lambda *_: (200, REPLY.replace(b"o_user", b"o_other"))).url)[0] == 1


def slow_at_first(_, attempt):
    time.sleep(1 if attempt == 1 else 0)
    return 200, REPLY


def test_our_server_answers_every_message_directly(serve, load):
    process = serve()
    status, found, table = load(process.url, rate=40, seconds=1.5)
    assert (status, found["sent"], found["answered directly"], found["banner"]) == (0, 60, 60, 0)
    assert found["on a later attempt"] == found["acknowledged: success"] == found["attempts over 5 s"] == 0
    assert re.search(r"in ms: median [\d.]+, 90 % [\d.]+, 99 % [\d.]+, 99.9 % [\d.]+, longest [\d.]+$", table, re.M)
    assert process.wait_for_lines("-> handlers.", 60)


def test_in_safe_mode_pushes_are_sealed_and_replies_opened(serve, load):
    status, found, _ = load(serve(**SEALED).url, "--aes-key", AES_KEY, "--appid", APPID)
    assert (status, found["answered directly"]) == (0, 20)


def test_a_server_that_refuses_the_token_shows_the_banner(serve, load):
    status, found, _ = load(serve(WECHAT_TOKEN="another").url)
    assert (status, found["banner"], found["status 403: WeChat takes 200 alone"]) == (1, 20, 20)


def test_every_message_is_its_own_and_texts_and_users_take_turns(server, load):
    recorder = server(good)
    load(recorder.url, "--text", "一", "--text", "二")
    messages = [{node.tag: node.text for node in ElementTree.fromstring(body)} for body in recorder.bodies]
    assert len({message["MsgId"] for message in messages}) == 20
    assert len({message["FromUserName"] for message in messages}) == 20
    assert Counter(message["Content"] for message in messages) == {"一": 10, "二": 10}


def test_success_is_counted_apart(server, load):
    status, found, _ = load(server(lambda *_: (200, b"success")).url)
    assert (status, found["acknowledged: success"], found["answered directly"]) == (0, 20, 0)


def test_a_slow_server_is_asked_again_with_the_same_bytes(server, load):
    recorder = server(slow_at_first)
    status, found, table = load(recorder.url, "--hang-up", 0.4)
    assert (status, found["on a later attempt"]) == (0, 20)
    assert found["attempts over 0.4 s"] >= 20  # on a busy machine another one, too
    assert set(Counter(recorder.bodies).values()) == {2}
    longest = float(re.search(r"longest ([\d.]+)", table)[1])
    assert longest < 400, "of the attempt that was answered"


def test_new_messages_come_whether_or_not_the_earlier_ones_are_answered(server, load):
    recorder = server(slow_at_first)
    _, found, _ = load(recorder.url, "--hang-up", 3, rate=40, seconds=0.5)
    assert found["answered directly"] == 20
    assert max(recorder.times) - min(recorder.times) < 0.9


def test_what_never_answers_is_the_banner_after_three_attempts(server, load):
    recorder = server(lambda *_: time.sleep(0.6) or (200, REPLY))
    status, found, table = load(recorder.url, "--hang-up", 0.2, rate=20)
    assert (status, found["banner"], found["no answer within 0.2 s"]) == (1, 10, 10)
    assert found["attempts over 0.2 s"] == len(recorder.bodies) == 30
    assert "latency" not in table


def test_a_broken_server_is_the_banner_with_its_reasons_counted(server, load):
    broken = server(lambda body, _: (200, b"<html>") if "网页".encode() in body else (500, b""))
    status, found, _ = load(broken.url, "--text", "网页", "--text", "五百", rate=20)
    assert (status, found["sent"], found["banner"]) == (1, 10, 10)
    assert found["neither success nor XML: ParseError"] == found["status 500: WeChat takes 200 alone"] == 5


def test_a_server_that_is_not_there_is_the_banner(load):
    status, found, _ = load(f"http://127.0.0.1:{free_port()}/weixin", rate=10)
    assert (status, found["banner"], found["answered directly"]) == (1, 5, 0)


def test_what_is_too_much_in_flight_is_not_sent_and_said(server):
    options = parse(server(slow_at_first).url, "--token", TOKEN, "--rate", "50", "--seconds", "1")
    tally = Tally(hang_up=5, most=2)
    Load(options, PLAIN, tally).arrive(50, 0.4)
    assert (tally.sent, tally.unsent) == (2, 18)
    assert "warning: 18 messages were not sent, as 2 were in flight or it was too late" in tally.rows()


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/weixin", "https://8.8.8.8/", "http://0.0.0.0:8080/", "http://[fe80::1]/"]
)
def test_an_address_that_is_not_loopback_is_refused_unless_asked_for(url, capsys):
    assert run(parse(url, "--token", TOKEN, "--rate", 1, "--seconds", 1)) == 2
    assert "a load test belongs on a machine of one's own" in capsys.readouterr().err
    check_target(url, anywhere=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3:8080", "localhost:80", "[::1]:8080"])
def test_loopback_is_accepted(host):
    check_target(f"http://{host}/weixin", anywhere=False)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1/", "http:///weixin", "http://127.0.0.1:x/"])
def test_what_is_no_address_is_refused(url, capsys):
    assert run(parse(url, "--token", TOKEN, "--rate", 1, "--seconds", 1)) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--token", "!"], "--token is not a token"),
        (["--aes-key", AES_KEY], "--appid is missing"),
        (["--aes-key", "short", "--appid", APPID], "--aes-key is not an EncodingAESKey"),
    ],
)
def test_credentials_that_cannot_be_right_are_named(more, fault, capsys):
    assert run(parse("http://127.0.0.1/", "--token", TOKEN, "--rate", 1, "--seconds", 1, *more)) == 2
    assert fault in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--rate", "5001"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--rate", "x"),
        ("--seconds", "3601"),
        ("--seconds", "-1"),
    ],
)
def test_rate_and_seconds_have_bounds(name, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse("http://127.0.0.1/", "--token", TOKEN, "--rate", 1, "--seconds", 1, name, value)
    assert "it takes a number above 0, up to " in capsys.readouterr().err


def test_percentiles_are_of_the_nearest_rank():
    thousand = [number / 1000 for number in range(1000, 0, -1)]
    assert percentiles(thousand) == "median 500.0, 90 % 900.0, 99 % 990.0, 99.9 % 999.0, longest 1,000.0"
    assert percentiles([0.002]) == "median 2.0, 90 % 2.0, 99 % 2.0, 99.9 % 2.0, longest 2.0"


def test_the_plot_holds_every_latency_the_limit_and_words(server, load, tmp_path):
    load(server(good).url, "--plot", tmp_path / "load.svg")
    root = ElementTree.parse(tmp_path / "load.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "20 messages, 40 a second: 0 ended in the banner" in texts
    assert {"latency of the answered attempt (log scale)", "messages (log scale)", "5 s: WeChat hangs up"} <= {*texts}
    bars = [bar.findtext(f"{SVG}title") for bar in root.iter(f"{SVG}rect") if bar.get("class") == "bar"]
    assert sum(int(bar.split()[0]) for bar in bars) == 20


@pytest.mark.parametrize("latencies", [[], [0.0001], [0.002, 4.9], [4.99] * 12_345, [6.0, 11.0]])
def test_the_limit_lies_on_the_scale_and_bars_before_it(latencies):
    root = ElementTree.fromstring(to_svg(Chart("<&>", latencies, 5.0)))
    limit = root.find(f"{SVG}line[@id='limit']")
    ends = {text.text: float(text.get("x")) for text in root.iter(f"{SVG}text") if text.get("x")}
    assert limit.get("x1") == limit.get("x2")
    assert float(limit.get("x1")) == pytest.approx(ends["1 s"] + 0.699 * (ends["10 s"] - ends["1 s"]), abs=0.2)
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("class") == "bar"]
    before = [bar for bar in bars if float(bar.get("x")) + float(bar.get("width")) <= float(limit.get("x1"))]
    assert len(before) == len({seconds for seconds in latencies if seconds < 5})
    assert all(float(bar.get("height")) > 10 for bar in bars), "one message is seen beside thousands"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("load.png", "is not an .svg"),
        ("nowhere/load.svg", "there is no folder"),
    ],
)
def test_a_plot_that_cannot_be_drawn_is_refused_before_the_load(name, fault, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse("http://127.0.0.1/", "--token", TOKEN, "--rate", 1, "--seconds", 1, "--plot", tmp_path / name)
    assert fault in capsys.readouterr().err


def start(url, *more, **streams):
    arguments = [url, "--token", TOKEN, "--rate", "20", *more]
    return subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], cwd=ROOT, text=True, **streams)


def test_control_c_ends_early_with_what_there_is(server):
    recorder = server(lambda *_: time.sleep(0 if len(recorder.bodies) <= 5 else 8) or (200, REPLY))
    with start(recorder.url, "--seconds", "60", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while len(recorder.bodies) < 10:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        table, errors = process.communicate(timeout=7)
    found = counts(table)
    assert (process.returncode, errors) == (0, "")
    assert found["answered directly"] == 5
    assert found["sent"] == 5 + found["ended before an answer"] >= 10


def test_on_a_terminal_a_line_shows_how_far_it_is(server):
    ours, theirs = pty.openpty()
    with start(server(good).url, "--seconds", "1", stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        table, _ = process.communicate(timeout=10)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert re.search(r"\r\d+ sent, \d+ in flight, 0 with the banner +\r", shown)
    assert shown.endswith(" \r")
    assert counts(table)["sent"] == 20
