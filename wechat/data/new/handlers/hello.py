"""The first words of the account."""

from wechat.routing import on

HELLO = "你好，很高兴认识你！"


@on("event", "subscribe")
@on("text", "你好")
@on("text", "hello")
def hello(msg):
    return HELLO


@on("default")
def default(msg):
    return None if msg.MsgType == "event" else "我还不懂这句话，发送“你好”试试。"


@on("error")
def error(msg):
    return "出了点问题，请稍后再试。"
