"""The words that the server itself says to users, and the one by which they fetch what waits."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from string import whitespace
from types import ModuleType
from typing import Any

from wechat.errors import short
from wechat.message import without_forbidden

LONGEST = 600  # bytes of UTF-8, so that there is room for what they stand behind
# Blanks, quotes and marks, which people type around a word that they were told in quotes, and WeChat hears.
AROUND = whitespace + "\u3000\xa0\u200b\ufeff\"'`‘’‚‛“”„‟«»‹›「」『』《》〈〉〝〞〟﹁﹂﹃﹄＂＇.。．｡!！,，、?？~～…"


@dataclass(frozen=True)
class Texts:
    """What the server says by itself; a module of handlers replaces it with `TEXTS = Texts(waiting="…", …)`.

    What is left out stays, and names the account's own `next`.

    Raises TypeError for what is no text, ValueError for one that is empty or has more than 600 bytes.
    """

    next: str = "继续"  # what a user says to get what waits
    waiting: str = "还在处理，稍后回复“继续”获取结果"
    not_ready: str = "还没好，请稍后再回复“继续”"
    more: str = "回复“继续”查看下文"  # below the beginning of a long text
    nothing: str = "刚才那条消息没有回复"
    busy: str = "前面的消息还在处理，请稍候再发"
    announce: str = "有一条回复在等你，回复“继续”查看"  # below another answer

    def __post_init__(self) -> None:
        for field in fields(self):
            text = getattr(self, field.name)
            if not isinstance(text, str):
                raise TypeError(f"Texts: {field.name} takes a text, not {type(text).__name__}")
            if len(text.encode(errors="replace")) > LONGEST:
                raise ValueError(f"Texts: {field.name} has more than {LONGEST} bytes of UTF-8")
            if not without_forbidden(text).strip() or not self.word:
                raise ValueError(f"Texts: {field.name} is empty")
            if text == field.default:
                object.__setattr__(self, field.name, text.replace(Texts.next, self.next))

    @cached_property
    def word(self) -> str:
        """`next`, as what a user says is compared with it."""
        return self.next.strip(AROUND).casefold()


def hand_out(modules: Iterable[ModuleType], functions: Iterable[Any], faults: list[str]) -> None:
    """Puts the `TEXTS` of the modules beside the marks of the functions.

    Two that differ, and what is no Texts, are added to the faults.
    """
    texts, first = Texts(), ""
    for module in modules:
        if not hasattr(module, "TEXTS"):
            continue
        found, here = module.TEXTS, _where(module)
        if not isinstance(found, Texts):
            faults.append(f"{here}: TEXTS takes a wechat.texts.Texts, not {type(found).__name__}")
        elif first and found != texts:
            faults.append(f"TEXTS is defined twice: at {first} and at {here}; remove one")
        else:
            texts, first = found, first or here
    for function in functions:
        function.wechat_texts = texts


def texts_of(functions: Iterable[Any]) -> Texts:
    """What was put there, or the usual texts."""
    return next((function.wechat_texts for function in functions if hasattr(function, "wechat_texts")), Texts())


def _where(module: ModuleType) -> str:
    """The file, and the line in which `TEXTS` first stands."""
    lines = inspect.getsource(module).splitlines()
    number = next((number for number, line in enumerate(lines, 1) if re.match(r"[^#]*\bTEXTS\b", line)), 1)
    return f"{short(module.__file__ or '')}:{number}"
