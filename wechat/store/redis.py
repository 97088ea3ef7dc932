"""A store in Redis; the package redis is imported where a setting asks for it."""

import threading
from contextlib import suppress
from typing import Any

from wechat.store.base import Change, Entries, Store

LIMITS = {"max_connections": 16, "timeout": 0.5, "socket_timeout": 0.5, "socket_connect_timeout": 0.5}  # seconds

# ARGV holds the channel, then for each key: the rule, `old`, `new`, the time to live in ms, and the numbers of indexes
# that the key enters and leaves. KEYS holds the keys, then the names of those indexes.
SWAP = """
local count = (#ARGV - 1) / 6
local function argument(i, n) return ARGV[1 + (i - 1) * 6 + n] end
for i = 1, count do
  local value, rule = redis.call('GET', KEYS[i]), argument(i, 1)
  if rule == 'absent' and value or rule == 'equal' and value ~= argument(i, 2) then return 0 end
end
local at = count
for i = 1, count do
  local key, ttl = KEYS[i], tonumber(argument(i, 4))
  if ttl > 0 then redis.call('SET', key, argument(i, 3), 'PX', ttl) else redis.call('DEL', key) end
  for n = 1, tonumber(argument(i, 5)) do
    at = at + 1
    redis.call('SADD', KEYS[at], key)
    if redis.call('PTTL', KEYS[at]) < ttl then redis.call('PEXPIRE', KEYS[at], ttl) end
  end
  for n = 1, tonumber(argument(i, 6)) do
    at = at + 1
    redis.call('SREM', KEYS[at], key)
  end
  redis.call('PUBLISH', ARGV[1], key)
end
return 1"""

LINKED = """
local found = {}
for _, key in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local value = redis.call('GET', key)
  if value then
    found[#found + 1] = key
    found[#found + 1] = value
  else
    redis.call('SREM', KEYS[1], key)
  end
end
return found"""


class RedisStore(Store):
    """A store for many machines; its keys begin with the `account`. From the first `wait` on, one thread listens."""

    name = "Redis"
    advice = "is the server up, and are host, port and password right?"
    listening, deaf = 1.0, 0.1  # seconds to look again, with and without the listener

    def __init__(self, url: str, account: str = "") -> None:
        import redis  # the package is optional

        super().__init__()
        self.failures = (redis.RedisError, OSError)
        self.look_again = self.deaf
        self._prefix = f"wxserver:{account}:"
        self._channel = self._prefix + "changes"  # carries the name of each key that changes
        # A second try of an `add` whose answer got lost would find the first one's value, and nobody would win.
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        pool = redis.BlockingConnectionPool.from_url(url, decode_responses=True, protocol=2, retry=retry, **LIMITS)
        self._client: Any = redis.Redis.from_pool(pool)  # Any: redis-py types most answers for asyncio, too
        self._swap_script: Any = self._client.register_script(SWAP)
        self._linked_script: Any = self._client.register_script(LINKED)
        self._listener: threading.Thread | None = None
        self._closed = threading.Event()

    def get(self, key: str) -> str | None:
        with self._doing("get"):
            value: str | None = self._client.get(self._prefix + key)
            return value

    def linked(self, index: str) -> Entries:
        with self._doing("list"):
            found: list[str] = self._linked_script([self._prefix + index])
        pairs = zip(found[::2], found[1::2], strict=True)
        return dict(sorted((key.removeprefix(self._prefix), value) for key, value in pairs))

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
                self._client.publish(self._channel, "")  # the listener wakes, and ends
            self._listener.join()
        self._client.close()

    def _swap(self, changes: tuple[Change, ...]) -> bool:
        keys = [change.key for change in changes]
        arguments: list[str | int] = [self._channel]
        for change in changes:
            rule = "any" if change.old is ... else "absent" if change.old is None else "equal"
            old = change.old if isinstance(change.old, str) else ""
            ttl = 0 if change.new is None else max(1, round(change.ttl * 1000))
            arguments += [rule, old, change.new or "", ttl, len(change.link), len(change.unlink)]
            keys += [*change.link, *change.unlink]
        return bool(self._swap_script([self._prefix + key for key in keys], arguments))

    def _listen(self) -> None:
        while not self._closed.is_set():
            # Whatever happens to the connection, a new one follows.
            with suppress(Exception), self._client.pubsub() as pubsub:
                pubsub.subscribe(self._channel)
                while not self._closed.is_set():
                    message = pubsub.get_message(timeout=1.0)
                    if message and message["type"] == "message":
                        self._wake(message["data"].removeprefix(self._prefix))
                    elif message:
                        self.look_again = self.listening
                        self._wake()  # what changed before the subscription was not heard
            self.look_again = self.deaf
            self._wake()
            self._closed.wait(0.5)  # seconds
