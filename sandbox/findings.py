"""What to do about what `sandbox.check` finds."""

ADVICE = {  # what to do about a fault, by how it begins
    "no answer": "answer within 5 s: success at once, and the reply as a customer message",
    "status 40": "is the URL the one for pushes, and are --token, --aes-key, --appid and --mode the server's?",
    "status": "answer 200 to each push, and success where there is nothing to say; the server's log has the cause",
    "neither success nor sealed": "seal and sign each reply with the key and the appid; success alone goes unsealed",
    "neither success nor JSON": "answer success or one JSON object: CreateTime a number, Articles a plain list",
    "neither": "answer success or one XML document: ]]> split, forbidden characters dropped; no JSON, no page",
    "a text of": "cut a text at 2047 bytes of UTF-8, between two characters",
    "ToUserName": "the reply goes to the push's FromUserName, and comes from its ToUserName",
    "": "https://developers.weixin.qq.com/doc/service/guide/product/message/Passive_user_reply_message.html",
}
ECHO = "answer with the echostr's own bytes as text/plain: no quotes, no markup, no line end"
NOBODY = "is the server running, the URL right, and with https the certificate valid?"
JSON = "read JSON too if this is a mini program; other accounts are never sent any"
XML = "read XML too: the console of the cloud offers both formats"
PROBE = "answer 200 and success, or else the console does not take the path"
ONCE = "remember FromUserName, CreateTime and MsgId, and the document that answered them"
REFUSE = "answer 403 before the message is read: check the signature, its age, the seal and the appid"
