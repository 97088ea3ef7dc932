"""What users are owed: replies to messages that were acknowledged before they were ready, and replies that are kept."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from hashlib import sha1
from typing import NamedTuple
from urllib.parse import quote

from wechat.delivery.owners import Owners
from wechat.errors import StoreError
from wechat.reply import Article, Image, Music, News, Raw, Reply, Text, Transfer, Video, Voice
from wechat.store.base import Store

logger = logging.getLogger("wxserver")

KEPT = 86_400.0  # seconds
NO_PUSH = 3_600.0  # seconds for which a 48001 is remembered


class Debt(NamedTuple):
    """A message that was acknowledged and not yet answered, or of whose answer the rest is to follow.

    `raw` is what the store holds.
    """

    key: str
    raw: str
    owner: str
    content: str
    rest: Reply | None = None


class Debts:
    """The debts to all users, in the store."""

    def __init__(self, store: Store, owners: Owners) -> None:
        self._store = store
        self._owners = owners

    # Debts

    def owe(self, openid: str, message_key: str, content: str, owner: str = "") -> None:
        """Writes down that the message will be answered, by the process that has its run; once is enough."""
        raw = json.dumps({"owner": owner or self._owners.me, "content": content, "is_being_paid": False})
        with tolerated("a reply is owed by this process alone"):
            self._store.add(_key("debt", openid, message_key), raw, KEPT)

    def owe_rest(self, openid: str, message_key: str, content: str, rest: Reply) -> Debt:
        """The debt for the rest of a reply whose beginning is the direct answer; only the caller pays it."""
        fields = {"owner": self._owners.me, "content": content, "is_being_paid": True, "rest": pack(rest)}
        debt = Debt(_key("rest", openid, message_key), json.dumps(fields), self._owners.me, content, rest)
        with tolerated("the rest of a reply is owed by this process alone"):
            self._store.set(debt.key, debt.raw, KEPT)
        return debt

    def find(self, openid: str, message_key: str) -> Debt | None:
        """The debt for the message, if there is one."""
        with tolerated("a debt is not found"):
            return self._read(_key("debt", openid, message_key))
        return None

    def claim(self, debt: Debt) -> Debt | None:
        """The same debt as one that only the caller pays; None where another one does."""
        fields = json.loads(debt.raw)
        with tolerated("a debt may be paid twice"):
            if fields["is_being_paid"] and not self._owners.is_dead(fields["owner"]):
                return None
        raw = json.dumps({**fields, "owner": self._owners.me, "is_being_paid": True})
        claimed = debt._replace(raw=raw, owner=self._owners.me)
        with tolerated("a debt may be paid twice"):
            return claimed if self._store.replace(debt.key, debt.raw, raw, KEPT) else None
        return claimed

    def cancel(self, debt: Debt) -> bool:
        """Forgets the debt for a direct answer; False where somebody is paying it already."""
        return not json.loads(debt.raw)["is_being_paid"] and self.forget(debt)

    def forget(self, debt: Debt) -> bool:
        """Forgets the debt as it stands; False where somebody has written it anew."""
        with tolerated("a debt may be paid twice"):
            return self._store.replace(debt.key, debt.raw, None, KEPT)
        return True

    def settle(self, debt: Debt) -> None:
        """Forgets the debt, once it is paid."""
        with tolerated("a debt may be paid twice"):
            self._store.delete(debt.key)

    def orphans(self) -> list[Debt]:
        """The debts of processes that have died, those for a rest first; raises StoreError."""
        keys = self._store.keys("rest:") + self._store.keys("debt:")
        return [debt for debt in map(self._read, keys) if debt and self._owners.is_dead(debt.owner)]

    def is_anything_owed(self, openid: str) -> bool:
        """Whether an answer to this user is still being worked at."""
        with tolerated("a user may be told that nothing is owed"):
            return bool(self._store.keys(f"debt:{quote(openid, safe='')}:"))
        return False

    def _read(self, key: str) -> Debt | None:
        raw = self._store.get(key)
        if raw is None:
            return None
        try:
            fields = json.loads(raw)
            rest = unpack(fields["rest"]) if "rest" in fields else None
            return Debt(key, raw, fields["owner"], fields["content"], rest)
        except (ValueError, KeyError, TypeError, AttributeError):  # of another version; it goes after a day
            return None

    # Replies that wait for 继续

    def keep(self, openid: str, reply: Reply, place: str = "") -> None:
        """Keeps the reply for a day: behind all others, or in the place that another one had."""
        with tolerated("a reply is lost"):
            if place:
                self._store.set(place, pack(reply), KEPT)
                return
            now = time.time_ns()
            while not self._store.add(f"{_kept_prefix(openid)}{now:020}", pack(reply), KEPT):
                now += 1  # clocks of Windows go in steps of 16 ms

    def take_kept(self, openid: str) -> tuple[Reply | None, str, bool]:
        """The oldest reply that is kept for the user, which nobody gets again; its place; whether there are more."""
        with tolerated("what is kept cannot be fetched"):
            keys = self._store.keys(_kept_prefix(openid))
            for number, key in enumerate(keys, 1):
                packed = self._store.get(key)
                if packed and self._store.replace(key, packed, None, KEPT):
                    return unpack(packed), key, number < len(keys)
        return None, "", False

    # Whether the platform lets us write first

    def forbid_push(self) -> None:
        """Remembers that the account may not send customer messages (48001)."""
        with tolerated("a 48001 is forgotten"):
            self._store.set("no-push", "1", NO_PUSH)

    def may_push(self) -> bool:
        """Whether there has been no 48001 in the last hour."""
        with tolerated("whether there was a 48001 is not known"):
            return self._store.get("no-push") is None
        return True


class tolerated:  # noqa: N801, it is used like a function
    """A store that is away costs what is said, and not the answer to the message."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, StoreError):
            logger.warning("%s: %s", self._consequence, error)
        return isinstance(error, StoreError)


def _key(kind: str, openid: str, message_key: str) -> str:
    return f"{kind}:{quote(openid, safe='')}:{sha1(message_key.encode()).hexdigest()}"


def _kept_prefix(openid: str) -> str:
    return f"kept:{quote(openid, safe='')}:"


KINDS: dict[str, type[Reply]] = {kind.kind: kind for kind in (Text, Image, Voice, Video, Music, News, Transfer, Raw)}


def pack(reply: Reply) -> str:
    """The reply as JSON, for the store."""
    return json.dumps({"kind": reply.kind, **asdict(reply)})


def unpack(packed: str) -> Reply:
    """The reply that was packed."""
    fields = json.loads(packed)
    kind = KINDS[fields.pop("kind")]
    if kind is News:
        fields["articles"] = [Article(**article) for article in fields["articles"]]
    return kind(**fields)
