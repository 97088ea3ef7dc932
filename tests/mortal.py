"""Servers that are to be killed, each forked from a process that has imported everything: hundreds of them are quick.

`python -m tests.mortal` starts one for each line that it reads: a JSON list of the log, the number of the operation at
which it kills itself, whether that takes effect first, and the settings.
"""

import contextlib
import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import redis  # noqa: F401, so that no server has to
import waitress.server  # noqa: F401

import wechat.store.sqlite  # noqa: F401
import wxserver
from tests.conftest import ROOT
from wechat.delivery import delivery, runner
from wechat.routing import load
from wechat.settings import read
from wechat.store.base import Store
from wechat.store.opening import open_store

HANDLERS = ROOT / "tests/mortal_handlers"


class Fate:
    """Kills the process at an operation: before it takes effect, or after that and before anybody hears of it.

    Operations count from the start on; signs of life do not.
    """

    def __init__(self, number, is_after):
        self.number, self.is_after = number, is_after
        self.count, self.lock = 0, threading.Lock()

    def do(self, what, task):
        with self.lock:
            self.count += 1
            is_last = self.count == self.number
            print(f"operation {self.count}: {what}", flush=True)
        if is_last and not self.is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = task()
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


class MortalStore(Store):
    """A store whose operations may be the last ones of the process."""

    def __init__(self, store, fate):
        super().__init__()
        self.store, self.fate = store, fate

    def get(self, key):
        return self.store.get(key)

    def linked(self, index):
        return self.store.linked(index)

    def wait(self, key, seen, seconds):
        return self.store.wait(key, seen, seconds)

    def queue(self, *changes):
        return self.store.queue(*changes)

    def finish(self, write):
        kind = write.changes[0].key.partition(":")[0]
        if kind == "alive":
            return self.store.finish(write)
        return self.fate.do(f"write {kind}", lambda: self.store.finish(write))

    def swap_soon(self, change, missed):
        self.fate.do("write message soon", lambda: self.store.swap_soon(change, missed))

    def flush(self):
        self.store.flush()

    def close(self):
        self.store.close()

    def _swap_each(self, groups):
        raise NotImplementedError


def serve(log, number, is_after, environ):
    """A server that waits for a tenth of the usual time."""
    for descriptor, file in enumerate((os.devnull, log, log)):
        os.dup2(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT), descriptor)
    logging.basicConfig(level="INFO", stream=sys.stdout)
    logging.info("pid %d", os.getpid())
    os.environ.update(environ)
    delivery.GRACE, delivery.FOLLOW_UP_AFTER, runner.FOLLOW_UP_AFTER, runner.FOLLOW_UP_AFTER_CRASH = 0.25, 0.1, 0.1, 3.0
    exec(environ.get("TUNE", ""), {})
    settings, fate = read(os.environ), Fate(number, is_after)
    store = MortalStore(open_store(settings.store, settings.account_key), fate)
    app = wxserver.Application(settings, load(HANDLERS), clock=time.time, store=store)
    once = app.api._once
    app.api._once = lambda call, *more: fate.do(f"call {call.path}", lambda: once(call, *more))
    wxserver.run(app)


def main():
    gc.collect()
    gc.freeze()  # a collection of all that was imported stops a server for 50 ms, and it waits for no more than 150
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for those that die
    for line in sys.stdin:
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                serve(*json.loads(line))
            finally:
                os._exit(1)
    os.killpg(0, signal.SIGKILL)  # no server outlives the tests


class Server:
    """A server as its log tells of it; `url` is where WeChat posts to."""

    def __init__(self, log):
        self._log, self._pid = log, 0
        self._pid = int(self._find(r"pid (\d+)"))
        self.url = self._find(r"listening on (http://\S+)")  # none where it dies before

    @property
    def operations(self):
        return re.findall(r"operation \d+: (.*)", self._log.read_text())

    @property
    def is_dead(self):
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        return False

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        while not self.is_dead:
            time.sleep(0.01)

    def _find(self, pattern, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._log.exists() and (found := re.search(pattern, self._log.read_text())):
                return found[1]
            if self._pid and self.is_dead:
                return ""
            time.sleep(0.01)
        raise AssertionError(self._log.read_text() if self._log.exists() else "no server")


class Nursery:
    """Starts servers, for many threads."""

    def __init__(self, *inside):
        command = [*inside, sys.executable, "-m", "tests.mortal"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True, start_new_session=True)
        self._lock = threading.Lock()

    def start(self, log, number=0, is_after=False, **environ):
        with self._lock:
            self._process.stdin.write(json.dumps([str(log), number, is_after, environ]) + "\n")
            self._process.stdin.flush()
        return Server(log)

    def kill(self):
        """End it with its servers, as a container that is killed."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.close()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(10)


if __name__ == "__main__":
    main()
