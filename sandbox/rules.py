"""What WeChat takes and what it refuses: the menus of an account, and the rules for messages and files."""

import json
import re
from pathlib import Path
from typing import Any

from sandbox.facts import FACTS
from wechat.platform.menu import LIMITS, MOST_BUTTONS, MOST_SUB_BUTTONS, NEEDS, SUB_NAME, TOP_NAME

FIELD_ERRCODES = {"key": 40019, "url": 40020, "media_id": 40007, "appid": 40013}
SUB = 7  # 40017 to 40020 are about the bar; 40024 to 40027 say the same of a submenu
REFUSED_RULES = {"sex", "gender", "country", "province", "city", "language"}
RULES = ("tag_id", "client_platform_type")

CONSOLE = Path(__file__).with_name("console.json")  # the samples in the documents of both calls
OPENID = re.compile(r"[\w-]+", re.ASCII)
CUSTOMER_TEXT_LIMIT = 2048  # bytes of UTF-8
MESSAGES: dict[str, list[str]] = FACTS["customer_messages"]  # what each msgtype must have
LISTS = ("articles", "list")
MISSING = {"content": 44004, "articles": 44003, "media_id": 40007, "thumb_media_id": 40007}

FILES: dict[str, tuple[int, list[str]]] = FACTS["files"]  # bytes at most, and the extensions


def is_openid(value: object) -> bool:
    """Whether it could be a user's openid."""
    return isinstance(value, str) and bool(OPENID.fullmatch(value))


def message_errcode(message: dict[str, Any]) -> int:
    """The errcode for a customer message that is refused for what is in it, 0 for one that is taken.

    https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage.html
    """
    if not is_openid(message.get("touser")):
        return 40003
    kind = str(message.get("msgtype"))
    if kind not in MESSAGES:
        return 40008
    part = message.get(kind)
    for field in MESSAGES[kind]:
        value = part.get(field) if isinstance(part, dict) else None
        value = value.strip() if isinstance(value, str) else value
        if not value or not isinstance(value, list if field in LISTS else str):
            return MISSING.get(field, 40035)
    if kind == "text" and len(message["text"]["content"].encode(errors="surrogatepass")) > CUSTOMER_TEXT_LIMIT:
        return 45002
    return 45008 if kind == "news" and len(message["news"]["articles"]) > 1 else 0


def file_errcode(type: str, extension: str, size: int) -> int:
    """The errcode for a file that is refused as temporary material, 0 for one that is taken; `size` is in bytes.

    https://developers.weixin.qq.com/doc/service/api/material/temporary/api_uploadtempmedia.html
    """
    if type not in FILES:
        return 40004
    limit, extensions = FILES[type]
    if extension not in extensions:
        return 40005
    return 40006 if not 0 < size <= limit else 0


def menu_errcode(menu: dict[str, Any]) -> int:
    """The errcode for a menu that is refused, 0 for one that is taken.

    https://developers.weixin.qq.com/doc/service/api/custommenu/api_createcustommenu
    """
    buttons = menu.get("button")
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= MOST_BUTTONS:
        return 40016
    return next(filter(None, map(_button_errcode, buttons)), 0)


def _button_errcode(button: Any, level: int = 0) -> int:
    if not isinstance(button, dict):
        return (40016, 40023)[level]
    buttons = button.get("sub_button")
    if level and buttons:
        return 40022
    if level or (not buttons and "type" in button):
        return _name_errcode(button, level) or _type_errcode(button, level)
    if "type" in button:
        return 40017
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= MOST_SUB_BUTTONS:
        return 40023
    return _name_errcode(button, 0) or next(filter(None, (_button_errcode(sub, 1) for sub in buttons)), 0)


def _name_errcode(button: dict[str, Any], level: int) -> int:
    return 0 if _fits(button.get("name"), (TOP_NAME, SUB_NAME)[level]) else 40018 + SUB * level


def _type_errcode(button: dict[str, Any], level: int) -> int:
    fields = NEEDS.get(str(button.get("type")))
    if fields is None:
        return 40017 + SUB * level
    for field in fields:
        if not _fits(button.get(field), LIMITS.get(field, 1024)):
            return FIELD_ERRCODES.get(field, 40035) + (SUB * level if field in LIMITS else 0)
    return 0


def _fits(value: Any, limit: int) -> bool:
    return isinstance(value, str) and 1 <= len(value.encode(errors="surrogatepass")) <= limit


class Menus:
    """The menus of one account. Each method gives the JSON of the answer, or an errcode, 0 for done.

    `users` is what WeChat knows of a user, openid to tag_id and client_platform_type; `trymatch` goes by it.
    """

    def __init__(self) -> None:
        self.users: dict[str, dict[str, str]] = {}
        # What was set on the console; the menu gives way to the first one that is made, or deleted, by a call.
        self.console = json.loads(CONSOLE.read_text("utf-8"))
        self._default: dict[str, Any] | None = None
        self._conditional: list[dict[str, Any]] = []  # newest first, as they are matched
        self._menuid = 208379532

    def create(self, menu: dict[str, Any]) -> int:
        """Puts the default menu in place of the former one."""
        errcode = menu_errcode(menu)
        if not errcode:
            self._default = {"button": _shaped(menu["button"]), "menuid": self._next_menuid()}
            self.console["selfmenu"] = None
        return errcode

    def get(self) -> dict[str, Any] | int:
        """All menus; https://developers.weixin.qq.com/doc/service/api/custommenu/api_getmenu"""
        if self._default is None:
            return 46003
        conditional = {"conditionalmenu": self._conditional} if self._conditional else {}
        return {"menu": self._default, **conditional}

    def delete(self) -> int:
        """Removes the default menu, and the conditional ones with it."""
        self._default, self._conditional, self.console["selfmenu"] = None, [], None
        return 0

    def add_conditional(self, menu: dict[str, Any]) -> dict[str, Any] | int:
        """https://developers.weixin.qq.com/doc/service/api/custommenu/api_addconditionalmenu"""
        rule = menu.get("matchrule")
        rule = {name: value for name, value in rule.items() if value} if isinstance(rule, dict) else {}
        if REFUSED_RULES & set(rule):
            return 65320
        if not set(RULES) & set(rule):
            return 65304
        if errcode := 65303 if self._default is None else menu_errcode(menu):
            return errcode
        # What is made with tag_id comes back as group_id.
        shown = {"group_id" if name == "tag_id" else name: value for name, value in rule.items()}
        menuid = self._next_menuid()
        self._conditional.insert(0, {"button": _shaped(menu["button"]), "matchrule": shown, "menuid": menuid})
        return {"menuid": str(menuid)}

    def delete_conditional(self, body: dict[str, Any]) -> int:
        """Removes the menu with this menuid, a number or its digits."""
        before = len(self._conditional)
        self._conditional = [menu for menu in self._conditional if str(menu["menuid"]) != str(body.get("menuid"))]
        return 0 if len(self._conditional) < before else 65301

    def try_match(self, body: dict[str, Any]) -> dict[str, Any] | int:
        """The buttons that the user sees: the newest menu whose rule the user meets, or else the default."""
        openid = body.get("user_id")
        if not openid or not isinstance(openid, str):
            return 65302
        if self._default is None:
            return 65303
        known = self.users.get(openid, {})
        user = {"group_id": known.get("tag_id"), "client_platform_type": known.get("client_platform_type")}
        for menu in self._conditional:
            if all(str(value) == user.get(name) for name, value in menu["matchrule"].items()):
                return {"button": menu["button"]}
        return {"button": self._default["button"]}

    def current(self) -> dict[str, Any]:
        """The console's menu, or the default one as that call has it: submenus are objects with a `list`.

        https://developers.weixin.qq.com/doc/service/api/custommenu/api_getcurrentselfmenuinfo
        """
        if self.console["selfmenu"]:
            return dict(self.console["selfmenu"])
        buttons = self._default["button"] if self._default else []
        return {"is_menu_open": int(bool(buttons)), "selfmenu_info": {"button": list(map(_listed, buttons))}}

    def _next_menuid(self) -> int:
        self._menuid += 1
        return self._menuid


def _shaped(buttons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The buttons as menu/get has them: each with a `sub_button`, empty on those that do something."""
    return [{**button, "sub_button": _shaped(button.get("sub_button") or [])} for button in buttons]


def _listed(button: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in button.items() if name != "sub_button"}
    subs = button["sub_button"]
    return {**own, "sub_button": {"list": list(map(_listed, subs))}} if subs else own
