"""Throughput over HTTP with wrk: `python wxserver.py`, and the peers under waitress with as many threads.

`python tests/bench/served.py` exits 1 where a bar is missed. All on loopback, in turn, several rounds; the figure is
the median of the rounds' ratios.
"""

import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from servers import PATH, ROOT, TOKEN

from sandbox.messages import text_message
from sandbox.platform import signed_query

ROUNDS, SECONDS, CONNECTIONS, THREADS = 5, 4, 32, 64
BARS = {"WeRoBot": 1.2, "wechatpy on Flask": 1.5, "empty": None}
FIRST_PORT = 8931


def command(name, port):
    if name == "ours":
        return [sys.executable, "wxserver.py"]
    return [sys.executable, str(Path(__file__).with_name("servers.py")), name, str(port), str(THREADS)]


def start(name, port):
    environ = {**os.environ, "WECHAT_TOKEN": TOKEN, "HOST": "127.0.0.1", "PORT": str(port), "WECHAT_MAX_AGE": "0"}
    process = subprocess.Popen(command(name, port), cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    for _ in range(200):
        time.sleep(0.05)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).close()
        except urllib.error.HTTPError:
            return process
        except OSError:
            continue
        return process
    raise SystemExit(f"{name} does not start")


LUA = """
local head, tail, number = [=[%s]=], [=[%s]=], %d
request = function()
  number = number + 1
  return wrk.format("POST", nil, {["Content-Type"] = "text/xml"}, head .. string.format("%%d", number) .. tail)
end
"""


def script():
    """What wrk sends: one text after the other, each with a MsgId of its own, as no two messages have the same."""
    body = text_message("帮助")
    head, _, tail = re.split(r"(?<=<MsgId>)(\d+)", body)
    with tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False) as file:
        file.write(LUA % (head, tail, random.randrange(2**40)))
    return file.name


def requests_per_second(port):
    lua = script()
    url = f"http://127.0.0.1:{port}{PATH}?{signed_query(TOKEN)}"
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", lua, url], capture_output=True, text=True, check=True
    )
    Path(lua).unlink()
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])


def main():
    names = ("ours", *BARS)
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    processes = [start(name, port) for name, port in ports.items()]
    rates = {name: [] for name in names}
    try:
        for _ in range(ROUNDS):
            for name, port in ports.items():
                rates[name].append(requests_per_second(port))
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    print(
        f"One text message over HTTP, wrk with {CONNECTIONS} connections, waitress with {THREADS} threads, "
        f"{ROUNDS} rounds of {SECONDS} s in turn.\n"
    )
    print("| server | requests/s, median | ours / theirs | bar |\n| --- | ---: | ---: | ---: |")
    is_good = True
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True))
        bar = BARS.get(name)
        is_good = is_good and (not bar or ratio >= bar)
        print(f"| {name} | {statistics.median(rates[name]):,.0f} | {ratio:.2f} | {bar or ''} |")
    print("\nAll bars hold." if is_good else "\nA bar is missed.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
