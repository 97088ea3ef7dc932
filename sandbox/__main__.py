"""`python -m sandbox`: the other side of the wire, for trying a server without an account."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping

import wxserver
from sandbox import check, load, push
from sandbox.messages import text_message
from wechat.settings import Settings

DEFAULTS = {
    "WECHAT_TOKEN": "sandbox",
    "HOST": "127.0.0.1",
    "WECHAT_MAX_AGE": "0",  # the printed line is to work all evening
}


def main(arguments: list[str]) -> int:
    """Runs one command; without one, serves. Gives the exit status."""
    environ = {**DEFAULTS, **{name: value for name, value in os.environ.items() if value}}
    options = make_parser(environ).parse_args(arguments)
    if not hasattr(options, "run"):
        serve(environ)
    status: int = options.run(options)
    return status


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of all commands, whose defaults are the settings."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", description="without one: serve")
    for name, command, about in (
        ("check", check, "what WeChat would find wrong with a server anywhere"),
        ("load", load, "send messages at a steady rate, and show the latencies against WeChat's 5 s"),
    ):
        chosen = commands.add_parser(name, help=about, description=about)
        command.add_arguments(chosen)
        chosen.set_defaults(run=command.run)
    about = "push one message or event as WeChat would, and show what the user sees"
    pushing = commands.add_parser("push", help=about, description=about)
    push.add_arguments(pushing, environ)
    pushing.set_defaults(run=push.run)
    return parser


def curl_line(settings: Settings, port: int, content: str) -> str:
    """A shell command that sends the text to the server on this machine, signed."""
    query, body = push.platform_of(settings).push(text_message(content))
    url = f"http://127.0.0.1:{port}{settings.path}?{query}"
    return f"curl '{url}' -H 'Content-Type: text/xml' -d '{body.decode()}'"


def serve(environ: Mapping[str, str]) -> None:
    """Serves on loopback until it is stopped; what is set in the environment wins over the defaults."""
    app = wxserver.start(environ)
    server = wxserver.bind(app)
    port = wxserver.addresses(server)[0][1]
    print(f"Try it, in another terminal:\n\n{curl_line(app.settings, port, '三体')}\n", flush=True)
    wxserver.serve(app, server)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
