"""The users of an account as WeChat's API knows them: who follows, their tags, and how much may be sent to whom.

https://developers.weixin.qq.com/doc/service/api/usermanage/userinfo/
"""

import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sandbox.cloud_wire import Answer, Asked, Endpoint
from sandbox.rules import is_openid

DAY = 86400  # seconds
# How many customer messages within how many seconds an event allows; a message allows 5 in 48 hours.
# https://developers.weixin.qq.com/doc/service/api/customer/message/api_sendcustommessage.html
MESSAGE, FEW = (5, 2 * DAY), (3, 60)
EVENTS = dict.fromkeys(("subscribe", "SCAN", "CLICK", "scancode_push", "scancode_waitmsg"), FEW)
EVENTS |= {"user_enter_tempsession": (2, 60)}

NOTICES = ("message/template/send", "message/template/subscribe", "message/subscribe/send", "message/subscribe/bizsend")
MOST_TAGS, LONGEST_TAG, FIRST_TAG = 100, 30, 100  # in bytes the second; 0 to 2 are WeChat's own
SCENES = {"QR_SCENE": "scene_id", "QR_STR_SCENE": "scene_str"}
SCENES |= {name.replace("QR_", "QR_LIMIT_"): scene for name, scene in SCENES.items()}


@dataclass
class Window:
    """How many customer messages may be sent until `ends`, in seconds since 1970."""

    left: int
    ends: float = float("inf")


@dataclass
class _User:
    since: int  # seconds since 1970; 0 for one who does not follow
    remark: str = ""
    tags: list[int] = field(default_factory=list)


class Followers:
    """The users of one account; one who never unfollowed counts as a follower.

    `windows` holds what an openid may still get, as WeChat counts it from what a user does; an openid that is not in it
    gets any number. `notices` holds the template and subscription messages, each with its openid.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.windows: dict[str, dict[float, Window]] = {}  # by their length in seconds
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self._clock = clock
        self._users: dict[str, _User] = {}
        self._tags: dict[int, str] = {2: "星标组"}

    def endpoints(self) -> dict[str, Endpoint]:
        """What the API offers about users, by the path below `/cgi-bin/`."""
        posts: dict[str, Callable[[dict[str, Any]], Answer]] = {
            **dict.fromkeys(NOTICES, self._notify),
            "user/info/batchget": self._infos,
            "user/info/updateremark": self._remark,
            "user/tag/get": lambda body: self._following(body.get("next_openid", ""), body.get("tagid")),
            "tags/create": self._create_tag,
            "tags/update": self._change_tag,
            "tags/delete": self._change_tag,
            "tags/getidlist": lambda body: self._info(body.get("openid"), only="tagid_list"),
            "tags/members/batchtagging": lambda body: self._mark(body, is_on=True),
            "tags/members/batchuntagging": lambda body: self._mark(body, is_on=False),
            "qrcode/create": qrcode,
        }
        return {
            **{name: ("POST", partial(_post, post)) for name, post in posts.items()},
            "user/info": ("GET", lambda asked: self._info(asked.query.get("openid"))),
            "user/get": ("GET", lambda asked: self._following(asked.query.get("next_openid", ""))),
            "tags/get": ("GET", lambda _: self._list_tags()),
        }

    def note_action(self, openid: str, event: str = "") -> None:
        """A user wrote, or did what the event says: counting begins anew, and the account may send so many messages."""
        user, windows = self._user(openid), self.windows.setdefault(openid, {})
        if event == "unsubscribe":
            user.since = 0
            windows.clear()
        elif event == "subscribe":
            user.since = int(self._clock())
        count, seconds = EVENTS.get(event, (0, 0)) if event else MESSAGE
        if count:
            windows[seconds] = Window(count, self._clock() + seconds)

    def count_message(self, openid: str) -> int:
        """Counts a customer message to the user; the errcode where there may be none."""
        windows = self.windows.get(openid, {0: Window(sys.maxsize)})
        is_open = [window for window in windows.values() if window.ends > self._clock()]
        left = [window for window in is_open if window.left]
        if not left:
            return 45047 if is_open else 45015
        min(left, key=lambda window: window.ends).left -= 1
        return 0

    def _notify(self, notice: dict[str, Any]) -> Answer:
        openid, data = notice.get("touser"), notice.get("data")
        if not is_openid(openid):
            return 40003
        if not isinstance(notice.get("template_id"), str) or not notice["template_id"]:
            return 40037
        if not isinstance(data, dict) or not all(isinstance(part, dict) and "value" in part for part in data.values()):
            return 47003
        if not self._user(str(openid)).since:
            return 43004
        self.notices.append((str(openid), notice))
        return {"errcode": 0, "errmsg": "ok", "msgid": secrets.randbits(62)}

    def _info(self, openid: Any, only: str = "") -> dict[str, Any] | int:
        if not is_openid(openid):
            return 40003
        user = self._user(openid)
        known = {"subscribe": int(bool(user.since)), "openid": openid, "tagid_list": user.tags}
        if user.since:
            about = {"subscribe_time": user.since, "remark": user.remark, "groupid": (user.tags or [0])[0]}
            scene = {"subscribe_scene": "ADD_SCENE_SEARCH", "qr_scene": 0, "qr_scene_str": ""}
            known |= {"language": "zh_CN", **about, **scene}
        return {only: known[only]} if only else known

    def _infos(self, body: dict[str, Any]) -> Answer:
        asked = body.get("user_list")
        if not isinstance(asked, list) or not 0 < len(asked) <= 100:
            return 40032
        found = [self._info(user.get("openid") if isinstance(user, dict) else None) for user in asked]
        return 40003 if 40003 in found else {"user_info_list": found}

    def _following(self, after: str, tag: int | None = None) -> dict[str, Any]:
        users = [openid for openid, user in self._users.items() if user.since and (tag is None or tag in user.tags)]
        listed = users[users.index(after) + 1 :] if after in users else users
        total = {"total": len(users)} if tag is None else {}
        data = {"data": {"openid": listed}} if listed else {}
        return {**total, "count": len(listed), **data, "next_openid": listed[-1] if listed else ""}

    def _remark(self, body: dict[str, Any]) -> int:
        if not is_openid(body.get("openid")):
            return 40003
        self._user(body["openid"]).remark = str(body.get("remark", ""))
        return 0

    def _create_tag(self, body: dict[str, Any]) -> dict[str, Any] | int:
        name = _part(body, "tag").get("name")
        if errcode := self._name_errcode(name) or (45056 if len(self._tags) > MOST_TAGS else 0):
            return errcode
        number = max([FIRST_TAG - 1, *self._tags]) + 1
        self._tags[number] = str(name)
        return {"tag": {"id": number, "name": name}}

    def _list_tags(self) -> dict[str, Any]:
        counts = Counter(number for user in self._users.values() for number in user.tags)
        return {"tags": [{"id": number, "name": name, "count": counts[number]} for number, name in self._tags.items()]}

    def _change_tag(self, body: dict[str, Any]) -> int:
        """Gives a tag the name; without one, takes the tag away."""
        number, name = _part(body, "tag").get("id"), _part(body, "tag").get("name")
        if number not in self._tags or number < FIRST_TAG:
            return 45058 if number in (0, 1, 2) else 45159
        if name is not None:
            errcode = self._name_errcode(name)
            self._tags |= {} if errcode else {number: name}
            return errcode
        del self._tags[number]
        for user in self._users.values():
            user.tags = [other for other in user.tags if other != number]
        return 0

    def _mark(self, body: dict[str, Any], is_on: bool) -> int:
        openids, number = body.get("openid_list"), body.get("tagid")
        if not isinstance(openids, list) or not 0 < len(openids) <= 50:
            return 40032
        if not all(map(is_openid, openids)):
            return 40003
        if number not in self._tags:
            return 45159
        for user in map(self._user, openids):
            user.tags = [*(other for other in user.tags if other != number), *([number] if is_on else [])]
        return 0

    def _name_errcode(self, name: Any) -> int:
        if not isinstance(name, str) or not 0 < len(name.encode(errors="surrogatepass")) <= LONGEST_TAG:
            return 45158
        return 45157 if name in self._tags.values() else 0

    def _user(self, openid: str) -> _User:
        return self._users.setdefault(openid, _User(int(self._clock())))


def qrcode(body: dict[str, Any]) -> dict[str, Any] | int:
    """The ticket of a QR code with a scene, or an errcode.

    https://developers.weixin.qq.com/doc/service/api/qrcode/qrcodes/api_createqrcode.html
    """
    scene = SCENES.get(str(body.get("action_name")))
    value = _part(_part(body, "action_info"), "scene").get(scene)
    if not isinstance(value, str if scene == "scene_str" else int) or not value:
        return 40053
    ends = {} if "LIMIT" in body["action_name"] else {"expire_seconds": body.get("expire_seconds", 60)}
    name = secrets.token_urlsafe(48)
    return {"ticket": f"gQH{name}==", **ends, "url": f"http://weixin.qq.com/q/{name[:20]}"}


def _post(post: Callable[[dict[str, Any]], Answer], asked: Asked) -> Answer:
    return post(asked.body)


def _part(body: dict[Any, Any], name: str) -> dict[Any, Any]:
    part = body.get(name)
    return part if isinstance(part, dict) else {}
