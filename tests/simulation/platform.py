"""The platform: it takes customer messages, hands out tokens, and fails in the ways that are known."""

import json
from contextlib import contextmanager
from urllib.parse import parse_qs

from tests.simulation.scheduler import Event
from wechat.errors import TransportError

LATENCIES = (0, 0, 1 / 8, 1 / 2)  # seconds that a call takes, when all is well


class Answer:
    """A response, as `wechat.platform.transport.HttpResponse` is one."""

    status = 200

    def __init__(self, what, body):
        self.what, self._body = what, json.dumps(body).encode()

    def read(self, most):
        return self._body


class SimulatedTransport:
    """A process's way to the platform."""

    def __init__(self, simulation, process):
        self._simulation, self._process = simulation, process

    @contextmanager
    def open(self, method, target, body, headers, timeout, *_):
        path, _, query = target.partition("?")
        yield Answer(path, self._exchange(Request(self._process, path, query, body), timeout))

    def close(self):
        pass

    def _exchange(self, request, timeout):
        simulation = self._simulation
        simulation.watch.calls(self._process)
        simulation.step(self._process, 2.0)
        fault, seconds = simulation.trouble.of_platform()
        if fault == "away":
            simulation.scheduler.sleep(min(seconds, timeout))
            raise TransportError(request.path)
        answered = Event(simulation.scheduler)
        simulation.scheduler.spawn(None, lambda: simulation.platform.serve(request, answered, fault, seconds))
        if not answered.wait(timeout) or fault == "lost":
            request.is_lost = True
            raise TransportError(request.path)
        simulation.watch.words.answered(request)
        simulation.step(self._process, 2.0)
        return request.answer


class Request:
    """One call. What is lost is its answer; the platform may have done what was asked."""

    is_lost = False
    answer = None

    def __init__(self, process, path, query, body):
        self.process, self.path, self.query = process, path, parse_qs(query)
        self.body = json.loads(body) if body else {}

    @property
    def text(self):
        """What a customer message shows: its text, or its picture."""
        return self.body[self.body["msgtype"]].get("content") or self.body[self.body["msgtype"]]["media_id"]


class Platform:
    """Whether a call carries the right token, may be made, and what it does."""

    def __init__(self, simulation):
        self._simulation = simulation
        self._number = 1  # of the token that counts
        self._is_old_given = False  # whether the one that does not count is still handed out

    def spoil_token(self, is_old_given):
        """Somebody else had a token forced: the one that is in use counts no more."""
        self._number += 1
        self._is_old_given = is_old_given

    def serve(self, request, answered, fault, seconds):
        """Take a call, and answer it."""
        scheduler = self._simulation.scheduler
        seconds += scheduler.random.choice(LATENCIES)
        if seconds:
            scheduler.sleep(seconds / 2)
        request.answer = {"errcode": -1} if fault == "busy" else self._do(request)
        if seconds:
            scheduler.sleep(seconds / 2)
        answered.set()

    def _do(self, request):
        if request.path.endswith("stable_token"):
            return self._give_token(request.body["force_refresh"])
        is_send = request.path.endswith("custom/send")
        errcode = self._simulation.trouble.refusal_of(request.body["touser"] if is_send else "")
        if request.query["access_token"] != [f"token{self._number}"]:
            errcode = 40001
        if not is_send:
            pass
        elif errcode:
            self._simulation.watch.refused(request)
        else:
            self._simulation.watch.accepted(request)
        return {"errcode": errcode}

    def _give_token(self, is_forced):
        if self._simulation.trouble.is_distrusted():
            return {"errcode": 40164}
        if is_forced:
            self._is_old_given = False
        return {"access_token": f"token{self._number - self._is_old_given}", "expires_in": 7200}
