"""The words that the server itself says to users."""

CONTINUE = "继续"  # what a user says to get what waits
STILL_RUNNING = "还在处理，稍后回复“继续”获取结果"
NOT_READY = "还没好，请稍后再回复“继续”"
MORE = "\n\n回复“继续”查看下文"
BUSY = "前面的消息还在处理，请稍候再发"
NO_REPLY = "刚才那条消息没有回复"
