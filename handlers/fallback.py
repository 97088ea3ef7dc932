"""What is said where no other handler answers, and where one fails."""

from wechat.routing import on


@on("default")
@on("text", "【收到不支持的消息类型，暂无法显示】")  # what arrives in place of a sticker
@on("text", "[Unsupported Message]")
def default(msg):
    """An event that nobody handles asks for no answer; a person does."""
    if msg.MsgType == "event":
        return None
    return "暂时看不懂这类消息。发送“帮助”看看我会什么。"


@on("error")
def error(msg):
    return "出了点问题，请稍后再试。"
