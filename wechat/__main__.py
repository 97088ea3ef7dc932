"""`python -m wechat`: the account from a shell, without serving."""

import argparse
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from wechat.account import run_import, run_new
from wechat.calls import (
    Run,
    run_any,
    run_call,
    run_media_get,
    run_media_upload,
    run_menu_delete,
    run_menu_get,
    run_menu_push,
    run_send,
    run_token,
)
from wechat.errors import Error
from wechat.message import Message
from wechat.mistakes import find_mistakes, unknown_settings
from wechat.online import check_online
from wechat.platform.menu import menu_warnings
from wechat.routing import NOBODY, Router, arounds_of, describe, load, prepare, where
from wechat.startup import handlers_folder
from wechat.store.opening import open_store
from wechat.terminal import Parser, api_path, complain, json_value, run, say
from wechat.weak import weak_settings
from wechat.why import rid, run_why


def main(arguments: list[str]) -> int:
    """Runs one command; gives its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except Error as error:
        complain(error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m wechat", description=__doc__)
    parser.set_defaults(handlers=handlers_folder(os.environ))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = _add(commands, "check", run_check)
    check.add_argument("--online", action="store_true", help="ask the platform what it says of the account, too")
    check.add_argument("--openid", default="", metavar="OPENID", help="a follower to show typing to, with --online")
    _add(commands, "routes", run_routes)
    explain = _add(commands, "explain", run_explain)
    explain.add_argument("text", nargs="?", metavar="TEXT", help="what a user sends; with --event: the EventKey")
    explain.add_argument("--event", metavar="EVENT", help="ask about an event: CLICK, SCAN, subscribe, ...")
    new = _add(commands, "new", run_new)
    new.add_argument("folder", type=Path, metavar="FOLDER")
    _add_calls(commands)
    return parser


def _add_calls(commands: Any) -> None:
    """The commands that talk to the platform."""
    menu = _add_group(commands, "menu", "Show, push or delete the custom menu.")
    _add_call(menu, "get", run_menu_get)
    push = _add_call(menu, "push", run_menu_push)
    push.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: menu.json among the handlers")
    _add_call(menu, "delete", run_menu_delete)

    media = _add_group(commands, "media", "Download or upload temporary media.")
    get = _add_call(media, "get", run_media_get)
    get.add_argument("media_id", metavar="ID")
    get.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the platform's name, in this folder")
    upload = _add_call(media, "upload", run_media_upload)
    upload.add_argument("kind", choices=("image", "voice", "video", "thumb"))
    upload.add_argument("file", type=Path, metavar="FILE")

    _add_call(commands, "import", run_import)
    send = _add_call(commands, "send", run_send)
    send.add_argument("openid", metavar="OPENID")
    send.add_argument("text", metavar="TEXT")
    _add_call(commands, "token", run_token)
    why = _add_call(commands, "why", run_why)
    why.add_argument("rid", type=rid, metavar="RID", help="what follows `rid:` in an error, or the whole error")
    call = _add_call(commands, "call", run_any)
    call.add_argument("method", choices=("GET", "POST"))
    call.add_argument("path", type=api_path, metavar="PATH", help="like /cgi-bin/get_api_domain_ip")
    call.add_argument("data", nargs="?", type=json_value, default={}, metavar="JSON", help="body, or query of a GET")


def _add_group(commands: Any, name: str, about: str) -> Any:
    return commands.add_parser(name, help=about, description=about).add_subparsers(required=True, metavar="COMMAND")


def _add_call(commands: Any, name: str, run: Run) -> argparse.ArgumentParser:
    parser = _add(commands, name, run)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=partial(run_call, run))
    return parser


def _add(commands: Any, name: str, run: Callable[..., Any]) -> argparse.ArgumentParser:
    """Add a sub-command that is described by the docstring of what it runs; `options.fail` refuses its arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(run=run, fail=parser.error)
    return parser


def run_check(options: argparse.Namespace) -> int:
    """Check the settings, the handlers and the menu; name every fault, what is weak and what is silently wrong."""
    if options.openid and not options.online:
        options.fail("--openid goes with --online")
    import wechat.lean  # noqa: F401, which says that WebOb is missing

    _warn(unknown_settings(os.environ))
    settings, routes = prepare(os.environ, options.handlers)
    open_store(settings.store).close()
    _warn(weak_settings(settings))
    _warn(find_mistakes(options.handlers, routes))
    _warn(menu_warnings(options.handlers / "menu.json", Router(routes)))
    say(f"settings: good\nhandlers: {len(set(routes.values()))} functions for {len(routes)} paths")
    return check_online(settings, options.handlers, options.openid) if options.online else 0


def run_routes(options: argparse.Namespace) -> int:
    """List every path and the function that answers it, in the order in which the modules are loaded."""
    from wechat.chinese import columns

    routes = load(options.handlers)
    marks = [*(("around", *pair) for pair in arounds_of(routes)), *(("on", *pair) for pair in routes.items())]
    width = max((columns(where(function)) for _, _, function in marks), default=0)
    for name, path, function in marks:
        print(f"{where(function)}{' ' * (width - columns(where(function)))}  @{name}({describe(path)})")
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Say who would answer a text, or an event, and why."""
    if options.event:
        fields = {"MsgType": "event", "Event": options.event, "EventKey": options.text or ""}
    elif options.text is not None:
        fields = {"MsgType": "text", "Content": options.text}
    else:
        options.fail("it takes a TEXT, or --event EVENT")
    router, message = Router(load(options.handlers)), Message(fields)
    found = router.find_bare(message)
    for outer, _ in router.wrapping(message, found.handler if found else NOBODY):
        say(f"within {where(outer.function)}, by @around({describe(outer.path)})")
    if not found:
        say("nobody answers: no path fits, and there is no @on('default')")
        return 1
    say(f"{where(found.handler.function)} answers")
    way = ", async def" if found.handler.is_async else ", slow" if found.handler.slow else ""
    say(f"by @on({describe(found.handler.path)}){way}")
    if found.match:
        say(f"with match {found.match.groups() or found.match[0]}")
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")


if __name__ == "__main__":
    run(main)
