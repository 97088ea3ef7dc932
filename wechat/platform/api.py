"""Calls to the platform's API.

https://developers.weixin.qq.com/doc/service/api/
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from wechat.errors import ApiError, TransportError, WeChatError
from wechat.platform.access_token import TokenCache
from wechat.platform.files import Progress, multipart, save
from wechat.platform.hints import hint_for
from wechat.platform.transport import NO_HEADERS, Body, Received, Transport, translated
from wechat.protocol.envelope import Clock
from wechat.reply import Reply
from wechat.settings import Settings
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.world import REAL, World

T = TypeVar("T")

STALE_TOKEN = frozenset({40001, 40014, 42001})
BUSY = -1
ERRMSG = re.compile(r"[\x00-\x1f\x7f]+")  # what could break a line of the log
PAUSES = (0.5, 1.5)  # seconds before the second and the third try
LARGEST_JSON = 16 * 1024 * 1024  # bytes
TIMEOUT = 10.0  # seconds
TRANSFER_TIMEOUT = 30.0  # seconds for each step of an upload or a download


class Call(NamedTuple):
    """One call, so that it can be made again."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Callable[[], Body] = lambda: None
    headers: Mapping[str, str] = NO_HEADERS
    is_repeatable: bool = False  # whether doing it twice does no harm
    timeout: float = TIMEOUT


class Api:
    """The platform's API for one account.

    Every method raises WeChatError where the platform refuses, TransportError where it does not answer, and ApiError
    without an appid and a secret. No message of theirs holds a token.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        owners: Owners | None = None,
        clock: Clock = time.time,
        world: World = REAL,
        connect: Callable[[str], Transport] = Transport,
    ) -> None:
        self._settings, self._store, self._owners = settings, store, owners or Owners(store)
        self._clock, self._world, self._connect = clock, world, connect
        self.begin()

    def begin(self) -> None:
        """Makes its connections anew in a process that was forked: those of its parent are not its own."""
        self._transport = self._connect(self._settings.api_url)
        self._tokens = TokenCache(self._store, self._owners, self._fetch_token, self._clock, self._world)

    def close(self) -> None:
        """Closes the connections that are kept."""
        self._transport.close()

    # Every endpoint

    def get(self, path: str, /, **query: str) -> dict[str, Any]:
        """What a GET of the path, like `/cgi-bin/get_api_domain_ip`, answers."""
        return self._call(Call("GET", path, query, is_repeatable=True), read_json)

    def post(self, path: str, data: Any, is_repeatable: bool = False) -> dict[str, Any]:
        """What a POST of the data as JSON answers; `is_repeatable` says that doing it twice does no harm."""
        return self._call(_json_call(path, data, is_repeatable), read_json)

    def token(self) -> str:
        """The current access token, from the store or from the platform."""
        if not (self._settings.appid and self._settings.secret):
            raise ApiError("WECHAT_APPID and WECHAT_SECRET are missing: calls to the platform need them")
        return self._tokens.get()

    # The custom menu: https://developers.weixin.qq.com/doc/service/api/custommenu/

    def create_menu(self, menu: Mapping[str, Any]) -> None:
        """Makes the menu everybody's."""
        self.post("/cgi-bin/menu/create", menu, is_repeatable=True)

    def get_menu(self) -> dict[str, Any]:
        """The menu, and the conditional ones."""
        return self.get("/cgi-bin/menu/get")

    def delete_menu(self) -> None:
        """Deletes the menu, and the conditional ones."""
        self.get("/cgi-bin/menu/delete")

    def add_conditional_menu(self, menu: Mapping[str, Any]) -> str:
        """Adds a menu with a `matchrule`; gives its menuid."""
        return str(self.post("/cgi-bin/menu/addconditional", menu).get("menuid", ""))

    def delete_conditional_menu(self, menuid: str) -> None:
        """Deletes one conditional menu."""
        self.post("/cgi-bin/menu/delconditional", {"menuid": menuid}, is_repeatable=True)

    def try_match_menu(self, user_id: str) -> dict[str, Any]:
        """The menu that a user, by openid or WeChat name, sees."""
        return self.post("/cgi-bin/menu/trymatch", {"user_id": user_id}, is_repeatable=True)

    # Temporary media: https://developers.weixin.qq.com/doc/service/api/material/temporary/

    def upload(self, kind: str, filename: str, file: BinaryIO) -> str:
        """Uploads an image, voice, video or thumb; gives its media_id, which ends after three days."""
        body, headers = multipart(filename, file)
        call = Call("POST", "/cgi-bin/media/upload", {"type": kind}, body, headers, True, TRANSFER_TIMEOUT)
        answer = self._call(call, read_json)
        return str(answer.get("media_id") or answer.get("thumb_media_id") or "")

    def download(
        self, media_id: str, folder: str | Path, is_jssdk: bool = False, on_progress: Progress | None = None
    ) -> Path:
        """Downloads a medium into the folder, under the platform's name made safe; gives the file.

        `is_jssdk` asks for the voice of a web page, in its better quality. Nothing is left behind where it fails;
        an OSError says that the file cannot be written.
        """
        path = "/cgi-bin/media/get/jssdk" if is_jssdk else "/cgi-bin/media/get"

        def read(received: Received) -> Path | dict[str, Any]:
            is_found = is_file(received)
            return save(received, Path(folder), media_id, on_progress) if is_found else read_json(received)

        call = Call("GET", path, {"media_id": media_id}, is_repeatable=True, timeout=TRANSFER_TIMEOUT)
        result = self._call(call, read)
        if isinstance(result, Path):
            return result
        return self._download_from(str(result.get("video_url", "")), Path(folder), media_id, on_progress)

    def _download_from(self, url: str, folder: Path, media_id: str, on_progress: Progress | None) -> Path:
        """A video is not sent, but an address where it is."""
        with translated("the address of the video"):
            parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise TransportError("the platform named no address of the video")
        transport = Transport(f"{parts.scheme}://{parts.netloc}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        with transport.open("GET", target, timeout=TRANSFER_TIMEOUT) as received:
            path = save(received, folder, media_id, on_progress)
        transport.close()
        return path

    # Customer messages: https://developers.weixin.qq.com/doc/service/api/customer/message/

    def send(self, openid: str, reply: Reply) -> None:
        """Sends a reply as customer messages: a long text in pieces; nothing for a Transfer or a Raw."""
        for message in reply.customer_messages():
            self.send_message(openid, message)

    def send_message(self, openid: str, message: Mapping[str, Any]) -> None:
        """Sends one customer message, as its JSON without `touser`."""
        self.post("/cgi-bin/message/custom/send", {"touser": openid, **message})

    def typing(self, openid: str, is_typing: bool = True) -> None:
        """Shows, for 15 seconds at most, that an answer is being written; or stops that."""
        business = "/business" if self._settings.account == "miniprogram" else ""
        command = "Typing" if is_typing else "CancelTyping"
        self.post(f"/cgi-bin/message/custom{business}/typing", {"touser": openid, "command": command})

    # How a call is made

    def _call(self, call: Call, read: Callable[[Received], T]) -> T:
        """What `read` makes of the answer; a token that is refused is renewed once."""
        token = self.token()
        try:
            return self._try(call, read, token)
        except WeChatError as error:
            if error.errcode not in STALE_TOKEN:
                raise
            fresh = self._tokens.renew(token)
            if fresh == token:
                raise
        return self._try(call, read, fresh)

    def _try(self, call: Call, read: Callable[[Received], T], token: str = "") -> T:
        """The same, with another try where the platform is busy or away and a second time does no harm."""
        for pause in PAUSES if call.is_repeatable else ():
            try:
                return self._once(call, read, token)
            except TransportError:
                self._world.sleep(pause)
            except WeChatError as error:
                if error.errcode != BUSY:
                    raise
                self._world.sleep(pause)
        return self._once(call, read, token)

    def _once(self, call: Call, read: Callable[[Received], T], token: str) -> T:
        query = {**({"access_token": token} if token else {}), **call.query}
        target = call.path + (("&" if "?" in call.path else "?") + urlencode(query) if query else "")
        with self._transport.open(call.method, target, call.body(), call.headers, call.timeout) as received:
            return read(received)

    def _fetch_token(self, is_forced: bool) -> dict[str, Any]:
        data = {
            "grant_type": "client_credential",
            "appid": self._settings.appid,
            "secret": self._settings.secret,
            "force_refresh": is_forced,
        }
        return self._try(_json_call("/cgi-bin/stable_token", data, is_repeatable=True), read_json)


def _json_call(path: str, data: Any, is_repeatable: bool) -> Call:
    # Real characters, no \u escapes: some endpoints show the escapes to the user.
    body = json.dumps(data, ensure_ascii=False).encode(errors="replace")
    return Call("POST", path, {}, lambda: body, {"Content-Type": "application/json; charset=utf-8"}, is_repeatable)


def is_file(received: Received) -> bool:
    """Whether the answer is a file; an error, or the address of a video, is JSON."""
    headers = received.headers
    return bool(headers["Content-Disposition"]) or headers.get_content_maintype() in (
        "image",
        "audio",
        "voice",
        "video",
    )


def read_json(received: Received) -> dict[str, Any]:
    """The JSON object in an answer; raises WeChatError where it holds an errcode."""
    body = received.read(LARGEST_JSON)
    if received.status != 200:
        raise TransportError(f"{received.what}: it answered {received.status}")
    try:
        answer = json.loads(body, strict=False)  # control characters come as they are
    except (ValueError, RecursionError):
        raise TransportError(f"{received.what}: the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise TransportError(f"{received.what}: the answer is no JSON object")
    check_errcode(answer)
    return answer


def check_errcode(answer: Mapping[str, Any]) -> None:
    """Raises WeChatError where the platform says that the call failed."""
    inner = answer.get("base_resp")
    result = inner if isinstance(inner, dict) else answer
    errcode = str(result.get("errcode", result.get("ret", 0)))
    errmsg = ERRMSG.sub(" ", str(result.get("errmsg", "")))[:200]
    if errcode not in ("0", ""):
        number = int(errcode) if errcode.lstrip("-").isdecimal() and len(errcode) < 12 else 0
        raise WeChatError(number, errmsg, hint_for(number, errmsg))
