"""What the platform says of an account, for `check --online`.

https://developers.weixin.qq.com/doc/service/api/apimanage/
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from wechat.errors import ApiError, StartError, TransportError, WeChatError
from wechat.platform.answers import CONSOLE, HINTS, number, read_json
from wechat.platform.api import Api
from wechat.platform.menu import menu_lines, plain_menu, read_menu
from wechat.platform.pushing import ABOUT_ONE_USER
from wechat.settings import Settings
from wechat.store.memory import MemoryStore
from wechat.terminal import FAIL, OK, WARN, Finding, report

LARGEST_SKEW = 60.0  # seconds between two clocks
ANYBODYS = "/cgi-bin/get_api_domain_ip"  # is asked without a token, only to see who answers
SEND = "/cgi-bin/message/custom/send"
COUNTED = ("/cgi-bin/stable_token", SEND, "/cgi-bin/media/upload")  # what the server itself calls
NEARLY = 0.9  # of a quota

UNREACHED = (
    "does a firewall, a wrong clock or a proxy that opens TLS stand between? WECHAT_PROXY names a proxy, a second "
    "address in WECHAT_API_URL another server: https://api2.weixin.qq.com"
)
SET_CLOCK = "set the clock of this machine by NTP: else signatures are refused as too old"
NO_RIGHT = f"have the account verified (微信认证), or leave WECHAT_SECRET empty; its rights: 接口管理 at {CONSOLE}"
PUSH_MENU = "python -m wechat menu push"
NO_ADDRESS = f"correct the name in the DNS, or the URL: {HINTS[40201]}"
NO_PING = "normal behind a firewall that drops pings, else open ports 80 and 443; python -m sandbox check tries the URL"


@dataclass(frozen=True)
class Account:
    """What is checked: an account, its handlers, and a follower who may be shown that somebody is typing."""

    settings: Settings
    api: Api
    handlers: Path
    openid: str


def check_online(settings: Settings, handlers: Path, openid: str) -> int:
    """Print what the platform says, a line for each check; gives 1 where something is wrong, else 0."""
    if settings.mode == "cloud":
        raise StartError(["--online: a token, quotas and callback/check are not to be had in 云托管; check without it"])
    require_keys(settings)
    # With a store of its own, it asks for a token, though the server's store may have one that is good for an hour.
    with closing(Api(settings, MemoryStore())) as api:
        return report(_findings(Account(settings, api, handlers, openid)), "checks")


def require_keys(settings: Settings) -> None:
    """Raise StartError where no call can be made."""
    keys = {"WECHAT_APPID": settings.appid, "WECHAT_SECRET": settings.secret}
    if not settings.may_call and (missing := [name for name, value in keys.items() if not value]):
        raise StartError([f"{name} is missing: calls to the platform need it" for name in missing])


def _findings(account: Account) -> Iterator[Finding]:
    """Every finding; they end early where the rest would only say the same again."""
    for name, check in CHECKS.items():
        is_lost = True
        for finding in _translated(name, check(account)):
            is_lost = is_lost and finding.mark == FAIL
            yield finding
        if is_lost and name in ("platform", "token"):
            return


def _translated(name: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except WeChatError as error:
        yield Finding(name, f"{error.errcode}: {error.errmsg}", FAIL, error.hint)
    except ApiError as error:
        yield Finding(name, str(error), FAIL, UNREACHED)


def _check_platform(account: Account) -> Iterator[Finding]:
    from wechat.platform.transport import Transport

    for url in account.settings.api_urls:
        transport, before = Transport(url, proxy=account.settings.proxy), time.time()
        try:
            with closing(transport), transport.open("GET", ANYBODYS, is_repeatable=True) as received:
                date = received.headers["Date"]
                read_json(received)
        except TransportError as error:
            yield Finding("platform", f"{url}: {error}", FAIL, UNREACHED)
            continue
        except WeChatError:  # 41001, for there is no token
            pass
        yield Finding("platform", f"{url} answers")
        yield from _clock(date, (before + time.time()) / 2)


def _clock(date: str | None, now: float) -> Iterator[Finding]:
    try:
        skew = now - parsedate_to_datetime(date or "").timestamp() - 0.5  # the header has whole seconds
    except (ValueError, OverflowError):
        return
    way = "ahead of" if skew > 0 else "behind"
    mark, cure = (FAIL, SET_CLOCK) if abs(skew) > LARGEST_SKEW else (OK, "")
    yield Finding("clock", f"{abs(skew):.0f} s {way} the platform's", mark, cure)


def _check_token(account: Account) -> Iterator[Finding]:
    account.api.token()
    yield Finding("token", "the appid, the secret and the address of this host are taken")


def _check_push(account: Account) -> Iterator[Finding]:
    said = "customer messages may be sent; the user sees that somebody is typing"
    if not account.openid:
        limit = _quota(account.api, SEND)["daily_limit"]
        said = f"{limit:,.0f} customer messages a day; --openid OPENID shows typing to a follower, which is surer"
        yield Finding("push", said) if limit else Finding("push", "no customer messages may be sent", FAIL, NO_RIGHT)
        return
    try:
        account.api.typing(account.openid)
    except WeChatError as error:
        if error.errcode not in ABOUT_ONE_USER:
            raise
        said = f"customer messages may be sent, though not to this user now: {error.errmsg}"
    yield Finding("push", said)


def _check_menu(account: Account) -> Iterator[Finding]:
    if account.settings.account == "miniprogram":  # which has none
        return
    file = account.handlers / "menu.json"
    try:
        wanted = read_menu(file) if file.exists() else None
    except (OSError, ValueError) as error:
        yield Finding("menu", f"{file}: {'; '.join(str(error).splitlines())}", FAIL, "mend the file")
        return
    try:
        there = account.api.get_menu().get("menu")
    except WeChatError as error:
        if wanted and error.errcode != 46003:  # there is none
            raise
        there = None
    yield _compared(wanted, there)


def _compared(wanted: Any, there: Any) -> Finding:
    if not wanted:
        return Finding("menu", "there is no menu.json" + (", and one on the platform" if there else ""))
    if not isinstance(there, dict):
        return Finding("menu", "menu.json is not on the platform", FAIL, PUSH_MENU)
    if plain_menu(wanted) == plain_menu(there):
        return Finding("menu", "the platform has that of menu.json")
    pairs = zip_longest(*(menu_lines({"menu": plain_menu(menu)}) for menu in (there, wanted)), fillvalue="nothing")
    theirs, ours = next((pair for pair in pairs if pair[0] != pair[1]), ("another button", "others"))
    said = f"the platform has {theirs.strip()}, where menu.json has {ours.strip()}"
    return Finding("menu", said, FAIL, PUSH_MENU)


def _check_callback(account: Account) -> Iterator[Finding]:
    asked = {"action": "all", "check_operator": "DEFAULT"}
    answer = account.api.post("/cgi-bin/callback/check", asked, is_repeatable=True)
    found = [str(each.get("ip")) for each in _dicts(answer.get("dns"))]
    lost = [str(each.get("ip")) for each in _dicts(answer.get("ping")) if str(each.get("package_loss")) == "100%"]
    if not found:
        yield Finding("callback", "WeChat finds no address for the URL's name", FAIL, NO_ADDRESS)
    elif lost:
        yield Finding("callback", f"WeChat gets no answer to a ping from {', '.join(lost)}", WARN, NO_PING)
    else:
        yield Finding("callback", f"WeChat reaches {', '.join(found)}")


def _check_quota(account: Account) -> Iterator[Finding]:
    for path in COUNTED:
        try:
            quota = _quota(account.api, path)
        except WeChatError as error:
            if error.errcode not in (76021, 76022):  # it counts no calls of this path
                raise
            continue
        limit, used = quota["daily_limit"], quota["used"]
        mark = OK if used < limit * NEARLY or not limit else WARN if used < limit else FAIL
        yield Finding("quota", f"{used:,.0f} of {limit:,.0f} calls of {path} today", mark, HINTS[45009] * (mark != OK))


def _quota(api: Api, path: str) -> dict[str, float]:
    answer = api.post("/cgi-bin/openapi/quota/get", {"cgi_path": path}, is_repeatable=True)
    quota = answer.get("quota")
    return {name: number(quota.get(name)) or 0 if isinstance(quota, dict) else 0 for name in ("daily_limit", "used")}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


CHECKS: dict[str, Callable[[Account], Iterator[Finding]]] = {
    "platform": _check_platform,
    "token": _check_token,
    "push": _check_push,
    "menu": _check_menu,
    "callback": _check_callback,
    "quota": _check_quota,
}
