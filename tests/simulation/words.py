"""The promises about words: nobody is left without one, and no other ones are said than the account's."""

import re

from tests.simulation.plan import PICTURE
from wechat.delivery.entries import READY
from wechat.delivery.outbox import NOTHING
from wechat.packing import unpack
from wechat.platform.pushing import CLOSED_FOR

NAME = re.compile(r"\b(m\d+):")
KNOWN_AFTER = 5.0  # seconds: each process looks every three for whom the others have noted
IN_VAIN = 10.0  # seconds of tries after which the user is told
REFUSED_AFTER = 1.0  # seconds in which a process notes that it was refused
JUST_NOW = 1.0  # seconds
CLOSED_AT_LEAST = min(CLOSED_FOR.values())
TRANSFER, DEFAULT = "transfer", "what the default handler says"


class WordWatch:
    """Sees what users are told."""

    def __init__(self, watch, simulation):
        self._watch, self._simulation, self._scheduler = watch, simulation, simulation.scheduler
        self._untold = {}  # since when a user does not know that a message's reply waits, by story
        self._told_at = {}  # by user, that something waits: so one knows of what is kept a moment later
        self.told = set()  # stories of which the user knows how to get what is left
        self.is_distrusted = False  # or was
        self._closed_at = None  # when all customer messages were first refused

    @property
    def _texts(self):
        return self._simulation.plan.texts

    # What waits

    def moved(self, story, before, after):
        """A record of the message moved."""
        now = self._scheduler.now
        if after:  # told as far as the server knows: WeChat may have given up
            self.answered_with(story.letter, after.document)
        if not after or after.state != READY or unpack(after.reply) == NOTHING:
            return
        is_same = before and before.owner == after.owner  # who takes it over has not tried it
        was_tried = is_same and before.is_sending and not after.is_sending and before.reply == after.reply
        is_kept = not after.owner and before and before.owner and before.reply == after.reply
        is_in_vain = was_tried and after.owner and story.ready_at is not None and now > story.ready_at + IN_VAIN + 1
        is_known = now <= self._told_at.get(story.letter.user, -JUST_NOW) + JUST_NOW or story in self.told
        if (is_kept or is_in_vain) and not after.is_told and not is_known:
            self._untold.setdefault(story, now)

    def _waits(self, story):
        """Whether it can be fetched just now."""
        records = self._watch.records_of(story)
        return any(record.state == READY and not record.is_sending for record in records)

    # What is said

    def shown(self, request):
        """A customer message arrived."""
        found = NAME.search(request.text)
        if found and request.text.endswith(self._texts.more):
            self.told.add(self._watch.stories[found[1]])
            self._tell(request.body["touser"])

    def answered_with(self, letter, document):
        """A process answered an attempt, whether WeChat still listens or not."""
        words = self._texts.announce.encode(), self._texts.more.encode()
        if (letter.is_next and document) or any(word in document for word in words):
            self._tell(letter.user)

    def heard(self, letter, text):
        """WeChat heard a direct answer."""
        self._check_words(letter, text)
        if letter.heard == "success":
            self._check_closed(letter)
        said = text.rpartition("\n\n")[2]
        is_plain_text = letter.reply in ("text", "long", "yield") and NAME.search(text) and len(text) != PICTURE
        if said in (self._texts.more, self._texts.waiting):
            self.told.add(self._watch.story(letter))
        if said in (self._texts.more, self._texts.announce) or letter.is_next:
            self._tell(letter.user)
        elif is_plain_text and not self._simulation.plan.is_miniprogram:
            self._check_announced(letter)

    def _tell(self, user):
        self._told_at[user] = self._scheduler.now
        self._untold = {story: since for story, since in self._untold.items() if story.letter.user != user}

    def _check_announced(self, letter):
        for story, since in self._untold.items():
            # Where WeChat gave up, it may have been before the answer with `more` reached it.
            is_mine = story.letter.user == letter.user and story.letter is not letter and story.letter.heard
            is_known = since + KNOWN_AFTER < letter.sent_at and self._watch.last_fault + KNOWN_AFTER < letter.sent_at
            if is_mine and is_known and self._waits(story) and not self._watch.has_store_trouble:
                self._watch.break_("no reply waits without the user knowing", story.letter.name)

    def _check_words(self, letter, text):
        texts = self._texts
        words = ("", TRANSFER, DEFAULT, texts.waiting, texts.not_ready, texts.nothing)
        if text.removesuffix(f"\n\n{texts.more}") not in words and not NAME.search(text):
            self._watch.break_("a user hears only the account's words", f"{letter.name}: {text!r}")

    # Pushing that is closed

    def answered(self, request):
        """The platform's answer to a call arrived."""
        errcode = request.answer.get("errcode", 0)
        if errcode in CLOSED_FOR:
            self._closed_at = self._scheduler.now if self._closed_at is None else self._closed_at
            self.is_distrusted |= request.path.endswith("stable_token")
        elif not errcode and not request.path.endswith("stable_token"):
            self._closed_at = None

    def failed(self):
        """A process ended or stands still, which may have had no time to note that it was refused."""
        self._closed_at = None

    def _check_closed(self, letter):
        """While no customer messages can be sent, nobody is left with `success` alone."""
        record, now = self._watch.story(letter).record, self._scheduler.now
        if self._closed_at is None or self._watch.has_store_trouble or self._simulation.plan.is_miniprogram:
            return
        is_closed = self._closed_at + REFUSED_AFTER < letter.sent_at and now < self._closed_at + CLOSED_AT_LEAST
        if is_closed and record and record.is_late and not record.is_told:
            self._watch.break_("while pushing is closed nobody is left with success", letter.name)
