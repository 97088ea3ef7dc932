"""The commands that talk to the platform: `python -m wechat menu`, `media`, `send`, `token`, `call`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wechat.errors import Error, StartError
from wechat.platform.api import Api
from wechat.platform.files import Progress
from wechat.platform.menu import menu_faults, read_menu, unhandled_keys
from wechat.reply import Text
from wechat.routing import Router, load
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.terminal import complain

Run = Callable[[argparse.Namespace], int]
KINDS = ("image", "voice", "video", "thumb")


def add_commands(commands: Any) -> None:
    """Adds them to the parser's sub-commands."""
    menu = _group(commands, "menu", "show, push or delete the custom menu")
    _add(menu, "get", run_menu_get, "show the menu that followers see")
    push = _add(menu, "push", run_menu_push, "check a menu, then make it everybody's")
    push.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: menu.json among the handlers")
    _add(menu, "delete", run_menu_delete, "delete the menu, and the conditional ones")

    media = _group(commands, "media", "download or upload temporary media")
    get = _add(media, "get", run_media_get, "download a medium")
    get.add_argument("media_id", metavar="ID")
    get.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: the platform's name, in this folder")
    upload = _add(media, "upload", run_media_upload, "upload a file; prints its media_id, good for three days")
    upload.add_argument("kind", choices=KINDS)
    upload.add_argument("file", type=Path, metavar="FILE")

    send = _add(commands, "send", run_send, "send a text to a follower as a customer message")
    send.add_argument("openid", metavar="OPENID")
    send.add_argument("text", metavar="TEXT")
    _add(commands, "token", run_token, "print the access token, for a call by hand")
    call = _add(commands, "call", run_call, "call any endpoint; prints its JSON")
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


def add(commands: Any, name: str, run: Run, about: str) -> argparse.ArgumentParser:
    """Add a sub-command, whose help says what it is about."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=run)
    return parser


def _group(commands: Any, name: str, about: str) -> Any:
    return commands.add_parser(name, help=about, description=about).add_subparsers(required=True, metavar="COMMAND")


def _add(commands: Any, name: str, run: Run, about: str) -> argparse.ArgumentParser:
    parser = add(commands, name, lambda options: _guarded(run, options), about)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


def _guarded(run: Run, options: argparse.Namespace) -> int:
    """The command's exit status: 1 where the platform refuses, 2 where a setting is missing. An OSError passes."""
    try:
        return run(options)
    except StartError as error:
        complain(*error.faults)
        return 2
    except Error as error:
        complain(error)
        return 1


@contextmanager
def platform() -> Iterator[Api]:
    """The API of the account in the environment; raises StartError where its credentials are missing."""
    # Calls to the platform need no token of the message server's.
    settings = read({**os.environ, "WECHAT_TOKEN": os.environ.get("WECHAT_TOKEN") or "unused"})
    missing = [name for name in ("WECHAT_APPID", "WECHAT_SECRET") if not os.environ.get(name)]
    if missing:
        raise StartError([f"{name} is missing: calls to the platform need it" for name in missing])
    store = open_store(settings.store, settings.account_key)
    api = Api(settings, store)
    try:
        yield api
    finally:
        api.close()
        store.close()


def say(options: argparse.Namespace, text: str, **data: Any) -> int:
    """Prints the text for a person, or the data for a program."""
    print(to_json(data) if options.json else text)
    return 0


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with escapes where stdout's encoding lacks a character: JSON knows no other ones."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def run_menu_get(options: argparse.Namespace) -> int:
    """The menu as a tree."""
    with platform() as api:
        menu = api.get_menu()
    lines = [line for button in menu.get("menu", {}).get("button", []) for line in _tree(button)]
    lines += [f"and {len(menu['conditionalmenu'])} conditional menus"] if menu.get("conditionalmenu") else []
    return say(options, "\n".join(lines), **menu)


def _tree(button: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    target = next((str(button[name]) for name in ("key", "url", "media_id", "article_id") if button.get(name)), "")
    yield f"{indent}{button.get('name', '')}  {button.get('type', '')}  {target}".rstrip()
    for inner in button.get("sub_button") or []:
        yield from _tree(inner, indent + "  ")


def run_menu_push(options: argparse.Namespace) -> int:
    """Checks the file first: names the button at fault, and the decorators that are missing."""
    file = options.file or options.handlers / "menu.json"
    try:
        menu = read_menu(file)
        faults = menu_faults(menu)
    except ValueError as error:
        faults = [str(error)]
    if faults:
        complain(*(f"{file}: {fault}" for fault in faults))
        return 1
    for decorator in unhandled_keys(menu, Router(load(options.handlers))):
        complain(f"warning: {decorator}")
    with platform() as api:
        api.create_menu(menu)
    count = len(menu["button"])
    return say(options, f"pushed {count} buttons; followers see them within five minutes", buttons=count)


def run_menu_delete(options: argparse.Namespace) -> int:
    """Deletes it."""
    with platform() as api:
        api.delete_menu()
    return say(options, "deleted", deleted=True)


def run_media_get(options: argparse.Namespace) -> int:
    """Downloads into this folder, or to the file that was named; overwrites none."""
    output = options.output or Path()
    if output.is_file():
        complain(f"{output} is there, and is not overwritten: name another file")
        return 1
    with platform() as api, progress_bar("downloaded") as show:
        if output.is_dir():
            path = api.download(options.media_id, output, on_progress=show)
        else:
            path = _download_as(output, api, options.media_id, show)
    return say(options, str(path), file=str(path))


def _download_as(output: Path, api: Api, media_id: str, show: Progress) -> Path:
    with tempfile.TemporaryDirectory(dir=output.parent) as own:
        path = api.download(media_id, own, on_progress=show)
        output.open("xb").close()  # it may have come meanwhile
        return path.replace(output)


def run_media_upload(options: argparse.Namespace) -> int:
    """Uploads, and prints the media_id."""
    with platform() as api, options.file.open("rb") as file, progress_bar("uploaded") as show:
        media_id = api.upload(options.kind, options.file.name, Watched(file, show))  # type: ignore[arg-type]
    return say(options, media_id, media_id=media_id)


def run_send(options: argparse.Namespace) -> int:
    """Sends one text."""
    text = Text(options.text)
    if text.is_empty():
        complain("the text is empty, there is nothing to send")
        return 2
    with platform() as api:
        api.send(options.openid, text)
    return say(options, "sent", sent=True)


def run_token(options: argparse.Namespace) -> int:
    """Prints the token."""
    with platform() as api:
        token = api.token()
    return say(options, token, access_token=token)


def run_call(options: argparse.Namespace) -> int:
    """Calls, and prints what came."""
    is_get = options.method == "GET"
    if is_get and not isinstance(options.data, dict):
        complain("the query of a GET has to be a JSON object")
        return 2
    with platform() as api:
        answer = api.get(options.path, **options.data) if is_get else api.post(options.path, options.data)
    print(to_json(answer, None if options.json else 2))
    return 0


class Watched:
    """A file that reports how much of it has been read."""

    def __init__(self, file: BinaryIO, show: Callable[[int, int], None]) -> None:
        self._file, self._show = file, show
        self._size = os.fstat(file.fileno()).st_size
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """The next bytes."""
        piece = self._file.read(size)
        self._show(self._file.tell(), self._size)
        return piece


@contextmanager
def progress_bar(done_word: str) -> Iterator[Callable[[int, int], None]]:
    """A function that draws how far a transfer is, on a terminal only."""
    is_terminal = sys.stderr.isatty()

    def show(done: int, size: int) -> None:
        if is_terminal:
            bar = "#" * (30 * done // size) if size else ""
            sys.stderr.write(f"\r[{bar:30}] {done / 1e6:.1f} MB {done_word}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if is_terminal:
            sys.stderr.write(f"\r{'':60}\r")  # the console of Windows has no escape sequences by default
