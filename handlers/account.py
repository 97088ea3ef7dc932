"""Ties a follower to a student number: 「绑定 学号」, 「解绑」."""

import re
import threading

from wechat.routing import on

STUDENT_NUMBER = re.compile(r"[0-9A-Za-z]{4,20}")
USAGE = "发送“绑定 学号”绑定账号，例如：绑定 2026010203"


class Bindings:
    """openid to student number, in this process's memory."""

    def __init__(self):
        self._numbers = {}
        self._lock = threading.Lock()

    def get(self, openid):
        """The student number of a follower, or None."""
        with self._lock:
            return self._numbers.get(openid)

    def keep(self, openid, number):
        """Ties the follower to the number."""
        with self._lock:
            self._numbers[openid] = number

    def forget(self, openid):
        """Unties the follower; gives the number there was, or None."""
        with self._lock:
            return self._numbers.pop(openid, None)


bindings = Bindings()


@on("text", re.compile(r"绑定[\s，,：:]*(.*?)[\s。]*", re.DOTALL))
def bind(msg, match):
    number = match[1]
    if not number:
        return status(msg.FromUserName)
    if not STUDENT_NUMBER.fullmatch(number):
        return "学号由 4 到 20 位数字或字母组成。\n" + USAGE
    bindings.keep(msg.FromUserName, number)
    return f"已绑定学号 {number}。发送“解绑”解除绑定。"


@on("text", "解绑")
def unbind(msg):
    number = bindings.forget(msg.FromUserName)
    return f"已解除与学号 {number} 的绑定。" if number else "你还没有绑定学号。\n" + USAGE


def status(openid):
    """What the account knows of a follower, as a text."""
    number = bindings.get(openid)
    return f"你绑定的学号是 {number}。发送“解绑”解除绑定。" if number else USAGE
