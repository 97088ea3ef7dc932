from wechat.routing import on


@on("text")
def echo(msg):
    return msg.Content
