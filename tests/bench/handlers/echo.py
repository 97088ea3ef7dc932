import re
import time

from wechat.routing import on


@on("text")
def echo(msg):
    return msg.Content


@on("text", re.compile("slow .*"), slow=True)
def slow(msg):
    time.sleep(8.0)
    return msg.Content
