"""Hours of one server in half of one: `python tests/bench/soak.py STORE [--minutes 30] [--push]`.

`python -m sandbox load` sends quick, slow and failing messages, with retries, while the server's memory, threads and
open files are looked at. Exits 1 where a user would have seen the banner, or where one of the three grew.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from wsgiref.simple_server import make_server

from footprint import megabytes
from servers import APPID, PATH, ROOT, TOKEN
from slow import SECRET, Quiet, start_ours

from sandbox.cloud import Cloud

HANDLERS = Path(__file__).with_name("soak_handlers")
RATE = 40  # messages a second
TEXTS = ["你好"] * 34 + ["slow 6"] * 3 + ["slow 12", "boom", "继续"]
SETTLED = 0.2  # of the time, after which nothing may grow
MORE, SLACK = 1.1, 8  # times what it was then, and a few: connections are kept, and closed again
LOOKS = 30


def serve_cloud():
    """The stand-in for the platform; gives the settings for it."""
    cloud = make_server("127.0.0.1", 0, Cloud(APPID, SECRET), handler_class=Quiet)
    threading.Thread(target=cloud.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{cloud.server_port}"
    return {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_MODE": "plain", "WECHAT_API_URL": url}


def look(pid):
    """Memory in MB, threads, open files."""
    return round(megabytes(pid), 1), len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def load(port, seconds):
    texts = [part for text in TEXTS for part in ("--text", text)]
    url = f"http://127.0.0.1:{port}{PATH}"
    command = [sys.executable, "-m", "sandbox", "load", url, "--token", TOKEN, "--rate", str(RATE), *texts]
    return subprocess.Popen([*command, "--seconds", str(seconds)], cwd=ROOT)


def watch(pid, seconds):
    """A line of the table for each look; gives what there was, in order."""
    print("| minute | MB | threads | open files |\n| ---: | ---: | ---: | ---: |")
    seen, started = [], time.monotonic()
    for number in range(LOOKS + 1):
        time.sleep(max(0, started + seconds * number / LOOKS - time.monotonic()))
        seen.append(look(pid))
        print(f"| {seconds * number / LOOKS / 60:.1f} | {' | '.join(map(str, seen[-1]))} |", flush=True)
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", metavar="STORE", help="a WECHAT_STORE")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--push", action="store_true", help="with customer messages")
    parser.add_argument("--port", type=int, default=8971)
    options = parser.parse_args()
    seconds = options.minutes * 60
    environ = {"WECHAT_STORE": options.store, **(serve_cloud() if options.push else {})}
    server = start_ours(options.port, HANDLERS, **environ)
    sending = load(options.port, seconds)
    try:
        seen = watch(server.pid, seconds)
        status = sending.wait()
        settled = seen[round(LOOKS * SETTLED)]
        has_grown = any(last > first * MORE + SLACK for first, last in zip(settled, seen[-1], strict=True))
    finally:
        server.terminate()
        ended = server.wait(60)
    print(f"\nload ended with {status}, the server with {ended}, {'something grew' if has_grown else 'nothing grew'}.")
    return 1 if status or ended or has_grown else 0


if __name__ == "__main__":
    sys.exit(main())
