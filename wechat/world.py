"""Time and threads, as a parameter: those of the machine, or those of a simulation."""

import threading
import time
from collections.abc import Callable


class World:
    """What the code takes from the machine; a simulation hands in its own."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    lock = staticmethod(threading.Lock)
    event = staticmethod(threading.Event)

    def start(self, task: Callable[[], None], name: str) -> None:
        """Run the task in a thread of its own, which does not keep the process alive."""
        threading.Thread(target=task, name=name, daemon=True).start()


REAL = World()
