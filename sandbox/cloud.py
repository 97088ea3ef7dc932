"""Plays api.weixin.qq.com towards a client: tokens, menus, media and customer messages, and faults on demand."""

import itertools
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from webob import Request, Response

from sandbox import cloud_wire
from sandbox.cloud_wire import FAULT, LATE_FAULTS, Answer, Asked, Call, Endpoint, Media, public
from sandbox.diagnosis import DAY, Diagnosis
from sandbox.followers import Followers
from sandbox.rules import Menus, file_errcode, is_openid, message_errcode

OVERLAP = 300  # seconds a token is good beside its successor; the stable one is renewed so long before its end
MEDIA_LIFE = 3 * DAY
TYPING_LIFE = 15  # seconds
OPEN = ("/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/clear_quota/v2")  # what needs no access_token


@dataclass
class _Token:
    is_stable: bool
    expires: float
    replaced: float = math.inf


class Cloud:
    """A WSGI app that answers like WeChat's API does for one account, for any number of threads.

    `clock` gives seconds since 1970; `token_life` is in seconds. `journal` holds every request, and `heard` is called
    with it; `sent` holds the openid and the JSON of each customer message that was taken, `media` the uploads by
    media_id; `fetches` counts the tokens that stable_token handed out. `followers` knows who may get what.
    """

    url = ""  # where it is served

    def __init__(self, appid: str, secret: str, clock: Callable[[], float] = time.time, token_life: int = 7200) -> None:
        self.journal: list[Call] = []
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.media: dict[str, Media] = {}
        self.fetches = 0
        self.heard: Callable[[Call], None] = lambda call: None
        self.followers = Followers(lambda: self.clock())
        self.menus = Menus()
        self.clock = clock
        self.diagnosis = Diagnosis(appid, secret, lambda: self.clock())
        self._appid, self._secret, self._token_life = appid, secret, token_life
        self._lock = threading.Condition()
        self._tokens: dict[str, _Token] = {}
        self._stable = ""
        self._typing: dict[str, float] = {}
        self._faults: list[tuple[str, Iterator[str]]] = []
        self._endpoints = {f"/cgi-bin/{name}": endpoint for name, endpoint in self._names().items()}

    def _names(self) -> dict[str, Endpoint]:
        menus = self.menus
        return {
            "token": ("GET", lambda asked: self._credential_errcode(asked.query) or self._new_token()),
            "stable_token": (
                "POST",
                lambda asked: self._credential_errcode(asked.body) or self._stable_token(asked.body),
            ),
            "menu/create": ("POST", lambda asked: menus.create(asked.body)),
            "menu/get": ("GET", lambda _: menus.get()),
            "menu/delete": ("GET", lambda _: menus.delete()),
            "menu/addconditional": ("POST", lambda asked: menus.add_conditional(asked.body)),
            "menu/delconditional": ("POST", lambda asked: menus.delete_conditional(asked.body)),
            "menu/trymatch": ("POST", lambda asked: menus.try_match(asked.body)),
            "get_current_selfmenu_info": ("GET", lambda _: menus.current()),
            "get_current_autoreply_info": ("GET", lambda _: menus.console["autoreply"]),
            "media/upload": ("POST", self._upload),
            "media/get": ("GET", self._get_media),
            "media/get/jssdk": ("GET", lambda asked: self._get_media(asked, speex=True)),
            "message/custom/send": ("POST", self._send),
            **dict.fromkeys(("message/custom/typing", "message/custom/business/typing"), ("POST", self._type)),
            **self.followers.endpoints(),
            "getcallbackip": ("GET", lambda _: {"ip_list": ["106.55.206.146", "101.226.103.0/25"]}),
            "get_api_domain_ip": ("GET", lambda _: {"ip_list": ["101.89.47.18", "101.91.37.129"]}),
            **self.diagnosis.endpoints(),
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked = cloud_wire.read(Request(environ))
        with self._lock:
            response, fault = self._answer(asked)
        if fault.startswith("slow"):
            time.sleep(float(fault.partition(":")[2]))
        body: Iterable[bytes] = response(environ, start_response)
        return body

    def fail(self, path_prefix: str, *kinds: str, times: int | None = 1) -> None:
        """Lets the next calls of these paths fail, in the order of `kinds`, `times` over; None is for ever.

        A kind is busy, expired, revoked, invalid, not-allowed, unauthorized, slow:SECONDS, cut, html, status:502,
        garbage, empty, control or code:ERRCODE; ValueError for any other. slow, cut and control do what was asked.
        """
        if unknown := [kind for kind in kinds if not FAULT.fullmatch(kind)]:
            raise ValueError(f"no such fault: {', '.join(unknown)}")
        queue = itertools.cycle(kinds) if times is None else iter(kinds * times)
        with self._lock:
            self._faults.append((path_prefix, queue))

    def answer(self, path: str, answer: dict[str, Any]) -> None:
        """Lets the POSTs of a path give this JSON, also one that is no endpoint."""
        self._endpoints[path] = ("POST", lambda _: answer)

    def heal(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._faults.clear()

    def revoke(self) -> None:
        """Ends all tokens with 40001, as when somebody else fetches one."""
        with self._lock:
            self._tokens.clear()

    def expire(self) -> None:
        """Ends all tokens with 42001, as their time does."""
        with self._lock:
            for token in self._tokens.values():
                token.expires = self.clock()

    def note_action(self, openid: str, event: str = "") -> None:
        """A user wrote, or did what the event says, and the account may send so many customer messages again."""
        with self._lock:
            self.followers.note_action(openid, event)

    def keep(self, media: Media) -> str:
        """Takes a file in; gives its media_id."""
        media_id = secrets.token_urlsafe(48)
        self.media[media_id] = media
        return media_id

    def messages_to(self, openid: str, count: int, seconds: float) -> list[dict[str, Any]]:
        """The customer messages to this user, as soon as there are so many, or when the seconds are over."""
        with self._lock:
            self._lock.wait_for(lambda: sum(to == openid for to, _ in self.sent) >= count, seconds)
            return [message for to, message in self.sent if to == openid]

    def _answer(self, asked: Asked) -> tuple[Response, str]:
        refusal = asked.refusal(self._token_errcode)
        # One kind of the first queue for this path that still has one.
        fault = next((kind for prefix, kinds in self._faults if asked.path.startswith(prefix) for kind in kinds), "")
        in_advance = fault and not fault.startswith(LATE_FAULTS)
        answer = cloud_wire.staged(fault) if in_advance else self._run(asked, refusal)
        if fault == "revoked":
            self._tokens.clear()
        rid = "-".join(secrets.token_hex(4) for _ in range(3))
        response = cloud_wire.respond(answer, fault, rid)
        response.date = self.clock()
        errcode = answer if isinstance(answer, int) else 0
        come = (asked.method, asked.path, public(asked.query) or {}, public(asked.body), not refusal, asked.escaped)
        self.journal.append(Call(*come, fault, response.status_int, errcode, asked.number))
        self.diagnosis.note(rid, asked, response, errcode)
        self.heard(self.journal[-1])
        return response, fault

    def _run(self, asked: Asked, token_errcode: int) -> Answer:
        video = self.media.get(asked.path.removeprefix("/video/"))
        if video:
            return video.download("video")
        if asked.path not in self._endpoints:
            return 40066
        method, endpoint = self._endpoints[asked.path]
        if token_errcode and asked.path not in OPEN:
            return token_errcode
        if asked.method != method:
            return 43001 if method == "GET" else 43002
        if self.diagnosis.is_used_up(asked.path):
            return 45009
        return asked.body if isinstance(asked.body, int) else endpoint(asked)

    def _token_errcode(self, name: str) -> int:
        token, now = self._tokens.get(name), self.clock()
        if token is None:
            return 40001 if name else 41001
        if now >= token.expires:
            return 42001
        return 40001 if now >= token.replaced else 0

    def _new_token(self) -> Answer:
        return {"access_token": self._issue(False, OVERLAP), "expires_in": self._token_life}

    def _stable_token(self, body: dict[str, Any]) -> Answer:
        now, token = self.clock(), self._tokens.get(self._stable)
        if body.get("force_refresh"):
            if not (self.diagnosis.may_use("refresh", 1, 30) and self.diagnosis.may_use("refreshes", 20, DAY)):
                return 45011
            self._stable = self._issue(True, 0)
        elif token is None or token.expires - now <= OVERLAP:
            self._stable = self._issue(True, OVERLAP)
        self.fetches += 1
        return {"access_token": self._stable, "expires_in": int(self._tokens[self._stable].expires - now)}

    def _credential_errcode(self, fields: dict[str, Any]) -> int:
        if not fields.get("appid"):
            return 41002
        if not fields.get("secret"):
            return 41004
        if fields.get("grant_type") != "client_credential":
            return 40002
        return 40013 if fields["appid"] != self._appid else 40125 if fields["secret"] != self._secret else 0

    def _issue(self, is_stable: bool, overlap: int) -> str:
        now = self.clock()
        for token in self._tokens.values():
            if token.is_stable == is_stable:
                token.replaced = min(token.replaced, now + overlap)
        name = f"89_{secrets.token_urlsafe(100)}"
        self._tokens[name] = _Token(is_stable, now + self._token_life)
        return name

    def _upload(self, asked: Asked) -> Answer:
        media = Media(asked.query.get("type", ""), **asked.body, created_at=int(self.clock()))
        if errcode := file_errcode(media.type, media.extension, len(media.content)):
            return errcode
        media_id = self.keep(media)
        name = "thumb_media_id" if media.type == "thumb" else "media_id"
        return {"type": media.type, name: media_id, "created_at": media.created_at}

    def _get_media(self, asked: Asked, speex: bool = False) -> Answer:
        media_id = asked.query.get("media_id", "")
        media = self.media.get(media_id)
        if media is None or self.clock() - media.created_at >= MEDIA_LIFE or (speex and media.type != "voice"):
            return 40007
        if media.type == "video":
            return {"video_url": f"{asked.base}/video/{media_id}"}
        return replace(media, filename=".speex").download(media_id) if speex else media.download(media_id)

    def _send(self, asked: Asked) -> int:
        if errcode := message_errcode(asked.body):
            return errcode
        openid = asked.body["touser"]
        if errcode := self.followers.count_message(openid):
            return errcode
        self._typing.pop(openid, None)
        self.sent.append((openid, asked.body))
        self._lock.notify_all()
        return 0

    def _type(self, asked: Asked) -> int:
        openid, command, now = asked.body.get("touser"), asked.body.get("command"), self.clock()
        if not is_openid(openid):
            return 40003
        if command not in ("Typing", "CancelTyping"):
            return 45072
        if command == "Typing" and now < self._typing.get(openid, 0):
            return 45081
        self._typing[openid] = now + TYPING_LIFE if command == "Typing" else 0
        return 0
