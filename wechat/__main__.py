"""`python -m wechat`: the account from a shell, without serving."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from wechat.console import add, add_commands
from wechat.errors import Error
from wechat.message import Message
from wechat.platform.menu import read_menu, unhandled_keys
from wechat.routing import Router, describe, load, prepare, where
from wechat.settings import NAMES
from wechat.store.opening import open_store
from wechat.terminal import Parser, complain, run


def main(arguments: list[str]) -> int:
    """Runs one command; gives its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except Error as error:
        complain(error)
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m wechat", description=__doc__)
    parser.add_argument("--handlers", type=Path, default=Path("handlers"), metavar="FOLDER", help="default: handlers")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add(commands, "check", run_check)
    add(commands, "routes", run_routes)
    explain = add(commands, "explain", run_explain)
    explain.add_argument("text", nargs="?", metavar="TEXT", help="what a user sends; with --event: the EventKey")
    explain.add_argument("--event", metavar="EVENT", help="ask about an event: CLICK, SCAN, subscribe, ...")
    add_commands(commands)
    return parser


def run_check(options: argparse.Namespace) -> int:
    """Check the settings, the handlers and the menu, and name every fault."""
    _warn(_unknown_settings())
    settings, routes = prepare(os.environ, options.handlers)
    open_store(settings.store).close()
    _warn(_menu_warnings(options.handlers / "menu.json", Router(routes)))
    print(f"settings: good\nhandlers: {len(set(routes.values()))} functions for {len(routes)} paths")
    return 0


def run_routes(options: argparse.Namespace) -> int:
    """List every path and the function that answers it, in the order in which the modules are loaded."""
    routes = load(options.handlers)
    width = max(map(len, map(where, routes.values())), default=0)
    for path, function in routes.items():
        print(f"{where(function):{width}}  @on({describe(path)})")
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Say who would answer a text, or an event, and why."""
    if options.event:
        fields = {"MsgType": "event", "Event": options.event, "EventKey": options.text or ""}
    elif options.text is not None:
        fields = {"MsgType": "text", "Content": options.text}
    else:
        options.fail("it takes a TEXT, or --event EVENT")
    found = Router(load(options.handlers)).find(Message(fields))
    if not found:
        print("nobody answers: no path fits, and there is no @on('default')")
        return 1
    print(f"{where(found.handler.function)} answers")
    print(f"by @on({describe(found.handler.path)}){', slow' if found.handler.slow else ''}")
    if found.match:
        print(f"with match {found.match.groups() or found.match[0]}")
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}")


def _unknown_settings() -> Iterator[str]:
    for name in sorted(os.environ):
        if name.startswith("WECHAT_") and name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            yield f"{name} is no setting of the server" + (f": is {close[0]} meant?" if close else "")


def _menu_warnings(file: Path, router: Router) -> list[str]:
    try:
        warnings = list(unhandled_keys(read_menu(file), router)) if file.exists() else []
    except (OSError, ValueError) as error:
        warnings = str(error).splitlines()
    return [f"{file}: {said}" for said in warnings]


if __name__ == "__main__":
    run(main)
