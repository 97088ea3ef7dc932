"""A store in Redis; the package redis is imported where a setting asks for it."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from types import EllipsisType
from typing import Any

from wechat.store.base import Store

PREFIX = "wxserver:"  # of each key in Redis
CHANGES = "wxserver:changes"  # the Redis channel that carries the name of each key that changes
LIMITS = {"max_connections": 16, "timeout": 2, "socket_timeout": 2, "socket_connect_timeout": 2}  # seconds
CHANGE = """
local value = redis.call('GET', KEYS[1])
if ARGV[1] == 'absent' and value or ARGV[1] == 'equal' and value ~= ARGV[2] then return 0 end
if ARGV[5] then redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[4]) else redis.call('DEL', KEYS[1]) end
redis.call('PUBLISH', ARGV[3], KEYS[1])
return 1"""


class RedisStore(Store):
    """A store for many machines. From the first `wait` on, one thread listens for changes."""

    name = "Redis"
    advice = "is the server up, and are host, port and password right?"
    listening, deaf = 1.0, 0.1  # seconds to look again, with and without the listener

    def __init__(self, url: str) -> None:
        import redis  # the package is optional

        super().__init__()
        self.failures = (redis.RedisError, OSError)
        self.look_again = self.deaf
        # A second try of an `add` whose answer got lost would find the first one's value, and nobody would win.
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        pool = redis.BlockingConnectionPool.from_url(url, decode_responses=True, protocol=2, retry=retry, **LIMITS)
        self._client: Any = redis.Redis.from_pool(pool)  # Any: redis-py types most answers for asyncio, too
        self._script: Any = self._client.register_script(CHANGE)
        self._listener: threading.Thread | None = None
        self._closed = threading.Event()

    def get(self, key: str) -> str | None:
        with self._doing("get"):
            value: str | None = self._client.get(PREFIX + key)
            return value

    def keys(self, prefix: str) -> list[str]:
        pattern = PREFIX + re.sub(r"([*?\[\]\\])", r"\\\1", prefix) + "*"
        with self._doing("list keys"):
            return sorted({name.removeprefix(PREFIX) for name in self._client.scan_iter(pattern, 1000)})

    def wait(self, key: str, seen: str | None, seconds: float) -> str | None:
        with self._lock:
            if not (self._listener and self._listener.is_alive()):  # a process that was forked has none
                self._listener = threading.Thread(target=self._listen, name="redis", daemon=True)
                self._listener.start()
        return super().wait(key, seen, seconds)

    def close(self) -> None:
        self._closed.set()
        if self._listener:
            with suppress(*self.failures):
                self._client.publish(CHANGES, "")  # the listener wakes, and ends
            self._listener.join()
        self._client.close()

    def _change(self, key: str, old: str | EllipsisType | None, new: str | None, ttl: float) -> bool:
        rule, wanted = ("any", "") if old is ... else ("absent", "") if old is None else ("equal", old)
        arguments = [rule, wanted, CHANGES, max(1, round(ttl * 1000)), *([] if new is None else [new])]
        return bool(self._script([PREFIX + key], arguments))

    def _listen(self) -> None:
        while not self._closed.is_set():
            with suppress(Exception):  # whatever happens to the connection, a new one follows
                self._follow()
            self.look_again = self.deaf
            self._wake()
            self._closed.wait(0.5)  # seconds

    def _follow(self) -> None:
        with self._client.pubsub() as pubsub:
            pubsub.subscribe(CHANGES)
            while not self._closed.is_set():
                message = pubsub.get_message(timeout=1.0)
                if message and message["type"] == "message":
                    self._wake(message["data"].removeprefix(PREFIX))
                elif message:
                    self.look_again = self.listening
                    self._wake()  # what changed before the subscription was not heard
