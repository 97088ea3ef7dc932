"""An account of one's own: a new one, and what an old one answered on the platform's console.

https://developers.weixin.qq.com/doc/service/api/notify/autoreplies/api_getcurrentautoreplyinfo
https://developers.weixin.qq.com/doc/service/api/custommenu/api_getcurrentselfmenuinfo
"""

import argparse
import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wechat.errors import Error
from wechat.platform.api import Api
from wechat.platform.menu import NEEDS
from wechat.startup import ROOT, is_installed, version
from wechat.terminal import complain, say

DATA = Path(__file__).with_name("data")
MATCHES = {"equal": "exact", "contain": "contains"}  # the console's words, and those of `replies.csv`

Row = tuple[str, str, str]  # keyword, match, reply


def run_new(options: argparse.Namespace) -> int:
    """Make a minimal account of one's own, in a folder that is new or empty."""
    folder: Path = options.folder
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise Error(f"{folder} is not empty: name a folder that is, or is not there yet")
    shutil.copytree(DATA / "new", folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    (folder / "wheels").mkdir()  # pip warns of a `--find-links` that is not there
    requirements = folder / "requirements.txt"
    requirements.write_text(requirements.read_text("utf-8").replace("VERSION", version()), "utf-8")
    install = "" if is_installed() else f"python -m pip install {ROOT}, "
    say(f"made {folder}; next: {install}cd {folder} and python -m sandbox; README.md there says more")
    return 0


def run_import(api: Api, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Write what the account answered on the console, and its menu, to files among the handlers; overwrites none."""
    replies, menu = (api.get(f"/cgi-bin/get_current_{name}_info") for name in ("autoreply", "selfmenu"))
    old = OldAnswers(replies, menu)
    files = list(map(str, old.write(options.handlers)))
    for lost in old.lost:
        complain(f"warning: not imported, as it is no text: {lost}")
    return f"{len(old.rows)} replies; wrote {', '.join(files)}", {"files": files, "not_imported": old.lost}


class OldAnswers:
    """What the account answered before its server was switched on; `lost` names what only the console can send."""

    def __init__(self, replies: dict[str, Any], menu: dict[str, Any]) -> None:
        self.lost: list[str] = []
        self._clicks: list[Row] = []
        buttons = [button for info in _listed([menu.get("selfmenu_info")]) for button in _listed(info.get("button"))]
        self.menu = {"button": [self._button(button) for button in buttons]} if buttons else None
        self.rows = [*self._rows(replies), *self._clicks]

    def write(self, folder: Path) -> list[Path]:
        """Write `replies.csv`, the handler that reads it, and `menu.json`; gives what was written.

        Raises Error where a file is there already, before anything is written.
        """
        contents = {folder / "replies.csv": self._csv()}
        if self.menu:
            contents[folder / "menu.json"] = json.dumps(self.menu, ensure_ascii=False, indent=2) + "\n"
        for file in contents:
            if file.exists():
                raise Error(f"{file} is there, and is not overwritten: move it away, or name a folder with --handlers")
        if not (folder / "replies.py").exists():
            contents[folder / "replies.py"] = (DATA / "replies.py").read_text("utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            with file.open("x", encoding="utf-8", errors="replace", newline="") as new:
                new.write(content)
        return list(contents)

    def _csv(self) -> str:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("keyword", "match", "reply"), *self.rows])
        return "\ufeff" + text.getvalue()  # Excel takes a file without this mark for one in its own encoding

    def _rows(self, info: dict[str, Any]) -> Iterator[Row]:
        for rule in _listed(info.get("keyword_autoreply_info")):
            replies = self._texts(_listed(rule.get("reply_list_info")), f"the rule {rule.get('rule_name')}")
            if rule.get("reply_mode") == "reply_all" and replies:
                replies = ["\n\n".join(replies)]  # in answer to a message there is one
            for keyword in _listed(rule.get("keyword_list_info")):
                word, match = str(keyword.get("content")).strip(), MATCHES.get(str(keyword.get("match_mode")), "exact")
                yield from ((word, match, reply) for reply in replies if word)
        for name, match in ("add_friend_autoreply_info", "subscribe"), ("message_default_autoreply_info", "default"):
            yield from (("", match, text) for text in self._texts(_listed([info.get(name)]), f"the reply {match}"))

    def _texts(self, replies: list[dict[str, Any]], what: str) -> list[str]:
        """The replies as texts, articles as their titles with links; a file is good for three days only, and lost."""
        texts = []
        for reply in filter(None, replies):
            if text := _text(reply):
                texts.append(text)
            else:
                get = f": python -m wechat media get -- {reply.get('content')} has it for three days"
                self.lost.append(f"{what}: {reply.get('type')}{'' if reply.get('type') == 'video' else get}")
        return texts

    def _button(self, button: dict[str, Any]) -> dict[str, Any]:
        """The button as `menu/create` takes it: what the console sends by itself becomes a click."""
        name, kind = button.get("name"), str(button.get("type")).casefold()
        if subs := _listed(button.get("sub_button")):
            return {"name": name, "sub_button": [self._button(sub) for sub in subs]}
        if kind in NEEDS:
            return {field: button[field] for field in ("type", "name", *NEEDS[kind]) if field in button}
        key = f"CONSOLE_{len(self._clicks) + len(self.lost) + 1}"
        reply = {"type": kind, "content": button.get("value"), "news_info": button.get("news_info")}
        self._clicks += [(key, "click", text) for text in self._texts([reply], f"the button {name}")]
        return {"type": "click", "name": name, "key": key}


def _text(reply: dict[str, Any]) -> str:
    if reply.get("type") == "text":
        return str(reply.get("content") or "")
    articles = _listed(reply.get("news_info"))
    return "\n\n".join(f"{article.get('title')}\n{article.get('content_url')}" for article in articles)


def _listed(value: Any) -> list[dict[str, Any]]:
    """The objects that WeChat wraps into one with a `list`, in most of its answers."""
    items = value.get("list") if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
