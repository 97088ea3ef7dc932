"""What the platform tells of an account: the calls that failed, the quotas, and how it reaches the account's URL.

https://developers.weixin.qq.com/doc/service/api/apimanage/
"""

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from webob import Response

from sandbox.cloud_wire import Answer, Asked
from sandbox.facts import FACTS

DAY = 86400  # seconds
REMEMBERED = 7 * DAY  # a call that failed


class Diagnosis:
    """`callback` is what callback/check answers, or an errcode; `limits` are the calls a day of each path."""

    def __init__(self, appid: str, secret: str, clock: Callable[[], float]) -> None:
        self.callback: Answer = FACTS["callback"]
        self.limits: dict[str, int] = dict(FACTS["calls_a_day"])
        self._appid, self._secret, self._clock = appid, secret, clock
        self._used: Counter[str] = Counter()
        self._uses: dict[str, list[float]] = {}
        self._failed: dict[str, dict[str, Any]] = {}  # by rid

    def endpoints(self) -> dict[str, tuple[str, Callable[[Asked], Answer]]]:
        """The paths below /cgi-bin/ that this answers, with their methods."""
        return {
            "callback/check": ("POST", lambda _: self.callback),
            "openapi/quota/get": ("POST", self._quota),
            "openapi/rid/get": ("POST", self._rid),
            "clear_quota": ("POST", lambda asked: self._clear(asked.body, asked.body.get("appid") == self._appid)),
            "clear_quota/v2": ("POST", lambda asked: self._clear(asked.body, self._knows(asked.body))),
        }

    def is_used_up(self, path: str) -> bool:
        """Whether the day's calls of this path have been made; says so of the next ones too."""
        return self._used[path] >= self.limits.get(path, math.inf)

    def may_use(self, what: str, limit: int, period: int) -> bool:
        """Whether this has not been done so often in so many seconds; it counts as done."""
        now = self._clock()
        recent = [at for at in self._uses.get(what, []) if now - at < period]
        self._uses[what] = [*recent, now] if len(recent) < limit else recent
        return len(recent) < limit

    def note(self, rid: str, asked: Asked, response: Response, errcode: int) -> None:
        """Count a call; one that failed can be looked up by its rid."""
        self._used[asked.path] += 1
        if errcode:
            self._failed[rid] = {
                "invoke_time": int(self._clock()),
                "cost_in_ms": 30,
                "request_url": urlencode(asked.query),
                "request_body": json.dumps(asked.body, ensure_ascii=False, default=str) if asked.body else "",
                "response_body": response.body.decode(errors="replace"),
                "client_ip": asked.address,
            }

    def _knows(self, body: dict[str, Any]) -> bool:
        return body.get("appid") == self._appid and body.get("appsecret") == self._secret

    def _clear(self, body: dict[str, Any], is_known: bool) -> int:
        if not is_known:
            return 40125 if body.get("appid") == self._appid else 40013
        if not self.may_use("clear_quota", 10, 30 * DAY):
            return 48006
        self._used.clear()
        return 0

    def _quota(self, asked: Asked) -> Answer:
        path = str(asked.body.get("cgi_path"))
        if path not in self.limits:
            return 76021
        limit, used = self.limits[path], self._used[path]
        quota = {"daily_limit": limit, "used": used, "remain": max(limit - used, 0)}
        return {"errcode": 0, "errmsg": "ok", "quota": quota}

    def _rid(self, asked: Asked) -> Answer:
        found = self._failed.get(str(asked.body.get("rid")))
        if not found or self._clock() - found["invoke_time"] >= REMEMBERED:
            return 76001
        return {"errcode": 0, "errmsg": "ok", "request": found}
