"""What a store costs: ours served on each, as shares of an empty waitress app with as many threads, and beside WeRoBot.

`python tests/bench/stores.py` exits 1 where a bar is missed; names of stores behind it choose some. wrk keeps 16
connections busy, the log is on. The servers take turns in short rounds; a share is the median of the rounds' ratios.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from inprocess import PLAIN
from served import THREADS, start
from servers import PATH

from sandbox.messages import text_message

ROUNDS, SECONDS, CONNECTIONS, FIRST_PORT = 7, 2, 16, 9031
MOST = 1_000_000  # messages in a round; no two of all rounds have one MsgId, as a store would know the second
BARS = {"memory": 0.9, "sqlite": 0.45, "redis": 0.5}
MOST_P99 = {"sqlite": 30.0}  # ms
PEERS = ("empty", "WeRoBot")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

LUA = """
local number = %d
local start = "POST %s&openid=o"
local head = " HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: text/xml\\r\\nContent-Length: %d\\r\\n\\r\\n"
local before, after = %s, %s
request = function()
  number = number + 1
  return start .. number %% 64 .. head .. before .. string.format("%%019d", number) .. after
end
"""


class Round(NamedTuple):
    """What wrk saw of a server: requests per second, milliseconds, and the server's CPU per request."""

    rate: float
    p50: float
    p99: float
    microseconds: float


def script(number):
    """What wrk sends in this round: one text after the other, each with a MsgId of its own, of 64 users in turn."""
    query, body = PLAIN.push(text_message("帮助"))
    before, after = re.split(r"(?<=<MsgId>)\d+(?=</MsgId>)", body.decode())
    length = len(body) + 19 - len(re.search(rb"<MsgId>(\d+)<", body)[1])
    return LUA % (number * MOST, f"{PATH}?{query}", length, f"[==[{before}]==]", f"[==[{after}]==]")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def run(port, pids, lua):
    """One round against the processes behind this port."""
    before = sum(map(cpu_seconds, pids))
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", lua, f"http://127.0.0.1:{port}"]
    said = subprocess.run(["wrk", *options], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    used, requests = sum(map(cpu_seconds, pids)) - before, int(re.search(r"(\d+) requests in", said)[1])
    p50, p99 = (milliseconds(re.search(rf"^\s+{percent}%\s+(\S+)", said, re.MULTILINE)[1]) for percent in (50, 99))
    return Round(float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), p50, p99, used / requests * 1e6)


@contextmanager
def redis_server(folder):
    """The port of a redis-server of its own, without a file."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(["redis-server", *options], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def serving(name, url, port):
    """The process of a peer, or of ours on the store at this URL."""
    os.environ["WECHAT_STORE"] = url
    process = start("ours" if url else name, port)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def measure(names):
    """The rounds of each server."""
    found = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lua = Path(folder, "push.lua")
        redis_port = stack.enter_context(redis_server(folder))
        urls = {
            "memory": "memory:",
            "sqlite": f"sqlite:{folder}/store.db",
            "redis": f"redis://127.0.0.1:{redis_port}/0",
        }
        ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
        pids = {name: stack.enter_context(serving(name, urls.get(name, ""), ports[name])) for name in names}
        for number in range(ROUNDS + 1):
            lua.write_text(script(number), "utf-8")
            for name in names:
                found[name].append(run(ports[name], [pids[name]], str(lua)))
    return {name: rounds[1:] for name, rounds in found.items()}  # the first one warms up


def share(found, name, of):
    return statistics.median(a.rate / b.rate for a, b in zip(found[name], found[of], strict=True))


def faults(found):
    """What misses its bar."""
    for name in found:
        if share(found, name, "empty") < BARS.get(name, 0):
            yield f"{name} has less than {BARS[name]} of an empty app"
        if statistics.median(one.p99 for one in found[name]) > MOST_P99.get(name, 1e9):
            yield f"{name} has a p99 above {MOST_P99[name]:g} ms"
    if "redis" in found and share(found, "redis", "WeRoBot") < 1:
        yield "redis is slower than WeRoBot, which has no store"


def main(chosen):
    found = measure([*PEERS, *(name for name in BARS if name in chosen or not chosen)])
    print(f"wrk with {CONNECTIONS} connections, {THREADS} threads, {ROUNDS} rounds of {SECONDS} s in turn, log on.\n")
    print("| store | requests/s | of the empty app | of WeRoBot | p50, ms | p99, ms | CPU a message, µs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in found.items():
        rate, p50, p99, used = map(statistics.median, zip(*rounds, strict=True))
        shares = f"{share(found, name, 'empty'):.2f} | {share(found, name, 'WeRoBot'):.2f}"
        print(f"| {name} | {rate:,.0f} | {shares} | {p50:.1f} | {p99:.1f} | {used:,.0f} |")
    missed = list(faults(found))
    print("", *missed or ["All bars hold."], sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
