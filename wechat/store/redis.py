"""A store in Redis; the package redis is imported where a setting asks for it."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wechat.store.base import Entries, Store
from wechat.store.writes import Changes
from wechat.workers import standing_aside

# Seconds; to wait for a connection takes longer than to use one: where all are busy, Redis is not away.
LIMITS = {"max_connections": 16, "timeout": 1.0, "socket_timeout": 0.5, "socket_connect_timeout": 0.5}

# Makes groups of changes, each as a whole or not at all, and says which. ARGV holds for each key: the rule, `old`,
# `new`, the time to live in ms, the numbers of indexes that the key enters and leaves, and, with the first key of a
# group, the number of keys in it. KEYS holds the keys, then the names of those indexes.
SWAP = """
local count, made, first = #ARGV / 7, {}, 1
local at = count
local function argument(i, n) return ARGV[(i - 1) * 7 + n] end
while first <= count do
  local last, is_made = first + argument(first, 7) - 1, 1
  for i = first, last do
    local value, rule = redis.call('GET', KEYS[i]), argument(i, 1)
    if rule == 'absent' and value or rule == 'equal' and value ~= argument(i, 2) then is_made = 0 end
  end
  for i = first, last do
    local key, ttl, links, unlinks = KEYS[i], argument(i, 4), argument(i, 5), argument(i, 6)
    if is_made == 1 then
      if ttl == '0' then redis.call('DEL', key) else redis.call('SET', key, argument(i, 3), 'PX', ttl) end
      for n = at + 1, at + links do
        redis.call('SADD', KEYS[n], key)
        if redis.call('PTTL', KEYS[n]) < tonumber(ttl) then redis.call('PEXPIRE', KEYS[n], ttl) end
      end
      for n = at + links + 1, at + links + unlinks do redis.call('SREM', KEYS[n], key) end
      redis.call('PUBLISH', key, '')
    end
    at = at + links + unlinks
  end
  made[#made + 1] = is_made
  first = last + 1
end
return made"""
SWAP_SHA = hashlib.sha1(SWAP.encode()).hexdigest()

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


IDLE = 1.0  # seconds after which a connection may have been closed at the other end


class RedisStore(Store):
    """A store for many machines; its keys begin with the `account`. While somebody waits, one thread listens."""

    name = "Redis"
    advice = "is the server up, and are host, port and password right?"
    # A network is between: what other workers want goes with the next round trip.
    waiting = staticmethod(standing_aside)
    listening, deaf = 1.0, 0.1  # seconds to look again, with and without the listener

    def __init__(self, url: str, account: str = "") -> None:
        import redis  # the package is optional

        self._unknown = redis.exceptions.NoScriptError
        # A second try of an `add` whose answer got lost would find the first one's value, and nobody would win.
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        pool = redis.BlockingConnectionPool.from_url(url, decode_responses=True, protocol=2, retry=retry, **LIMITS)
        self._client: Any = redis.Redis.from_pool(pool)  # Any: redis-py types most answers for asyncio, too
        self._linked_script: Any = self._client.register_script(LINKED)
        self._prefix = f"wxserver:{account}:"
        super().__init__()
        self.failures = (redis.RedisError, OSError, UnicodeDecodeError)  # the last: somebody else's bytes under our key

    def _prepare(self) -> None:
        super()._prepare()
        pool = self._client.connection_pool
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)  # of whoever writes
        self._pack: Callable[[tuple[Any, ...]], Any] = lambda command: self._connection.pack_command(*command)
        with suppress(ImportError):
            from hiredis import pack_command  # by way of redis-py it takes twice as long

            self._pack = lambda command: [pack_command(command)]
        self._used = 0.0  # when that was
        self._listener: threading.Thread | None = None
        self._pubsub: Any = None  # while it listens
        self._waited: Counter[str] = Counter()  # channels, which are named like the keys, by how many wait
        self._closed = threading.Event()
        self.look_again = self.deaf

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
        channel = self._prefix + key
        self._listen_for(channel)
        try:
            return super().wait(key, seen, seconds)
        finally:
            self._mind_no_more(channel)

    def close(self) -> None:
        self.flush()
        self._closed.set()
        if listener := self._listener:
            with suppress(*self.failures):
                self._client.publish(self._prefix, "")  # the listener wakes, and ends
            listener.join()
        self._connection.disconnect()
        self._client.close()

    # Writing: one round trip for all that threads want at a time

    def _swap_each(self, groups: list[Changes]) -> list[bool]:
        keys, indexes, arguments = list[str](), list[str](), list[str | int]()
        for changes in groups:
            size = len(changes)
            for key, old, new, ttl, link, unlink in changes:
                rule = "any" if old is ... else "absent" if old is None else "equal"
                expires = 0 if new is None else max(1, round(ttl * 1000))
                arguments += rule, old if isinstance(old, str) else "", new or "", expires, len(link), len(unlink), size
                keys.append(self._prefix + key)
                if link or unlink:
                    indexes += [self._prefix + index for index in (*link, *unlink)]
                size = 0
        numbered = len(keys) + len(indexes), *keys, *indexes, *arguments
        try:
            made = self._ask("EVALSHA", SWAP_SHA, *numbered)
        except self._unknown:
            made = self._ask("EVAL", SWAP, *numbered)
        return list(map(bool, made))

    def _ask(self, *command: Any) -> Any:
        connection, now = self._connection, time.monotonic()
        try:
            if now - self._used > IDLE and connection.is_connected and connection.can_read():
                connection.disconnect()  # it was closed
            self._used = now
            connection.send_packed_command(self._pack(command), check_health=False)
            return connection.read_response()
        except self._unknown:
            raise
        except BaseException:
            connection.disconnect()  # nobody may read what another one asked for
            raise

    # Listening: one connection and one thread, for as long as somebody waits

    def _listen_for(self, channel: str) -> None:
        with self._lock:
            self._waited[channel] += 1
            if not (self._listener and self._listener.is_alive()):
                self._listener = threading.Thread(target=self._listen, name="redis", daemon=True)
                self._listener.start()
            elif self._pubsub and self._waited[channel] == 1:
                with suppress(Exception):  # the listener connects anew
                    self._pubsub.subscribe(channel)

    def _mind_no_more(self, channel: str) -> None:
        with self._lock:
            self._waited[channel] -= 1
            if not self._waited[channel]:
                del self._waited[channel]
                with suppress(Exception):
                    if self._pubsub:
                        self._pubsub.unsubscribe(channel)

    def _listen(self) -> None:
        while not self._closed.is_set():
            # Whatever happens to the connection, a new one follows.
            with suppress(Exception), self._client.pubsub() as pubsub:
                pubsub.subscribe(self._prefix)  # which connects; nobody is to wait for that with the lock
                with self._lock:
                    if self._waited:
                        pubsub.subscribe(*self._waited)
                    self._pubsub = pubsub
                while not self._closed.is_set():
                    message = pubsub.get_message(timeout=1.0)
                    if not (message or self._waited):
                        break
                    self._hear(message)
            with self._lock:
                self._pubsub, self.look_again = None, self.deaf
                if not self._waited:
                    self._listener = None
                    return
            self._wake()
            self._closed.wait(0.5)  # seconds

    def _hear(self, message: Any) -> None:
        if message and message["type"] != "unsubscribe":
            self.look_again = self.listening
            # What changed before a subscription was not heard: whoever waits looks once.
            self._wake(message["channel"].removeprefix(self._prefix))
