"""Between the bytes and the endpoints of `sandbox.cloud`: reads requests, writes answers, and spoils them on demand."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from webob import Request, Response

from sandbox.facts import FACTS

ERRMSG = {int(errcode): errmsg for errcode, errmsg in FACTS["errmsg"].items()}
CONTENT_TYPES: dict[str, str] = FACTS["content_types"]
JSON_TYPE = "application/json; encoding=utf-8"
PAGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"

REFUSALS: dict[str, int] = FACTS["faults"]
BODIES = {"garbage": b"\x1f\x8b\x08{\xff", "empty": b""}
FAULT = re.compile("|".join([*REFUSALS, *BODIES, r"slow:\d*\.?\d+|cut|html|control|status:[2-5]\d\d|code:-?\d+"]))
LATE_FAULTS = ("slow", "cut", "control")  # the call is carried out, and its answer suffers

# Where a server in WeChat's own cloud finds the API, which asks for no token; the second is for an unverified account.
TOKENLESS, UNVERIFIED = "/tokenless", "/unverified"

ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u(?!00[0-7])")  # of a character beyond ASCII, which needs none

Answer: TypeAlias = dict[str, Any] | int | Response  # JSON, an errcode, or a response that is neither


@dataclass(frozen=True)
class Asked:
    """A request as the endpoints see it; `body` is the JSON or an upload, or the errcode for one that is neither."""

    method: str
    path: str
    base: str
    query: dict[str, str]
    body: Any
    escaped: bool
    address: str  # of the caller
    inside: str = ""  # TOKENLESS or UNVERIFIED
    number: int = 0  # of the sandbox's message in the course of which it is asked

    def refusal(self, check: Callable[[str], int]) -> int:
        """The errcode for its access_token, of which `check` knows; 0 where it is right."""
        token = self.query.get("access_token", "")
        if not self.inside:
            return check(token)
        return 40001 if token else 0 if self.inside == TOKENLESS else 48001


Endpoint: TypeAlias = tuple[str, Callable[[Asked], Answer]]  # the method, and what answers


@dataclass(frozen=True)
class Call:
    """A request in the journal, without its token and secret.

    `body` is the JSON, or filename and content of an upload, or None. `token_ok` says whether the access_token was good
    when it came, `escaped` whether characters beyond ASCII came as escapes, which users would see as they stand.
    `errcode` is 0 too for an answer that has none; `number` is that of the sandbox's message that led to it.
    """

    method: str
    path: str
    query: dict[str, str]
    body: dict[str, Any] | None
    token_ok: bool
    escaped: bool
    fault: str
    status: int
    errcode: int
    number: int = 0


@dataclass(frozen=True)
class Media:
    """A file that was uploaded; `created_at` is in seconds since 1970."""

    type: str
    filename: str
    content: bytes
    created_at: int

    @property
    def extension(self) -> str:
        """In lower case, without the dot."""
        return self.filename.lower().rpartition(".")[2]

    def download(self, media_id: str) -> Response:
        """The file as media/get gives it."""
        disposition = f'attachment; filename="{media_id}.{self.extension}"'
        content_type = CONTENT_TYPES.get(self.extension, "image/jpeg")
        return Response(self.content, content_type=content_type, content_disposition=disposition)


def number_in(environ: Mapping[str, Any]) -> int:
    """The number of the sandbox's message that a request belongs to; 0 for none."""
    number = environ.get("HTTP_X_SANDBOX_MESSAGE", "")
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def read(request: Request) -> Asked:
    """The request, with its body read."""
    path = request.environ["PATH_INFO"]
    inside = next((base for base in (TOKENLESS, UNVERIFIED) if path.startswith(base + "/")), "")
    path = path.removeprefix(inside)
    query = dict(parse_qsl(request.query_string, keep_blank_values=True))
    # webob would seek in the input, which WSGI does not promise
    raw = request.environ["wsgi.input"].read(request.content_length or 0)
    is_form = path.endswith("/upload")
    body: dict[str, Any] | int = {}
    if request.method == "POST":
        body = _form(raw, request.headers.get("Content-Type", "")) if is_form else _json(raw)
    escaped = not is_form and bool(ESCAPE.search(raw))
    come = (request.method, path, request.application_url + inside, query, body, escaped)
    return Asked(*come, request.remote_addr or "", inside, number_in(request.environ))


def _json(raw: bytes) -> dict[str, Any] | int:
    if not raw:
        return 44002
    try:
        body = json.loads(raw.decode())
    except (ValueError, RecursionError):
        return 47001
    return body if isinstance(body, dict) else 47001


def _form(raw: bytes, content_type: str) -> dict[str, Any] | int:
    try:
        field = Request.blank("/", method="POST", body=raw, content_type=content_type).POST["media"]
        return {"filename": field.filename, "content": field.value}
    except (AttributeError, KeyError, ValueError):  # a field that is no file, no such field, no multipart
        return 41005


def public(fields: Any) -> dict[str, Any] | None:
    """The query or body as the journal may hold it; None for the errcode of a body."""
    if isinstance(fields, int):
        return None
    return {name: value for name, value in fields.items() if name not in ("access_token", "secret", "appsecret")}


def staged(fault: str) -> Answer:
    """The answer that a fault puts in place of the true one."""
    kind, _, value = fault.partition(":")
    if kind == "code":
        return int(value)
    if kind in ("status", "html"):  # the page of the servers in front of the API; the second comes with a status of 200
        response = Response(status=int(value or 200), content_type="text/html")
        response.text = PAGE.format(response.status if value else "502 Bad Gateway")
        return response
    return REFUSALS[kind] if kind in REFUSALS else Response(BODIES[kind], content_type=JSON_TYPE)


def respond(answer: Answer, fault: str, rid: str) -> Response:
    """The answer as a response, spoilt where the fault is one that comes after the work."""
    response = _json_response(answer, fault, rid) if isinstance(answer, dict | int) else answer
    if fault == "cut":
        half = response.body[: len(response.body) // 2]
        length = response.content_length
        response.app_iter, response.content_length = [half], length
    return response


def _json_response(answer: dict[str, Any] | int, fault: str, rid: str) -> Response:
    if isinstance(answer, int):
        answer = {"errcode": answer, "errmsg": ERRMSG.get(answer, "error") + (f" rid: {rid}" if answer else "")}
    if fault == "control":
        answer = {**answer, "errmsg": answer.get("errmsg", "ok") + "\x1d"}
    text = json.dumps(answer, ensure_ascii=False)
    # WeChat writes what users typed into its JSON as it is.
    text = text.replace("\\u001d", "\x1d") if fault == "control" else text
    return Response(text.encode(errors="replace"), content_type=JSON_TYPE)  # a menu may hold half a character
