"""`python -m tests.bench.dripping [SOCKETS] [SECONDS]`: what a push waits while slow clients hold all connections.

A thousand sockets drip one byte a second, of a head, a body or a chunk, or say nothing at all, or ask once and keep the
connection; each that the server closes comes again. Exit status 1 where a push is not answered within a second.
"""

import itertools
import resource
import socket
import statistics
import sys
import threading
import time
from contextlib import suppress

from tests.conftest import Process
from tests.fuzz.hostile import push

BAR = 1.0  # seconds
TICK = 0.02  # seconds between two handfuls of sockets
KINDS = (
    (b"", b"GET /weixin HTTP/1.1\r\nX: " + b"x" * 3600),
    (b"POST /weixin HTTP/1.1\r\nContent-Length: 4000\r\n\r\n", b"x" * 3600),
    (b"POST /weixin HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 600),
    (b"", b""),
    (b"GET /healthz HTTP/1.1\r\n\r\n", b""),
)


class Slow:
    """A client that sends the first bytes at once, and then one at a time; it never reads."""

    def __init__(self, port, first, rest):
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.settimeout(0.5)  # where the server does not accept, the others go on
        self.rest = iter(rest)
        with suppress(OSError):
            self.connection.connect(("127.0.0.1", port))
            self.connection.sendall(first)

    def drip(self):
        """Sends a byte; whether the connection is still there."""
        byte = next(self.rest, None)
        try:
            self.connection.settimeout(0)
            return byte is None or bool(self.connection.send(bytes([byte])))
        except BlockingIOError:
            return True
        except OSError:
            self.connection.close()
            return False


class Crowd:
    """So many slow clients, in a thread; `closed` of them were closed by the server, and came again."""

    def __init__(self, port, count, kinds=KINDS):
        allow_open_files()
        self.port, self.count, self.closed = port, count, 0
        self.kinds, self.is_over = itertools.cycle(kinds), threading.Event()
        self.is_there = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.is_there.wait(30)
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.thread.join(10)

    def _work(self):
        clients = [Slow(self.port, *next(self.kinds)) for _ in range(self.count)]
        self.is_there.set()
        handful = max(int(self.count * TICK), 1)
        for place in itertools.count(step=handful):
            for number in range(place, place + handful):
                number %= self.count
                if not clients[number].drip():
                    self.closed += 1
                    clients[number] = Slow(self.port, *next(self.kinds))
            if self.is_over.wait(TICK):
                break
        for client in clients:
            client.connection.close()


def allow_open_files():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def waits(port, seconds):
    """How long each push waits for its answer, two a second; None where it gets none."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        answer, took = push(port)
        found.append(took if "三体" in answer else None)
        time.sleep(0.5)
    return found


def main(sockets="1000", seconds="30"):
    server = Process()
    try:
        with Crowd(server.port, int(sockets)) as crowd:
            found = waits(server.port, float(seconds))
    finally:
        server.stop()
    answered = [took for took in found if took is not None]
    print(f"{sockets} slow clients for {seconds} s, {crowd.closed} times closed by the server")
    print(f"{len(found)} signed pushes, {len(found) - len(answered)} without an answer")
    print(f"median {statistics.median(answered) * 1000:.0f} ms, longest {max(answered) * 1000:.0f} ms")
    print(*[line for line in server.lines if "connections" in line], sep="\n")
    return 0 if len(answered) == len(found) and max(answered) < BAR else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
