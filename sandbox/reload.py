"""Looks after the folder of handlers: what changes there is loaded anew, and what is broken is said."""

import linecache
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from wechat.errors import StartError
from wechat.importing import PACKAGE
from wechat.mistakes import find_mistakes
from wechat.platform.menu import read_menu
from wechat.routing import Routes, load

Snapshot = dict[str, tuple[int, int]]

PATIENCE = 5.0  # seconds after which it is said that a module is still being imported


class Folder:
    """The handlers in a folder, and their menu; the last good ones stay in use while a file is broken.

    `use` gets the routes; `show_menu` the menu, empty where there is none, and gives an errcode, 0 where all is well;
    `tell` the faults and warnings, none once all is well again. `seen` is what the routes in use were loaded from.
    """

    def __init__(
        self,
        folder: Path,
        seen: Snapshot,
        environ: Mapping[str, str],
        use: Callable[[Routes], None],
        show_menu: Callable[[dict[str, Any]], int],
        tell: Callable[[list[str]], None],
    ) -> None:
        self._folder, self._seen, self._environ = folder, seen, environ
        self._use, self._show_menu, self._tell = use, show_menu, tell
        self._menu: dict[str, Any] = {}
        if faults := self._try(self._load_menu):
            self._tell(faults)

    def look(self) -> None:
        """Loads what has changed since the last look."""
        try:
            now = snapshot(self._folder)
        except OSError:  # a folder went away while it was read; the next look comes soon
            return
        if now == self._seen:
            return
        self._seen = now
        patience = threading.Timer(PATIENCE, self._tell, [[f"{self._folder.name}/: a module is still being imported"]])
        patience.start()
        faults = [*self._try(self._load_handlers), *self._try(self._load_menu)]
        patience.cancel()
        self._tell(faults)

    def _try(self, task: Callable[[], Iterable[str]]) -> list[str]:
        try:
            return list(task())
        except BaseException as error:  # modules and menus may fail in any way; the sandbox goes on
            return [f"{self._folder.name}/: {type(error).__name__}: {error}"]

    def _load_handlers(self) -> Iterable[str]:
        modules = _modules()
        linecache.checkcache()  # Python's own warnings would quote the lines of before
        try:
            routes = load(self._folder, self._environ)
            self._use(routes)
        except BaseException as error:
            for name in _modules():  # the ones in use import one another also while they run
                del sys.modules[name]
            sys.modules.update(modules)
            if not isinstance(error, StartError):
                raise
            return error.faults
        return warnings(self._folder, routes)

    def _load_menu(self) -> Iterable[str]:
        file = self._folder / "menu.json"
        try:
            menu = read_menu(file) if file.exists() else {}
        except (OSError, ValueError) as error:
            return [f"{file.name}: {fault}" for fault in str(error).splitlines()]
        if menu != self._menu:
            if errcode := self._show_menu(menu):
                return [f"{file.name}: WeChat refuses the menu with {errcode}"]
            self._menu = menu
        return []


def warnings(folder: Path, routes: Routes) -> list[str]:
    """What is said about handlers that are in use all the same."""
    return [f"warning: {mistake}" for mistake in find_mistakes(folder, routes)]


def snapshot(folder: Path) -> Snapshot:
    """When each file was changed, and its size in bytes; what editors put beside their files does not count."""
    found = {}
    for file in folder.rglob("*"):
        is_hidden = any(part[0] == "." or part == "__pycache__" for part in file.relative_to(folder).parts)
        if is_hidden or not file.suffix or file.name.endswith("~"):
            continue
        with suppress(OSError):  # it has just been taken away
            if file.is_file():
                found[str(file)] = (file.stat().st_mtime_ns, file.stat().st_size)
    return found


def _modules() -> dict[str, Any]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == PACKAGE}
