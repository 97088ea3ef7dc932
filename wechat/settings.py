"""The environment, read once into one frozen value."""

import os
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit

from wechat.errors import SettingsError
from wechat.startup import HANDLERS

T = TypeVar("T")

CRYPTOGRAPHY = "cryptography.hazmat.primitives.ciphers"  # what `envelope` uses of the package
MARK = "x-wx-source"  # the header that WeChat's cloud puts on a push, in place of a signature
UNSIGNED = "WECHAT_MODE=cloud believes whatever has the header x-wx-source: switch 公网访问 of the service off"
PATH, HOST = r"/|(?!/healthz/?$)(/[\w.~-]+)+/?", r"[\w.:%-]+"


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
    if not all(re.fullmatch(r"[\w.~+-]{3,32}", token, re.ASCII) for token in tokens):
        raise ValueError("is not a token: it takes 3 to 32 letters and digits, or two of those as new,old")
    return tokens


def _credential(text: str, what: str) -> str:
    if not re.fullmatch(r"[\w-]{6,128}", text, re.ASCII):
        raise ValueError(f"is not {what}: copy it from the platform's page, letters and digits without blanks")
    return text


def _aes_keys(text: str) -> tuple[bytes, ...]:
    keys = [re.sub(r"\s", "", part) for part in text.split(",")]
    if not all(re.fullmatch(r"[A-Za-z0-9+/]{43}", key) for key in keys):
        raise ValueError("is not an EncodingAESKey: it takes the 43 characters on the platform's page, or new,old")
    # The last character may hold bits that belong to no byte, so a strict decoder would refuse the platform's own keys.
    return tuple(b64decode(key + "=") for key in keys)


def _one_of(text: str, *choices: str) -> str:
    if text.lower() not in choices:
        raise ValueError(f"is {text!r}: it takes {', '.join(choices[:-1])} or {choices[-1]}")
    return text.lower()


def _store(text: str) -> str:
    if not re.match(r"memory:$|sqlite:.|(rediss?|unix)://.", text):
        raise ValueError("is not a store: it takes memory:, sqlite:FILE or redis://host:port/db")
    if text[0] in "ru" and (fault := package_fault("redis")):
        raise ValueError(fault)
    return text


def _api_urls(text: str) -> tuple[str, ...]:
    urls = tuple(part.strip().rstrip("/") for part in text.split(","))
    with suppress(ValueError):
        if all(re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", url) and urlsplit(url).port != 0 for url in urls):
            return urls
    raise ValueError("is not an address: it takes one like https://api.weixin.qq.com, or two as first,second")


def _proxy(text: str) -> str:
    with suppress(ValueError):
        if re.fullmatch(r"http://([^\s/@?#:]+(:[^\s/@?#]*)?@)?[^\s/@?#:][^\s/@?#]*/?", text) and urlsplit(text).port:
            return text
    raise ValueError(
        "is not a proxy: it takes http://host:port or http://user:password@host:port, an @ in those as %40"
    )


def _matching(text: str, pattern: str, what: str) -> str:
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError(f"is {text!r}: it takes {what}")
    return text.rstrip("/")


def _whole_number(text: str, low: int, high: int, unit: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"is {text!r}: it takes {unit}, a whole number from {low} to {high}")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9](\.[0-9]{1,3})?", text) or not 0 < float(text) < 5:
        raise ValueError(f"is {text!r}: it takes seconds above 0 and below the 5 after which WeChat hangs up, like 4.5")
    return float(text)


def setting(name: str, default: T, parse: Callable[..., T], *details: Any, is_shown: bool = True) -> T:
    """A field of Settings: its name outside, and what makes its value of a text."""
    return field(default=default, repr=is_shown, metadata={"name": name, "parse": lambda text: parse(text, *details)})


@dataclass(frozen=True)
class Settings:
    """What the server was told. Its `repr` shows no secret."""

    tokens: tuple[str, ...] = setting("WECHAT_TOKEN", (), _tokens, is_shown=False)  # the newest first
    appid: str = setting("WECHAT_APPID", "", _credential, "an appid")
    secret: str = setting("WECHAT_SECRET", "", _credential, "an AppSecret", is_shown=False)
    aes_keys: tuple[bytes, ...] = setting("WECHAT_AES_KEY", (), _aes_keys, is_shown=False)  # 32 bytes, the newest first
    mode: str = setting("WECHAT_MODE", "plain", _one_of, "plain", "compat", "safe", "cloud")
    account: str = setting("WECHAT_ACCOUNT", "official", _one_of, "official", "miniprogram")
    store: str = setting("WECHAT_STORE", "memory:", _store, is_shown=False)  # may hold a password
    api_urls: tuple[str, ...] = setting(
        "WECHAT_API_URL", ("https://api.weixin.qq.com",), _api_urls
    )  # as they are tried
    proxy: str = setting("WECHAT_PROXY", "", _proxy, is_shown=False)  # may hold a password
    path: str = setting("WECHAT_PATH", "/weixin", _matching, PATH, "a path like /weixin, and not /healthz")
    max_age: int = setting("WECHAT_MAX_AGE", 300, _whole_number, 0, 86_400, "seconds")  # of a signature; 0: for ever
    reply_within: float = setting("WECHAT_REPLY_WITHIN", 4.5, _seconds)  # for which one attempt is held open
    threads: int = setting("WECHAT_THREADS", 64, _whole_number, 1, 1_000, "threads")
    slow_threads: int = setting("WECHAT_SLOW_THREADS", 64, _whole_number, 1, 1_000, "threads")
    waiting_per_user: int = setting("WECHAT_WAITING_PER_USER", 8, _whole_number, 0, 10_000, "messages")
    waiting: int = setting("WECHAT_WAITING", 10_000, _whole_number, 1, 1_000_000, "messages")
    drain: int = setting("WECHAT_DRAIN", 20, _whole_number, 0, 3_600, "seconds")  # SIGTERM waits for work in flight
    host: str = setting("HOST", "0.0.0.0", _matching, HOST, "an address like 0.0.0.0 or 127.0.0.1, without a port")
    port: int = setting("PORT", 8080, _whole_number, 0, 65_535, "a TCP port")
    log_level: str = setting("LOG_LEVEL", "info", _one_of, "debug", "info", "warning", "error", "critical")
    log_format: str = setting("LOG_FORMAT", "text", _one_of, "text", "json")

    @property
    def account_key(self) -> str:
        """What the keys of this account begin with in a store that several share."""
        from hashlib import sha256  # which loads OpenSSL, 3.5 MB

        return self.appid or sha256("".join(self.tokens[-1:]).encode()).hexdigest()[:16]

    @property
    def may_call(self) -> bool:
        """Whether the platform can be called: from inside its cloud, or with an appid and a secret."""
        return self.mode == "cloud" or bool(self.appid and self.secret)


NAMES = (*(rule.metadata["name"] for rule in fields(Settings)), HANDLERS)  # in the environment


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`; an empty value counts as none.

    Raises SettingsError with every fault at once.
    """
    values: dict[str, Any] = {}
    faults = []
    for rule in fields(Settings):
        name = rule.metadata["name"]
        text = environ.get(name, "").strip()
        try:
            if text:
                values[rule.name] = rule.metadata["parse"](text)
        except ValueError as error:
            faults.append(f"{name} {error}")
    if values.get("aes_keys"):
        values.setdefault("mode", "safe")
    if values.get("mode") == "cloud":
        values.setdefault("api_urls", ("http://api.weixin.qq.com",))
    given = {name for name in NAMES if environ.get(name, "").strip()}
    faults += _conflicts(values, given)
    if faults:
        raise SettingsError(faults)
    return Settings(**values)


def _conflicts(values: Mapping[str, Any], given: set[str]) -> Iterator[str]:
    """Settings that are good by themselves, but not together."""
    mode, needs = values.get("mode", "plain"), []
    if mode == "cloud":
        for name in sorted(given & {"WECHAT_TOKEN", "WECHAT_AES_KEY"}):
            yield f"{name} is set, but with WECHAT_MODE=cloud nothing is signed or sealed: leave out one of the two"
        if values.get("store", "memory:") != "memory:":
            needs += [("WECHAT_APPID", "in a store, an account without a token is known by it")]
    elif "WECHAT_TOKEN" not in given:
        yield "WECHAT_TOKEN is missing: set it to the token typed on the platform's page, 3 to 32 letters and digits"
    if mode in ("compat", "safe"):
        why = f"WECHAT_MODE={mode} needs it"
        needs += [("WECHAT_AES_KEY", why), ("WECHAT_APPID", why)]
        if fault := package_fault(CRYPTOGRAPHY):
            yield f"WECHAT_MODE={mode} {fault}"
    if values.get("account") == "miniprogram" and mode != "cloud":
        why = "WECHAT_ACCOUNT=miniprogram answers through the platform's API"
        needs += [("WECHAT_APPID", why), ("WECHAT_SECRET", why)]
    for name, why in needs:
        if name not in given:  # what is wrong has a line already
            yield f"{name} is missing: {why}"


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
