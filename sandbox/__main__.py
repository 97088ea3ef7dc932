"""`python -m sandbox`: the other side of the wire, for trying a server without an account."""

import _thread
import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO, cast

import waitress

import wxserver
from sandbox import check, load, push
from sandbox.accounts import Accounts, NumberedTransport
from sandbox.chat import Chat
from sandbox.cloud import Cloud
from sandbox.cloud_wire import UNVERIFIED
from sandbox.console import LARGEST_FILE, Console
from sandbox.messages import APPID
from sandbox.reload import Folder, snapshot, warnings
from sandbox.timeline import LogLines, Printed, Timeline
from wechat.chinese import translate
from wechat.errors import StartError
from wechat.importing import PACKAGE
from wechat.log import configure
from wechat.mistakes import unknown_settings
from wechat.routing import Routes, prepare
from wechat.settings import Settings, read
from wechat.startup import handlers_folder
from wechat.store.base import Store
from wechat.store.opening import open_store
from wechat.system import END_SIGNALS, advise
from wechat.terminal import Parser, complain, say
from wechat.terminal import run as run_command

HOST = "127.0.0.1"  # whatever HOST says: who reaches the page can read and send everything
LOOK = 0.3  # seconds between two looks at the handlers
THREADS = 64  # of the page and the API; each open page takes one

DEFAULTS = {"WECHAT_TOKEN": "sandbox", "WECHAT_APPID": APPID, "WECHAT_SECRET": "sandbox-secret"}
UNSEALED = {"WECHAT_AES_KEY": "sandbox" + "0" * 36, "WECHAT_MODE": "plain"}
ALWAYS = {
    "WECHAT_STORE": "memory:",  # never the real account's: what it promised would be sent to the stand-in
    "WECHAT_PROXY": "",  # nothing leaves this machine
    "WECHAT_MAX_AGE": "0",  # a push from the history of a shell is welcome
}
COMMANDS = (
    (check, "what WeChat would find wrong with a server anywhere"),
    (load, "send messages at a steady rate, and show the latencies against WeChat's 5 s"),
    (push, "push one message or event as WeChat would, and show what the user sees"),
)


def main(arguments: list[str]) -> int:
    """Runs one command; without one, serves. Gives the exit status."""
    environ = with_defaults({name: value for name, value in os.environ.items() if value})
    options = make_parser(environ).parse_args(arguments)
    return int(options.run(options))


def with_defaults(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, with what the sandbox's account has by itself; in WeChat's own cloud, no token and no key."""
    if environ.get("WECHAT_MODE", "").strip().lower() == "cloud":
        return {"WECHAT_APPID": APPID, "WECHAT_SECRET": DEFAULTS["WECHAT_SECRET"], **environ}
    return {**DEFAULTS, **({} if "WECHAT_AES_KEY" in environ else UNSEALED), **environ}


def make_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of all commands, whose defaults are the settings."""
    parser = Parser(prog="python -m sandbox", description=__doc__)
    parser.set_defaults(
        run=lambda options: serve({**environ, **ALWAYS}, options.handlers), handlers=handlers_folder(environ)
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", title="commands", description="without one: the server, its chat page, and a stand-in API"
    )
    for command, about in COMMANDS:
        chosen = commands.add_parser(command.__name__.rpartition(".")[2], help=about, description=about)
        command.add_arguments(chosen, *([environ] if command is push else []))
        chosen.set_defaults(run=command.run)
    return parser


def serve(environ: Mapping[str, str], handlers: Path) -> NoReturn:
    """Serves on loopback, loading handlers anew as they change, until it is stopped."""
    for number in END_SIGNALS:
        signal.signal(number, end)
    try:
        folder = start(environ, handlers)
    except StartError as error:
        wxserver.give_up(error)
    while True:
        time.sleep(LOOK)
        folder.look()


def end(*_: object) -> None:
    """Ends the process, without waiting for handlers, for modules that are being imported, or for pages."""
    # The main thread, in which a signal is heard, may be in the middle of a line, and has to go on with it.
    _thread.start_new_thread(_end, ())


def _end() -> NoReturn:
    logging.shutdown()
    os._exit(0)


def start(environ: Mapping[str, str], handlers: Path) -> Folder:
    """The server, the stand-in API and the page, each listening; gives what looks after the handlers."""
    # A file that changes twice within a second would come from the cache the second time.
    sys.dont_write_bytecode = True
    seen = snapshot(handlers)
    settings, routes = prepare(environ, handlers)
    server, beside = listen(settings.port), listen(settings.port and settings.port + 1, "PORT + 1")
    api_urls = (f"http://{HOST}:{beside.getsockname()[1]}",)
    settings = replace(settings, port=server.getsockname()[1], api_urls=api_urls)
    if settings.mode == "cloud":
        settings = with_keys(settings)
    configure("info", settings.log_format)
    for name in ("wechat", "wxserver", PACKAGE):  # what errors say quotes nobody but oneself; no library's own lines
        logging.getLogger(name).setLevel(logging.DEBUG)

    cloud, timeline = Cloud(settings.appid, settings.secret), Timeline()
    accounts = Accounts(settings, routes, partial(make, open_store(settings.store)), cloud.note_action)
    logging.getLogger().addHandler(LogLines(timeline, accounts.where))
    streams = (sys.stdout, sys.stderr)  # which pythonw.exe has not
    sys.stdout, sys.stderr = (stream and cast(TextIO, Printed(stream, timeline)) for stream in streams)
    chat = Chat(f"http://{HOST}:{settings.port}{settings.path}", settings, cloud, timeline)

    def tell(faults: list[str]) -> None:
        is_loaded = all(fault.startswith("warning: ") for fault in faults)
        complain(*faults, *(["the handlers are loaded"] * is_loaded))
        timeline.add("handlers", faults=faults, in_chinese=[*map(translate, faults)])

    if said := [*map("warning: {}".format, unknown_settings(environ)), *warnings(handlers, routes)]:
        tell(said)
    folder = Folder(handlers, seen, environ, accounts.use, chat.show_menu, tell)
    run(accounts, server, settings.threads)
    run(Console(chat, cloud, settings, accounts.is_idle), beside, THREADS)
    say(welcome(settings, handlers, environ))
    return folder


def make(store: Store, settings: Settings, routes: Routes) -> wxserver.Application:
    """The application for one account, whose calls of the platform say for which message they are."""
    # What the platform refuses to an unverified account must not close customer messages for the others.
    is_apart = settings.api_urls[0].endswith(UNVERIFIED)
    app = wxserver.Application(settings, routes, store=open_store(settings.store) if is_apart else store)
    app.api.connect_with(lambda own: NumberedTransport(own.api_urls[0]))
    return app


def with_keys(settings: Settings) -> Settings:
    """The settings of cloud mode, with what the page's other modes need."""
    sealed = read({**UNSEALED, **DEFAULTS})
    return replace(settings, tokens=sealed.tokens, aes_keys=sealed.aes_keys)


def listen(port: int, setting: str = "PORT") -> socket.socket:
    """A socket on loopback; raises StartError where there is none to be had."""
    try:
        if port > 65_535:
            raise OSError("there is no such port")
        return socket.create_server((HOST, port))
    except OSError as error:
        raise StartError([f"{setting}: the sandbox cannot listen on {HOST}:{port}: {advise(error)}"]) from error


def run(app: Accounts | Console, listener: socket.socket, threads: int) -> None:
    """Serves in a thread of its own."""
    server = waitress.create_server(
        app, sockets=[listener], threads=threads, max_request_body_size=LARGEST_FILE + 1, asyncore_use_poll=True
    )
    threading.Thread(target=server.run, daemon=True).start()


def welcome(settings: Settings, handlers: Path, environ: Mapping[str, str]) -> str:
    """What is printed once all is well."""
    url = f"http://{HOST}:{settings.port}{settings.path}"
    token, appid, secret = (
        value if environ.get(name) == value else f"the one in {name}" for name, value in DEFAULTS.items()
    )
    known = "WECHAT_MODE=cloud" if settings.mode == "cloud" else f"token: {token}"
    where = "" if settings.port == Settings.port else f" --url {url}"
    where += " --mode cloud" if settings.mode == "cloud" else ""
    return f"""
Chat page   {settings.api_urls[0]}/
Server      {url}, {known}
API         {settings.api_urls[0]}, a stand-in for api.weixin.qq.com, AppID: {appid}, secret: {secret}

From another terminal: python -m sandbox push text 三体{where}
With WECHAT_API_URL={settings.api_urls[0]} and these in WECHAT_APPID and WECHAT_SECRET: python -m wechat menu get
A change in {handlers}/ is loaded at once. Ctrl-C ends this.
"""


if __name__ == "__main__":
    run_command(main)
