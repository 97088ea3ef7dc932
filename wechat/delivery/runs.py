"""One message, one run: however many attempts come, in however many threads and processes."""

from __future__ import annotations

import logging
import threading
import time

from wechat.delivery.owners import Owners
from wechat.errors import StoreError
from wechat.store.base import Store

logger = logging.getLogger("wxserver")

REMEMBERED = 60.0  # seconds after its end; WeChat's last attempt begins 15 s after the first
GENERATION = 768  # runs; of those that have ended, one to two generations are remembered in memory, some 2 MB
LOOK_AT_OWNER = 0.5  # seconds between two looks at whether the process that has a run still lives
LONGEST_RUN = 86_400.0  # seconds; the run of a process that died is taken over much sooner
RUNNING, DONE = "running:", "done:"  # what the store holds under the key of a run


class Run:
    """The run of one message: its document, once it is done, and how many attempts there have been."""

    attempts = 1
    open_attempts = 0  # that can still bring the document to the user
    is_pooled = False  # whether it does not run in the thread of its first attempt
    owner = ""  # the process that has it, if that is another one
    is_owed = False  # whether an attempt was told that the answer comes another way
    is_done = False
    document = b""  # UTF-8, which takes less room than text
    handler, kind = "", "success"  # who answered, and with what, for the log
    ended = 0.0
    followed: Store | None = None  # where the end can be seen, if another process has the run
    _changed: threading.Event | None = None

    def __init__(self, key: str) -> None:
        self.key = key

    def wait(self, seconds: float) -> bool:
        """Waits for the end; whether it has come.

        Where another process has the run, it returns early, to look at that one, and may raise StoreError.
        """
        end = time.monotonic() + seconds
        while not self.is_done:
            if self.followed:
                return self._look(self.followed, min(end, time.monotonic() + LOOK_AT_OWNER))
            self._changed = self._changed or threading.Event()
            if not (self.is_done or self.followed or self._changed.wait(end - time.monotonic())):
                break
        return self.is_done

    def follow(self, store: Store) -> None:
        """From now on the end is looked for in the store."""
        self.followed = store
        if self._changed:
            self._changed.set()

    def _look(self, store: Store, end: float) -> bool:
        value = store.get(_key(self.key))
        while value and value.startswith(RUNNING) and (left := end - time.monotonic()) > 0:
            value = store.wait(_key(self.key), value, left)
        if value and value.startswith(DONE):
            self.end(value.removeprefix(DONE).encode())
        return self.is_done

    def is_forgotten(self) -> bool:
        """Whether it ended so long ago that no attempt can still come."""
        return self.is_done and self.ended < time.monotonic() - REMEMBERED

    def end(self, document: bytes) -> None:
        """Lets everybody have the document."""
        self.document, self.ended, self.is_done = document, time.monotonic(), True
        if self._changed:
            self._changed.set()


class Runs:
    """The runs of now and of the last minute."""

    def __init__(self, store: Store, owners: Owners, is_shared: bool) -> None:
        self._store = store
        self._owners = owners
        self._is_shared = is_shared
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._older: dict[str, Run] = {}  # the generation before, which goes as a whole
        self._most = GENERATION

    def begin(self, key: str) -> tuple[Run, int, bool]:
        """The run of the message with this key, the number of the attempt, and whether the caller has to do the run."""
        is_under_way = False
        with self._lock:
            run = self._runs.get(key) or self._older.get(key)
            if not run or run.is_forgotten():
                if len(self._runs) >= self._most:
                    self._forget_older()
                run = self._runs[key] = Run(key)
            elif run.is_done or not run.followed:
                run.attempts += 1
                if run.is_done or not self._is_shared:
                    return run, run.attempts, False
                is_under_way = True
        if is_under_way:
            return run, self._count(run), False
        if not self._is_shared:
            return run, 1, True
        try:
            if self._store.add(_key(key), RUNNING + self._owners.me, LONGEST_RUN):
                run.followed, run.owner = None, ""
                return run, 1, True
            run.follow(self._store)
            return run, self._count(run), self.take_over(run)
        except StoreError as error:
            logger.warning("a message may be answered twice: %s", error)
            run.followed = None
            return run, 1, True

    def take_over(self, run: Run) -> bool:
        """Whether the caller has to do a run that is followed: the process that had it has died. Raises StoreError."""
        if not run.followed:
            return False
        key, mine = _key(run.key), RUNNING + self._owners.me
        value = self._store.get(key) or ""
        owner = value.removeprefix(RUNNING)
        is_orphan = value.startswith(RUNNING) and self._owners.is_dead(owner)
        if not (is_orphan and self._store.replace(key, value, mine, LONGEST_RUN)):
            run.owner = owner if value.startswith(RUNNING) else ""
            return False
        run.followed, run.owner = None, ""
        return True

    def is_under_way(self, key: str) -> bool:
        """Whether some process, dead or alive, has begun the run of the message and not ended it; raises StoreError."""
        return (self._store.get(_key(key)) or "").startswith(RUNNING)

    def is_superseded(self, run: Run, attempt: int) -> bool:
        """Whether a later attempt has come, here or in another process."""
        if run.attempts > attempt or not self._is_shared:
            return run.attempts > attempt
        try:
            return self._store.get(f"try:{run.key}:{attempt + 1}") is not None
        except StoreError as error:
            logger.warning("whether another attempt has come is not known: %s", error)
            return False

    def end(self, run: Run, document: bytes) -> None:
        """Ends the run: all attempts, also those to come, get the document."""
        run.end(document)
        self.tell(run)

    def tell(self, run: Run) -> None:
        """Lets other processes, where there are some, have the document of a run that has ended."""
        if not self._is_shared:
            return
        try:
            self._store.set(_key(run.key), DONE + run.document.decode(), REMEMBERED)
        except StoreError as error:
            logger.warning("other processes cannot be told of an answer: %s", error)

    def _forget_older(self) -> None:
        """Forgets a generation, but for those of it that have not ended; the more there are, the longer to the next."""
        still_open = {key: run for key, run in self._older.items() if not (run.is_done or run.followed)}
        self._older, self._runs, self._most = self._runs, still_open, GENERATION + 2 * len(still_open)

    def _count(self, run: Run) -> int:
        """Which attempt this is, of those that came to all processes; the first is not counted."""
        try:
            for attempt in range(2, 9):
                if self._store.add(f"try:{run.key}:{attempt}", "1", REMEMBERED):
                    return attempt
        except StoreError as error:
            logger.warning("the attempts at a message cannot be counted: %s", error)
        return max(run.attempts, 2)


def _key(key: str) -> str:
    return f"run:{key}"
