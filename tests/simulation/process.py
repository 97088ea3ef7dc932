"""A process of the server: the real code, in a simulated world."""

from tests.simulation.loop import SimulatedLoop
from tests.simulation.platform import SimulatedTransport
from tests.simulation.scheduler import Event, SimulatedWorld
from tests.simulation.store import Shelf, SimulatedStore
from wechat.delivery.answering import Answering
from wechat.delivery.delivery import Delivery
from wechat.delivery.ledger import Ledger
from wechat.delivery.outbox import Outbox
from wechat.delivery.sessions import Sessions
from wechat.errors import StoreError
from wechat.platform.api import Api
from wechat.store.owners import Heartbeat, Owners


class Parts:
    """The classes that a process is put together from; an old fault puts another one in."""

    Owners, Ledger, Outbox, Sessions, Answering, Delivery = Owners, Ledger, Outbox, Sessions, Answering, Delivery


class Identity:
    """The name of a process, and which others have ended, where it can look."""

    def __init__(self, simulation, name):
        self._simulation, self.name = simulation, name

    def has_ended(self, owner):
        """Whether the process is one that can be looked at, and is gone."""
        return self._simulation.plan.is_near and self._simulation.processes[owner].is_dead


class Process:
    """One process, from its start to its crash. `name` is that of its owner in the store."""

    def __init__(self, simulation, number):
        self._simulation, self._scheduler = simulation, simulation.scheduler
        self.name = f"p{number}"
        self.uptime = 1_000.0 * number  # no two machines were started at the same time
        self.wall = simulation.wall  # the seconds since 1970 at the schedule's beginning, by its own clock
        self.booted_at, self.died_at = self._scheduler.now, None
        self.locks = 0  # that are taken
        self.answers = 0  # of the store
        self.frozen = 0  # how many freezes hold it
        self._held_back = []
        self._connections = []
        self.store = self.delivery = None  # until it has started
        self.loop = SimulatedLoop(simulation, self)
        self.world = SimulatedWorld(self._scheduler, self)

    @property
    def is_dead(self):
        return self.died_at is not None

    def clock(self):
        """The wall clock of its machine."""
        return self.wall + self._scheduler.now

    def start(self, parts, shelf):
        """Put the parts together, as the application does; raises StoreError."""
        simulation, plan, world = self._simulation, self._simulation.plan, self.world
        store = SimulatedStore(simulation, self, shelf)
        store.delete("")
        owners = parts.Owners(store, world, lambda: Identity(simulation, self.name))
        owners.clock = self.clock  # for the old fault that went by it
        settings, is_shared = plan.settings, not plan.is_memory
        api = Api(settings, store, owners, self.clock, world, lambda _: SimulatedTransport(simulation, self))
        ledger = parts.Ledger(store, owners, is_shared, 2 * settings.max_age, world)
        outbox = parts.Outbox(settings, api, ledger, store, world)
        sessions = parts.Sessions(store, owners)
        answering = parts.Answering(simulation.router, api, sessions, self.loop)
        delivery = parts.Delivery(settings, answering, ledger, outbox, self.clock, world)
        if is_shared:
            owners.show_life()
            heartbeat = Heartbeat(owners, delivery.look_after, delivery.begin, world)
            self._scheduler.spawn(self, heartbeat.beat).is_at_work = False
        self.store, self.ledger, self.delivery = store, ledger, delivery

    def receive(self, letter):
        """What it answers to an attempt within WeChat's five seconds; None for no answer."""
        answered, box = Event(self._scheduler), []
        self._simulation.watch.lanes.arrived(letter, self)

        def prepare():
            announced = self.delivery.announce(letter.body)
            if letter.number % 2:
                work(announced)
            else:  # as where several wait: one worker queues their records, and any goes on
                self.store.flush()
                self._scheduler.spawn(self, lambda: work(announced)).letter = letter

        def work(announced):
            box.append(self.delivery.go_on(announced))
            self._simulation.watch.gave(letter, box[0], self)
            answered.set()

        self._connections.append(answered)
        self._scheduler.spawn(self, prepare).letter = letter
        answered.wait(5)
        return box[0] if box else None

    # What befalls it

    def crash(self):
        """End here and now. Whoever is connected to it learns of that."""
        self.died_at = self._scheduler.now
        for connection in self._connections:
            connection.set()

    def holds_back(self, task):
        """Whether the task may not run now, as the process stands still."""
        if self.frozen:
            self._held_back.append(task)
        return bool(self.frozen)

    def freeze(self, seconds):
        """Stand still for so long; the clocks go on."""
        self.frozen += 1
        self._scheduler.spawn(None, lambda: self._thaw_after(seconds))

    def _thaw_after(self, seconds):
        self._scheduler.sleep(seconds)
        self.frozen -= 1
        if not self.frozen:
            for task in self._held_back:
                self._scheduler.make_ready(task)
            self._held_back = []


def start(simulation, number, parts, shelf):
    """Start a process, again and again until the store answers."""
    while True:
        process = Process(simulation, number)
        simulation.processes[process.name] = process
        try:
            process.start(parts, shelf or Shelf(simulation))
            return
        except StoreError:
            process.crash()
            number = simulation.next_number()
            simulation.scheduler.sleep(1)
