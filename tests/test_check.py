"""The conformance check: our own server passes it, and small servers with one fault each do not."""

import argparse
import re
import subprocess
import sys
import threading
import time
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl
from wsgiref.simple_server import make_server
from xml.etree import ElementTree

import pytest

from sandbox.check import Server, add_arguments, run
from sandbox.check import check as findings
from sandbox.testing import APPID, QuietHandler, ThreadingServer
from tests.conftest import AES_KEY, PLAIN, ROOT, SAFE, SEALED, TOKEN, free_port
from tests.test_promises import SERVE
from wechat.chinese import translate
from wechat.errors import Forbidden, Refusal
from wechat.protocol.envelope import Plain, Sealed
from wechat.protocol.parser import parse
from wechat.reply import Article, News, Text, to_xml
from wechat.settings import read

ECHO = """
from wechat.routing import on

@on("text")
def echo(msg): return msg.Content
"""
WITH_KEY = ["--aes-key", AES_KEY, "--appid", APPID]
MODES = {"plain": [], "compat": [*WITH_KEY, "--mode", "compat"], "safe": WITH_KEY}


@pytest.fixture
def check(capsys):
    """A function that checks a URL; it gives the exit status and the printed lines, which never hold a secret."""

    def checked(url, *arguments, token=TOKEN):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        status = run(parser.parse_args([url, "--token", token, *arguments]))
        said = capsys.readouterr()
        text = said.out + said.err
        assert not any(secret in text for secret in (TOKEN, AES_KEY, "signature=", "nonce="))
        return status, text.splitlines()

    return checked


# Our own server, behind real waitress


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("handlers", ["what ships", "an echo"])
def test_our_own_server_passes(serve, check, tmp_path, mode, handlers):
    environ = {} if mode == "plain" else {**SEALED, "WECHAT_MODE": mode}
    (tmp_path / "mine.py").write_text(ECHO)
    server = serve(*([] if handlers == "what ships" else ["-c", SERVE, str(tmp_path)]), **environ)
    status, lines = check(server.url, *MODES[mode])
    count = {"plain": 26, "compat": 26, "safe": 30}[mode]
    assert (status, lines[-1]) == (0, f"{count} checks in {mode} mode: {count} ok, 0 warn, 0 FAIL")
    assert [line[:6] for line in lines[:-1]] == ["ok    "] * count


# Small servers, each with one fault


class Good:
    """An echo account that is all right; each fault overrides what it spoils."""

    envelope = Plain
    max_age = "300"

    def __init__(self):
        environ = SEALED if self.envelope is Sealed else {}
        self.settings = read({"WECHAT_TOKEN": TOKEN, "WECHAT_MAX_AGE": self.max_age, **environ})
        self.documents = {}

    def __call__(self, environ, start_response):
        query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            is_get = environ["REQUEST_METHOD"] == "GET"
            status, answer = self.verify(query, environ["PATH_INFO"]) if is_get else self.receive(query, body)
        except Refusal as refusal:
            status, answer = refusal.status, b"refused"
        start_response(f"{status} Said", [("Content-Length", str(len(answer)))])
        return [answer]

    def verify(self, query, path):
        Plain(self.settings).check_query(query)
        return 200, self.echo(query["echostr"])

    def echo(self, echostr):
        return echostr.encode()

    def receive(self, query, body):
        content, seal = self.open(query, body)
        return 200, seal(self.answer(self.parse(content)))

    def open(self, query, body):
        return self.envelope(self.settings).open(body, query)

    def parse(self, content):
        return parse(content)

    def answer(self, message):
        key = (message.FromUserName, message.CreateTime, message.get("MsgId"))
        return self.documents.setdefault(key, self.document(message).encode())

    def document(self, message):
        return to_xml(Text(self.reply(message)), message, int(time.time()))

    def reply(self, message):
        return message.get("Content", message.MsgType)


class GoodSafe(Good):
    envelope = Sealed


class EchoesWithALineEnd(Good):
    def echo(self, echostr):
        return echostr.encode() + b"\n"


class EchoesHtml(Good):
    def echo(self, echostr):
        return f"<p>{echostr}</p>".encode()


class EchoesJson(Good):
    def echo(self, echostr):
        return f'"{echostr}"'.encode()


class EchoesNumbersAlone(Good):
    def echo(self, echostr):
        return echostr.encode() if echostr.isdigit() else b""


class EchoesToAnybody(Good):
    def verify(self, query, path):
        return 200, query.get("echostr", "").encode()


class CrashesWithoutAQuery(Good):
    def verify(self, query, path):
        return super().verify(query, path) if query else (500, b"")


class Created(Good):
    def receive(self, query, body):
        return 201, super().receive(query, body)[1]


class AnswersJson(Good):
    def document(self, message):
        return '{"reply": "hello"}'


class NoCdataSplit(Good):
    def document(self, message):
        return super().document(message).replace("]]]]><![CDATA[>", "]]>")


class CrashesOnControls(Good):
    def receive(self, query, body):
        return (500, b"") if b"\x1d" in body else super().receive(query, body)


class EchoesControls(Good):
    """Its XML cannot be read."""

    def receive(self, query, body):
        status, answer = super().receive(query, body)
        return status, answer.replace(b"ab]]", b"a\x1db]]")


class DoesNotEscape(Good):
    def document(self, message):
        return super().document(message).replace("<![CDATA[a &", "<a &").replace("&amp; c]]>", "& c")


class Garbles(Good):
    """What it makes of four bytes is half a surrogate."""

    def answer(self, message):
        return super().answer(message).replace("😀".encode(), b"\xed\xa0\xbd")


class LongTexts(Good):
    def document(self, message):
        if len(self.reply(message)) < 2000:
            return super().document(message)
        return to_xml(Text("x"), message, int(time.time())).replace("[x]", f"[{self.reply(message)}]")


class KnowsFewEvents(Good):
    def reply(self, message):
        return "" if message.get("Event") == "something_new" else super().reply(message)


class WantsAnEventKey(Good):
    def receive(self, query, body):
        return (500, b"") if b"<EventKey><![CDATA[]]>" in body else super().receive(query, body)


class RunsRetriesAgain(Good):
    runs = 0

    def answer(self, message):
        self.runs += 1
        return self.document(message).encode()

    def reply(self, message):
        return f"run {self.runs}"


class MakesRetriesAnew(Good):
    def answer(self, message):
        return self.document(message).encode()


class RefusesRetries(Good):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def open(self, query, body):
        if query.get("nonce") in self.seen:
            raise Forbidden("")
        self.seen.add(query.get("nonce"))
        return super().open(query, body)


class SilentOnRetries(Good):
    def answer(self, message):
        known = len(self.documents)
        document = super().answer(message)
        return b"success" if len(self.documents) == known else document


class TakesForgeries(Good):
    def open(self, query, body):
        return Trusting(self.settings).open(body, query)


class Trusting(Plain):
    def check_query(self, query):
        """Believes everybody."""


class KeepsNoTime(Good):
    max_age = "0"


class RefusesWith200(Good):
    def receive(self, query, body):
        try:
            return super().receive(query, body)
        except Forbidden:
            return 200, b"bad signature"


class CrashesOnForgeries(Good):
    def receive(self, query, body):
        try:
            return super().receive(query, body)
        except Forbidden:
            return 500, b""


class ExpandsEntities(Good):
    def parse(self, content):
        if b"DOCTYPE" not in content:
            return super().parse(content)
        return super().parse(ElementTree.tostring(ElementTree.fromstring(content)))


class CrashesOnDoctype(Good):
    def receive(self, query, body):
        return (500, b"") if b"DOCTYPE" in body else super().receive(query, body)


class HangsOnDoctype(Good):
    def receive(self, query, body):
        if b"DOCTYPE" in body:
            time.sleep(6)
        return super().receive(query, body)


class CrashesOnWhatIsNoMessage(Good):
    def receive(self, query, body):
        try:
            return super().receive(query, body)
        except Refusal as refusal:
            return 500 if refusal.status == 400 else refusal.status, b""


class TalksToItself(Good):
    def document(self, message):
        to, sender = message.FromUserName, message.ToUserName
        return super().document(type(message)({**message, "ToUserName": to, "FromUserName": sender}))


class TwoArticles(Good):
    def document(self, message):
        one = to_xml(News([Article("one")]), message, int(time.time()))
        return re.sub("(<item>.*</item>)", r"\1\1", one).replace("<ArticleCount>1", "<ArticleCount>2")


class Slow(Good):
    def receive(self, query, body):
        time.sleep(6)
        return super().receive(query, body)


class SlowOnce(Good):
    slept = False

    def receive(self, query, body):
        if not self.slept:
            self.slept = True
            time.sleep(5.5)
        return super().receive(query, body)


class KnowsOnePath(Good):
    def verify(self, query, path):
        return (404, b"") if path.endswith("/") else super().verify(query, path)


class NoJson(Good):
    def parse(self, content):
        if content.startswith(b"{"):
            raise Forbidden("")
        return super().parse(content)


class AnswersInPlain(GoodSafe):
    def receive(self, query, body):
        return 200, self.answer(self.parse(self.open(query, body)[0]))


class TakesPlaintext(GoodSafe):
    def open(self, query, body):
        return (self.envelope if b"Encrypt" in body else Plain)(self.settings).open(body, query)


class TakesAnyAppid(GoodSafe):
    def open(self, query, body):
        return AnyAppid(self.settings).open(body, query)


class AnyAppid(Sealed):
    def decrypt(self, encrypted):
        content, _ = self.ciphers[0].open(b64decode(encrypted))
        if not content:
            raise Forbidden("")
        return self.ciphers[0], content


class LooksAtSignatureAlone(GoodSafe):
    def open(self, query, body):
        Plain(self.settings).check_query(query)
        return Unsigned(self.settings).open(body, query)


class Unsigned(Sealed):
    def check_query(self, query, *_):
        return TOKEN


SIGNATURES = ("a push with a bad signature", "a push without a signature", "a push signed with another token")
EVERY_TEXT = (
    "a text",
    "an image",
    "a text with ]]>",
    "a text with U+001D, which XML forbids",
    "a text with &lt;",
    "a text with emoji",
    "a text of 2,000 characters",
)
EVERY_PUSH = (
    *EVERY_TEXT,
    "an event",
    "an event with an empty EventKey",
    "an event that nobody knows",
)
VERIFICATION = (
    "a GET to verify the URL",
    "the same with an escaped echostr",
    "the same, a slash more or less in the path",
)
BROKEN = [
    (EchoesWithALineEnd, VERIFICATION[:1], VERIFICATION[1:], "200, but 20 bytes that are not the echostr"),
    (EchoesHtml, VERIFICATION[:1], VERIFICATION[1:], "200, but 26 bytes that are not the echostr"),
    (EchoesJson, VERIFICATION[:1], VERIFICATION[1:], "200, but 21 bytes that are not the echostr"),
    (EchoesNumbersAlone, (), VERIFICATION[1:2], "200, but 0 bytes"),
    (EchoesToAnybody, ("a GET with a bad signature",), ("a GET with a signature a day old",), "the echostr"),
    (CrashesWithoutAQuery, (), ("a GET with a missing query",), "status 500"),
    (Created, EVERY_PUSH, ("a text as JSON",), "status 201: WeChat takes 200 alone"),
    (AnswersJson, EVERY_PUSH, ("a text as JSON",), "neither success nor XML"),
    (NoCdataSplit, ("a text with ]]>",), (), "neither success nor XML"),
    (CrashesOnControls, ("a text with U+001D, which XML forbids",), (), "status 500"),
    (EchoesControls, ("a text with U+001D, which XML forbids",), (), "neither success nor XML"),
    (DoesNotEscape, ("a text with &lt;",), (), "neither success nor XML"),
    (Garbles, ("a text with emoji",), (), "neither success nor XML"),
    (LongTexts, ("a text of 2,000 characters",), (), "a text of 6000 bytes, 2047 are taken"),
    (KnowsFewEvents, ("an event that nobody knows",), (), "no Content in the reply"),
    (WantsAnEventKey, ("an event with an empty EventKey",), (), "status 500"),
    (RunsRetriesAgain, ("the same text again",), (), "another document: the handler ran twice"),
    (MakesRetriesAnew, (), ("the same text again",), "another CreateTime: the handler ran twice"),
    (RefusesRetries, ("the same text again",), (), "status 403"),
    (SilentOnRetries, (), ("the same text again",), "success"),
    (TakesForgeries, SIGNATURES, ("a push a day old",), "taken"),
    (KeepsNoTime, (), ("a GET with a signature a day old", "a push a day old"), "taken"),
    (CrashesOnForgeries, (), (*SIGNATURES, "a push a day old"), "status 500"),
    (HangsOnDoctype, ("a push with entities in a DOCTYPE",), (), "no answer within 5 s"),
    (Slow, ("a text",), (), "no answer within 5.0 s"),
    (SlowOnce, (), ("a text",), "text, but at attempt 2 only"),
    (KnowsOnePath, (), VERIFICATION[2:], "status 404"),
    (RefusesWith200, (), (*SIGNATURES, "a push a day old"), "refused, but with status 200"),
    (ExpandsEntities, ("a push with entities in a DOCTYPE",), (), "they are expanded"),
    (CrashesOnDoctype, (), ("a push with entities in a DOCTYPE",), "status 500"),
    (
        CrashesOnWhatIsNoMessage,
        (),
        ("a push of malformed XML", "a push with an empty body", "a push with entities in a DOCTYPE"),
        "status 500",
    ),
    (
        TalksToItself,
        EVERY_PUSH,
        ("a text as JSON",),
        "ToUserName and FromUserName are not those of the push, exchanged",
    ),
    (TwoArticles, EVERY_TEXT, ("a text as JSON",), "2 articles, 1 are taken here"),
    (NoJson, (), ("a text as JSON",), "status 403"),
    (AnswersInPlain, EVERY_PUSH, ("a text as JSON",), "neither success nor sealed XML"),
    (TakesPlaintext, ("a push that is not sealed",), (), "taken"),
    (TakesAnyAppid, ("a push sealed for another appid",), (), "taken"),
    (LooksAtSignatureAlone, ("a push with a bad msg_signature alone",), (), "taken"),
]


ALL = [Good, GoodSafe, *(server for server, *_ in BROKEN)]


@pytest.fixture(scope="module")
def found():
    """What is found in each small server, all of them checked at once."""
    with ThreadPoolExecutor(len(ALL)) as pool:
        return dict(zip(ALL, pool.map(check_small, ALL), strict=True))


def check_small(kind):
    with Small(kind()) as url:
        platform = SAFE if issubclass(kind, GoodSafe) else PLAIN
        return list(findings(Server(url, platform)))


class Small:
    """A WSGI callable over real HTTP; as a context it is the URL."""

    def __init__(self, app):
        self.server = make_server("127.0.0.1", 0, app, ThreadingServer, QuietHandler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/weixin"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("server", [Good, GoodSafe])
def test_a_small_server_that_is_all_right_passes(found, server):
    assert [finding for finding in found[server] if finding.mark != "ok"] == []
    assert len(found[server]) in (26, 30)


@pytest.mark.parametrize(("server", "fails", "warns", "came"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_the_fault_is_found_and_nothing_else(found, server, fails, warns, came):
    faults = [finding for finding in found[server] if finding.mark != "ok"]
    marks = {finding.tried: finding.mark for finding in faults}
    assert marks == {**dict.fromkeys(fails, "FAIL"), **dict.fromkeys(warns, "warn")}
    assert all(finding.cure for finding in faults)
    assert any(finding.came.startswith(came) for finding in faults)
    assert TOKEN not in str(faults)


def test_each_finding_is_said_in_chinese_too(found):
    names = re.compile(r"--\w+|(?!WeChat)[A-Z]\w+[A-Z]\w+|\d+")
    for finding in {each for server in ALL for each in found[server]}:
        english = f"{finding.tried}: {finding.came} -> {finding.cure}"
        chinese = f"{translate(finding.tried)}: {translate(finding.came)} -> {translate(finding.cure)}"
        assert not re.search("[a-z]{2,} [a-z]{2,} [a-z]{2,}", chinese), chinese
        assert {*names.findall(english)} <= {*names.findall(chinese)}


# The command


def test_a_fault_that_breaks_the_account_is_exit_status_1(check):
    with Small(EchoesJson()) as url:
        status, lines = check(url)
    assert status == 1
    assert lines[0].startswith("FAIL  a GET to verify the URL: 200, but 21 bytes that are not the echostr -> answer")
    assert lines[-1] == "26 checks in plain mode: 23 ok, 2 warn, 1 FAIL"


def test_a_warning_alone_is_exit_status_0(check):
    with Small(KnowsOnePath()) as url:
        assert check(url)[0] == 0


def test_an_errcode_as_json_is_an_answer_to_each_push(check):
    class AnswersWithAnErrCode(Good):
        def receive(self, query, body):
            status, _ = super().receive(query, body)
            return status, b'{"ErrCode":0,"ErrMsg":"success"}'

    with Small(AnswersWithAnErrCode()) as url:
        status, lines = check(url)
    assert any(re.fullmatch(r"ok    a text: 200 in 0\.\d\d s, ErrCode", line) for line in lines)
    assert status == 0


def test_a_server_that_is_not_there_is_one_line(check):
    status, lines = check(f"http://127.0.0.1:{free_port()}/weixin")
    assert (status, len(lines)) == (1, 2)
    assert lines[0].startswith("FAIL  a GET to verify the URL: nobody answers -> is the server running")


def test_with_the_wrong_token_the_rest_is_not_tried(check):
    with Small(Good()) as url:
        status, lines = check(url, token="another")
    assert (status, lines[-1]) == (1, "7 checks in plain mode: 3 ok, 2 warn, 2 FAIL")
    assert lines[-2].startswith(
        "FAIL  a text: status 403: WeChat takes 200 alone -> is the URL the one for pushes, and"
    )


@pytest.mark.parametrize(
    ("url", "arguments", "said"),
    [
        ("your.host/weixin", [], "URL takes an address"),
        ("http://127.0.0.1:port/weixin", [], "URL takes an address"),
        ("https://my..host/weixin", [], "URL takes an address"),
        ("http://127.0.0.1/weixin?a=1", [], "URL takes an address"),
        ("http://127.0.0.1/", ["--aes-key", AES_KEY], "--appid is missing: --mode=safe needs it"),
        ("http://127.0.0.1/", ["--mode", "safe", "--appid", APPID], "--aes-key is missing"),
        ("http://127.0.0.1/", ["--aes-key", AES_KEY + "="], "--aes-key is not an EncodingAESKey: it takes the 43"),
        ("http://127.0.0.1/", ["--token", "!"], "--token is not a token"),
    ],
)
def test_a_wrong_call_is_exit_status_2_and_says_what_is_right(check, url, arguments, said):
    status, lines = check(url, *arguments)
    assert status == 2
    assert said in lines[0]


def test_who_reads_no_further_is_no_error(serve):
    server = serve()
    command = f"{sys.executable} -m sandbox check {server.url} --token {TOKEN} | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("ok ")
