"""Calls to the platform's API.

https://developers.weixin.qq.com/doc/service/api/
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlencode

from wechat.errors import ApiError, TransportError, WeChatError
from wechat.platform.access_token import TokenCache
from wechat.platform.answers import is_file, read_json
from wechat.protocol.envelope import Clock
from wechat.reply import Reply, Text
from wechat.settings import Settings
from wechat.store.base import Store
from wechat.store.owners import Owners
from wechat.workers import standing_aside
from wechat.world import REAL, World

if TYPE_CHECKING:
    from wechat.platform.transport import Body, HttpResponse, Transport

T = TypeVar("T")

STALE_TOKEN = frozenset({40001, 40014, 42001})
BUSY = -1
PAUSES = (0.5, 1.5)  # seconds before the second and the third try
TIMEOUT = 10.0  # seconds for the whole of a call, its retries included
TRANSFER_TIMEOUT = 60.0  # the same with a file
TOKENLESS = ("/sns/", "/cgi-bin/clear_quota/v2", "/cgi-bin/stable_token", "/cgi-bin/token")  # have keys of their own


def connect(settings: Settings) -> Transport:
    """Make the transport to the platform."""
    from wechat.platform.transport import Transport  # and ssl: megabytes, which an account without a secret spares

    return Transport(*settings.api_urls, proxy=settings.proxy)


class Call(NamedTuple):
    """One call, so that it can be made again."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Body = None
    headers: Mapping[str, str] | None = None
    is_repeatable: bool = False  # whether doing it twice does no harm
    timeout: float = TIMEOUT


class Api:
    """The platform's API for one account.

    Every method raises WeChatError where the platform refuses, TransportError where it does not answer, and ApiError
    without an appid and a secret; in WeChat's own cloud it calls without those. No message of theirs holds a token. A
    call ends within 10 seconds, with a file within 60; where a token has to be fetched, that may take 10 more.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        owners: Owners | None = None,
        clock: Clock = time.time,
        world: World = REAL,
        connect: Callable[[Settings], Transport] = connect,
    ) -> None:
        self._settings, self._store, self._owners = settings, store, owners or Owners(store)
        self._clock, self._world, self._connect = clock, world, connect
        self.begin()

    def begin(self) -> None:
        """Open new connections, in a forked process too: those of its parent are not its own."""
        self._transport = self._connect(self._settings) if self._settings.may_call else None
        self._tokens = TokenCache(self._store, self._owners, self._fetch_token, self._clock, self._world)

    def connect_with(self, connect: Callable[[Settings], Transport]) -> None:
        """Make connections in another way from now on."""
        self._connect = connect
        self.begin()

    def close(self) -> None:
        """Close the idle connections."""
        if self._transport:
            self._transport.close()

    # Every endpoint

    def get(self, path: str, /, **query: str) -> dict[str, Any]:
        """GET a path such as `/cgi-bin/get_api_domain_ip`; return the JSON of the answer."""
        return self._call(Call("GET", path, query, is_repeatable=True), read_json)

    def post(self, path: str, data: Any, is_repeatable: bool = False) -> dict[str, Any]:
        """POST the data as JSON; return the JSON of the answer. `is_repeatable` says that a retry does no harm."""
        return self._call(_json_call(path, data, is_repeatable), read_json)

    def token(self) -> str:
        """Return the current access_token, from the store or from the platform."""
        if self._settings.mode == "cloud":
            raise ApiError("WECHAT_MODE=cloud calls the platform without an access token: there is none")
        if not self._settings.may_call:
            raise ApiError("WECHAT_APPID and WECHAT_SECRET are missing: calls to the platform need them")
        return self._tokens.get()

    # The custom menu: https://developers.weixin.qq.com/doc/service/api/custommenu/

    def create_menu(self, menu: Mapping[str, Any]) -> None:
        """Set the default menu."""
        self.post("/cgi-bin/menu/create", menu, is_repeatable=True)

    def get_menu(self) -> dict[str, Any]:
        """Return the menu, and the conditional menus."""
        return self.get("/cgi-bin/menu/get")

    def delete_menu(self) -> None:
        """Delete the menu, and the conditional menus."""
        self.get("/cgi-bin/menu/delete")

    def add_conditional_menu(self, menu: Mapping[str, Any]) -> str:
        """Add a conditional menu, with a `matchrule`; return its menuid."""
        return str(self.post("/cgi-bin/menu/addconditional", menu).get("menuid", ""))

    def delete_conditional_menu(self, menuid: str) -> None:
        """Delete one conditional menu."""
        self.post("/cgi-bin/menu/delconditional", {"menuid": menuid}, is_repeatable=True)

    def try_match_menu(self, user_id: str) -> dict[str, Any]:
        """Return the menu that a user sees, by openid or WeChat name."""
        return self.post("/cgi-bin/menu/trymatch", {"user_id": user_id}, is_repeatable=True)

    # Temporary media: https://developers.weixin.qq.com/doc/service/api/material/temporary/

    def upload(self, kind: str, filename: str, file: BinaryIO) -> str:
        """Upload an image, voice, video or thumb; return its media_id, which expires after three days."""
        from wechat.platform.files import multipart

        body, headers = multipart(filename, file)
        call = Call("POST", "/cgi-bin/media/upload", {"type": kind}, body, headers, True, TRANSFER_TIMEOUT)
        answer = self._call(call, read_json)
        return str(answer.get("media_id") or answer.get("thumb_media_id") or "")

    def download(self, media_id: str, folder: str | Path, is_jssdk: bool = False) -> Path:
        """Download a medium into the folder; return the path of a new file.

        It has the platform's name, made safe, or the next one that is free. `is_jssdk` asks for the voice of a web
        page, in its better quality. Nothing is left behind where it fails; an OSError says that the file cannot be
        written.
        """
        from wechat.platform.files import save, save_from

        def read(received: HttpResponse) -> Path | dict[str, Any]:
            return save(received, Path(folder), media_id) if is_file(received) else read_json(received)

        path = "/cgi-bin/media/get/jssdk" if is_jssdk else "/cgi-bin/media/get"
        call = Call("GET", path, {"media_id": media_id}, is_repeatable=True, timeout=TRANSFER_TIMEOUT)
        deadline = self._world.monotonic() + TRANSFER_TIMEOUT
        result = self._call(call, read)
        if isinstance(result, Path):
            return result
        # A video is not sent, but an address where it is.
        url, left = str(result.get("video_url", "")), deadline - self._world.monotonic()
        return save_from(url, self._settings, Path(folder), media_id, left)

    # Customer messages: https://developers.weixin.qq.com/doc/service/api/customer/message/

    def send(self, openid: str, reply: Reply | str) -> None:
        """Send a reply as customer messages: a long text in pieces; nothing for a Transfer or a Raw."""
        for message in (Text(reply) if isinstance(reply, str) else reply).customer_messages():
            self.send_message(openid, message)

    def send_message(self, openid: str, message: Mapping[str, Any]) -> None:
        """Send one customer message, given as its JSON without `touser`."""
        self.post("/cgi-bin/message/custom/send", {"touser": openid, **message})

    def typing(self, openid: str, is_typing: bool = True) -> None:
        """Show the typing indicator, for 15 seconds at most, or hide it."""
        business = "/business" if self._settings.account == "miniprogram" else ""
        command = "Typing" if is_typing else "CancelTyping"
        self.post(f"/cgi-bin/message/custom{business}/typing", {"touser": openid, "command": command})

    # How a call is made

    def _call(self, call: Call, read: Callable[[HttpResponse], T]) -> T:
        """Make the call and `read` the answer; renew the access_token once if the platform refuses it."""
        deadline = self._world.monotonic() + call.timeout
        if self._settings.mode == "cloud" or not takes_our_token(call):
            return self._try(call, read, "", deadline)
        token = self.token()
        try:
            return self._try(call, read, token, deadline)
        except WeChatError as error:
            if error.errcode not in STALE_TOKEN:
                raise
            fresh = self._tokens.renew(token)
            if fresh == token:
                raise
        return self._try(call, read, fresh, deadline)

    def _try(self, call: Call, read: Callable[[HttpResponse], T], token: str, deadline: float) -> T:
        """Make the call and `read` the answer; retry while the platform is busy or away, if the call is idempotent."""
        for pause in PAUSES if call.is_repeatable else ():
            try:
                return self._once(call, read, token, deadline)
            except (TransportError, WeChatError) as error:
                is_passing = isinstance(error, TransportError) or error.errcode == BUSY
                if not is_passing or self._world.monotonic() + pause >= deadline:
                    raise
            self._world.sleep(pause)
        return self._once(call, read, token, deadline)

    def _once(self, call: Call, read: Callable[[HttpResponse], T], token: str, deadline: float) -> T:
        query = {**({"access_token": token} if token else {}), **call.query}
        separator = "&" if "?" in call.path else "?"
        target = call.path + (separator + urlencode(query, errors="replace") if query else "")
        left = deadline - self._world.monotonic()
        self._transport = self._transport or self._connect(self._settings)
        request = call.method, target, call.body, call.headers, left, call.is_repeatable
        with standing_aside(), self._transport.open(*request) as received:
            return read(received)

    def _fetch_token(self, is_forced: bool) -> dict[str, Any]:
        data = {
            "grant_type": "client_credential",
            "appid": self._settings.appid,
            "secret": self._settings.secret,
            "force_refresh": is_forced,
        }
        call = _json_call("/cgi-bin/stable_token", data, is_repeatable=True)
        return self._try(call, read_json, "", self._world.monotonic() + TIMEOUT)


def _json_call(path: str, data: Any, is_repeatable: bool) -> Call:
    # Real characters, no \u escapes: some endpoints show the escapes to the user.
    body = json.dumps(data, ensure_ascii=False).encode(errors="replace")
    return Call("POST", path, {}, body, {"Content-Type": "application/json; charset=utf-8"}, is_repeatable)


def takes_our_token(call: Call) -> bool:
    """Whether our access token goes with the call; not where it has keys of its own, which a 40001 is then about."""
    path, _, query = call.path.partition("?")
    names = [*call.query, *(name for name, _ in parse_qsl(query, keep_blank_values=True))]
    return not (path.startswith(TOKENLESS) or any(name.endswith("access_token") for name in names))
