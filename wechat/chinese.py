"""What a person at a terminal reads, in Chinese. The log, and whatever a program reads, stays English.

`data/zh.txt` has each English sentence with the Chinese one in the line below. A field in braces stands for any value,
`{name}` for one word; the value of one whose name begins with `said` is a sentence itself, which has a row too.
"""

import argparse
import re
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

LONGEST = 1000  # characters of a line that is looked up: parts within parts are recursive
FIELD = re.compile(r"\{(\w+)\}")


@cache
def read_table() -> dict[str, str]:
    """Chinese by English, in the order in which rows are tried."""
    text = Path(__file__).with_name("data").joinpath("zh.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return {english: chinese.strip() for english, chinese in zip(lines[::2], lines[1::2], strict=True)}


@cache
def _pattern(english: str) -> re.Pattern[str]:
    escaped = [re.escape(part) for part in FIELD.split(english)]
    escaped[1::2] = [rf"(?P<{name}>{'[^ ]' if name == 'name' else '.'}+?)" for name in escaped[1::2]]
    return re.compile("".join(escaped))


def translate(text: str) -> str:
    """The text in Chinese, line by line; a line that no row fits stays as it is."""
    return "\n".join((len(line) <= LONGEST and _translated(line)) or line for line in text.split("\n"))


@cache  # without it, the time that a line takes would double with each colon in it
def _translated(line: str) -> str:
    table = read_table()
    if line in table:
        return table[line]
    for english, chinese in table.items():
        is_near = all(part in line for part in FIELD.split(english)[::2])  # compiling each pattern would take 15 ms
        if is_near and (match := _pattern(english).fullmatch(line)):
            found = match.groupdict()
            found |= {name: _translated(found[name]) for name in found if name.startswith("said")}
            if all(found.values()):
                return chinese.format(**found)
    return ""


def columns(text: str) -> int:
    """How many columns the text takes: a Chinese character takes two."""
    return sum(1 + (east_asian_width(letter) in "WF") for letter in text)


class Help(argparse.HelpFormatter):
    """Help in Chinese, broken into lines by the columns that characters take."""

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, translate("usage:") + " " if prefix is None else prefix)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and translate(heading))

    def add_text(self, text: str | None) -> None:
        super().add_text(text and translate(text))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and translate(action.help)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))

    def _split_lines(self, text: str, width: int) -> list[str]:
        lines = [""]
        for word in re.findall("[!-~]+ *|.[，。、；：？）”]*", text):
            if columns(lines[-1] + word.rstrip()) > width:
                lines.append("")
            lines[-1] += word
        return [line.strip() for line in lines if line]
