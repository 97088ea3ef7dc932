"""Ties a follower to a student number: 「绑定 学号」, 「解绑」."""

import re

from wechat.routing import on

STUDENT_NUMBER = re.compile(r"[0-9A-Za-z]{4,20}")
USAGE = "发送“绑定 学号”绑定账号，例如：绑定 2026010203"


@on("text", re.compile(r"绑定[\s，,：:]*(.*[^\s。]|)[\s。]*", re.DOTALL))
def bind(msg, match, session):
    number = match[1]
    if not number:
        return status(session)
    if not STUDENT_NUMBER.fullmatch(number):
        return "学号由 4 到 20 位数字或字母组成。\n" + USAGE
    session["student_number"] = number
    return f"已绑定学号 {number}。发送“解绑”解除绑定。"


@on("text", "解绑")
def unbind(msg, session):
    number = session.pop("student_number", None)
    return f"已解除与学号 {number} 的绑定。" if number else "你还没有绑定学号。\n" + USAGE


def status(session):
    """What the account knows of a follower, as a text."""
    number = session.get("student_number")
    return f"你绑定的学号是 {number}。发送“解绑”解除绑定。" if number else USAGE
