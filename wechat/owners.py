"""Which of the processes that share a store are alive."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import ClassVar

from wechat.errors import StoreError
from wechat.memory_store import Store

logger = logging.getLogger("wxserver")

RENEW = 10.0  # seconds between two signs of life
LIFE = 30.0  # seconds without one after which a process counts as dead


class Owners:
    """This process among the others; `me` is the name under which it owns runs and debts."""

    _here: ClassVar[set[str]] = set()  # the owners of this process, which may have several applications

    def __init__(self, store: Store) -> None:
        self._store = store
        self.me = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(6)}"
        self._here.add(self.me)

    def show_life(self) -> None:
        """Renews the claim of this process to all that it owns."""
        self._store.set(f"alive:{self.me}", "1", LIFE)

    def is_dead(self, owner: str) -> bool:
        """Whether the process has ended: on this host one can look, of another one waits for a sign of life."""
        if owner in self._here:
            return False
        host, _, rest = owner.partition("/")
        pid = rest.partition("/")[0]
        if host == socket.gethostname() and pid.isdecimal():
            return int(pid) == os.getpid() or not _is_running(int(pid))
        return self._store.get(f"alive:{owner}") is None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class Heartbeat(threading.Thread):
    """Shows life every ten seconds, and then does what there is to be done as often."""

    def __init__(self, owners: Owners, task: Callable[[], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._owners = owners
        self._task = task
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        while True:
            try:
                self._owners.show_life()
                self._task()
            except StoreError as error:
                logger.warning("debts cannot be looked after: %s", error)
            if self._ended.wait(RENEW):
                return

    def stop(self) -> None:
        """Ends the thread."""
        self._ended.set()
