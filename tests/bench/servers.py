"""The same echo account, written for each peer: WSGI callables by name.

Each import stands in its function, so that a process pays for one peer only.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

TOKEN = "benchmark"
APPID = "wx1234567890abcdef"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
PATH = "/weixin"
SLOW = 8.0  # seconds
HANDLERS = Path(__file__).with_name("handlers")
FIGURES = Path(__file__).with_name("figures.json")


def ours():
    from wxserver import make_application

    return make_application({"WECHAT_TOKEN": TOKEN}, HANDLERS)


def ours_safe():
    from wxserver import make_application

    return make_application({"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID}, HANDLERS)


def werobot():
    from werobot import WeRoBot

    robot = WeRoBot(token=TOKEN, enable_session=False)

    @robot.text
    def echo(message):
        if message.content.startswith("slow"):
            time.sleep(SLOW)
        return message.content

    # What its own `robot.run` mounts, under our path.
    import bottle
    from werobot.contrib.bottle import make_view

    app = bottle.Bottle()
    app.route(PATH, ["GET", "POST"], make_view(robot))
    return app


def wechatpy_flask():
    from flask import Flask, abort, request
    from wechatpy import create_reply, parse_message
    from wechatpy.exceptions import InvalidSignatureException
    from wechatpy.utils import check_signature

    app = Flask(__name__)

    @app.route(PATH, methods=["GET", "POST"])
    def weixin():
        try:
            check_signature(TOKEN, request.args["signature"], request.args["timestamp"], request.args["nonce"])
        except InvalidSignatureException:
            abort(403)
        if request.method == "GET":
            return request.args["echostr"]
        message = parse_message(request.data)
        reply = create_reply(message.content if message.type == "text" else "", message)
        return reply.render(), 200, {"Content-Type": "application/xml"}

    return app


def wechatpy_flask_safe():
    from flask import Flask, abort, request
    from wechatpy import create_reply, parse_message
    from wechatpy.crypto import WeChatCrypto
    from wechatpy.exceptions import InvalidAppIdException, InvalidSignatureException

    app = Flask(__name__)
    crypto = WeChatCrypto(TOKEN, AES_KEY, APPID)

    @app.route(PATH, methods=["POST"])
    def weixin():
        signature, timestamp, nonce = request.args["msg_signature"], request.args["timestamp"], request.args["nonce"]
        try:
            content = crypto.decrypt_message(request.data, signature, timestamp, nonce)
        except (InvalidSignatureException, InvalidAppIdException):
            abort(403)
        message = parse_message(content)
        reply = create_reply(message.content if message.type == "text" else "", message)
        return crypto.encrypt_message(reply.render(), nonce, timestamp), 200, {"Content-Type": "application/xml"}

    return app


def tutorial():
    """A tutorial's fifty lines, in Python 3: WebOb, ElementTree, a dict of handlers, a template."""
    import hashlib
    from xml.etree import ElementTree

    from webob import Request, Response

    template = (
        "<xml><ToUserName><![CDATA[{0}]]></ToUserName><FromUserName><![CDATA[{1}]]></FromUserName>"
        "<CreateTime>{2}</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{3}]]></Content></xml>"
    )
    handlers = {}

    def handler(msg_type):
        def register(function):
            handlers[msg_type] = function
            return function

        return register

    @handler("text")
    def echo(message):
        return message["Content"]

    def app(environ, start_response):
        request = Request(environ)
        parts = sorted([TOKEN, request.GET["timestamp"], request.GET["nonce"]])
        if hashlib.sha1("".join(parts).encode()).hexdigest() != request.GET["signature"]:
            response = Response("forbidden", status=403)
        elif request.method == "GET":
            response = Response(request.GET["echostr"])
        else:
            message = {node.tag: node.text for node in ElementTree.fromstring(request.body)}
            content = handlers[message["MsgType"]](message)
            reply = template.format(message["FromUserName"], message["ToUserName"], int(time.time()), content)
            response = Response(reply, content_type="application/xml", charset="utf-8")
        return response(environ, start_response)

    return app


def floor():
    """The least that can answer: bare WSGI, the signature, ElementTree, one template; no check of anything else."""
    import hashlib
    from urllib.parse import parse_qs
    from xml.etree import ElementTree

    template = (
        "<xml><ToUserName><![CDATA[%s]]></ToUserName><FromUserName><![CDATA[%s]]></FromUserName>"
        "<CreateTime>%d</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[%s]]></Content></xml>"
    )

    def app(environ, start_response):
        query = parse_qs(environ["QUERY_STRING"])
        parts = sorted([TOKEN, query["timestamp"][0], query["nonce"][0]])
        if hashlib.sha1("".join(parts).encode()).hexdigest() != query["signature"][0]:
            start_response("403 Forbidden", [])
            return []
        root = ElementTree.fromstring(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        user, account, content = map(root.findtext, ("FromUserName", "ToUserName", "Content"))
        body = (template % (user, account, time.time(), content)).encode()
        start_response("200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    return app


def empty():
    """What waitress itself costs: no check, no parsing, one fixed answer."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"success"]

    return app


SERVERS: dict[str, Callable] = {
    "ours": ours,
    "WeRoBot": werobot,
    "wechatpy on Flask": wechatpy_flask,
    "tutorial": tutorial,
    "floor": floor,
    "empty": empty,
    "ours, safe": ours_safe,
    "wechatpy on Flask, safe": wechatpy_flask_safe,
}


def keep(title: str, figures: dict[str, float]) -> None:
    """Puts the figures by, for `picture.py`."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**kept, title: figures}, indent=1))


def main() -> None:
    """Serves one of them with waitress: `python tests/bench/servers.py NAME PORT THREADS`."""
    import waitress

    name, port, threads = sys.argv[1:]
    waitress.serve(SERVERS[name](), host="127.0.0.1", port=int(port), threads=int(threads), _quiet=True)


if __name__ == "__main__":
    main()
