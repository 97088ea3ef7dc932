"""The environment, read once into one frozen value."""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wechat.errors import SettingsError

CRYPTOGRAPHY = "cryptography.hazmat.primitives.ciphers"  # what `envelope` uses of the package


@dataclass(frozen=True)
class Settings:
    """What the server was told. Its `repr` shows no secret."""

    tokens: tuple[str, ...] = field(repr=False)  # the newest first
    appid: str = ""
    secret: str = field(default="", repr=False)
    aes_keys: tuple[bytes, ...] = field(default=(), repr=False)  # 32 bytes each, the newest first
    mode: str = "plain"
    account: str = "official"
    store: str = field(default="memory:", repr=False)  # may hold a password
    api_url: str = "https://api.weixin.qq.com"
    path: str = "/weixin"
    max_age: int = 300  # seconds a signed timestamp stays good, both ways; 0: for ever
    reply_within: float = 4.5  # seconds one attempt is held open
    threads: int = 64
    drain: int = 20  # seconds SIGTERM waits for work in flight
    host: str = "0.0.0.0"
    port: int = 8080
    log_level: str = "info"

    @property
    def account_key(self) -> str:
        """What the keys of this account begin with in a store that several share."""
        return self.appid or sha256(self.tokens[-1].encode()).hexdigest()[:16]


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
    if values.get("aes_keys"):
        values.setdefault("mode", "safe")
    faults += _conflicts(values)
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    """Settings that are good by themselves, but not together."""
    mode = values.get("mode", "plain")
    if mode != "plain":
        for name, value in (("WECHAT_AES_KEY", "aes_keys"), ("WECHAT_APPID", "appid")):
            if not values.get(value):
                yield f"{name} is missing or wrong: WECHAT_MODE={mode} needs it"
        if fault := package_fault(CRYPTOGRAPHY):
            yield f"WECHAT_MODE={mode} {fault}"
    if values.get("account") == "miniprogram":
        for name, value in (("WECHAT_APPID", "appid"), ("WECHAT_SECRET", "secret")):
            if not values.get(value):
                yield f"{name} is missing or wrong: WECHAT_ACCOUNT=miniprogram answers through the platform's API"


def package_fault(module: str) -> str:
    """Why a module of an optional package cannot be imported, and what to type; empty where it can be."""
    package = module.partition(".")[0]
    try:
        import_module(package)
        import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a native module may raise anything: the panic of one in Rust is no Exception
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            return f"needs a package: python -m pip install {package}"
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return f"needs {package}, which does not import ({why}): python -m pip install --force-reinstall {package}"
    return ""


def _tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(part.strip() for part in text.split(","))
    if not text:
        raise ValueError("is missing: set it to the token typed on the platform's page, 3 to 32 letters and digits")
    if not all(re.fullmatch(r"[\w.~+-]{3,32}", token, re.ASCII) for token in tokens):
        raise ValueError("is not a token: it takes 3 to 32 letters and digits, or two of those as new,old")
    return tokens


def _credential(what: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(r"[\w-]{6,128}", text, re.ASCII):
            raise ValueError(f"is not {what}: copy it from the platform's page, letters and digits without blanks")
        return text

    return parse


def _aes_keys(text: str) -> tuple[bytes, ...]:
    keys = [re.sub(r"\s", "", part) for part in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9+/]{43}", key) for key in keys):
        raise ValueError("is not an EncodingAESKey: it takes the 43 characters on the platform's page, or new,old")
    # The last character may hold bits that belong to no byte, so a strict decoder would refuse the platform's own keys.
    return tuple(b64decode(key + "=") for key in keys)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"is {text!r}: it takes {', '.join(choices[:-1])} or {choices[-1]}")
        return text.lower()

    return parse


def _store(text: str) -> str:
    if not re.match(r"memory:$|sqlite:.|(rediss?|unix)://.", text):
        raise ValueError("is no store: it takes memory:, sqlite:FILE or redis://host:port/db")
    if text[0] in "ru" and (fault := package_fault("redis")):
        raise ValueError(fault)
    return text


def _api_url(text: str) -> str:
    with suppress(ValueError):
        if re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", text) and urlsplit(text).port != 0:
            return text.rstrip("/")
    raise ValueError("is no address: it takes one like https://api.weixin.qq.com")


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


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9](\.[0-9]{1,3})?", text) or not 0 < float(text) < 5:
        raise ValueError(f"is {text!r}: it takes seconds above 0 and below the 5 after which WeChat hangs up, like 4.5")
    return float(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:%-]+", text, re.ASCII):
        raise ValueError(f"is {text!r}: it takes an address like 0.0.0.0 or 127.0.0.1, without a port")
    return text


class Rule(NamedTuple):
    """One setting: its name outside, its field inside, and how its text becomes a value."""

    name: str
    field: str
    parse: Callable[[str], Any]


RULES = (
    Rule("WECHAT_TOKEN", "tokens", _tokens),
    Rule("WECHAT_APPID", "appid", _credential("an appid")),
    Rule("WECHAT_SECRET", "secret", _credential("an AppSecret")),
    Rule("WECHAT_AES_KEY", "aes_keys", _aes_keys),
    Rule("WECHAT_MODE", "mode", _one_of("plain", "compat", "safe")),
    Rule("WECHAT_ACCOUNT", "account", _one_of("official", "miniprogram")),
    Rule("WECHAT_STORE", "store", _store),
    Rule("WECHAT_API_URL", "api_url", _api_url),
    Rule("WECHAT_PATH", "path", _path),
    Rule("WECHAT_MAX_AGE", "max_age", _whole_number(0, 86_400, "seconds")),
    Rule("WECHAT_REPLY_WITHIN", "reply_within", _seconds),
    Rule("WECHAT_DRAIN", "drain", _whole_number(0, 3_600, "seconds")),
    Rule("WECHAT_THREADS", "threads", _whole_number(1, 1_000, "threads")),
    Rule("HOST", "host", _host),
    Rule("PORT", "port", _whole_number(0, 65_535, "a TCP port")),
    Rule("LOG_LEVEL", "log_level", _one_of("debug", "info", "warning", "error", "critical")),
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
