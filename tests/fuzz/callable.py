"""Any request to the callable that ships: the status that is documented for it, and no banner for what WeChat signed.

The input is a request: `POST /weixin SIGNED`, then headers, an empty line, the body. Where the query is `SIGNED` it is
signed here, so that the fuzzer gets past the signature, and the same body comes once more in safe mode.
"""

import contextlib
import io
import logging
import sys
from base64 import b64decode
from typing import NamedTuple
from wsgiref.validate import validator

from sandbox.platform import Attempt, Platform, signed_query
from sandbox.verdict import judge
from wechat.errors import Unreadable
from wechat.protocol.parser import is_probe, parse
from wechat.routing import prepare
from wechat.web import MAX_BODY
from wxserver import HEALTHZ, Application

TOKEN, APPID, AES_KEY = "testtoken", "wx1234567890abcdef", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
NOW = 1714037059
PATHS = ("/weixin", "/weixin/")
DOCUMENTED = {200, 400, 403, 404, 405, 413}
OUR_FAULTS = ("a request failed", "a message is not answered", "a reply is lost")
PLAIN, SAFE = Platform(TOKEN), Platform(TOKEN, "safe", b64decode(AES_KEY + "="), APPID)
PREPARED = {
    PLAIN: prepare({"WECHAT_TOKEN": TOKEN}),
    SAFE: prepare({"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID}),
}


class Asked(NamedTuple):
    """A request as a gateway reads it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def length(self):
        """How long the body is said to be; a gateway lets nothing but a number pass."""
        said = self.headers.get("CONTENT_LENGTH", "")
        return int(said) if said.isdecimal() and len(said) < 12 else len(self.body)


def check(data):
    """Raises where the bytes make the server break a promise."""
    asked = read(data)
    with faults_found() as faults, new_app(PLAIN) as app:
        status, answer = respond(app, asked)
        assert status in DOCUMENTED
        if "SIGNED" not in asked.query or asked.query == "SIGNED":
            assert status == due(asked), f"{status} in place of {due(asked)}"
        if status == 200 and asked.method == "POST":
            check_answer(app, asked, answer)
        if asked.query == "SIGNED" and asked.method == "POST" and asked.path in PATHS:
            check_sealed(asked.body, answer)
    assert not faults


def read(data):
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, path, query = [*first.split(" ", 2), "", ""][:3]
    named = [line.partition(":")[::2] for line in lines]
    headers = {environ_name(name): value.strip() for name, value in named}
    return Asked(method or "GET", "/" + path.removeprefix("/"), query, headers, body)


def environ_name(header):
    name = header.strip().upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


@contextlib.contextmanager
def faults_found():
    """The list of what the server says of faults of its own; a handler that fails is none."""
    faults, log, root = [], logging.Handler(), logging.getLogger()
    level = root.level

    def emit(record):
        said = record.getMessage()
        if said.startswith(OUR_FAULTS) or not said.isprintable():
            faults.append(said)
            print(said, file=sys.stderr)

    log.emit = emit
    root.addHandler(log)
    root.setLevel(logging.INFO)
    try:
        yield faults
    finally:
        root.removeHandler(log)
        root.setLevel(level)


def new_app(platform):
    """An application that remembers nothing of the input before, and is closed after this one."""
    settings, routes = PREPARED[platform]
    return contextlib.closing(Application(settings, routes, lambda: NOW))


def respond(app, asked):
    """The status and the body of the answer, under the WSGI contract."""
    query = asked.query.replace("SIGNED", signed_query(TOKEN, NOW))
    environ = {
        "REQUEST_METHOD": asked.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": asked.path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(asked.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **asked.headers,
        "CONTENT_LENGTH": str(asked.length),
    }
    if "HTTP_TRANSFER_ENCODING" in asked.headers:  # as waitress does
        del environ["CONTENT_LENGTH"]
        environ["wsgi.input_terminated"] = True
    statuses = []
    chunks = validator(app)(environ, lambda status, headers, *_: statuses.append(status) or (lambda _: None))
    with contextlib.closing(chunks):
        answer = b"".join(chunks)
    return int(statuses[-1].split()[0]), answer


def due(asked):
    """The status that is documented for the request."""
    if asked.path == HEALTHZ:
        return 200 if asked.method in ("GET", "HEAD") else 405
    if asked.path not in PATHS:
        return 404
    is_signed = asked.query == "SIGNED"
    if asked.method != "POST":
        return 405 if asked.method != "GET" else 400 if is_signed else 403  # no echostr is asked for
    is_chunked = "HTTP_TRANSFER_ENCODING" in asked.headers
    length = len(asked.body) if is_chunked else asked.length
    if length > MAX_BODY:
        return 413
    if length > len(asked.body):
        return 400
    body = asked.body[:length]
    if is_probe(body):
        return 200
    if not is_signed or (b"Encrypt" in body and b"MsgType" not in body):
        return 403
    return 200 if message_in(body) else 400


def message_in(body):
    """The message, or None where there is none; tests/fuzz/message.py asks whether that is right."""
    try:
        return parse(body)
    except Unreadable:
        return None


def check_answer(app, asked, answer):
    """WeChat shows no banner, and the same push again gets the same bytes."""
    message = message_in(asked.body) or {}
    verdict = judge(PLAIN, Attempt(200, answer, 0.0), message.get("MsgType") == "event")
    assert not verdict.fault, verdict.fault
    assert respond(app, asked) == (200, answer), "the same push again is answered in another way"


def check_sealed(body, answer):
    """In safe mode the same content gets the same answer."""
    with contextlib.suppress(UnicodeDecodeError), new_app(SAFE) as app:
        query, sealed = SAFE.push(body.decode(), NOW)
        status, reply = respond(app, Asked("POST", "/weixin", query, {}, sealed))
        assert status == (200 if message_in(body) else 400), f"{status} in safe mode"
        assert status == 400 or answer == b"refused\n" or SAFE.open(reply) == answer.decode()
