"""The faults, which strike at any step of a task."""


class Trouble:
    """What is wrong just now with the processes, the store and the platform."""

    def __init__(self, simulation):
        self._simulation, self._random = simulation, simulation.random
        self._left = simulation.plan.strikes
        self.odds = simulation.plan.odds if self._left else 0.0
        self._until = {}  # when a fault that lasts ends, by its name and whom it is about
        self._next_in_store, self._next_at_platform = {}, []
        self._refused = {}

    def end(self):
        """From now on all is well."""
        self.odds = 0.0
        self._until, self._next_in_store, self._next_at_platform, self._refused = {}, {}, [], {}

    def strike(self, process):
        """Have a fault strike, most of the time where it happens."""
        self._left -= 1
        if not self._left:
            self.odds = 0.0
        others = self._simulation.alive()
        if others and self._random.random() < 0.2:
            process = self._random.choice(others)
        name = self._random.choice(self._simulation.plan.faults)
        getattr(self, f"_{name}")(process)

    def _say(self, text):
        self._simulation.say(f"FAULT {text}")

    def _last(self, name, about, *seconds):
        for_ = self._random.choice(seconds)
        self._say(f"{name} {about or ''} for {for_} s")
        self._until[name, about] = self._simulation.scheduler.now + for_

    def _is_on(self, name, about=None):
        return self._until.get((name, about), 0.0) > self._simulation.scheduler.now

    # Processes

    def _crash(self, process):
        self._simulation.crash(process)

    def _freeze(self, process):
        self._simulation.freeze(process, self._random.choice([1, 3, 8, 14, 16, 20, 33, 60]))

    def _jump(self, process):
        seconds = self._random.choice([-86_400, -3600, -60, 60, 3600, 86_400])
        for other in self._random.choice([[process], self._simulation.alive()]):
            self._say(f"the wall clock of {other.name} jumps by {seconds} s")
            other.wall += seconds

    # The store

    def _store_slow(self, process):
        self._last("store_slow", None, 1, 5, 20)

    def _store_away(self, process):
        self._last("store_away", None, 0.3, 2, 8, 20)

    def _store_away_for_one(self, process):
        self._last("store_away", process.name, 0.3, 2, 8, 20)

    def _store_lose(self, process):
        self._next_in_store[process.name] = self._random.choice(["lost", "lost", "late", "away"])

    def of_store(self, process):
        """What is wrong with an operation, and the seconds that it takes."""
        if not self._until and not self._next_in_store:
            return None, 0
        if self._is_on("store_away") or self._is_on("store_away", process.name):
            return "away", self._random.choice([0, 0, 0.5])
        fault = self._next_in_store.pop(process.name, None)
        if fault:
            self._say(f"an operation of {process.name} is {fault}")
        return fault, self._random.random() * 0.6 if self._is_on("store_slow") else 0

    # The platform

    def _slow(self, process):
        self._last("slow", None, 5, 20)

    def _away(self, process):
        self._last("away", None, 1, 5, 20, 40)

    def _busy(self, process):
        self._last("busy", None, 1, 5, 20)

    def _lose(self, process):
        self._next_at_platform.append("lost")

    def _refuse(self, process):
        user, seconds = self._random.choice(["u0", "u1"]), self._random.choice([1, 10, 100])
        self._say(f"{user} is refused for {seconds} s")
        self._refused[user] = self._simulation.scheduler.now + seconds

    def _forbid(self, process):
        self._last("forbid", None, 1, 10, 100)

    def _distrust(self, process):
        self._last("distrust", None, 1, 10, 100)

    def _token(self, process):
        is_old_given = self._random.random() < 0.5
        self._say(f"the token counts no more, and is {'still' if is_old_given else 'not'} given")
        self._simulation.platform.spoil_token(is_old_given)

    def of_platform(self):
        """What is wrong with a call, and the seconds that it takes."""
        if not self._until and not self._next_at_platform:
            return None, 0
        if self._is_on("away"):
            return "away", self._random.choice([0, 1, 10])
        seconds = self._random.choice([1, 4, 8, 12]) if self._is_on("slow") else 0
        if self._is_on("busy"):
            return "busy", seconds
        if self._next_at_platform:
            self._say("an answer of the platform is lost")
            return self._next_at_platform.pop(), seconds
        return None, seconds

    def is_distrusted(self):
        """Whether the platform has not the server's address on its list."""
        return self._is_on("distrust")

    def refusal_of(self, openid):
        """The errcode for a message to this user."""
        if self._is_on("forbid"):
            return 48001
        return 45015 if self._refused.get(openid, 0.0) > self._simulation.scheduler.now else 0
