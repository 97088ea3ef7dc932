"""What the server remembers for a while: in memory, in an SQLite file or in Redis."""

from wechat.errors import StartError, StoreError
from wechat.store.base import Store
from wechat.store.memory import MemoryStore


def open_store(url: str, account: str = "") -> Store:
    """The store at `memory:`, `sqlite:FILE` or a URL that redis-py takes, for one of the accounts that share it.

    A StartError where it does not answer.
    """
    scheme, _, rest = url.partition(":")
    store: Store
    try:
        if scheme == "memory":
            store = MemoryStore()
        elif scheme == "sqlite":
            from wechat.store.sqlite import SQLiteStore  # each takes a megabyte that not everybody has to pay

            store = SQLiteStore(rest, account)
        else:
            from wechat.store.redis import RedisStore

            store = RedisStore(url, account)
        store.delete("")
    except StoreError as error:
        store.close()
        raise StartError([f"WECHAT_STORE: {error}; {store.advice}"]) from error
    except (ImportError, TypeError, ValueError):  # whose text may quote a part of the password
        fault = "WECHAT_STORE: needs the package redis, and a URL that it takes: redis://:password@host:port/db"
        raise StartError([fault]) from None
    return store
