"""The chat page over HTTP, beside the platform's API."""

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, unquote
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Request, Response

from sandbox.accounts import KINDS, MODES, names_this_machine
from sandbox.chat import USERS, Chat, Order
from sandbox.cloud import Cloud
from sandbox.cloud_wire import Media
from sandbox.facts import FACTS
from sandbox.messages import FIELDS
from sandbox.rules import file_errcode
from wechat.errors import Unreadable
from wechat.settings import CRYPTOGRAPHY, Settings, package_fault

PAGE = Path(__file__).with_name("console.html")
LOOK = 5.0  # seconds for which a page waits for news; one that has gone holds a thread as long
LONGEST_ORDER = 64 * 1024  # bytes
LARGEST_FILE = 10 * 1024 * 1024  # bytes; the platform takes no larger one


class Console:
    """A WSGI app for one page: `/events` says what happens, `/push` sends a message, `/media` keeps and shows files.

    All other paths are the platform's API, and go to the stand-in.
    """

    def __init__(self, chat: Chat, cloud: Cloud, settings: Settings, is_idle: Callable[[], bool]) -> None:
        self._chat, self._cloud, self._is_idle = chat, cloud, is_idle
        self._page = PAGE.read_bytes()
        self._headers = {
            "Content-Security-Policy": policy(self._page),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        self._offer = {
            "run": secrets.token_hex(8),
            "users": USERS,
            "accounts": KINDS,
            "modes": MODES,
            "lacks": package_fault(CRYPTOGRAPHY),
            "samples": {"anyMessage": {**FIELDS, **FACTS["messages"]}, "anyEvent": FACTS["events"]},
            "defaults": {"mode": settings.mode, "account": settings.account},
        }
        self._answers: dict[tuple[str, str], Callable[[Request], Response]] = {
            ("GET", "/"): self._show_page,
            ("GET", "/events"): self._events,
            ("POST", "/push"): self._push,
            ("POST", "/media"): self._keep,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        path = environ.get("PATH_INFO", "")
        answer: Callable[..., Iterable[bytes]]
        if not names_this_machine(environ):
            answer = json_response({"error": "the sandbox is for this machine alone"}, 403)
        elif is_foreign(environ) and path != "/":
            answer = json_response({"error": "the sandbox answers no page but its own"}, 403)
        elif path.startswith("/media/"):
            answer = self._show(path.removeprefix("/media/"))
        elif respond := self._answers.get((environ["REQUEST_METHOD"], path)):
            answer = respond(request)
        elif path in {path for _, path in self._answers}:
            answer = json_response({"error": "no such page"}, 404)
        else:
            answer = self._cloud
        return answer(environ, start_response)

    def _show_page(self, _: Request) -> Response:
        response = Response(self._page, content_type="text/html", charset="utf-8")
        response.headers.update(self._headers)  # as an argument of Response, they would replace the Content-Type too
        return response

    def _events(self, request: Request) -> Response:
        after = request.environ.get("QUERY_STRING", "").removeprefix("after=")
        if not after.isdecimal() or len(after) > 15:
            return json_response({"error": "after takes a number"}, 400)
        is_idle = self._is_idle()  # before the events, so that none comes after it
        events = self._chat.timeline.after(int(after), LOOK)
        return json_response({**self._offer, "is_idle": is_idle, "events": events})

    def _push(self, request: Request) -> Response:
        # A page of another host can send no JSON without being allowed to, nor the bytes of a file below.
        if request.content_type != "application/json":
            return json_response({"error": "a message comes as JSON"}, 415)
        if (request.content_length or 0) > LONGEST_ORDER:
            return json_response({"error": f"a message has {LONGEST_ORDER:,} bytes at most"})
        try:
            return json_response({"id": self._chat.send(Order(**json.loads(request.body)))})
        except (ValueError, TypeError, RecursionError, Unreadable) as error:
            return json_response({"error": str(error)})

    def _keep(self, request: Request) -> Response:
        if request.content_type != "application/octet-stream" or (request.content_length or 0) > LARGEST_FILE:
            return json_response({"error": "a file comes as application/octet-stream, of 10 MB at most"}, 415)
        kind, _, filename = request.environ.get("QUERY_STRING", "").partition("/")
        media = Media(kind, unquote(filename), request.body, int(time.time()))
        if errcode := file_errcode(media.type, media.extension, len(media.content)):
            return json_response({"error": f"WeChat refuses this file with {errcode}"})
        media_id = self._cloud.keep(media)
        return json_response({"media_id": media_id, "url": f"{request.host_url}/media/{media_id}"})

    def _show(self, media_id: str) -> Response:
        media = self._cloud.media.get(media_id)
        if not media:
            return json_response({"error": "no such file"}, 404)
        response = media.download(media_id)
        name = quote(media.filename, safe="", errors="replace")
        response.content_disposition = f"attachment; filename*=UTF-8''{name}"
        response.conditional_response = True  # without ranges no browser seeks in a video, and Safari shows none
        response.accept_ranges = "bytes"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def is_foreign(environ: WSGIEnvironment) -> bool:
    """Whether a browser asks in the name of a page from elsewhere, be it another port of this machine."""
    origin = environ.get("HTTP_ORIGIN", f"http://{environ.get('HTTP_HOST')}")
    site = environ.get("HTTP_SEC_FETCH_SITE", "none")
    return origin != f"http://{environ.get('HTTP_HOST')}" or site not in ("none", "same-origin")


def policy(page: bytes) -> str:
    """What the page may do: run its own script, and ask this server alone."""
    script = page.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = b64encode(sha256(script).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data: blob:; media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def json_response(value: object, status: int = 200) -> Response:
    """The value as the body of a response."""
    body = json.dumps(value)
    return Response(body, status, content_type="application/json", charset="utf-8", cache_control="no-store")
