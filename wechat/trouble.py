"""What goes wrong, in the log: a line when it begins, one when it is over, and a line a minute about all that lasts.

There is no more than one line a minute about each cause: what comes back sooner is the same trouble.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from wechat.system import at_fork
from wechat.world import REAL, Timer, World

logger = logging.getLogger("wxserver")

EVERY = 60.0  # seconds between two lines about one cause
QUIET = 120.0  # seconds after which what comes now and then is over; a server that cannot be reached is asked each 60 s
MOST, OTHERS = 100, "other causes"  # at once; what is beyond that is one cause

Line = str | Callable[[], str]


@dataclass(slots=True)
class Trouble:
    """One cause. All times are by the monotonic clock, in seconds."""

    line: Line  # with which it begins
    level: int
    since: float
    after: float  # seconds that it has to last before it is worth a line
    next_at: float  # when the log may have a line about it
    until: float = -inf  # when it is over; inf until somebody ends it
    last: float = -inf
    times: int = 0
    is_said: bool = False


class Troubles:
    """The causes in one process; a thread looks at them while there are any."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begin()
        if world is REAL:
            at_fork(self.begin)

    def begin(self) -> None:
        """Begin anew: in a process that was forked nothing is wrong yet."""
        self._lock, self._all, self._next_summary = threading.Lock(), dict[str, Trouble](), -inf
        self._timer = Timer("trouble", self._look, self._lock, self._world)

    def note(
        self, cause: str, line: Line, lasts: bool = False, after: float = 0.0, level: int = logging.WARNING
    ) -> bool:
        """Count what went wrong, and log the line where it is new. Whether it was logged.

        What `lasts` is over by `end`, and no line is worth what is over `after` so many seconds.
        """
        with self._lock:
            now = self._world.monotonic()
            cause = cause if cause in self._all or len(self._all) < MOST else OTHERS
            trouble = self._all.setdefault(cause, Trouble(line, level, now, after, now + after))
            if not trouble.times:
                trouble.line, trouble.since, trouble.next_at = line, now, max(trouble.next_at, now + after)
            trouble.times, trouble.last = trouble.times + 1, now
            trouble.until = inf if lasts or trouble.until == inf else now + QUIET
            if trouble.is_said:
                return False
            self._timer.look_by(self._look(now))
            return trouble.is_said

    def warn(self, cause: str, error: Exception) -> None:
        """Count an error, and log it where the cause is new."""
        self.note(cause, f"{cause}: {error}")

    def end(self, cause: str) -> None:
        """Note that what lasted is over; nothing where it did not."""
        with self._lock:
            now, trouble = self._world.monotonic(), self._all.get(cause)
            if trouble and trouble.until == inf:
                trouble.last = trouble.until = now
                if not trouble.is_said and now - trouble.since < trouble.after:
                    trouble.times = 0
                self._timer.look_by(self._look(now))

    # With the lock held

    def _look(self, now: float) -> float:
        """Log what is to be said by now; gives the time of the next look."""
        for cause, trouble in list(self._all.items()):
            if now >= trouble.next_at:
                self._say(cause, trouble, now)
        lasting = {cause: each for cause, each in self._all.items() if each.is_said and now >= each.next_at}
        if lasting and now >= self._next_summary:
            self._next_summary = now + EVERY
            logger.warning("still: %s", "; ".join(_sum_up(*one, now) for one in lasting.items()))
        times = [each.until if now >= each.next_at else each.next_at for each in self._all.values()]
        return min([*times, *([self._next_summary] if lasting else [])], default=inf)

    def _say(self, cause: str, trouble: Trouble, now: float) -> None:
        is_on = now < trouble.until
        if is_on and not trouble.is_said:
            trouble.is_said, trouble.next_at = True, now + EVERY
            logger.log(trouble.level, "%s", trouble.line if isinstance(trouble.line, str) else trouble.line())
        elif not is_on and (trouble.times > 1 or (trouble.times and trouble.until == trouble.last)):
            trouble.is_said, trouble.next_at = False, now + EVERY
            logger.warning("over: %s", _sum_up(cause, trouble, trouble.last))
            trouble.times = 0
        elif not is_on:
            del self._all[cause]


def _sum_up(cause: str, trouble: Trouble, until: float) -> str:
    times = f"{trouble.times} times " if trouble.times > 1 else ""
    return f"{cause}, {times}in {until - trouble.since:.0f} s"


def troubles(world: World = REAL) -> Troubles:
    """What is wrong in a world."""
    found: Troubles = vars(world).get("troubles") or vars(world).setdefault("troubles", Troubles(world))
    return found
