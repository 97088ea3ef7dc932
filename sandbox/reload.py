"""Looks after the folder of handlers: what changes there is loaded anew, and what is broken is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from wechat.errors import StartError
from wechat.menu import menu_faults
from wechat.routing import Routes, load

Snapshot = dict[str, tuple[int, int]]


class Folder:
    """The handlers in a folder, and their menu; the last good ones stay in use while a file is broken.

    `use` gets the routes, `show_menu` the menu, and `tell` the faults, none once all is well again.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        use: Callable[[Routes], None],
        show_menu: Callable[[dict[str, Any]], None],
        tell: Callable[[list[str]], None],
    ) -> None:
        self._folder, self._environ = folder, environ
        self._use, self._show_menu, self._tell = use, show_menu, tell
        self._menu: object = None
        self._seen = self._snapshot()
        if faults := list(self._load_menu()):
            self._tell(faults)

    def look(self) -> None:
        """Loads what has changed since the last look."""
        now = self._snapshot()
        if now == self._seen:
            return
        self._seen = now
        self._tell([*self._load_handlers(), *self._load_menu()])

    def _snapshot(self) -> Snapshot:
        files = [file for file in self._folder.rglob("*") if "__pycache__" not in file.parts and file.name[0] != "."]
        return {str(file): (stat.st_mtime_ns, stat.st_size) for file in files if (stat := _stat(file))}

    def _load_handlers(self) -> Iterable[str]:
        try:
            self._use(load(self._folder, self._environ))
        except StartError as error:
            return error.faults
        return []

    def _load_menu(self) -> Iterable[str]:
        file = self._folder / "menu.json"
        try:
            menu = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            return [f"{file.name}: {error}"]
        if faults := menu_faults(menu):
            return [f"{file.name}: {fault}" for fault in faults]
        if menu != self._menu:
            self._menu = menu
            self._show_menu(menu)
        return []


def _stat(file: Path) -> Any:
    try:
        return file.stat()
    except OSError:  # an editor has just taken it away
        return None
