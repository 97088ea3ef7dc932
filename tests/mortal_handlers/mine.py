"""Handlers that take as long as their message says, and count their runs."""

import os
import re
import time

from wechat.routing import on

WHOLE = {"short": "the answer", "long": "".join(f"{number:04}界" for number in range(650))}


def note(msg):
    with open(os.environ["RUNS"], "a") as file:
        file.write(f"{msg.FromUserName} {msg.Content}\n")


@on("text", re.compile(r"(short|long) ([\d.]+)"), slow=True)
def take(msg, match):
    note(msg)
    time.sleep(float(match[2]))
    return WHOLE[match[1]]


@on("text", "die", slow=True)
def die(msg):
    note(msg)
    time.sleep(0.3)
    os.kill(os.getpid(), 9)


@on("text", "count")
def count(msg, session):
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@on("text")
def rest(msg):
    return "nothing waits"


@on("error")
def sorry(msg):
    return "sorry"
