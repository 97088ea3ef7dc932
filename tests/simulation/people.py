"""Outside: WeChat, which delivers what users write, and the handlers, which answer it."""

import re
from contextlib import closing

from tests.simulation.loop import Sleep
from tests.simulation.plan import FIRST_ID, NEXT, PICTURE, Letter
from tests.simulation.promises import TIMEOUT
from tests.simulation.story import Planned
from wechat.errors import GivenUp
from wechat.reply import Image, Transfer
from wechat.routing import on

HANG = 100  # seconds
CONTENT = re.compile(r"<(?:Content|MediaId)><!\[CDATA\[(.*?)\]\]>", re.DOTALL)
NOTHING_OPEN = "what the default handler says"


class WeChat:
    """Delivers a message until it is answered, four times at most, with five seconds for each."""

    def __init__(self, simulation):
        self._simulation, self._scheduler, self._random = simulation, simulation.scheduler, simulation.random
        self._numbers = 100

    def post(self, letter):
        """Send a message when its time has come."""
        self._scheduler.sleep(letter.comes_at)
        self.deliver(letter)

    def ask(self, user, word=NEXT):
        """Send 继续 for the user, or another word; gives what the answer says, None for no answer."""
        self._numbers += 1
        letter = Letter(self._numbers, user, word, self._simulation.plan.texts, runs=[(0, "reply")] * 5)
        self._simulation.letters[letter.name] = letter
        return self.deliver(letter)

    def deliver(self, letter):
        """Deliver the message; gives the text of the answer, None for no answer."""
        letter.send(self._scheduler.now, self._simulation.wall + self._scheduler.now)
        self._simulation.watch.sent(letter)
        answer = None
        for number in range(letter.most_attempts):
            answer = self._attempt(letter, number)
            if answer is not None:
                break
        letter.is_delivered = True
        return self._hear(letter, answer)

    def replay(self, letter):
        """Deliver once more what was delivered long ago."""
        letter.is_replayed = True
        process = self._random.choice(self._simulation.started())
        process.receive(letter)

    def _attempt(self, letter, number):
        began, started = self._scheduler.now, self._simulation.started()
        if started:
            process = self._random.choice(started)
            self._simulation.say(f"{letter.name}: attempt {number + 1} at {process.name}")
            letter.attempts += 1
            answer = process.receive(letter)
            if answer is not None:
                letter.answered_by = process.name
                return answer
        # Where the connection is refused or breaks, the next attempt may come soon.
        pause = self._random.choice([0.5, began + 5 - self._scheduler.now])
        self._scheduler.sleep(pause if self._scheduler.now < began + 5 else 0)
        return None

    def _hear(self, letter, answer):
        if answer is None:
            self._simulation.say(f"{letter.name}: WeChat gives up")
            letter.given_up_at = self._scheduler.now
            return None
        text = said(answer)
        letter.heard = "success" if not text else "waiting" if text == letter.texts.waiting else "direct"
        self._simulation.say(f"{letter.name}: WeChat hears {letter.heard}: {text[:40]!r}")
        self._simulation.watch.heard(letter, text)
        return text


def said(document):
    """The text of a document, or what stands for it; empty for `success`."""
    if b"transfer_customer_service" in document:
        return "transfer"
    found = CONTENT.search(document.decode())
    return found[1] if found else ""


class Handlers:
    """What the account answers."""

    def __init__(self, simulation):
        self._simulation, self._scheduler, self._watch = simulation, simulation.scheduler, simulation.watch

    def routes(self):
        """The handlers by their paths."""
        marked = (*self._plain(), *self._yielding(), *self._awaiting(), *self._others())
        marked[0].wechat_texts = self._simulation.plan.texts
        return {mark.path: function for function in marked for mark in function.wechat_marks}

    def _plain(self):
        @on("text", re.compile(r"slow m\d+"), slow=True, timeout=TIMEOUT)
        @on("text", re.compile(r"(?:fast|unmarked) m\d+"))
        def work(message):
            return self._at_once(self._work(message))

        @on("text", re.compile(r"session m\d+"))
        def remember(message, session):
            return self._at_once(self._remember(message, session))

        return work, remember

    def _yielding(self):
        @on("text", re.compile(r"yield m\d+"), timeout=TIMEOUT)
        def tell(message):
            for seconds, text in self._tell(message):
                self._scheduler.sleep(seconds)
                if text:
                    yield said_as(text)

        @on("text", re.compile(r"async yield m\d+"), timeout=TIMEOUT)
        async def wait_and_tell(message):
            for seconds, text in self._tell(message):
                await Sleep(seconds)
                if text:
                    yield said_as(text)

        return tell, wait_and_tell

    def _awaiting(self):
        @on("text", re.compile(r"async m\d+"), timeout=TIMEOUT)
        async def wait(message):
            return await self._awaited(self._work(message))

        @on("text", re.compile(r"async session m\d+"), timeout=TIMEOUT)
        async def wait_and_remember(message, session):
            return await self._awaited(self._remember(message, session))

        return wait, wait_and_remember

    def _others(self):
        @on("default")
        def rest(message):
            return NOTHING_OPEN

        @on("error")
        def apologise(message, error):
            letter = self._letter(message)
            if isinstance(error, GivenUp):
                self._watch.given_up(letter)
            if isinstance(error, TimeoutError):
                self._watch.timed_out(letter, self._scheduler.current.process)
            return letter.sorry

        @on("busy")
        def turn_away(message):
            letter = self._letter(message)
            self._watch.lanes.turned_away(letter, self._scheduler.current.process)
            return letter.busy

        return rest, apologise, turn_away

    def _letter(self, message):
        return self._simulation.letters[f"m{int(message.MsgId) - FIRST_ID}"]

    def _at_once(self, steps):
        """Go through the steps of a handler; gives what it returns."""
        while True:
            try:
                self._scheduler.sleep(next(steps))
            except StopIteration as end:
                return end.value

    async def _awaited(self, steps):
        with closing(steps):  # where it is cancelled, it lets go of its session now, not when it is collected
            while True:
                try:
                    seconds = next(steps)
                except StopIteration as end:
                    return end.value
                await Sleep(seconds)

    def _work(self, message):
        """The steps of a handler: the seconds that each takes."""
        letter = self._letter(message)
        run, seconds, end = self._begin(letter)
        yield seconds + (HANG if end == "hang" else 0)
        self._end(run, end)
        return reply_of(letter)

    def _tell(self, message):
        """Those of one that yields: the seconds, and the text that it gives then."""
        letter = self._letter(message)
        run, seconds, end = self._begin(letter)
        for text in letter.parts:
            yield seconds / len(letter.parts), text
        yield (HANG if end == "hang" else 0), ""
        self._end(run, end)

    def _begin(self, letter):
        run = self._watch.begun(letter, self._scheduler.current.process)
        return run, *((0, "reply") if letter.is_replayed else letter.planned_runs[min(run.number, 4)])

    def _end(self, run, end):
        if end == "kill":
            self._simulation.crash(run.process)
            self._scheduler.leave()
        self._watch.ended(run)
        if end == "raise":
            raise Planned

    def _remember(self, message, session):
        letter = self._letter(message)
        with self._watch.alone(letter, self._scheduler.current.process):
            reply = yield from self._work(message)
        session["seen"] = [*session.get("seen", ()), letter.name]
        return reply


def said_as(text):
    """What a handler yields: some are pictures."""
    return Image(text) if len(text) == PICTURE else text


def reply_of(letter):
    """What the handler returns."""
    if letter.reply == "none":
        return None
    if letter.reply == "transfer":
        return Transfer()
    return Image(letter.text) if letter.reply == "image" else letter.text
