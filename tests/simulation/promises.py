"""The promises of the server, held against what happens.

What counts is what the user sees and what the store holds. A fault allows a repeat only where it struck in the very
moment, and each allows one: `Story.extra_runs` and `Story.extra_sends` count them.
"""

import json
import math
import re
from contextlib import contextmanager

from tests.simulation.lanes import LaneWatch
from tests.simulation.plan import PLATFORM, STORE
from tests.simulation.story import Planned, Run, Story
from tests.simulation.words import WordWatch
from wechat.delivery.entries import DONE, PROMISED, READY, RUNNING, UNDER_WAY
from wechat.delivery.ledger import PREFIX, unpack_record
from wechat.delivery.outbox import NOTHING
from wechat.packing import unpack
from wechat.store.owners import LIFE

NAME = re.compile(r"\b(m\d+):")
PIECE = re.compile(r"/\d+\.\d+\.\w+$")  # ends the key of what a handler has yielded
FAULTS_OF_OURS = ("a task failed", "is not answered", "goes on after a failure", "cannot be")
PLANNED = (Planned.__name__, "TimeoutError")  # the latter is what an async handler ends with that hangs
ADOPTED_WITHIN = 22.0  # seconds: 15 without a sign of life, seen by looks that are 3 apart
TIMEOUT = 60.0  # seconds that a slow handler has
APART = 1.0  # seconds between two messages of which it is clear which one came first
SENT_WITHIN = 25.0  # seconds: what is ready may first have to wait for the lock of a process that died
STARTS = 3
SPARE = 0.5  # seconds of WeChat's five for which no attempt is held
OUTAGE = 3.0  # seconds after which a failure of the store counts as another one: between two heartbeats it may be back
UNWRITTEN = 1.0  # seconds: the end of a fast message is written within 20 ms, and the write itself takes time


class Watch:
    """Sees all that happens, and notes which promises are broken."""

    def __init__(self, simulation):
        self._simulation, self._scheduler = simulation, simulation.scheduler
        faults = set(simulation.plan.faults)
        self.has_store_trouble, self.has_platform_trouble = bool(faults & set(STORE)), bool(faults & set(PLATFORM))
        self.broken = []
        self.stories, self._by_key = {}, {}
        self._signs, self._silent = {}, {}  # of life: the last one, and the longest time without one
        self._sessions, self._remembered = {}, {}  # who has each, and the messages that it has to hold
        self._sent = {}  # stories and the number of their runs, by process and user
        self.last_fault = self.last_freeze = self._last_failure = 0.0  # of a process, of one to go on, of the store
        self._fetched = []
        self.is_store_slow = False  # or was
        self.delays = []  # when steps took so long
        self.lanes, self.words = LaneWatch(self, simulation), WordWatch(self, simulation)
        self._blocked = {}  # tasks that did not get a lock, and which one of whom

    def story(self, letter):
        return self.stories.setdefault(letter.name, Story(letter))

    def of_key(self, key):
        """The story of the message whose record, or that of a reply to it, stands under the key."""
        return self._by_key.get(PIECE.sub("", key.removeprefix(PREFIX))) if key.startswith(PREFIX) else None

    def break_(self, promise, about=""):
        """Note a promise that was broken."""
        self._simulation.say(f"BROKEN {promise}: {about}")
        self.broken.append(f"{promise}: {about}")

    # What WeChat and the users see

    def sent(self, letter):
        """A user sent a message."""
        self._by_key[letter.key] = self.story(letter)

    def gave(self, letter, document, process):
        """A process answered an attempt, whether WeChat still listens or not."""
        story, unwritten = self.story(letter), process.ledger._unwritten.get(letter.key)
        if story.record and document and story.record.state in UNDER_WAY:
            if story.record.state == RUNNING:
                story.given[process] = self._scheduler.now
            story.given_alone |= {process.name} if unwritten and not unwritten.record.is_late else set()
        if story.record and unwritten and unwritten.record.is_late and not story.record.is_late:
            story.promised_alone |= {process.name} - {story.record.owner}
        self.words.answered_with(letter, document)

    def heard(self, letter, text):
        """WeChat heard the direct answer."""
        self.words.heard(letter, text)
        if text not in ("", letter.texts.waiting):
            self._show(text, letter)

    def accepted(self, request):
        """The platform shows a customer message."""
        self._simulation.say(f"{request.process.name} sends {request.text[:30]!r}")
        story = self._show(request.text)
        self.words.shown(request)
        if story:
            story.sends.append(request)
            self._check_haste(story)
            self._check_order(story, request)

    def _check_order(self, story, request):
        """One process sends a user one reply after the other, in the order in which the slow handlers ended."""
        # It arrived after the process had given it up; or what an earlier run gave is sent beside that of a later one.
        if request.is_lost or (story.letter.parts and len(story.runs) > 1):
            return
        sent = self._sent.setdefault((request.process, story.letter.user), [])
        # It begins anew with a run, or where it was taken over, or turns out not to have arrived.
        reply = (story, len(story.runs) + len(story.adopted) + story.begun_anew, story.part_of(request.text))
        if reply not in sent:
            if not story.begun_anew:
                self._check_turn(story, request.process, sent)
            sent.append(reply)
        elif sent[-1] != reply:
            self.break_("a user's replies are not mixed", story.letter.name)

    def _check_turn(self, story, process, sent):
        ends = [self._end_in_lane(other, process) for other in (*[other for other, *_ in sent], story)]
        if ends[-1] is not None and any(end is not None and end > ends[-1] for end in ends):
            self.break_("a user's replies come in order", story.letter.name)

    def _end_in_lane(self, story, process):
        """When the message ran in its user's lane; None where it did not, or is resumed after a crash."""
        is_plain = story.is_in_lane and not story.adopted and len(story.runs) == 1
        if not is_plain or story.runs[0].process is not process:
            return None
        return math.inf if story.runs[0].ended_at is None else story.runs[0].ended_at

    def refused(self, request):
        """The platform refused a customer message, for good."""
        found = NAME.search(request.text)
        if found:
            self.stories[found[1]].is_refused = True

    def _show(self, text, letter=None):
        found = NAME.search(text)
        if not found:
            return None
        story = self.stories[found[1]]
        story.show(text)
        return story

    def continued(self, user, text):
        """A user who asked to continue, when all is over, got this."""
        if text is None or text == self._simulation.plan.texts.not_ready:
            self.break_("what is over can be fetched", f"{user} gets {text!r}")
        found = NAME.search(text or "")
        if found:
            self._fetched.append((user, self.stories[found[1]].letter.key))
            if self._fetched != sorted(self._fetched):
                self.break_("the oldest reply is fetched first", f"{user} gets {found[1]}")

    # The handlers

    def begun(self, letter, process):
        """A handler began."""
        story = self.story(letter)
        self._simulation.say(f"{process.name} runs {letter.name}")
        if story.deaths >= STARTS + story.forgiven + story.lost_with and not story.store_failures:
            self.break_("a message that ended three processes is given up", letter.name)
        story.runs.append(Run(len(story.runs), process, self._scheduler.now))
        if len(story.runs) > 1 + story.extra_runs + len(story.cut_off):
            self.break_("one message, one run", letter.name)
        self._check_lane(story, process)
        self.lanes.begun(story, story.runs[-1])
        return story.runs[-1]

    def ended(self, run):
        """It ended."""
        if run.ended_at is None:
            run.ended_at = self._scheduler.now
            self.lanes.ended(run)

    def timed_out(self, letter, process):
        """The error handler is told that the handler took too long; it may go on, but nobody waits for it."""
        runs, now = [run for run in self.story(letter).runs if run.process is process], self._scheduler.now
        is_frozen = now - self.last_freeze < TIMEOUT  # what it stood still for is not counted out
        if all(now - run.began_at < TIMEOUT for run in runs) and not is_frozen:
            self.break_("a handler has the time that it says", letter.name)
        self.story(letter).is_timed_out = True
        for run in runs:
            self.ended(run)

    def given_up(self, letter):
        """The error handler is told that the message was given up."""
        story = self.story(letter)
        story.is_given_up = True
        if len(story.adopted) < STARTS and not story.store_failures:
            self.break_("a message is given up after three deaths only", letter.name)

    def _check_lane(self, story, process):
        """One user's slow messages run one after the other, but for those that are resumed after a crash."""
        if not story.is_in_lane or story.adopted:
            return
        for other in self.stories.values():
            mine = other.letter.user == story.letter.user and other.is_in_lane and not other.adopted
            if mine and other is not story:
                for run in other.runs:
                    if run.process is process and run.ended_at is None:
                        self.break_("a user's slow messages run one after the other", story.letter.name)

    @contextmanager
    def alone(self, letter, process):
        """Inside the block a handler has the user's session."""
        self._check_turn_of(letter)
        holders = self._sessions.setdefault(letter.user, [])
        if self._may_hold(process) and any(map(self._may_hold, holders)) and not self.has_store_trouble:
            self.break_("one handler at a time has a session", letter.name)
        holders.append(process)
        try:
            yield
        finally:
            holders.remove(process)
        self._remembered.setdefault(letter.user, []).append((letter.name, process))

    def _check_turn_of(self, letter):
        """Where no process fails, a user's messages have the session in the order in which they came."""
        if self.has_store_trouble or self.last_fault:
            return
        came_at = self.story(letter).arrived_at
        for other in self.stories.values():
            is_mine = other.letter.user == letter.user and other.needs_session and other.arrived_at is not None
            is_before = is_mine and other.arrived_at + APART < came_at
            if is_before and not (other.runs or other.turned_away):
                self.break_("a user's messages have the session in order", letter.name)

    def _may_hold(self, process):
        return not process.is_dead and self._silence_of(process.name) < LIFE

    # The store

    def stored(self, key, old, new, process):
        """A value changed."""
        if key == f"alive:{process.name}" and (new or "").split(" ")[0] != (old or "").split(" ")[0]:
            self._note_sign(process.name)
        story = self.of_key(key)
        if story:
            self._moved(story, old and unpack_record(old), new and unpack_record(new), process, key)

    def _note_sign(self, owner):
        self._silent[owner] = self._silence_of(owner)
        self._signs[owner] = self._scheduler.now

    def _silence_of(self, owner):
        now = self._scheduler.now
        return max(self._silent.get(owner, 0.0), now - self._signs.get(owner, now))

    def _moved(self, story, before, after, process, key):
        if not PIECE.search(key):
            story.record = after
            story.entered_at = self._scheduler.now if story.entered_at is None else story.entered_at
        self.words.moved(story, before, after)
        giver = self._scheduler.current.letter
        if self._simulation.plan.is_memory and giver and _is_given(before, after):  # the 继续 itself leaves no record
            self._fetched_by(story, giver)
        self._say_move(story.letter.name + "".join(PIECE.findall(key)), before, after, process)
        if not after:
            return
        if before and before.state == PROMISED and after.state == READY:
            story.begun_anew += process.name in story.given_alone
        if before and after.starts < before.starts:
            story.forgiven += 1
        if not before or (before.state, before.owner) != (after.state, after.owner):
            story.moved_at, since = self._scheduler.now, story.moved_at
        is_adopted = before and before.owner and after.owner not in ("", before.owner)
        if is_adopted:
            self._adopted(story, before, process, since)
        if after.state == READY and after.owner and (is_adopted or not after.is_sending):
            story.ready_at = self._scheduler.now
        story.was_kept |= after.state == READY and not after.owner
        is_fetched = story.fetched_at == self._scheduler.now
        if before and before.state == READY == after.state and before.owner and not after.owner and not is_fetched:
            self._kept(story, after)

    def _say_move(self, name, before, after, process):
        if self._simulation.trace is not None:
            self._simulation.say(f"{process.name} moves {name}: {_said(before)} -> {_said(after)}")

    def _adopted(self, story, before, process, since):
        story.adopted.append(before)
        owner, now = self._simulation.processes[before.owner], self._scheduler.now
        if not owner.is_dead and self._silence_of(owner.name) < LIFE and not story.store_failures:
            self.break_("a message is taken from dead processes only", story.letter.name)
        since = max(owner.died_at or now, process.booted_at, self.last_freeze, since)
        is_late = before.state in (PROMISED, READY) and now - since > ADOPTED_WITHIN
        if is_late and not self.has_store_trouble:
            self.break_("a promise is taken over within 20 s", f"{story.letter.name}, {now - since:.1f} s")

    def _kept(self, story, record):
        plan = self._simulation.plan
        has_reply = unpack(record.reply) != NOTHING  # that there was none is said to who asks, and not sent
        is_too_much = story in self.words.told  # the user can get so many customer messages and no more
        if (
            plan.has_credentials
            and has_reply
            and not is_too_much
            and not (self.has_platform_trouble or self.has_store_trouble)
        ):
            self.break_("a reply is kept only where it cannot be sent", record.openid)

    def _check_haste(self, story):
        if self.has_platform_trouble or self.has_store_trouble:
            return
        delay = self._scheduler.now - max(story.ready_at or 0, self.last_fault)
        if delay > SENT_WITHIN:
            self.break_("what is ready is sent soon", f"{story.letter.name}, {delay:.1f} s")

    def fetched(self, changes):
        """Several values changed at once: a reply was fetched by 继续."""
        stories = [self.of_key(change.key) for change in changes]
        if len(stories) == 2 and all(stories):
            self._fetched_by(stories[0], stories[1].letter)

    def _fetched_by(self, story, letter):
        """Note who has it. Of two that are on their way at once, the user may see either first."""
        story.overtaken += sum(not other.letter.is_delivered for other in story.fetched_by)
        story.fetched_by.append(self.story(letter))
        story.fetched_at = self._scheduler.now

    def turned_away(self, changes, process, shelf):
        """A change was not made, as another value was there: it may be a lock."""
        now, task = self._scheduler.now, self._scheduler.current
        for change in changes:
            holder = shelf.get(change.key) or ""
            owner = self._simulation.processes.get(holder.partition(" ")[0])
            if change.old is None and owner and owner.is_dead and not self.has_store_trouble:
                since = max(owner.died_at, process.booted_at, self.last_freeze)
                # Of one that is forgotten, after a minute, the silence is counted anew.
                is_known = now - since > ADOPTED_WITHIN and shelf.get(f"alive:{owner.name}") is not None
                if is_known and self._blocked.get(task) == (change.key, holder):
                    self.break_("a lock of a dead process blocks nobody", f"{change.key} of {owner.name}")
                self._blocked[task] = (change.key, holder) if is_known else None

    def store_failed(self, keys, process):
        """An operation on these keys failed: what it is about counts for its process alone."""
        self._last_failure = self._scheduler.now
        stories = [story for key in keys if (story := self.of_key(key))]
        if not stories and self._scheduler.current.letter:  # on the way to a write, as where its owner is recalled
            stories = [self.story(self._scheduler.current.letter)]
        for story in stories:
            story.store_failures += 1
            story.failed_fetches += len(stories) > 1
            story.cut_off.add((process.name, process.answers))  # anew once the store has answered it

    # Processes

    def calls(self, process):
        """A process calls the store or the platform."""
        if self._scheduler.current is process.loop.task:
            self.break_("nothing on the loop waits for the store or the platform", process.name)

    def crashed(self, process):
        """A process ended."""
        self._struck(process)
        self.last_fault = max(self.last_fault, self._scheduler.now)
        if self._simulation.plan.is_memory:
            for story in self.stories.values():
                story.lost_with += 1

    def frozen(self, process, seconds):
        """A process stands still."""
        self._struck(process)
        self.last_freeze = max(self.last_freeze, self._scheduler.now + seconds)
        self.last_fault = max(self.last_fault, self.last_freeze)

    def _struck(self, process):
        self.words.failed()
        for story in self.stories.values():
            given_at = story.given.get(process)
            is_unwritten = story.record is not None and story.record.state == RUNNING
            is_recent = given_at is not None and self._scheduler.now < given_at + UNWRITTEN
            story.unwritten += is_unwritten and is_recent

    def logged(self, record):
        """An error stands in the log."""
        line, last = record.getMessage(), (record.exc_text or "").rpartition("\n")[2]
        if (last and not last.startswith(PLANNED)) or any(fault in line for fault in FAULTS_OF_OURS):
            self.break_("no fault of ours", f"{line} {last}")

    # The end

    def is_done(self, letter):
        """Whether its record says so."""
        story = self.story(letter)
        return bool(story.record) and story.record.state == DONE

    def are_locks_free(self):
        """Whether no process holds one just now."""
        return not any(process.locks for process in self._simulation.alive())

    def is_settled(self):
        """Whether all has been delivered and nothing is under way."""
        alive, plan = self._simulation.started(), self._simulation.plan
        since = max([self.last_fault, self._last_failure, *[process.booted_at for process in alive]])
        if len(alive) < plan.processes or self._scheduler.now < since + ADOPTED_WITHIN + 5:
            return False
        if not all(letter.is_delivered for letter in self._simulation.letters.values()):
            return False
        if any(run.ended_at is None and not run.process.is_dead for s in self.stories.values() for run in s.runs):
            return False
        if any(process.ledger._unwritten for process in alive):
            return False
        return all(process.delivery.is_idle() for process in alive) and not any(
            self._is_under_way(record) for _, record in self._records()
        )

    def _records(self):
        for shelf in self._simulation.shelves():
            for key, raw in shelf.items():
                if key.startswith(PREFIX):
                    yield key, unpack_record(raw)

    def records_of(self, story):
        """The records of the message, and of the replies to it."""
        return [record for key, record in self._records() if self.of_key(key) is story]

    def _is_under_way(self, record):
        """Whether somebody is to go on with it; what ran in a process that died is left to WeChat's next attempt."""
        if record.state == RUNNING:
            return not self._simulation.processes[record.owner].is_dead
        return record.state != DONE and bool(record.owner)

    def look_at_the_end(self):
        """Check what can be said when all is over."""
        for error in self._scheduler.broken:
            self.break_("no fault of ours", repr(error))
        for story in self.stories.values():
            self._check_replies(story)
        for user in self._remembered:
            self._check_session(user)
        self._check_nothing_is_open()

    def _check_session(self, user):
        """What a handler put into its session is there, unless its process ended or stood still, or its time was up."""
        late = {story.letter.name for story in self.stories.values() if story.is_timed_out}
        (shelf,) = self._simulation.shelves() or [None]
        kept = json.loads((shelf and shelf.get(f"session:{user}")) or "{}").get("seen", ())
        lost = [n for n, process in self._remembered[user] if n not in {*kept, *late} and self._may_hold(process)]
        if lost and not self.has_store_trouble:
            self.break_("a session keeps what is put into it", f"{user}: {lost}")

    def _check_replies(self, story):
        letter = story.letter
        allowed = story.extra_sends + story.repeats_without_store + story.overtaken
        if story.repeats > allowed:
            self.break_("one reply", f"{letter.name}, {story.repeats} repeats, {allowed} allowed")
        is_out_of_order = self._is_swallowed(story) or story.repeats_without_store or story.overtaken
        if letter.parts and not is_out_of_order:
            is_out_of_order = self._is_split(story)
        if story.gaps and not is_out_of_order:
            self.break_("pieces in order", letter.name)
        # The direct answer may be on its way while the rest is fetched, or its process or the store stand still.
        is_held_up = self.last_fault or self.is_store_slow or story.fetched_by or story.store_failures
        is_held_up = is_held_up or is_out_of_order
        if story.is_head_late and letter.heard and not is_held_up:
            self.break_("the beginning comes first", letter.name)
        if letter.attempts >= 3 and not letter.heard and self._is_calm_before(letter.given_up_at):
            self.break_("WeChat hears an answer in time", letter.name)
        if letter.heard and not letter.is_next and not (self._is_answered(story) or self._is_excused(story)):
            self.break_("nothing acknowledged stays unanswered", f"{letter.name}, {letter.heard}")

    def _is_calm_before(self, given_up_at):
        """Whether nothing fails, and the last steps took less than what is left of WeChat's five seconds."""
        took = sum(seconds for at, seconds in self.delays if given_up_at - 2 * SPARE <= at <= given_up_at)
        return self._simulation.plan.kind == "calm" and took < SPARE

    def _is_split(self, story):
        """Whether some parts wait while others are sent, or several processes took them over from one that died."""
        return story.adopted or story.was_kept or story.is_refused or self.words.is_distrusted

    def _is_answered(self, story):
        return story.is_shown or story.letter.reply in ("none", "transfer")

    def _is_excused(self, story):
        if self._simulation.plan.is_miniprogram and (story.is_refused or self.words.is_distrusted):
            return True  # it has no 继续: the reply is logged as lost
        # What a process does while the store is away, it writes down once the store answers, if it still lives.
        # Of two that had it meanwhile, the record that counts may be that of the one whom WeChat had left.
        is_with_two = story.repeats_without_store or len({name for name, _ in story.cut_off}) > 1
        is_unwritten = story.store_failures and (self.last_fault > 0 or is_with_two)
        is_unwritten = is_unwritten or story.letter.answered_by in story.promised_alone
        return story.lost_with or self._is_swallowed(story) or is_unwritten

    def _is_swallowed(self, story):
        """Whether a piece of it was fetched by a 继续 that WeChat gave up, as none of its attempts was answered."""
        return any(other.letter.heard is None for other in story.fetched_by)

    def _check_nothing_is_open(self):
        for key, record in self._records():
            story = self.of_key(key)
            if self._is_under_way(record) and not story.store_failures:
                self.break_("nothing is open for ever", f"{key} {record.state} of {record.owner}")
        for process in self._simulation.alive():
            if process.locks:
                self.break_("locks are free", f"{process.locks} of {process.name}")
            if process.delivery and not process.delivery.is_idle():
                self.break_("nothing is open for ever", f"{process.name} is not idle")
            elif process.delivery and (process.delivery.crowd or under_way(process.ledger)):
                self.break_("nothing is open for ever", f"{process.name} has {under_way(process.ledger)}")
        for shelf in self._simulation.shelves():
            left = [
                f"{name}: {keys}" for name, keys in shelf.indexes().items() if name not in ("owners", "untold") and keys
            ]
            if left and not self.has_store_trouble:
                self.break_("indexes are empty", str(left))


def under_way(ledger):
    """The keys of the messages that a process knows and that have not ended."""
    return [key for key, entry in ledger._known.messages.items() if not entry.has_ended()]


def _is_given(before, after):
    """Whether a reply, or a part of it, was given as the answer to a 继续."""
    is_ready = before and before.state == READY and not before.is_sending
    return is_ready and (not after or after.reply != before.reply)


def _said(record):
    """The record as a trace says it."""
    if not record:
        return "nothing"
    marks = ", sending" * record.is_sending + ", told" * record.is_told
    return f"{record.state} of {record.owner or 'nobody'}, starts {record.starts}{marks}"
