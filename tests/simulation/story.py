"""What became of one message."""

from itertools import accumulate

from tests.simulation.plan import IN_LANE, SESSIONS
from wechat.delivery.entries import PROMISED, READY, RUNNING

MOST_PIECES = 4


class Planned(Exception):
    """What a handler raises that is to fail."""


class Run:
    """A run of a handler, the first has number 0. `ended_at` is None while it goes on, and where its process died."""

    def __init__(self, number, process, at):
        self.number, self.process, self.began_at, self.ended_at = number, process, at, None
        self.is_in_lane = False


class Story:
    """The runs of a message, what its user saw of the reply, and the faults that touched it."""

    def __init__(self, letter):
        self.letter = letter
        self.is_in_lane = letter.word in IN_LANE  # from the beginning
        self.needs_session = letter.word in SESSIONS
        self.arrived_at = self.entered_at = None  # when the first attempt came to a process, and into the ledger
        self.record = None  # as the store has it
        self.moved_at = 0.0  # to its state and owner
        self.runs = []
        self.adopted = []  # the records that went to another process, as they were before
        self.sends = []  # requests of which the platform showed the user something
        self.given = {}  # when each process last gave the direct answer
        self.unwritten = 0  # direct answers whose process ended or stood still before the store knew of them
        # The processes that, without the store, told WeChat to wait for what another one had, or gave the answer;
        # and how often such an answer was given again, as another one had told it to wait.
        self.promised_alone, self.given_alone, self.begun_anew = set(), set(), 0
        self.lost_with = 0  # crashes that took the store along
        self.store_failures, self.cut_off = 0, set()  # operations about it that failed, and whose they were
        self.failed_fetches = 0  # of its reply, each of which gave it all the same
        self.forgiven = 0  # starts that do not count, as another message may have ended the process
        self.turned_away = 0  # how often the busy handler answered it
        self.is_refused = self.is_given_up = False
        self.fetched_by, self.fetched_at = [], None  # the 继续, and when the last one did
        self.ready_at = None
        self.repeats = self.gaps = 0
        self.overtaken = 0  # fetches that were still on their way at a later one
        self.has_apology = self.is_apology_last = self.is_head_late = False
        self.was_kept = False  # for 继续, or a part of it
        self.is_timed_out = False  # it may go on, and nobody waits for it
        self._pieces = []  # from where to where in the reply
        self._furthest = self._last = 0  # where a piece ended

    # What the user sees

    def show(self, text):
        """The user sees a text: the reply, a piece of it, or that there was an error."""
        texts = self.letter.texts
        text = text.removesuffix(f"\n\n{texts.more}").removesuffix(f"\n\n{texts.announce}")
        before = self.repeats
        for piece in filter(None, text.split("\n")):  # parts may be joined
            if piece in (self.letter.sorry, self.letter.busy):
                self.repeats += bool(self.has_apology or (self._pieces and not self.letter.parts))
                self.has_apology = self.is_apology_last = True
            else:
                begin = self.letter.text.find(piece)
                is_split = self.letter.parts and (self.was_kept or self.adopted)  # some wait, or others send them
                is_late_head = self.is_head_late and not begin  # what follows it has overtaken it
                self.repeats += self.is_apology_last and not (is_split or is_late_head)
                self.is_apology_last = False
                self._note_piece(begin, begin + len(piece))
        self.repeats = min(self.repeats, before + 1)

    def _note_piece(self, begin, end):
        if begin and not self._pieces:
            self.is_head_late = True
        elif begin > self._furthest:
            self.gaps += 1
        elif not begin and self.is_head_late and min(self._pieces)[0]:
            pass
        elif self.letter.parts and (self.gaps or self.is_head_late):  # it may be the one that was missing
            is_seen = any(begin < other_end and end > other for other, other_end in self._pieces)
            self.repeats += is_seen and begin not in self._open_ends
        elif not self._goes_on(begin, end):
            self.repeats += 1
        self._last = end
        self._furthest = max(self._furthest, self._last)
        self._pieces.append((begin, end))

    def part_of(self, text):
        """The number of the part in which the text begins, of a reply in parts."""
        begin = self.letter.text.find(text.partition("\n")[0])
        ends = accumulate(map(len, self.letter.parts))
        return sum(end <= begin for end in ends) if begin >= 0 else len(self.letter.parts)

    def _goes_on(self, begin, end):
        """Whether the piece follows one that was seen. A repeat may be cut at another place; either is gone on with."""
        return begin in (self._furthest, self._last) or (begin in self._open_ends and end > self._furthest)

    @property
    def _open_ends(self):
        return {end for _, end in self._pieces} - {begin for begin, _ in self._pieces}

    @property
    def is_shown(self):
        """Whether the user saw the whole reply, or that there was an error."""
        seen = 0
        for begin, end in sorted(self._pieces):
            seen = max(seen, end) if begin <= seen else seen
        return self.has_apology or seen == len(self.letter.text)

    # What the faults allow

    @property
    def extra_runs(self):
        """The runs after the first that are no fault: the process that had the message ended, or stood still."""
        return sum(record.state in (RUNNING, PROMISED) for record in self.adopted) + self.lost_with

    @property
    def extra_sends(self):
        """The repeats that are no fault: whether a part had arrived, nobody could know."""
        again = max(0, len(self.runs) - 1) * MOST_PIECES * len(self.letter.parts)  # each run gives all parts anew
        in_between = sum(record.state == READY and record.is_sending for record in self.adopted)
        return again + in_between + sum(send.is_lost for send in self.sends) + self.lost_with + self.unwritten

    @property
    def repeats_without_store(self):
        """The repeats that are no fault where the store was away: processes that do not see each other both answer.

        So does one that takes over from a process that died before it could write what it had done.
        """
        answers = len(self.runs) + self.turned_away * bool(self.store_failures)
        extra = max(0, answers - 1 - self.extra_runs) + (len(self.adopted) + len(self.fetched_by)) * bool(
            self.store_failures
        )
        return extra * MOST_PIECES + self.failed_fetches + len(self.promised_alone) + len(self.given_alone)

    @property
    def deaths(self):
        """The runs that ended with their process."""
        return sum(run.ended_at is None and run.process.is_dead for run in self.runs)
