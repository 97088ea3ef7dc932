"""The first words to a new follower, the scene of a QR code, and help."""

import re

from wechat.routing import on

HELP = """发送书名、作者或 ISBN，马上查到这本书。
发送“绑定 学号”绑定账号，发送“解绑”解除。
发送“帮助”再看一次这段说明。"""
WELCOME = "欢迎关注！\n\n" + HELP


@on("text", "帮助")
@on("text", "help")
@on("text", "?")
@on("text", "？")
def help_text(msg):
    return HELP


@on("event", "subscribe")
def subscribe(msg):
    return WELCOME


@on("event", "subscribe", re.compile("qrscene_(?P<scene>.+)"))
def subscribe_by_scene(msg, match):
    """Somebody scanned a QR code of ours and followed with it."""
    return f"{WELCOME}\n\n你扫描的场景是：{match['scene']}"


@on("event", "SCAN")
def scan(msg):
    """A follower scanned a QR code of ours; its scene is the EventKey."""
    return f"你扫描的场景是：{msg.get('EventKey', '')}"


@on("event", "unsubscribe")
def unsubscribe(msg, session):
    """Nothing can be said any more, and what is kept about the user has to go."""
    session.clear()
