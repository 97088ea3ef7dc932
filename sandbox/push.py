"""`python -m sandbox push text 你好`: one push as WeChat would send it, and what the user would see."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from sandbox.messages import FIELDS, USER, build, to_json
from sandbox.options import add_account, read_account
from sandbox.platform import Endpoint, Platform, is_address
from sandbox.verdict import BANNER, judge
from wechat.errors import StartError
from wechat.protocol.parser import parse
from wechat.terminal import complain


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """The command's arguments; what is not given comes from the settings."""
    kinds = "; ".join(f"{kind} {' '.join(f'[{name}]' for name in fields)}" for kind, fields in FIELDS.items())
    parser.add_argument("kind", metavar="KIND", choices=FIELDS, help=f"one of: {kinds}")
    parser.add_argument("values", nargs="*", metavar="VALUE", help="the fields, in that order")
    parser.add_argument("--url", help="default: 127.0.0.1, PORT and WECHAT_PATH")
    add_account(parser, environ)
    parser.add_argument("--openid", default=USER, help="who sends it")
    parser.add_argument("--json", action="store_true", help="push JSON, as to a Mini Program")


def run(options: argparse.Namespace) -> int:
    """Pushes, and prints the reply; exit status 1 where the user would see the banner, 2 for a wrong call."""
    url = options.url
    try:
        settings = read_account(options)
        if url and not is_address(url):
            raise ValueError("--url takes an address like http://127.0.0.1:8080/weixin")
        platform = Platform.of(settings)
        content = build(options.kind, options.values, options.openid)
        content = to_json(parse(content.encode())) if options.json else content
        push = platform.push(content, openid=options.openid)
    except (StartError, ValueError) as error:  # also where an argument is not in the terminal's encoding
        complain(error)
        return 2
    endpoint = Endpoint(url or f"http://127.0.0.1:{settings.port}{settings.path}", headers=platform.headers)
    attempts = list(endpoint.deliver(*push))
    verdict = judge(platform, attempts[-1], options.kind == "event", options.openid)
    for number, attempt in enumerate(attempts, 1):
        came = attempt.status or attempt.problem or "no answer"
        complain(f"attempt {number}: {came}, {attempt.seconds:.2f} s")
    if verdict.is_banner:
        print(f"{BANNER}\n({verdict.fault})")
        return 1
    said = attempts[-1].body.decode() if platform.mode == "cloud" and verdict.reply else verdict.reply
    print(said or "(nothing)")
    return 0
