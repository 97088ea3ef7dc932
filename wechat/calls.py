"""The commands that call the platform: each is described by its docstring, and gives what it prints."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from wechat.errors import Error, StartError
from wechat.online import require_keys
from wechat.platform.api import Api
from wechat.platform.menu import menu_lines, read_menu, unhandled_keys
from wechat.reply import Text
from wechat.routing import Router, load
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.terminal import complain, say, to_json

Said = tuple[str, dict[str, Any]]  # what a person reads, and a program
Run = Callable[[Api, argparse.Namespace], Said]


def run_call(run: Run, options: argparse.Namespace) -> int:
    """Print what the command gives; 2 where the account's settings, or its handlers, are wrong. Raises Error."""
    try:
        with platform() as api:
            text, data = run(api, options)
    except StartError as error:
        complain(error)
        return 2
    if options.json:
        print(to_json(data))
    else:
        say(text)
    return 0


@contextmanager
def platform() -> Iterator[Api]:
    """The API of the account in the environment; raises StartError where its credentials are missing."""
    # Calls to the platform need no token of the message server's.
    needs_none = os.environ.get("WECHAT_TOKEN") or os.environ.get("WECHAT_MODE", "").strip().lower() == "cloud"
    settings = read({**os.environ, **({} if needs_none else {"WECHAT_TOKEN": "unused"})})
    require_keys(settings)
    with closing(open_store(settings.store, settings.account_key)) as store, closing(Api(settings, store)) as api:
        yield api


def run_menu_get(api: Api, options: argparse.Namespace) -> Said:
    """Show the menu that followers see."""
    menu = api.get_menu()
    return "\n".join(menu_lines(menu)), menu


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
    return "pushed; followers see the menu within five minutes", {"buttons": count}


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


def run_any(api: Api, options: argparse.Namespace) -> Said:
    """Call any endpoint; prints its JSON."""
    if options.method == "POST":
        answer = api.post(options.path, options.data)
    elif isinstance(options.data, dict):
        answer = api.get(options.path, **options.data)
    else:
        options.fail("the query of a GET has to be a JSON object")
    return to_json(answer, indent=2), answer
