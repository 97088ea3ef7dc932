"""The conversation between the page's users and the server: pushes, what becomes of them, and what arrives later."""

import itertools
import re
import threading
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sandbox.accounts import ACCOUNT_HEADER, KINDS, MODES
from sandbox.cloud import Cloud
from sandbox.cloud_wire import ERRMSG, Call
from sandbox.followers import NOTICES
from sandbox.messages import USER, compose, to_json
from sandbox.platform import MESSAGE_HEADER, Endpoint, Platform
from sandbox.timeline import Timeline
from sandbox.verdict import judge
from wechat.errors import Unreadable
from wechat.protocol.parser import parse, read_fields
from wechat.settings import Settings

USERS = (USER, "oZTwJ5CZXY2gKgAnfCGj7dCRpbA0")
NAME = re.compile(r"[A-Za-z]\w{0,31}", re.ASCII)
CHOICES = {"openid": USERS, "account": KINDS, "mode": MODES, "format": ("xml", "json")}
SHOWN = {"/cgi-bin/message/custom/send": "customer"} | {f"/cgi-bin/{name}": "notice" for name in NOTICES}
KEPT = 100  # calls, customer messages and files
LONGEST = 5.0  # seconds after which the platform hangs up
APART = 0.2  # seconds between two messages of a user at least, unless the first is answered sooner


@dataclass(frozen=True)
class Order:
    """What the page asks for: a message of this `type`, from a user to an account, and how WeChat is to push it."""

    type: str
    fields: dict[str, Any]
    openid: str
    account: str
    mode: str
    format: str
    hang_up: float  # seconds

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} takes {', '.join(choices)}")
        if not isinstance(self.hang_up, int | float) or not 0 < self.hang_up <= LONGEST:
            raise ValueError(f"hang_up takes seconds, above 0 and up to {LONGEST:g}")
        if not isinstance(self.type, str) or not NAME.fullmatch(self.type):
            raise ValueError("type takes a MsgType, of letters and digits")
        if not isinstance(self.fields, dict) or not _is_value(self.fields):
            raise ValueError("fields takes names and texts, or again fields, or lists of those")


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(NAME.fullmatch(name) and _is_value(inner) for name, inner in value.items())
    return isinstance(value, str) or (isinstance(value, list) and all(map(_is_value, value)))


class Chat:
    """Sends what the page asks for, and writes all that happens into the timeline; the server listens at `url`."""

    def __init__(self, url: str, settings: Settings, cloud: Cloud, timeline: Timeline) -> None:
        self.timeline = timeline
        self._url, self._cloud = url, cloud
        self._platforms = {mode: replace(Platform.of(settings), mode=mode) for mode in MODES}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._sent: dict[str, threading.Event] = {}  # by openid: set once the next message may follow
        cloud.heard = self._hear
        cloud.followers.windows |= {openid: {} for openid in USERS}

    def send(self, order: Order) -> int:
        """Pushes the message, and returns at once; gives its number."""
        content = compose(order.type, order.fields, order.openid)
        if order.format == "json" or order.mode == "cloud":
            content = to_json(parse(content.encode()))
        query, body = self._platforms[order.mode].push(content, openid=order.openid)
        request = {"path": urlsplit(self._url).path, "query": query, "body": body.decode(), "content": content}
        with self._lock:
            number, sent = next(self._numbers), threading.Event()
            before, self._sent[order.openid] = self._sent.get(order.openid), sent
            self.timeline.add("sent", id=number, request=request, **vars(order))
        self._cloud.note_action(order.openid, str(order.fields.get("Event", "")) if order.type == "event" else "")

        def deliver() -> None:
            if before:
                before.wait()
            after = threading.Timer(APART, sent.set)
            after.start()
            try:
                self._deliver(number, order, query, body)
            finally:
                sent.set()
                after.cancel()

        threading.Thread(target=deliver, daemon=True).start()
        return number

    def _deliver(self, number: int, order: Order, query: str, body: bytes) -> None:
        platform = self._platforms[order.mode]
        headers = {ACCOUNT_HEADER: f"{order.mode}/{order.account}", MESSAGE_HEADER: str(number)}
        endpoint = Endpoint(self._url, hang_up=order.hang_up, headers={**headers, **platform.headers})
        for count, attempt in enumerate(endpoint.deliver(query, body), 1):
            came = {"status": attempt.status, "seconds": attempt.seconds, "problem": attempt.problem}
            self.timeline.add("attempt", id=number, number=count, **came)
        verdict = judge(platform, attempt, order.type == "event", order.openid)
        text = attempt.body.decode(errors="replace")
        shown = text if verdict.reply and order.mode == "cloud" else verdict.reply
        came = {"openid": order.openid, "fault": verdict.fault, "body": text, "content": shown}
        seen = {"reply": _fields(verdict.reply), "media": self._media_in(verdict.reply)}
        self.timeline.add("answered", id=number, **came, **seen)

    def show_menu(self, menu: dict[str, Any]) -> int:
        """Makes it the account's menu, as if it had been sent to the platform; gives the errcode of a refusal, or 0.

        An empty one takes the menu away.
        """
        errcode = self._cloud.menus.create(menu) if menu else self._cloud.menus.delete()
        self._tell_of_menu()
        return errcode

    def _tell_of_menu(self) -> None:
        menus = self._cloud.menus.get()
        self.timeline.add("menu", buttons=menus["menu"]["button"] if isinstance(menus, dict) else [])

    def _hear(self, call: Call) -> None:
        """What the server asks of the platform, where users see something of it."""
        self._forget()
        if call.status != 200 or not isinstance(call.body, dict):
            return
        openid = call.body.get("touser")
        about = {"id": call.number, "openid": openid, "message": call.body}
        if call.errcode:
            if call.path in SHOWN and call.token_ok:
                self.timeline.add("refused", errcode=call.errcode, errmsg=ERRMSG.get(call.errcode, ""), **about)
        elif call.path in SHOWN:
            self.timeline.add(SHOWN[call.path], media=self._media_in(str(call.body)), **about)
        elif call.path.endswith("/typing"):
            self.timeline.add("typing", openid=openid, is_on=call.body.get("command") == "Typing")
        elif "/menu/" in call.path:
            self._tell_of_menu()

    def _forget(self) -> None:
        """The sandbox may be open for days, so the platform does not keep everything."""
        del self._cloud.journal[:-KEPT], self._cloud.sent[:-KEPT], self._cloud.followers.notices[:-KEPT]
        for media_id in list(self._cloud.media)[:-KEPT]:
            del self._cloud.media[media_id]

    def _media_in(self, text: str) -> dict[str, str]:
        """The files of the platform that the text names: media_id to type."""
        return {media_id: media.type for media_id, media in list(self._cloud.media.items()) if media_id in text}


def _fields(document: str) -> dict[str, Any] | None:
    """The reply's nodes; none for silence, and for the answers that no user sees."""
    try:
        return read_fields(document.encode()) if document else None
    except Unreadable:
        return None
