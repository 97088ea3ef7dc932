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
from wechat.log import trace
from wechat.store.base import Store
from wechat.system import at_fork, may_be_running

logger = logging.getLogger("wxserver")

RENEW = 10.0  # seconds between two signs of life
LIFE = 30.0  # seconds without one after which a process counts as dead


class Owners:
    """This process among the others; `me` is the name under which it owns runs and debts."""

    _here: ClassVar[set[str]] = set()  # the owners of this process, which may have several applications

    def __init__(self, store: Store) -> None:
        self._store = store
        self.be_born()

    def be_born(self) -> None:
        """Takes a name, as a new process has to."""
        self.me = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(6)}"
        self._here.add(self.me)

    def show_life(self) -> None:
        """Renews the claim of this process to all that it owns; raises StoreError."""
        self._store.set(f"alive:{self.me}", "1", LIFE)

    def is_dead(self, owner: str) -> bool:
        """Whether the process has ended: on this host one can look, of another one waits for a sign of life.

        It may look into the store; raises StoreError.
        """
        host, _, rest = owner.partition("/")
        pid, is_near = int(rest.partition("/")[0] or 0), host == socket.gethostname()
        if is_near and pid == os.getpid():
            return owner not in self._here
        has_ended = is_near and not may_be_running(pid)
        # The number of a process may have gone to another program, so its sign of life counts as well.
        return has_ended or self._store.get(f"alive:{owner}") is None


class Heartbeat:
    """Shows life every ten seconds, and then does what there is to be done as often.

    `at_fork` gives a process that this one forks the threads it needs.
    """

    def __init__(self, owners: Owners, task: Callable[[], None], at_fork: Callable[[], None]) -> None:
        self._owners = owners
        self._task = task
        self._at_fork = at_fork
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Shows life, and goes on in a thread; also in a process that this one forks. Raises StoreError."""
        self._owners.show_life()
        self._begin()
        at_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        if not self._ended.is_set():
            self._owners.be_born()
            self._at_fork()
            self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while True:
            try:
                self._owners.show_life()
                self._task()
            except StoreError as error:
                logger.warning("debts cannot be looked after: %s", error)
            except Exception as error:  # a heart that stops would have the others take what this process is at
                logger.error("the heartbeat goes on after a failure\n%s", trace(error))
            if self._ended.wait(RENEW):
                return

    def stop(self) -> None:
        """Ends it, and waits until it has ended."""
        self._ended.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
