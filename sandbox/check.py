"""What WeChat would find wrong with a server anywhere: a line for each check."""

import argparse
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote
from xml.etree import ElementTree

from sandbox.facts import FACTS
from sandbox.messages import USER, compose, to_json
from sandbox.options import add_account, read_account
from sandbox.platform import Attempt, Endpoint, Platform, is_address, signed_query
from sandbox.verdict import Verdict, judge
from wechat.errors import SettingsError
from wechat.message import cdata
from wechat.protocol.parser import parse
from wechat.settings import MARK
from wechat.terminal import FAIL, OK, WARN, Finding, complain, report

DAY = 86_400  # seconds
LATE = 4.9  # seconds after which it was the platform that hung up, not the server
DIGITS, ESCAPED = "4375120948345356249", "a+b/c=d &<%你"
TEXT = ("text", {"Content": "你好"})
PUSHES = {**FACTS["checked"], "a text of 2,000 characters": ("text", {"Content": "界" * 2000})}
ADVICE: dict[str, str] = FACTS["advice"]  # what to do about a fault, by how it begins
ENTITIES = "<!DOCTYPE xml [<!ENTITY a 'expanded'><!ENTITY user '&a;&a;'>]>"
PROBES = {"JSON": b'{"action": "CheckContainerPath"}', "XML": b"<xml><action>CheckContainerPath</action></xml>"}


@dataclass(frozen=True)
class Server:
    """The server under test, and the platform that knows its secrets."""

    url: str
    platform: Platform

    def verify(self, query: str, echostr: str = DIGITS, url: str = "") -> Attempt:
        """The answer to the question whether the server knows the token."""
        return self._endpoint(url).request("GET", query and f"{query}&echostr={quote(echostr, safe='')}")

    def post(self, query: str, body: bytes) -> Attempt:
        """The answer to one attempt at a push."""
        return self._endpoint().request("POST", query, body)

    def deliver(self, query: str, body: bytes) -> list[Attempt]:
        """All attempts at a push."""
        return list(self._endpoint().deliver(query, body))

    def _endpoint(self, url: str = "") -> Endpoint:
        return Endpoint(url or self.url, headers=self.platform.headers)

    def judge(self, attempt: Attempt, is_event: bool = False, openid: str = USER) -> Verdict:
        """The platform's verdict on an answer to a push."""
        is_plain = self.platform.mode == "compat" and b"Encrypt" not in attempt.body  # WeChat takes either there
        return judge(replace(self.platform, mode="plain") if is_plain else self.platform, attempt, is_event, openid)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes; `run` checks it."""
    parser.add_argument("url", metavar="URL", help="the address as it is typed on the platform's page")
    add_account(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a line for each check; gives the exit status, 2 where the command was called wrongly."""
    try:
        platform = Platform.of(read_account(options))
        if not is_address(options.url) or "?" in options.url:
            raise ValueError("URL takes an address like https://your.host/weixin, without a query")
    except (SettingsError, ValueError) as error:
        complain(error)
        return 2
    return report(check(Server(options.url, platform)), f"checks in {platform.mode} mode")


def check(server: Server) -> Iterator[Finding]:
    """Every finding; they end early where the rest would only say the same again."""
    if server.verify(signed_query(server.platform.token)).status is None:
        yield Finding("a GET to verify the URL", "nobody answers", FAIL, ADVICE["nobody"])
        return
    yield from (_probes if server.platform.mode == "cloud" else _verification)(server)
    query, body = server.platform.push(compose(*TEXT))
    attempts = server.deliver(query, body)
    finding = _taken("a text", server, attempts)
    yield finding
    if all((attempt.status or 500) >= 400 for attempt in attempts):
        return
    if finding.mark != FAIL:
        yield _again(server, query, body, server.judge(attempts[-1]).reply)
    for tried, (kind, fields) in PUSHES.items():
        content = compose(kind, fields).replace("␝", "\x1d")  # which is left out of a message otherwise
        attempts = server.deliver(*server.platform.push(content))
        yield _taken(tried, server, attempts, kind == "event")
    for tried, (query, body, mark) in _bad_pushes(server).items():
        yield _refused(f"a push {tried}", server, server.post(query, body), mark)
    yield from _other_format(server)


def _other_format(server: Server) -> Iterator[Finding]:
    what, content = "XML", compose(*TEXT).encode()
    push = "", content
    if server.platform.mode != "cloud":
        what, push = "JSON", server.platform.push(to_json(parse(content)))
    fault = server.judge(server.post(*push)).fault
    yield Finding(f"a text as {what}", fault or "taken", *((WARN, ADVICE[f"no {what}"]) if fault else ()))


def _probes(server: Server) -> Iterator[Finding]:
    """What the console of WeChat's cloud asks before it takes the path, and a push that it has not marked."""
    for what, body in PROBES.items():
        attempt = server.post("", body)
        is_good = attempt.status == 200 and attempt.body in (b"", b"success")
        yield Finding(f"CheckContainerPath as {what}", _came(attempt), *(() if is_good else (FAIL, ADVICE["probe"])))
    unmarked = replace(server, platform=replace(server.platform, mode="plain"))
    body = server.platform.push(compose(*TEXT))[1]
    yield _refused(f"a push without {MARK}", server, unmarked.post("", body), FAIL)


def _verification(server: Server) -> Iterator[Finding]:
    query, stale = (signed_query(server.platform.token, int(time.time()) - age) for age in (0, DAY))
    yield _echoed("a GET to verify the URL", server.verify(query), DIGITS, FAIL)
    yield _echoed("the same with an escaped echostr", server.verify(query, ESCAPED), ESCAPED, WARN)
    slash = server.url[:-1] if server.url.endswith("/") else server.url + "/"
    yield _echoed("the same, a slash more or less in the path", server.verify(query, url=slash), DIGITS, WARN)
    gets = {"bad signature": (_spoil(query), FAIL), "missing query": ("", FAIL), "signature a day old": (stale, WARN)}
    for what, (forged, mark) in gets.items():
        tried, attempt = f"a GET with a {what}", server.verify(forged)
        is_taken = attempt.status == 200 and DIGITS.encode() in attempt.body
        yield Finding(tried, "the echostr", mark, ADVICE["refuse"]) if is_taken else _survived(tried, attempt)


def _echoed(tried: str, attempt: Attempt, echostr: str, mark: str) -> Finding:
    if attempt.status != 200:
        return Finding(tried, _came(attempt), mark, ADVICE["status 40"])
    if attempt.body != echostr.encode():
        return Finding(tried, f"200, but {len(attempt.body)} bytes that are not the echostr", mark, ADVICE["echo"])
    return Finding(tried, "200, the echostr")


def _came(attempt: Attempt) -> str:
    return f"status {attempt.status}" if attempt.status else attempt.problem or "no answer within 5 s"


def _taken(tried: str, server: Server, attempts: list[Attempt], is_event: bool = False) -> Finding:
    number, attempt = next((pair for pair in enumerate(attempts, 1) if pair[1].status), (len(attempts), attempts[-1]))
    reply, fault = server.judge(attempt, is_event)
    is_xml = bool(reply) and not reply.startswith("{")  # JSON is an ErrCode
    nodes = {node.tag: node.text for node in ElementTree.fromstring(reply)} if is_xml else {}
    kind = nodes.get("MsgType", "ErrCode" if reply else "success")
    if fault:
        return Finding(tried, fault, FAIL, next(ADVICE[start] for start in ADVICE if fault.startswith(start)))
    if number > 1:
        return Finding(tried, f"{kind}, but at attempt {number} only", WARN, ADVICE["no answer"])
    return Finding(tried, f"200 in {attempt.seconds:.2f} s, {kind}")


def _again(server: Server, query: str, body: bytes, first: str) -> Finding:
    tried = "the same text again"
    time.sleep(1.1)  # so that a document made anew has another CreateTime
    reply, fault = server.judge(server.post(query, body))
    if fault:
        return Finding(tried, fault, FAIL, "a retry has the same signature and nonce: answer it as the first attempt")
    if reply == first:
        return Finding(tried, "the same answer")
    if not reply:
        return Finding(tried, "success, so a first answer that got lost is lost", WARN, ADVICE["once"])
    is_alike = len({re.sub("<CreateTime>.*?</CreateTime>", "", document) for document in (first, reply)}) == 1
    what = "another CreateTime" if is_alike else "another document"
    return Finding(tried, f"{what}: the handler ran twice", WARN if is_alike else FAIL, ADVICE["once"])


def _spoil(query: str, name: str = "signature") -> str:
    return re.sub(f"({name}=)([0-9a-f]+)", lambda found: found[1] + found[2][::-1], query)


def _bad_pushes(server: Server) -> dict[str, tuple[str, bytes, str]]:
    # What is wrong: query, body, and the mark where it is taken. OK: it must neither crash nor hold up a server.
    platform, text = server.platform, compose(*TEXT)
    query, body = platform.push(text)
    forged = {
        "with a bad signature": (_spoil(query), body, FAIL),
        "without a signature": (re.sub("(msg_)?signature=[0-9a-f]+&?", "", query), body, FAIL),
        "signed with another token": (*replace(platform, token=platform.token + "x").push(text), FAIL),
        "a day old": (*platform.push(text, int(time.time()) - DAY), WARN),
    }
    bad = {
        **({} if platform.mode == "cloud" else forged),
        "of malformed XML": (*platform.push("<xml><Content></xml>"), OK),
        "with an empty body": (platform.push("")[0], b"", OK),
        "with entities in a DOCTYPE": (*platform.push(ENTITIES + text.replace(cdata(USER), "&user;")), OK),
        "of 300 KB": (*platform.push(text.replace("你好", "x" * 300_000)), OK),
    }
    if platform.mode == "safe":
        head, node, sealed = body.partition(b"<Encrypt><![CDATA[")
        bad |= {
            "that is not sealed": (*replace(platform, mode="plain").push(text), FAIL),
            "spoiled under its signature": (query, head + node + sealed[39::-1] + sealed[40:], FAIL),
            "with a bad msg_signature alone": (_spoil(query, "msg_signature"), body, FAIL),
            "sealed for another appid": (*replace(platform, appid="wx0000000000000000").push(text), FAIL),
        }
    return bad


def _refused(tried: str, server: Server, attempt: Attempt, mark: str) -> Finding:
    # Whoever takes what is not sealed does not seal the answer to it.
    mode = "cloud" if server.platform.mode == "cloud" else "compat"
    reply, fault = replace(server, platform=replace(server.platform, mode=mode)).judge(attempt, openid="")
    if "expandedexpanded" in reply:
        return Finding(tried, "they are expanded", FAIL, "refuse a DOCTYPE: entities read files and fill the memory")
    if attempt.status != 200 or mark == OK:
        return _survived(tried, attempt)
    if fault:
        return Finding(tried, "refused, but with status 200", WARN, ADVICE["refuse"])
    return Finding(tried, "taken", mark, ADVICE["refuse"])


def _survived(tried: str, attempt: Attempt) -> Finding:
    if attempt.status is None and attempt.seconds > LATE:
        return Finding(tried, _came(attempt), FAIL, "refuse it at once: it holds up a worker")
    if (attempt.status or 0) >= 500:
        return Finding(tried, _came(attempt), WARN, "refuse it with 400, 403 or 413 instead of a crash")
    return Finding(tried, _came(attempt))
