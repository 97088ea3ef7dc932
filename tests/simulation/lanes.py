"""The promises about lanes: order per user, and no user waits for another beyond the threads' fair share."""

import math
from itertools import pairwise

from wechat.delivery.entries import PROMISED, RUNNING

APART = 1.0  # seconds between two messages of which it is clear which one came first
PATIENCE = 1.0  # seconds before and after a handler in which its thread may be at the store
JUST_NOW = 2.0  # seconds after which a message that is over has left its lane


class LaneWatch:
    """Sees the handlers begin and end."""

    def __init__(self, watch, simulation):
        self._watch, self._simulation, self._scheduler = watch, simulation, simulation.scheduler
        self._arrivals = {}  # of the first attempt, by story and process
        self._busy = {}  # by process: how many threads are, from when on
        self._begun = {}  # by process: the user and the time of each run

    def arrived(self, letter, process):
        """An attempt came to the process."""
        story, now = self._watch.story(letter), self._scheduler.now
        self._arrivals.setdefault((story, process), now)
        story.arrived_at = now if story.arrived_at is None else story.arrived_at

    def begun(self, story, run):
        """A handler began."""
        if story.is_in_lane and not self._is_excused(story):
            self._check_order(story, run.process)
            self._check_share(story, run)
        self._begun.setdefault(run.process, []).append((story.letter.user, run.began_at))
        run.is_in_lane = story.is_in_lane or bool(story.record and story.record.is_slow)
        self._count(run, +1)

    def ended(self, run):
        """It ended."""
        self._count(run, -1)

    def _count(self, run, step):
        if not run.is_in_lane:
            return
        busy = self._busy.setdefault(run.process, [(0.0, 0)])
        busy.append((self._scheduler.now, busy[-1][1] + step))

    def _is_excused(self, story):
        """Whether something else than other messages may have held it up."""
        return self._watch.has_store_trouble or story.adopted or self._watch.last_fault

    # Order

    def _check_order(self, story, process):
        for other in self._watch.stories.values():
            is_before = other.entered_at is not None and other.entered_at + APART < story.entered_at
            is_mine = other.letter.user == story.letter.user and other.is_in_lane and other is not story
            if is_before and is_mine and self._waits(other, process):
                self._watch.break_("a user's slow messages run in the order they came", story.letter.name)

    def _waits(self, story, process):
        record = story.record
        is_here = record and record.owner == process.name and record.state in (RUNNING, PROMISED)
        return is_here and not story.runs

    # Fair share

    def _check_share(self, story, run):
        """Since it was this message's turn in its lane no other user had two, and no thread was free."""
        ready, process = self._ready_since(story, run), run.process
        if ready is None:
            return
        others = [user for user, at in self._begun.get(process, ()) if at > ready and user != story.letter.user]
        if any(others.count(user) > 2 for user in others):
            self._watch.break_("users never wait for one another", f"{story.letter.name}: {others}")
        begun = sum(at >= ready for _, at in self._begun.get(process, ())) + 1
        if self._idle_between(process, ready, run.began_at) > PATIENCE * begun:
            self._watch.break_("no message waits where a thread is free", story.letter.name)

    def _ready_since(self, story, run):
        """When its lane had come to it; None where that depends on a session."""
        mine = [other for other in self._watch.stories.values() if other.letter.user == story.letter.user]
        if any(other.needs_session for other in mine):
            return None
        arrival = self._arrivals.get((story, run.process))
        ends = [one.ended_at for other in mine for one in other.runs if one is not run and one.process is run.process]
        return None if arrival is None or None in ends else max([arrival, *ends])

    def _idle_between(self, process, begin, end):
        """For how many seconds a thread for slow handlers was free."""
        busy = [*self._busy.get(process, [(0.0, 0)]), (math.inf, 0)]
        threads = self._simulation.plan.slow_threads
        idle = 0.0
        for (since, number), (until, _) in pairwise(busy):
            if number < threads:
                idle += max(0.0, min(until, end) - max(since, begin))
        return idle

    # The limits

    def turned_away(self, letter, process):
        """The busy handler answers."""
        self._watch.story(letter).turned_away += 1
        now, plan = self._scheduler.now, self._simulation.plan
        waiting = [other for other in self._watch.stories.values() if self._may_wait(other, now)]
        mine = [other for other in waiting if other.letter.user == letter.user and other.letter is not letter]
        if self._watch.has_store_trouble or self._watch.last_fault:
            return
        if len(mine) <= plan.waiting_per_user and len(waiting) <= plan.waiting:
            self._watch.break_("nobody is turned away before a limit is reached", letter.name)

    def _may_wait(self, story, now):
        is_open = story.record and story.record.state in (RUNNING, PROMISED)
        return is_open or now - (story.moved_at or 0.0) < JUST_NOW  # in memory no record stays of what is done
