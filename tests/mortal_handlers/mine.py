"""Handlers that take as long as their message says, and count their runs."""

import os
import re
import time

from wechat.routing import on

WHOLE = {"short": "the answer", "long": "".join(f"{number:04}界" for number in range(650))}


@on("text", re.compile(r"(short|long) ([\d.]+)"), slow=True)
def take(msg, match):
    with open(os.environ["RUNS"], "a") as file:
        file.write("run\n")
    time.sleep(float(match[2]))
    return WHOLE[match[1]]


@on("text")
def rest(msg):
    return "nothing waits"
