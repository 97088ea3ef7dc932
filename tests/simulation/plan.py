"""What a seed stands for: the account, its processes, its users' messages, and the faults that may strike."""

from wechat.settings import Settings

# The faults of each kind of schedule. In the kinds with a * the bounds are weaker: promises.py says which and why.
CRASHES, PLATFORM = ("crash", "crash", "crash", "freeze"), ("slow", "away", "busy", "lose", "refuse", "forbid", "token")
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
WILD = {"handlers", "all but the store", "all but store and platform", "everything*", "memory*", "miniprogram"}

WORDS = ("slow", "slow", "slow", "slow", "fast", "unmarked", "session", "继续")
WORDS_TO_FETCH = ("slow", "slow", "slow", "unmarked", "session", "继续", "继续", "继续")
DURATIONS = (0, 0, 0.5, 2, 3, 4, 4.375, 4.5, 4.5, 4.625, 5, 6, 9.5, 10, 14.5, 15, 25, 40)  # seconds
SHORT = (0, 0, 0, 0.25, 0.5, 2)
FIRST_ID = 10**17  # a MsgId has more digits than a float keeps
PIECES = (3000, 5000, 7000)  # bytes of a long text; no cut leaves a last piece of a few bytes


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
        self.threads = random.choice([4, 8, 64])
        self.strikes = random.choice([1, 2, 4, 8]) if self.faults else 0
        self.odds = random.choice([0.01, 0.03, 0.1, 0.2])  # of a strike, at each step
        users = random.choice([1, 1, 2, 3])
        self.letters = [self._letter(number, users, random) for number in range(random.choice([2, 3, 4, 6]))]

    @property
    def settings(self):
        """The settings of each process."""
        account = "miniprogram" if self.is_miniprogram else "official"
        credentials = {"appid": "wx1", "secret": "s"} if self.has_credentials else {}
        return Settings(tokens=("t",), account=account, threads=self.threads, **credentials)

    def _letter(self, number, users, random):
        word = random.choice(WORDS if self.has_credentials else WORDS_TO_FETCH)
        durations = SHORT if word == "session" else (0,) if word == "fast" else DURATIONS
        runs = [(random.choice(durations), self._end(random)) for _ in range(5)]
        return Letter(
            number=number,
            user=f"u{random.randrange(users)}",
            word=word,
            reply=random.choice(["text", "text", "text", "long", "long", "image", "none", "transfer"]),
            length=random.choice(PIECES),
            runs=[runs[0]] * 5 if runs[0][1] == "kill" and random.random() < 0.7 else runs,
            comes_at=random.choice([0, 1, 3, 5, 9, 20]) + random.random() * 2,
            most_attempts=random.choice([4, 4, 4, 3, 1]),
        )

    def _end(self, random):
        """How a run of a handler ends."""
        if not self.is_wild or random.random() < 0.7:
            return "reply"
        return random.choice(["raise", "kill", "kill", "hang"])


class Letter:
    """A message of a user, and what becomes of it."""

    def __init__(self, number, user, word, reply, length, runs, comes_at, most_attempts):
        self.number, self.name, self.user, self.word = number, f"m{number}", user, word
        self.reply, self.planned_runs, self.comes_at, self.most_attempts = reply, runs, comes_at, most_attempts
        self.is_long = reply == "long"
        self.text = "".join(f"{self.name}:{n:04} " for n in range(length // 8))[:length]
        if not self.is_long:
            self.text = f"answer {self.name}:"
        self.sorry = f"sorry {self.name}:"
        self.key = self.body = None  # since it was sent
        self.sent_at = 0.0
        self.heard = None  # by WeChat: "direct", "success", "waiting"; None while nothing is
        self.is_delivered = False  # whether WeChat has heard an answer, or given up
        self.is_replayed = False

    def send(self, now, wall):
        """Write it, at this time."""
        self.sent_at, created, number = now, int(wall), FIRST_ID + self.number
        content = self.word if self.word == "继续" else f"{self.word} {self.name}"
        self.key = f"{self.user} {created} {number}"
        self.body = (
            f"<xml><ToUserName>gh</ToUserName><FromUserName>{self.user}</FromUserName><CreateTime>{created}</CreateTime>"
            f"<MsgType>text</MsgType><Content>{content}</Content><MsgId>{number}</MsgId></xml>"
        ).encode()
