"""Throughput over HTTP with wrk: `python wxserver.py`, and the peers under waitress with as many threads.

`python tests/bench/served.py` exits 1 where a bar is missed. All on loopback, in turn, several rounds; the figure is
the median of the rounds' ratios.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import servers
from inprocess import PLAIN, SAFE
from servers import AES_KEY, APPID, PATH, ROOT, TOKEN

from sandbox.messages import text_message

ROUNDS, SECONDS, CONNECTIONS, THREADS = 5, 4, 32, 64
BARS = {"WeRoBot": 1.2, "wechatpy on Flask": 1.5, "tutorial": None, "floor": None, "empty": None}
SAFE_BARS = {"wechatpy on Flask, safe": None}
SEALED = {"WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID}
FIRST_PORT = 8931
MESSAGES = 12_000  # before the first is sent again, long after it was forgotten


def command(name, port):
    if name.startswith("ours"):
        return [sys.executable, "wxserver.py"]
    return [sys.executable, str(Path(__file__).with_name("servers.py")), name, str(port), str(THREADS)]


def start(name, port):
    environ = {**os.environ, "WECHAT_TOKEN": TOKEN, "HOST": "127.0.0.1", "PORT": str(port), "WECHAT_MAX_AGE": "0"}
    environ |= SEALED if name.endswith("safe") else {}
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
local requests, number = {}, 0
for line in io.lines("%s") do
  local query, body = line:match("^(.-)\\t(.*)$")
  table.insert(requests, wrk.format("POST", "%s?" .. query, {["Content-Type"] = "text/xml"}, body))
end
request = function()
  number = number %% #requests + 1
  return requests[number]
end
"""


def script(platform, folder):
    """What wrk sends: one text after the other, each with a MsgId of its own, as no two messages have the same."""
    lines = ["\t".join([query, body.decode()]) for query, body in pushes(platform)]
    messages, lua = Path(folder, f"{platform.mode}.txt"), Path(folder, f"{platform.mode}.lua")
    messages.write_text("\n".join(lines), "utf-8")
    lua.write_text(LUA % (messages, PATH))
    return lua


def pushes(platform):
    return (platform.push(text_message("帮助")) for _ in range(MESSAGES))


def requests_per_second(port, lua):
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", lua, f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])


def rates(names, lua):
    """For each of the servers the requests per second in each round."""
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    processes = [start(name, port) for name, port in ports.items()]
    found = {name: [] for name in names}
    try:
        for _ in range(ROUNDS):
            for name, port in ports.items():
                found[name].append(requests_per_second(port, lua))
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return found


def print_table(title, found, bars):
    """One row for each server, with the median of the rounds' ratios; says whether all bars hold."""
    base, *_ = found
    print(f"\n| {title} | requests/s, median | {base} / it | bar |\n| --- | ---: | ---: | ---: |")
    is_good = True
    for name, rounds in found.items():
        ratio = statistics.median(a / b for a, b in zip(found[base], rounds, strict=True))
        bar = bars.get(name)
        is_good = is_good and (not bar or ratio >= bar)
        print(f"| {name} | {statistics.median(rounds):,.0f} | {ratio:.2f} | {bar or ''} |")
    return is_good


def main():
    print(
        f"One text message over HTTP, wrk with {CONNECTIONS} connections, waitress with {THREADS} threads, "
        f"{ROUNDS} rounds of {SECONDS} s in turn."
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = rates(("ours", *BARS), script(PLAIN, folder))
        safe = rates(("ours, safe", *SAFE_BARS), script(SAFE, folder))
    is_good = print_table("plain mode, our log on", plain, BARS)
    is_good &= print_table("safe mode, our log on", safe, SAFE_BARS)
    servers.keep("over HTTP, requests per second", {name: statistics.median(rounds) for name, rounds in plain.items()})
    print("\nAll bars hold." if is_good else "\nA bar is missed.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
