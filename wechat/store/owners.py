"""Which of the processes that share a store are alive, and what they have locked."""

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wechat.digests import random_hex
from wechat.errors import StoreError
from wechat.log import log_error
from wechat.store.base import Store
from wechat.store.writes import Change
from wechat.system import at_fork, may_be_running
from wechat.world import REAL, World

logger = logging.getLogger("wxserver")

RENEW = 3.0  # seconds between two signs of life
LIFE = 15.0  # seconds without one after which a process counts as dead
FORGOTTEN = 2 * 86_400.0  # seconds; what a process owns lasts a day
REMEMBERED = 60.0  # seconds without one; by then WeChat's attempts are over, and who waits for a lock has looked
LATE = 10.0  # seconds after which a write that failed does not come through any more

OWNERS = "owners"  # the index of all signs of life


class Identity:
    """The name of this process, and whether another one has ended, where one can look.

    A process is known by the boot of its machine and its PID namespace: two containers may share a host name.
    """

    def __init__(self) -> None:
        self.namespace, pid = _pid_namespace(), os.getpid()
        started = _started(pid) if self.namespace else ""
        self.name = f"{self.namespace}/{pid}/{started}/{random_hex(6)}"

    def has_ended(self, owner: str) -> bool:
        """Whether the process is one that can be looked at from here, and is gone."""
        if not self.namespace or not owner.startswith(self.namespace + "/"):
            return False
        with suppress(PermissionError, ValueError):  # one that may not be looked at, or a name of another version
            pid, started = owner.removeprefix(self.namespace + "/").split("/")[:2]
            return _started(int(pid)) != started  # its number may have gone to another program
        return False


def _pid_namespace() -> str:
    """Where a PID means the same process; empty where the system does not say."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return ""  # it is the /proc of another namespace, as after `unshare --pid` alone
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When the process was started, in ticks since the boot; empty where there is none.

    Raises PermissionError where there is one that may not be looked at: https://man7.org/linux/man-pages/man5/proc.5.html
    """
    try:
        # The second field is the program's name in brackets, which may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except FileNotFoundError:
        if may_be_running(pid):
            raise PermissionError from None
    except (ProcessLookupError, ValueError, IndexError):
        pass
    return ""


class Owners:
    """Track which processes sharing a store are alive; `me` is the name under which this one owns messages and locks.

    Each shows life by a counter, which the others watch by clocks of their own: no two need to agree on the time.
    """

    def __init__(self, store: Store, world: World = REAL, identify: Callable[[], Identity] = Identity) -> None:
        self._store, self._world, self._identify = store, world, identify
        self.troubles = store.troubles
        self.take_name()

    def take_name(self) -> None:
        """Take a name, as a new process has to."""
        self._identity = self._identify()
        self.me = self._identity.name
        self._beats = 0
        self._held: set[str] = set()  # the tickets of locks that are in use
        self._left: dict[tuple[str, str], float] = {}  # locks to be given back and their tickets, and until when
        self._seen: dict[str, tuple[str | None, float]] = {}  # each counter, and for how many seconds it stood still
        self._looked = self._world.monotonic()

    def show_life(self) -> None:
        """Renew the claim of this process to all that it owns; raises StoreError."""
        self._beats += 1
        self._store.swap(Change(f"alive:{self.me}", ..., str(self._beats), FORGOTTEN, link=(OWNERS,)))
        self._give_back()

    def look(self) -> None:
        """Look at the others' signs of life; raises StoreError."""
        # Time in which this process stood still itself, or could not look, says nothing of the others; nor does that
        # which the look takes, in which a counter may go on.
        passed = min(self._world.monotonic() - self._looked, 2 * RENEW)
        try:
            counters = self._store.linked(OWNERS)
        finally:
            self._looked = self._world.monotonic()
        for owner in sorted({*self._seen, *(key.removeprefix("alive:") for key in counters)}):
            sign = counters.get(f"alive:{owner}")
            before, silent = self._seen.get(owner, ("?", 0.0))
            self._seen[owner] = sign, silent + passed if _beat(sign) == _beat(before) else 0.0

    def is_dead(self, owner: str) -> bool:
        """Whether the process has ended: here one can look; of another place, 15 s without a sign of life say so."""
        if owner == self.me:
            return False
        return self._identity.has_ended(owner) or self._seen.setdefault(owner, (None, 0.0))[1] >= LIFE

    def dead(self) -> list[str]:
        """Those that were seen or asked for, and have ended."""
        return [owner for owner in list(self._seen) if self.is_dead(owner)]

    def forget(self, owner: str) -> None:
        """Forget a dead process, of which nothing is left, once it has been silent for a while; raises StoreError.

        Before that its locks, and what WeChat asks for again, are still to be seen as those of a dead one.
        """
        sign, silent = self._seen.get(owner, (None, 0.0))
        if silent >= REMEMBERED and self._store.swap(Change(f"alive:{owner}", sign, None, unlink=(OWNERS,))):
            self._seen.pop(owner, None)

    def recall(self, owner: str) -> Change:
        """What keeps a process, which may have died, from being forgotten; raises StoreError.

        To be changed beside what gives it something: of one that is forgotten nobody looks for that. It is no beat.
        """
        seen = self._store.get(f"alive:{owner}")
        return Change(f"alive:{owner}", seen, f"{_beat(seen)} {random_hex(6)}", FORGOTTEN, link=(OWNERS,))

    # Locks: each one names its owner

    def take(self, key: str, ttl: float, ticket: str = "", *beside: Change) -> bool:
        """Take a lock, also from a process that has died, if the changes `beside` can be made in the same step.

        Whether it is the caller's now; raises StoreError.
        """
        mine = f"{self.me} {ticket}"
        is_taken, holder = False, None
        self._left.pop((key, mine), None)
        self._held.add(mine)  # before other threads can see it in the store
        try:
            while not (is_taken := holder == mine or self._store.swap(Change(key, holder, mine, ttl), *beside)):
                before, holder = holder, self._store.get(key)
                if (holder == before and beside) or (holder and holder != mine and self._is_held(holder)):
                    break
        finally:
            if not is_taken:
                self._held.discard(mine)
        return is_taken

    def hold(self, key: str, ttl: float, ticket: str = "") -> Change:
        """What keeps a lock: beside other changes, it lets them through only while the lock is the caller's."""
        mine = f"{self.me} {ticket}"
        return Change(key, mine, mine, ttl)

    def release(self, key: str, ticket: str = "") -> None:
        """Give a lock back, if it is still the caller's; raises StoreError, and is done at a later sign of life."""
        mine, is_back = f"{self.me} {ticket}", False
        self._held.discard(mine)
        try:
            is_back = self._store.replace(key, mine, None, 0)
        finally:
            if not is_back:
                self._left[key, mine] = self._world.monotonic() + LATE
        self._give_back()

    def _give_back(self) -> None:
        """Give back what is left, even what was written late: nobody else may take a lock of a process that lives."""
        for (key, mine), end in sorted(self._left.items()):
            if self._store.replace(key, mine, None, 0) or self._world.monotonic() > end:
                self._left.pop((key, mine), None)

    def _is_held(self, holder: str) -> bool:
        """Whether somebody uses the lock: its process lives, and the store was not away when it was given back."""
        owner = holder.partition(" ")[0]
        return holder in self._held if owner == self.me else not self.is_dead(owner)


def _beat(sign: str | None) -> str:
    """The count in a sign of life; who recalls a process adds something to it, and is no life of its."""
    return (sign or "").partition(" ")[0]


class Heartbeat:
    """Shows life every three seconds, and then does what there is to be done as often.

    `at_fork` gives a process that this one forks the threads it needs.
    """

    def __init__(
        self, owners: Owners, task: Callable[[], None], at_fork: Callable[[], None], world: World = REAL
    ) -> None:
        self._owners, self._task, self._at_fork, self._world = owners, task, at_fork, world
        self._ended = world.event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Show life, and go on in a thread; also in a process that this one forks. Raises StoreError."""
        self._owners.show_life()
        self._begin()
        at_fork(self._begin_anew)

    def _begin_anew(self) -> None:
        if not self._ended.is_set():
            self._owners.take_name()
            self._at_fork()
            self._begin()

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self.beat, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Go on until it is stopped, whatever happens."""
        while True:
            try:
                self._owners.show_life()
                self._owners.look()
                self._task()
            except StoreError as error:
                self._owners.troubles.note("messages of processes that died cannot be looked after", f": {error}")
            except Exception as error:  # a heart that stops would have the others take what this process is at
                log_error(logger, "the heartbeat goes on after a failure", error)
            if self._ended.wait(RENEW):
                return

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._ended.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()
