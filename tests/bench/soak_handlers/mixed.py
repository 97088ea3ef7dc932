"""What a soak needs of an account: quick and slow answers, errors, sessions."""

import re
import time

from wechat.routing import on


@on("text")
def quick(msg, session):
    session["count"] = session.get("count", 0) + 1
    return f"{msg.Content} {session['count']}"


@on("text", re.compile(r"slow (\d+)"), slow=True)
def slow(msg, match):
    time.sleep(int(match[1]))
    return msg.Content


@on("text", "boom")
def boom(msg):
    raise RuntimeError("on purpose")


@on("error")
def error(msg):
    return "sorry"
