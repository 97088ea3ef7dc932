"""The first words to a new follower, the scene of a QR code, and help."""

import re

from handlers import books
from wechat.reply import Reply
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


@on("event", "subscribe", re.compile("qrscene_(?P<scene>.+)"), slow=books.IS_REMOTE)
def subscribe_by_scene(msg, match):
    """Somebody scanned a QR code of ours and followed with it."""
    answer = answer_scene(match["scene"])
    return answer if isinstance(answer, Reply) else f"{WELCOME}\n\n{answer}"


@on("event", "SCAN", slow=books.IS_REMOTE)
def scan(msg):
    """A follower scanned a QR code of ours; its scene is the EventKey."""
    return answer_scene(msg.get("EventKey", ""))


def answer_scene(scene):
    """A scene that is an ISBN, on a sticker in a library, is answered with the book."""
    if scene.startswith(("978", "979")) and books.ISBN.fullmatch(scene):
        return books.answer_isbn(scene)
    return f"你扫描的场景是：{scene}"


@on("event", "unsubscribe")
def unsubscribe(msg, session):
    """Nothing can be said any more, and what is kept about the user has to go."""
    session.clear()
