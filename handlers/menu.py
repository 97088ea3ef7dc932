"""The buttons of the custom menu in menu.json: one handler for each key.

A button that does what a text does hands the text on, to whoever answers it: no module here needs another one.
"""

import re

from wechat.message import Message
from wechat.routing import on

ISBN = re.compile(r"(97[89][- ]?)?(\d[- ]?){9}[\dXx]")


@on("event", "CLICK", "BOOKS_GUIDE")
def books_guide(msg):
    return typed(msg, "帮助")


@on("event", "scancode_waitmsg", "BOOKS_SCAN")
def books_scan(msg):
    """A scanned bar code arrives as `EAN_13,9787536692930`."""
    code = msg.ScanCodeInfo.ScanResult.rpartition(",")[2]
    if not ISBN.fullmatch(code):
        return "这不是图书条码，请扫描书背面以 978 或 979 开头的条码。"
    return typed(msg, code)


@on("event", "CLICK", re.compile(r"BOOKING_ACTIVITY_(\d+)"))
def booking_activity(msg, match):
    return f"已为你登记活动 {match[1]}。开始前请凭学号签到。"


@on("event", "CLICK", "ACCOUNT_STATUS")
def account_status(msg):
    return typed(msg, "绑定")


def typed(msg, text):
    """The message as if the user had typed the text."""
    return Message({**msg, "MsgType": "text", "Content": text})
