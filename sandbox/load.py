"""`python -m sandbox load`: messages arrive steadily, and are delivered and judged as WeChat does."""

import argparse
import math
import socket
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from queue import SimpleQueue
from urllib.parse import urlsplit

from sandbox.messages import text_message
from sandbox.options import add_account, read_account
from sandbox.platform import Attempt, Endpoint, Platform, is_address
from sandbox.plot import Chart, percentiles, plot_file, to_svg
from sandbox.verdict import Verdict, judge
from wechat.errors import SettingsError
from wechat.terminal import complain, localized, say

MOST_RATE = 5_000  # a second
MOST_SECONDS = 3_600
MOST_IN_FLIGHT = 2_000  # each takes a thread
ATTEMPTS = 3
USERS = 10_000
TEXTS = ["三体", "帮助", "你好"]
LATE, TOO_LATE = 0.1, 1.0  # seconds after its time: worth a warning, not sent any more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes; `run` runs it."""
    parser.add_argument("url", metavar="URL", help="where WeChat would post, like http://127.0.0.1:8080/weixin")
    add_account(parser)
    parser.add_argument("--rate", required=True, type=_number(MOST_RATE), metavar="N", help="messages a second")
    parser.add_argument("--seconds", required=True, type=_number(MOST_SECONDS), metavar="S", help="for how long")
    parser.add_argument("--text", action="append", metavar="TEXT", help="what users send, in turn; may be repeated")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw the latencies into a .svg")
    parser.add_argument("--hang-up", type=_number(60), default=5.0, metavar="S", help="default: 5 seconds, as WeChat")
    parser.add_argument("--anywhere", action="store_true", help="allow a server that is not on this machine")


def _number(most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with suppress(ValueError):
            if 0 < float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(f"{text!r}: it takes a number above 0, up to {most:,}")

    return parse


def run(options: argparse.Namespace) -> int:
    """Sends the messages and prints what came of them; 1 where a user would have seen the banner."""
    try:
        platform = Platform.of(read_account(options))
        check_target(options.url, options.anywhere)
    except (SettingsError, ValueError) as error:
        complain(error)
        return 2
    most = min(MOST_IN_FLIGHT, math.ceil(options.rate * (ATTEMPTS * options.hang_up + 1)))
    tally = Tally(options.hang_up, most)
    with _progress(tally), suppress(KeyboardInterrupt):
        Load(options, platform, tally).arrive(options.rate, options.seconds)
    tally.close()
    say(*tally.rows())
    if options.plot:
        title = f"{tally.sent:,} messages, {options.rate:g} a second: {tally.banners:,} ended in the banner"
        options.plot.write_text(to_svg(Chart(title, list(tally.latencies), options.hang_up)), "utf-8")
    return 1 if tally.banners else 0


def check_target(url: str, anywhere: bool) -> None:
    """Raises ValueError unless the URL is one to post to and, `anywhere` aside, leads to this machine alone."""
    parts = urlsplit(url)
    if not is_address(url) or not parts.hostname:
        raise ValueError(f"{url!r} is not an address: it takes one like http://127.0.0.1:8080/weixin")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{parts.hostname!r} is not found: {error}") from error
    if not anywhere and not all(ip_address(address[0]).is_loopback for *_, address in found):
        raise ValueError(
            f"{parts.hostname} is not this machine: a load test belongs on a machine of one's own, "
            "for others it is an attack. If the server is yours, add --anywhere"
        )


@dataclass
class Tally:
    """What became of the messages, for any number of threads; `hang_up` is in seconds."""

    hang_up: float
    most: int  # in flight
    sent: int = 0
    unsent: int = 0
    seconds: float = 0.0  # in which they were sent
    lateness: float = 0.0  # seconds; the most by which one started after its time
    kinds: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    over: int = 0  # attempts that were hung up on
    latencies: "array[float]" = field(default_factory=lambda: array("d"))  # seconds
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_closed: bool = False

    @property
    def banners(self) -> int:
        """How many users saw that the service is out of order."""
        return self.faults.total()

    @property
    def in_flight(self) -> int:
        """How many messages nothing is known of yet."""
        return self.sent - self.kinds.total() - self.banners

    def add(self, attempts: list[Attempt], verdict: Verdict, late: float) -> None:
        """Counts one message, unless the tally is closed."""
        with self._lock:
            if self._is_closed:
                return
            self.lateness = max(self.lateness, late)
            self.over += sum(attempt.seconds >= self.hang_up for attempt in attempts)
            if verdict.fault:
                self.faults[verdict.fault] += 1
                return
            self.kinds["success" if not verdict.reply else "direct" if len(attempts) == 1 else "later"] += 1
            self.latencies.append(attempts[-1].seconds)

    def close(self) -> None:
        """Ends the counting: what is in flight stays so."""
        with self._lock:
            self._is_closed = True

    def rows(self) -> Iterator[str]:
        """The table, a line each."""
        rate = self.sent / self.seconds if self.seconds else 0
        rows: list[tuple[str, int, str]] = [
            ("sent", self.sent, f"in {self.seconds:.1f} s, {rate:,.1f} a second"),
            ("answered directly", self.kinds["direct"], ""),
            ("on a later attempt", self.kinds["later"], ""),
            ("acknowledged: success", self.kinds["success"], ""),
            ("banner", self.banners, ""),
            *(("", count, fault) for fault, count in self.faults.most_common()),
            *([("ended before an answer", self.in_flight, "")] if self.in_flight else []),
            (f"attempts over {self.hang_up:g} s", self.over, ""),
        ]
        yield from (f"{name:24}{count:>9,}  {remark}".rstrip() for name, count, remark in rows)
        if self.latencies:
            yield f"latency of the answered attempt, in ms: {percentiles(self.latencies)}"
        if self.unsent:
            yield f"warning: {self.unsent:,} messages were not sent, as {self.most:,} were in flight or it was too late"
        if self.lateness > LATE:
            yield f"warning: messages were up to {self.lateness:.1f} s late: this machine is too slow for the rate"


class Load:
    """Sends messages when their time has come, whether or not the earlier ones are answered."""

    def __init__(self, options: argparse.Namespace, platform: Platform, tally: Tally) -> None:
        self.url, self.texts = options.url, options.text or TEXTS
        self.platform, self.tally = platform, tally
        self._free = threading.Semaphore(tally.most)
        self._queue: SimpleQueue[tuple[int, float] | None] = SimpleQueue()

    def arrive(self, rate: float, seconds: float) -> None:
        """Sends `rate` messages a second; returns when each has had its last attempt."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.tally.most)]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        for number in range(max(1, round(rate * seconds))):
            self._send(number, started + number / rate)
            self.tally.seconds = time.monotonic() - started + 1 / rate
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _send(self, number: int, due: float) -> None:
        wait = due - time.monotonic()
        time.sleep(max(0.0, wait))
        if wait > -TOO_LATE and self._free.acquire(blocking=False):
            self.tally.sent += 1
            self._queue.put((number, due))
        else:
            self.tally.unsent += 1

    def _work(self) -> None:
        while job := self._queue.get():
            self._deliver(*job)
            self._free.release()

    def _deliver(self, number: int, due: float) -> None:
        late = time.monotonic() - due
        openid = f"o{number % USERS:027}"
        push = self.platform.push(text_message(self.texts[number % len(self.texts)], openid), openid=openid)
        endpoint = Endpoint(self.url, hang_up=self.tally.hang_up, headers=self.platform.headers)
        attempts = list(endpoint.deliver(*push, ATTEMPTS))
        # Cut at the limit, so that one reason is not counted as many.
        last = attempts[-1]._replace(seconds=min(attempts[-1].seconds, self.tally.hang_up))
        self.tally.add(attempts, judge(self.platform, last, openid=openid), late)


@contextmanager
def _progress(tally: Tally) -> Iterator[None]:
    """Shows how far it is on a terminal, and nothing elsewhere."""
    is_over = threading.Event()

    def show() -> None:
        while not is_over.wait(0.2):
            line = f"{tally.sent:,} sent, {tally.in_flight:,} in flight, {tally.banners:,} with the banner"
            print(f"\r{localized(line):60}", end="", file=sys.stderr, flush=True)
        print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show if sys.stderr.isatty() else is_over.wait, daemon=True)
    thread.start()
    yield
    is_over.set()
    thread.join()
