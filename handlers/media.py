"""A picture comes back; a voice message that WeChat understood is answered like a text."""

from wechat.message import Message
from wechat.reply import Image
from wechat.routing import on


@on("image")
def image(msg):
    return Image(msg.MediaId)


@on("voice")
def voice(msg):
    """`Recognition` is there while speech recognition is switched on for the account; it ends in a full stop."""
    heard = msg.get("Recognition", "").rstrip("。.！!")
    if not heard:
        return "没有听清，请再说一遍，或者发送文字。"
    return Message({**msg, "MsgType": "text", "Content": heard})
