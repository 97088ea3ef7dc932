"""What the server remembers for a while: in memory, in an SQLite file or in Redis."""

from __future__ import annotations

from wechat.errors import StartError, StoreError
from wechat.store.base import Store
from wechat.store.memory import MemoryStore


def open_store(url: str, account: str = "") -> Store:
    """The store at `memory:`, `sqlite:FILE` or a URL that redis-py takes, for one of the accounts that share it.

    A StartError where it does not answer.
    """
    scheme, _, rest = url.partition(":")
    try:
        store = _make(scheme, rest, url, account)
        store.delete("")
    except StoreError as error:
        store.close()
        raise StartError([f"WECHAT_STORE: {error}; {store.advice}"]) from error
    except (ImportError, TypeError, ValueError):  # whose text may quote a part of the password
        fault = "WECHAT_STORE: needs the package redis, and a URL that it takes: redis://:password@host:port/db"
        raise StartError([fault]) from None
    return store


def _make(scheme: str, rest: str, url: str, account: str) -> Store:
    if scheme == "memory":
        return MemoryStore()
    if scheme == "sqlite":
        from wechat.store.sqlite import SQLiteStore  # each takes a megabyte that not everybody has to pay

        return SQLiteStore(rest, account)
    from wechat.store.redis import RedisStore

    return RedisStore(url, account)
