"""What the platform takes as a custom menu, checked before it is sent.

https://developers.weixin.qq.com/doc/service/api/custommenu/api_createcustommenu.html
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wechat.message import Message
from wechat.routing import DEFAULT, Router

# The fields that a button of each type needs.
NEEDS = {
    **dict.fromkeys(("click", "scancode_push", "scancode_waitmsg", "location_select"), ("key",)),
    **dict.fromkeys(("pic_sysphoto", "pic_photo_or_album", "pic_weixin"), ("key",)),
    **dict.fromkeys(("media_id", "view_limited"), ("media_id",)),
    **dict.fromkeys(("article_id", "article_view_limited"), ("article_id",)),
    "view": ("url",),
    "miniprogram": ("url", "appid", "pagepath"),
}
LIMITS = {"key": 128, "url": 1024}  # bytes
TOP_NAME, SUB_NAME = 16, 60  # bytes
MOST_BUTTONS, MOST_SUB_BUTTONS = 3, 5


def read_menu(file: Path) -> Any:
    """A good menu, also as `menu get --json` prints it; raises OSError, and ValueError with a line for each fault."""
    try:
        menu = json.loads(_utf8(file.read_bytes()))
    except UnicodeError:
        raise ValueError("it is not UTF-8: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    menu = menu.get("menu", menu) if isinstance(menu, dict) else menu
    if faults := menu_faults(menu):
        raise ValueError("\n".join(faults))
    return menu


def _utf8(raw: bytes) -> str:
    """The text; raises UnicodeError for any other encoding."""
    if b"\0" in raw:  # UTF-16, which can pass for UTF-8
        raise UnicodeError
    return raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark


def menu_faults(menu: Any) -> list[str]:
    """What the platform would refuse in a menu, a line for each fault with the button it is about."""
    buttons = menu.get("button") if isinstance(menu, dict) else None
    if not isinstance(buttons, list) or not 1 <= len(buttons) <= MOST_BUTTONS:
        return [f"the menu: `button` takes a list of 1 to {MOST_BUTTONS} buttons"]
    return [fault for number, button in enumerate(buttons, 1) for fault in _faults(button, f"button {number}")]


def _faults(button: Any, where: str, longest_name: int = TOP_NAME) -> Iterator[str]:
    if not isinstance(button, dict):
        yield f"{where}: is not a JSON object"
        return
    subs = button.get("sub_button")
    if subs and longest_name != TOP_NAME:
        yield f"{where}: a menu has two levels"
        return
    name = button.get("name")
    size = _size(name) if isinstance(name, str) else 0
    if not 1 <= size <= longest_name:
        yield f"{where}: name has {size} bytes, 1 to {longest_name} are taken"
    if not subs:
        yield from _faults_of_type(button, where)
        return
    if "type" in button:
        yield f"{where}: has both a type and sub-buttons: one has to go"
    if not isinstance(subs, list) or len(subs) > MOST_SUB_BUTTONS:
        yield f"{where}: `sub_button` takes a list of 1 to {MOST_SUB_BUTTONS} buttons"
        return
    for number, sub in enumerate(subs, 1):
        yield from _faults(sub, f"{where}.{number}", SUB_NAME)


def _faults_of_type(button: dict[str, Any], where: str) -> Iterator[str]:
    needs = NEEDS.get(str(button.get("type")))
    if needs is None:
        yield f"{where}: type is {button.get('type')!r}: it takes one of {', '.join(NEEDS)}"
    for field in needs or ():
        value = button.get(field)
        if not isinstance(value, str) or not value:
            yield f"{where}: a button of type {button['type']} needs {field}"
        elif field in LIMITS and _size(value) > LIMITS[field]:
            yield f"{where}: {field} has {_size(value)} bytes, {LIMITS[field]} are taken"


def _size(text: str) -> int:
    """In bytes; JSON may hold half a character."""
    return len(text.encode(errors="surrogatepass"))


def unhandled_keys(menu: dict[str, Any], router: Router) -> Iterator[str]:
    """The decorators to write for the keys in a good menu that no handler takes."""
    for button in menu["button"]:
        for inner in button.get("sub_button") or [button]:
            key = inner.get("key")
            if not key:
                continue
            event = "CLICK" if inner["type"] == "click" else inner["type"]
            found = router.find_bare(Message({"MsgType": "event", "Event": event, "EventKey": key}))
            if not found or found.handler.path in (DEFAULT, ("event",)):
                yield f'nobody handles the button {inner["name"]}: @on("event", "{event}", "{key}")'


def plain_menu(menu: Mapping[str, Any]) -> dict[str, Any]:
    """A menu as two can be compared: the platform adds a menuid, and an empty `sub_button` to each button."""
    return {"button": [_plain(button) for button in _buttons(menu.get("button"))]}


def _buttons(value: Any) -> list[dict[str, Any]]:
    return [button for button in value if isinstance(button, dict)] if isinstance(value, list) else []


def _plain(button: Mapping[str, Any]) -> dict[str, Any]:
    if subs := _buttons(button.get("sub_button")):
        return {"name": button.get("name"), "sub_button": [_plain(inner) for inner in subs]}
    return {name: button.get(name) for name in ("name", "type", *NEEDS.get(str(button.get("type")), ()))}


def menu_warnings(file: Path, router: Router) -> list[str]:
    """What is wrong with the menu in a file, if there is one, or which of its keys no handler takes."""
    try:
        warnings = list(unhandled_keys(read_menu(file), router)) if file.exists() else []
    except (OSError, ValueError) as error:
        warnings = str(error).splitlines()
    return [f"{file}: {said}" for said in warnings]


def menu_lines(menu: Mapping[str, Any]) -> list[str]:
    """What `get_menu` gives, for people: a line for each button."""
    own, others = menu.get("menu"), _buttons(menu.get("conditionalmenu"))
    lines = [
        line for button in _buttons(own.get("button") if isinstance(own, dict) else None) for line in _tree(button)
    ]
    return lines + ([f"and {len(others)} conditional menus"] if others else [])


def _tree(button: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    target = next((str(button[name]) for name in ("key", "url", "media_id", "article_id") if button.get(name)), "")
    yield f"{indent}{button.get('name', '')}  {button.get('type', '')}  {target}".rstrip()
    for inner in _buttons(button.get("sub_button")):
        yield from _tree(inner, indent + "  ")
