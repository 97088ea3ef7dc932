"""The commands that talk to the platform: `python -m wechat menu`, `media`, `send`, `token`, `call`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from wechat.errors import Error, StartError
from wechat.platform.api import Api
from wechat.platform.menu import read_menu, unhandled_keys
from wechat.reply import Text
from wechat.routing import Router, load
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.terminal import complain

Said = tuple[str, dict[str, Any]]  # what a person reads, and a program
Run = Callable[[Api, argparse.Namespace], Said]
KINDS = ("image", "voice", "video", "thumb")


def add_commands(commands: Any) -> None:
    """Adds them to the parser's sub-commands."""
    menu = _add_group(commands, "menu", "Show, push or delete the custom menu.")
    _add(menu, "get", run_menu_get)
    push = _add(menu, "push", run_menu_push)
    push.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: menu.json among the handlers")
    _add(menu, "delete", run_menu_delete)

    media = _add_group(commands, "media", "Download or upload temporary media.")
    get = _add(media, "get", run_media_get)
    get.add_argument("media_id", metavar="ID")
    get.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the platform's name, in this folder")
    upload = _add(media, "upload", run_media_upload)
    upload.add_argument("kind", choices=KINDS)
    upload.add_argument("file", type=Path, metavar="FILE")

    send = _add(commands, "send", run_send)
    send.add_argument("openid", metavar="OPENID")
    send.add_argument("text", metavar="TEXT")
    _add(commands, "token", run_token)
    call = _add(commands, "call", run_call)
    call.add_argument("method", choices=("GET", "POST"))
    call.add_argument("path", type=api_path, metavar="PATH", help="like /cgi-bin/get_api_domain_ip")
    call.add_argument("data", nargs="?", type=json_value, default={}, metavar="JSON", help="body, or query of a GET")


def api_path(text: str) -> str:
    """A path of the API; raises ArgumentTypeError for anything else."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError("it takes a path like /cgi-bin/get_api_domain_ip")
    return text


def json_value(text: str) -> Any:
    """The JSON in the text; raises ArgumentTypeError where there is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it is not JSON: {error}") from None


def _add_group(commands: Any, name: str, about: str) -> Any:
    return commands.add_parser(name, help=about, description=about).add_subparsers(required=True, metavar="COMMAND")


def _add(commands: Any, name: str, run: Run) -> argparse.ArgumentParser:
    parser = add(commands, name, run)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(run=partial(_run, run))
    return parser


def add(commands: Any, name: str, run: Callable[..., Any]) -> argparse.ArgumentParser:
    """Add a sub-command that is described by the docstring of what it runs; `options.fail` refuses its arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(run=run, fail=parser.error)
    return parser


def _run(run: Run, options: argparse.Namespace) -> int:
    """Prints what the command gives; 2 where the account's settings, or its handlers, are wrong. Raises Error."""
    try:
        with platform() as api:
            text, data = run(api, options)
    except StartError as error:
        complain(error)
        return 2
    print(to_json(data) if options.json else text)
    return 0


@contextmanager
def platform() -> Iterator[Api]:
    """The API of the account in the environment; raises StartError where its credentials are missing."""
    # Calls to the platform need no token of the message server's.
    settings = read({**os.environ, "WECHAT_TOKEN": os.environ.get("WECHAT_TOKEN") or "unused"})
    missing = [name for name in ("WECHAT_APPID", "WECHAT_SECRET") if not os.environ.get(name)]
    if missing:
        raise StartError([f"{name} is missing: calls to the platform need it" for name in missing])
    with closing(open_store(settings.store, settings.account_key)) as store, closing(Api(settings, store)) as api:
        yield api


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with escapes where stdout's encoding lacks a character: JSON knows no other ones."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def run_menu_get(api: Api, options: argparse.Namespace) -> Said:
    """Show the menu that followers see."""
    menu = api.get_menu()
    lines = [line for button in menu.get("menu", {}).get("button", []) for line in _tree(button)]
    lines += [f"and {len(menu['conditionalmenu'])} conditional menus"] if menu.get("conditionalmenu") else []
    return "\n".join(lines), menu


def _tree(button: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    target = next((str(button[name]) for name in ("key", "url", "media_id", "article_id") if button.get(name)), "")
    yield f"{indent}{button.get('name', '')}  {button.get('type', '')}  {target}".rstrip()
    for inner in button.get("sub_button") or []:
        yield from _tree(inner, indent + "  ")


def run_menu_push(api: Api, options: argparse.Namespace) -> Said:
    """Check a menu, then make it everybody's."""
    file = options.file or options.handlers / "menu.json"
    try:
        menu = read_menu(file)
    except ValueError as error:
        raise Error("\n".join(f"{file}: {fault}" for fault in str(error).splitlines())) from None
    for decorator in unhandled_keys(menu, Router(load(options.handlers))):
        complain(f"warning: {decorator}")
    api.create_menu(menu)
    count = len(menu["button"])
    return f"pushed {count} buttons; followers see them within five minutes", {"buttons": count}


def run_menu_delete(api: Api, options: argparse.Namespace) -> Said:
    """Delete the menu, and the conditional ones."""
    api.delete_menu()
    return "deleted", {"deleted": True}


def run_media_get(api: Api, options: argparse.Namespace) -> Said:
    """Download a medium; it overwrites no file."""
    output = options.output or Path()
    if output.is_dir():
        path = api.download(options.media_id, output)
    elif output.exists():
        raise Error(f"{output} is there, and is not overwritten: name another file")
    else:
        with tempfile.TemporaryDirectory(dir=output.parent) as own:
            path = api.download(options.media_id, own)
            output.open("xb").close()  # it may have come meanwhile
            path = path.replace(output)
    return str(path), {"file": str(path)}


def run_media_upload(api: Api, options: argparse.Namespace) -> Said:
    """Upload a file; prints its media_id, good for three days."""
    with options.file.open("rb") as file:
        media_id = api.upload(options.kind, options.file.name, file)
    return media_id, {"media_id": media_id}


def run_send(api: Api, options: argparse.Namespace) -> Said:
    """Send a text to a follower as a customer message."""
    text = Text(options.text)
    if text.is_empty():
        options.fail("the text is empty, there is nothing to send")
    api.send(options.openid, text)
    return "sent", {"sent": True}


def run_token(api: Api, options: argparse.Namespace) -> Said:
    """Print the access token, for a call by hand."""
    token = api.token()
    return token, {"access_token": token}


def run_call(api: Api, options: argparse.Namespace) -> Said:
    """Call any endpoint; prints its JSON."""
    if options.method == "POST":
        answer = api.post(options.path, options.data)
    elif isinstance(options.data, dict):
        answer = api.get(options.path, **options.data)
    else:
        options.fail("the query of a GET has to be a JSON object")
    return to_json(answer, indent=2), answer
