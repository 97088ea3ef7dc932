"""The environment, read once into one frozen value."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wechat.errors import SettingsError

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class Settings:
    """What the server was told. Its `repr` shows no secret."""

    tokens: tuple[str, ...] = field(repr=False)  # the first one signs; each one verifies
    path: str = "/weixin"
    max_age: int = 300  # seconds a signed timestamp stays good, both ways; 0: for ever
    threads: int = 64
    host: str = "0.0.0.0"
    port: int = 8080
    log_level: str = "INFO"


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; an empty value counts as none.

    Raises SettingsError with every fault at once.
    """
    values: dict[str, Any] = {}
    faults = []
    for rule in RULES:
        text = environ.get(rule.name, "").strip()
        if not text and rule.name not in REQUIRED:
            continue
        try:
            values[rule.field] = rule.parse(text)
        except ValueError as error:
            faults.append(f"{rule.name} {error}")
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(part.strip() for part in text.split(","))
    if not text:
        raise ValueError("is missing: set it to the token typed on the platform's page, 3 to 32 letters and digits")
    if not all(re.fullmatch(r"[\w.~+-]{3,32}", token, re.ASCII) for token in tokens):
        raise ValueError("is not a token: it takes 3 to 32 letters and digits, or two of those as new,old")
    return tokens


def _path(text: str) -> str:
    if not re.fullmatch(r"/|(/[\w.~-]+)+/?", text, re.ASCII) or text.rstrip("/") == "/healthz":
        raise ValueError(f"is {text!r}: it takes a path like /weixin, and not /healthz")
    return text.rstrip("/")


def _whole_number(low: int, high: int, unit: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"is {text!r}: it takes {unit}, a whole number from {low} to {high}")
        return int(text)

    return parse


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:%-]+", text, re.ASCII):
        raise ValueError(f"is {text!r}: it takes an address like 0.0.0.0 or 127.0.0.1, without a port")
    return text


def _log_level(text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise ValueError(f"is {text!r}: it takes one of {', '.join(LOG_LEVELS)}")
    return text.upper()


class Rule(NamedTuple):
    """One setting: its name outside, its field inside, and how its text becomes a value."""

    name: str
    field: str
    parse: Callable[[str], Any]


RULES = (
    Rule("WECHAT_TOKEN", "tokens", _tokens),
    Rule("WECHAT_PATH", "path", _path),
    Rule("WECHAT_MAX_AGE", "max_age", _whole_number(0, 86_400, "seconds")),
    Rule("WECHAT_THREADS", "threads", _whole_number(1, 1_000, "threads")),
    Rule("HOST", "host", _host),
    Rule("PORT", "port", _whole_number(0, 65_535, "a TCP port")),
    Rule("LOG_LEVEL", "log_level", _log_level),
)
REQUIRED = frozenset({"WECHAT_TOKEN"})


# An import takes no argument, so the environment that an application is made from reaches the modules of `handlers/`
# this way; it is the process's own unless somebody makes an application from another.
_environ: ContextVar[Mapping[str, str]] = ContextVar("environ", default=os.environ)


@contextmanager
def environment(environ: Mapping[str, str]) -> Iterator[None]:
    """Inside the block, `own` reads from `environ`."""
    token = _environ.set(environ)
    try:
        yield
    finally:
        _environ.reset(token)


def own(name: str, default: str = "") -> str:
    """A setting of a handler module's own, to be read while the module is imported; empty counts as none."""
    return _environ.get().get(name, "").strip() or default
