"""The buttons of the custom menu in menu.json: one handler for each key."""

import re

from handlers import account, books, welcome
from wechat.routing import on


@on("event", "CLICK", "BOOKS_GUIDE")
def books_guide(msg):
    return welcome.HELP


@on("event", "scancode_waitmsg", "BOOKS_SCAN", slow=books.IS_REMOTE)
def books_scan(msg):
    """A scanned bar code arrives as `EAN_13,9787536692930`."""
    code = msg.ScanCodeInfo.ScanResult.rpartition(",")[2]
    if not books.ISBN.fullmatch(code):
        return "这不是图书条码，请扫描书背面以 978 或 979 开头的条码。"
    return books.answer_isbn(code)


@on("event", "CLICK", re.compile(r"BOOKING_ACTIVITY_(\d+)"))
def booking_activity(msg, match):
    return f"已为你登记活动 {match[1]}。开始前请凭学号签到。"


@on("event", "CLICK", "ACCOUNT_STATUS")
def account_status(msg, session):
    return account.status(session)
