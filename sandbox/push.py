"""`python -m sandbox push text 你好`: one push as WeChat would send it, and what the user would see."""

import argparse
import json
import secrets
import time
from collections.abc import Iterator, Mapping

from sandbox.messages import FIELDS, USER, build, to_json
from sandbox.options import add_account, read_account
from sandbox.platform import MESSAGE_HEADER, Endpoint, Platform, is_address, is_local
from sandbox.rules import is_openid
from sandbox.verdict import BANNER, judge
from wechat.errors import StartError, Unreadable
from wechat.protocol.parser import parse
from wechat.terminal import complain, say

FIRST = 10**8  # the numbers of the page's own messages are lower
LOOK = 0.1  # seconds between two looks at what was pushed later


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """The command's arguments; what is not given comes from the settings."""
    kinds = "; ".join(f"{kind} {' '.join(f'[{name}]' for name in fields)}" for kind, fields in FIELDS.items())
    parser.add_argument("kind", metavar="KIND", choices=FIELDS, help=f"one of: {kinds}")
    parser.add_argument("values", nargs="*", metavar="VALUE", help="the fields, in that order")
    parser.add_argument("--url", help="default: 127.0.0.1, PORT and WECHAT_PATH")
    add_account(parser, environ)
    parser.add_argument("--openid", default=USER, help="who sends it")
    late = "seconds that what the sandbox pushes later has, default 60"
    parser.add_argument("--wait", metavar="S", type=float, default=60, help=late)
    parser.add_argument("--json", action="store_true", help="push JSON, as to a Mini Program")


def run(options: argparse.Namespace) -> int:
    """Pushes, and prints the reply; exit status 1 where the user would see the banner, 2 for a wrong call."""
    url = options.url
    try:
        settings = read_account(options)
        if url and not is_address(url):
            raise ValueError("--url takes an address like http://127.0.0.1:8080/weixin")
        if not is_openid(options.openid):
            raise ValueError("--openid takes letters, digits, - and _")
        platform = Platform.of(settings)
        content = build(options.kind, options.values, options.openid)
        content = to_json(parse(content.encode())) if options.json else content
        push = platform.push(content, openid=options.openid)
    except (StartError, ValueError, Unreadable) as error:  # also where an argument is not in the terminal's encoding
        complain(error)
        return 2
    number = FIRST + secrets.randbelow(FIRST)
    where = url or f"http://127.0.0.1:{settings.port}{settings.path}"
    numbered = {MESSAGE_HEADER: str(number)} if is_local(where) else {}
    endpoint = Endpoint(where, headers={**platform.headers, **numbered})
    attempts = list(endpoint.deliver(*push))
    verdict = judge(platform, attempts[-1], options.kind == "event", options.openid)
    for count, attempt in enumerate(attempts, 1):
        came = attempt.status or attempt.problem or "no answer"
        complain(f"attempt {count}: {came}, {attempt.seconds:.2f} s")
    if verdict.fault:
        say(f"{BANNER}\n({verdict.fault})")
        return 1
    said = attempts[-1].body.decode() if platform.mode == "cloud" and verdict.reply else verdict.reply
    if said:
        print(said, flush=True)
    else:
        say("(nothing)")
    for message in pushed_later(attempts[-1].page, number, options.wait):
        say(f"later: {message}")
    return 0


def pushed_later(page: str, number: int, seconds: float) -> Iterator[str]:
    """The customer messages that follow the reply, until the sandbox with this page is idle; none from elsewhere."""
    ends, last = time.monotonic() + seconds, 0
    while is_local(page) and time.monotonic() < ends:
        answer = Endpoint(f"{page}/events", hang_up=10).request("GET", f"after={max(0, last - 1)}")
        if answer.status != 200:  # it was stopped meanwhile
            return
        seen = json.loads(answer.body)
        for event in seen["events"]:
            if event["seq"] > last and event.get("id") == number and event["kind"] in ("customer", "notice", "refused"):
                said = json.dumps(event["message"], ensure_ascii=False)
                yield f"refused with {event['errcode']}: {said}" if event["kind"] == "refused" else said
        last = max([last, *(event["seq"] for event in seen["events"])])
        if seen["is_idle"]:
            return
        time.sleep(LOOK)
