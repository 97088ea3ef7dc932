"""What a Mini Program's customer-service chat says first; only Mini Programs push this event."""

from wechat.routing import on


@on("event", "user_enter_tempsession")
def enter_chat(msg):
    return "你好，这里是图书查询。\n发送书名、作者或 ISBN，马上查到这本书。"
