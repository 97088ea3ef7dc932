"""What a seed stands for: the account, its processes, its users' messages, and the faults that may strike."""

from functools import cache
from itertools import accumulate

from wechat.settings import Settings
from wechat.texts import Texts

# The faults of each kind of schedule. In the kinds with a * the bounds are weaker: promises.py says which and why.
CRASHES, PLATFORM = (
    ("crash", "crash", "crash", "freeze"),
    ("slow", "away", "busy", "lose", "refuse", "forbid", "forbid", "distrust", "token"),
)
STORE = ("store_slow", "store_away", "store_away_for_one", "store_lose", "store_lose")
KINDS = {
    "calm": (),
    "crashes": ("crash",),
    "standstills": ("freeze",),
    "clocks": ("jump",),
    "platform": PLATFORM,
    "handlers": (),
    "all but the store": (*CRASHES, "freeze", "jump", *PLATFORM),
    "all but store and platform": (*CRASHES, "freeze", "jump"),
    "store*": STORE,
    "everything*": (*CRASHES, "freeze", "jump", *PLATFORM, *STORE),
    "memory*": (*CRASHES, "freeze", "jump", *PLATFORM),
    "miniprogram": (*CRASHES, "freeze", "jump", *PLATFORM),
}
CROWDED = 16  # of so many seeds in one a user has a session while another one waits for the only thread
WILD = {"handlers", "all but the store", "all but store and platform", "everything*", "memory*", "miniprogram"}

NEXT = "继续"
YIELDING, ASYNC = frozenset({"yield", "async yield"}), frozenset({"async", "async yield", "async session"})
SESSIONS = frozenset({"session", "async session"})
IN_LANE = YIELDING | ASYNC | {"slow"}  # from the beginning; others may be handed on to it
WORDS = ("slow", "slow", "slow", "fast", "unmarked", "session", NEXT, *sorted(YIELDING | ASYNC))
WORDS_TO_FETCH = ("slow", "slow", "unmarked", "session", NEXT, NEXT, NEXT, *sorted(YIELDING | ASYNC))
OWN_TEXTS = Texts(
    next="more please", waiting="wait", not_ready="not yet", more="and more", nothing="none", announce="one waits"
)
DURATIONS = (0, 0, 0.5, 2, 3, 4, 4.375, 4.5, 4.5, 4.625, 5, 6, 9.5, 10, 14.5, 15, 25, 40)  # seconds
SHORT = (0, 0, 0.25, 0.5, 2, 6)
FIRST_ID = 10**17  # a MsgId has more digits than a float keeps
PIECES = (3000, 5000, 7000)  # bytes of a long text; no cut leaves a last piece of a few bytes
PARTS = (0, 1, 2, 2, 3, 3, 4, 6, 8)  # that a handler yields
PICTURE = 24
LENGTHS = (16, 16, 16, PICTURE, 2800)  # bytes of each


class Plan:
    """One schedule, before it runs."""

    def __init__(self, seed, random):
        self.kind = list(KINDS)[seed % len(KINDS)]
        self.faults = KINDS[self.kind]
        self.is_wild = self.kind in WILD
        self.is_memory = self.kind == "memory*"
        self.is_miniprogram = self.kind == "miniprogram"
        self.has_credentials = self.is_miniprogram or random.random() < 0.65
        self.processes = 1 if self.is_memory else random.choice([1, 2, 2, 3])
        self.is_near = random.random() < 0.5  # whether the processes can look at one another
        self.look_again, self.has_listener = random.choice([(0.125, False), (1.0, True)])  # as SQLite, or as Redis
        self.threads, self.slow_threads = random.choice([4, 8, 64]), random.choice([1, 2, 3, 64])
        self.waiting_per_user, self.waiting = random.choice([1, 8, 8]), random.choice([3, 10_000, 10_000])
        self.texts = random.choice([Texts(), OWN_TEXTS])
        self.is_crowded = seed % CROWDED == 1
        if self.is_crowded:
            self.slow_threads = 1
        self.strikes = random.choice([1, 2, 4, 8]) if self.faults else 0
        self.odds = random.choice([0.01, 0.03, 0.1, 0.2])  # of a strike, at each step
        users = random.choice([1, 1, 2, 3])
        self.letters = [self._letter(number, users, random) for number in range(random.choice([2, 3, 4, 6]))]

    @property
    def settings(self):
        """The settings of each process."""
        account = "miniprogram" if self.is_miniprogram else "official"
        credentials = {"appid": "wx1", "secret": "s"} if self.has_credentials else {}
        waiting = {"waiting_per_user": self.waiting_per_user, "waiting": self.waiting}
        threads = {"threads": self.threads, "slow_threads": self.slow_threads}
        return Settings(tokens=("t",), account=account, **threads, **waiting, **credentials)

    def _letter(self, number, users, random):
        word = random.choice(WORDS if self.has_credentials else WORDS_TO_FETCH)
        if self.is_crowded:
            word = ("session", "slow")[number % 2]
        durations = SHORT if word in SESSIONS else (0,) if word == "fast" else DURATIONS
        runs = [(random.choice(durations), self._end(random)) for _ in range(5)]
        return Letter(
            number=number,
            user=f"u{number % 2 if self.is_crowded else random.randrange(users)}",
            word=word,
            reply=random.choice(["text", "text", "text", "long", "long", "image", "none", "transfer"]),
            length=random.choice(PIECES),
            parts=[random.choice(LENGTHS) for _ in range(random.choice(PARTS))],
            texts=self.texts,
            runs=[runs[0]] * 5 if runs[0][1] == "kill" and random.random() < 0.7 else runs,
            comes_at=(random.choice([0, 1, 3, 5, 9, 20]) + random.random() * 2) % (3 if self.is_crowded else 100),
            most_attempts=random.choice([4, 4, 4, 3, 1]),
        )

    def _end(self, random):
        """How a run of a handler ends."""
        if not self.is_wild or random.random() < 0.7:
            return "reply"
        return random.choice(["raise", "kill", "kill", "hang"])


class Letter:
    """A message of a user, and what becomes of it."""

    def __init__(
        self, number, user, word, texts, reply="text", length=0, runs=(), comes_at=0, most_attempts=4, parts=()
    ):
        self.number, self.name, self.user, self.word = number, f"m{number}", user, word
        self.reply, self.planned_runs, self.comes_at, self.most_attempts = reply, runs, comes_at, most_attempts
        self.is_long, self.is_next = reply == "long", word == NEXT
        self.parts = self._fill(parts) if word in YIELDING else []
        self.text = f"answer {self.name}:"
        if self.is_long:
            self.text = fill(self.name, 0, length)
        if word in YIELDING:
            self.reply, self.text = "yield" if parts else "none", "".join(self.parts)
        self.texts, self.sorry, self.busy = texts, f"sorry {self.name}:", f"busy {self.name}:"
        self.key = self.body = None  # since it was sent
        self.sent_at = 0.0
        self.heard = None  # by WeChat: "direct", "success", "waiting"; None while nothing is
        self.attempts, self.answered_by = 0, None  # that reached a process, and which one WeChat heard
        self.given_up_at = None  # by WeChat
        self.is_delivered = False  # whether WeChat has heard an answer, or given up
        self.is_replayed = False

    def _fill(self, parts):
        begins = accumulate(parts, initial=0)
        return [fill(self.name, begin, length) for begin, length in zip(begins, parts, strict=False)]

    def send(self, now, wall):
        """Write it, at this time."""
        self.sent_at, created, number = now, int(wall), FIRST_ID + self.number
        content = self.texts.next if self.is_next else f"{self.word} {self.name}"
        self.key = f"{self.user} {created} {number}"
        self.body = (
            f"<xml><ToUserName>gh</ToUserName><FromUserName>{self.user}</FromUserName><CreateTime>{created}</CreateTime>"
            f"<MsgType>text</MsgType><Content>{content}</Content><MsgId>{number}</MsgId></xml>"
        ).encode()


@cache
def fill(name, begin, length):
    """A part of a long text, of which each eight bytes say where they stand; a blank at its end would be dropped."""
    return " ".join(f"{name}:{n // 8:04}" for n in range(begin, begin + length, 8)) + "|"
