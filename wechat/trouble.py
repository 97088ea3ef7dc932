"""What goes wrong, in the log: a line when it begins, one when it is over, and a line a minute about all that lasts.

There is no more than one line a minute about each cause: what comes back sooner is the same trouble.
"""

import logging
import threading
from collections.abc import Callable
from math import inf

from wechat.system import at_fork
from wechat.world import REAL, Timer, World

logger = logging.getLogger("wxserver")

EVERY = 60.0  # seconds between two lines about one cause
QUIET = 120.0  # seconds after which what comes now and then is over; a server that is away is asked every 60 s
MOST, OTHERS = 100, "other causes"  # at once; what is beyond that is one cause

Detail = str | Callable[[], str]  # what follows the cause in its first line


class Trouble:
    """One cause. All times are by the monotonic clock, in seconds."""

    since = last = worth_at = 0.0  # it is no line worth, where it is over before that
    next_at = until = -inf  # when the log may have a line about it; when it is over, inf until somebody ends it
    times, is_said = 0, False
    detail: Detail = ""
    level = logging.WARNING

    def is_told(self, now: float) -> bool:
        """Whether the summary has it: it was said a minute ago, and was not a single case."""
        return self.is_said and now >= self.next_at and (self.until == inf or self.times > 1)


class Troubles:
    """The causes in one process; a thread looks at them while there are any."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.begin()
        if world is REAL:
            at_fork(self.begin)

    def begin(self) -> None:
        """Begin anew: in a process that was forked nothing is wrong yet."""
        self._lock = threading.Lock()
        self._all, self._next_summary = dict[str, Trouble](), -inf
        self._timer = Timer("trouble", self._look, self._lock, self._world)

    def note(
        self, cause: str, detail: Detail = "", lasts: float = QUIET, after: float = 0.0, level: int = logging.WARNING
    ) -> bool:
        """Count what went wrong; where the cause is new, log it with the detail. Whether it was logged.

        It is over when there was no more for as long as it `lasts`, in seconds; for inf, by `end`. Where that comes
        before `after` so many seconds, it is not worth a line.
        """
        with self._lock:
            now, is_known = self._world.monotonic(), cause in self._all or len(self._all) < MOST
            trouble = self._all.setdefault(cause if is_known else OTHERS, Trouble())
            if not trouble.times:
                trouble.detail, trouble.level, trouble.since, trouble.worth_at = detail, level, now, now + after
                trouble.next_at = max(trouble.next_at, trouble.worth_at)
            trouble.times, trouble.last, trouble.until = trouble.times + 1, now, max(trouble.until, now + lasts)
            if trouble.is_said:
                return False
            self._timer.look_by(self._look(now))
            return trouble.is_said

    def end(self, cause: str) -> None:
        """Note that what lasted is over; nothing where it did not."""
        with self._lock:
            now, trouble = self._world.monotonic(), self._all.get(cause)
            if trouble and trouble.until == inf:
                trouble.last = trouble.until = now
                if not trouble.is_said and now < trouble.worth_at:
                    trouble.times = 0
                self._timer.look_by(self._look(now))

    # With the lock held

    def _look(self, now: float) -> float:
        """Log what is to be said by now; gives the time of the next look."""
        for cause, trouble in list(self._all.items()):
            if now >= trouble.next_at:
                self._say(cause, trouble, now)
        lasting = [_sum_up(cause, each, now) for cause, each in self._all.items() if each.is_told(now)]
        if lasting and now >= self._next_summary:
            self._next_summary = now + EVERY
            logger.warning("still: %s", "; ".join(lasting))
        times = [each.until if now >= each.next_at else each.next_at for each in self._all.values()]
        return min([*times, *([self._next_summary] if lasting else [])], default=inf)

    def _say(self, cause: str, trouble: Trouble, now: float) -> None:
        if now < trouble.until and not trouble.is_said:
            trouble.is_said, trouble.next_at = True, now + EVERY
            detail = trouble.detail() if callable(trouble.detail) else trouble.detail
            logger.log(trouble.level, "%s%s", cause, detail)
        elif now >= trouble.until and (trouble.times > 1 or (trouble.times and trouble.until == trouble.last)):
            trouble.is_said, trouble.next_at = False, now + EVERY
            logger.warning("over: %s", _sum_up(cause, trouble, trouble.last))
            trouble.times = 0
        elif now >= trouble.until:
            del self._all[cause]


def _sum_up(cause: str, trouble: Trouble, until: float) -> str:
    return f"{cause}: {trouble.times} in {until - trouble.since:.0f} s"


def troubles(world: World = REAL) -> Troubles:
    """What is wrong in a world."""
    found: Troubles = vars(world).get("troubles") or vars(world).setdefault("troubles", Troubles(world))
    return found
