"""Ours behind nginx, as docs/deploy.md has it: one and two processes on each store, as shares of an empty waitress app.

`python tests/bench/nginx.py`: wrk keeps 16 connections busy, the log is on, each has the site of `deploy/nginx.conf`
without its TLS. They take turns in short rounds. There is no bar but that every message gets its answer.
"""

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from servers import ROOT
from stores import CONNECTIONS, ROUNDS, SECONDS, redis_server, run, script, serving, share

FIRST_PORT = 9061
# Name, store and number of processes; memory cannot be shared.
SET_UPS = {
    "empty": ("", 1),
    "memory": ("memory:", 1),
    "sqlite, 1 process": ("sqlite:{folder}/one.db", 1),
    "sqlite, 2 processes": ("sqlite:{folder}/two.db", 2),
    "redis, 1 process": ("redis://127.0.0.1:{redis}/1", 1),
    "redis, 2 processes": ("redis://127.0.0.1:{redis}/2", 2),
}
NGINX = """
daemon off; pid nginx.pid; worker_processes 1;
events {}
http {
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""


@contextmanager
def nginx(folder, port, ports):
    """nginx at this port, in front of one or two others."""
    folder.mkdir()
    site = re.sub(r"^ *ssl_.*\n", "", (ROOT / "deploy/nginx.conf").read_text("utf-8"), flags=re.MULTILINE)
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("server_name your.host", "server_name localhost"),
        ("/var/log/nginx/", f"{folder}/"),
        ("127.0.0.1:8081", f"127.0.0.1:{ports[0]}"),
        ("127.0.0.1:8082", f"127.0.0.1:{ports[-1]}"),
    ):
        site = site.replace(old, new)
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(NGINX)
    process = subprocess.Popen(["nginx", "-p", folder, "-c", "nginx.conf", "-e", "main.log"], cwd=folder)
    try:
        for _ in range(100):
            time.sleep(0.05)
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
        yield
    finally:
        process.terminate()
        process.wait()


def measure():
    """The rounds of each set-up."""
    found, places = {name: [] for name in SET_UPS}, {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        lua, redis_port = Path(folder, "push.lua"), stack.enter_context(redis_server(folder))
        for number, (name, (url, count)) in enumerate(SET_UPS.items()):
            front, *ports = range(FIRST_PORT + 3 * number, FIRST_PORT + 3 * number + 1 + count)
            store = url.format(folder=folder, redis=redis_port)
            pids = [stack.enter_context(serving(name, store, port)) for port in ports]
            stack.enter_context(nginx(Path(folder, f"nginx{number}"), front, ports))
            places[name] = front, pids
        for number in range(ROUNDS + 1):
            lua.write_text(script(number), "utf-8")
            for name, place in places.items():
                found[name].append(run(*place, str(lua)))
    return {name: rounds[1:] for name, rounds in found.items()}  # the first one warms up


def main():
    found = measure()
    print(f"wrk with {CONNECTIONS} connections through nginx, {ROUNDS} rounds of {SECONDS} s in turn, log on.\n")
    print("| behind nginx | requests/s | of the empty app | p50, ms | p99, ms | CPU a message, µs |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in found.items():
        rate, p50, p99, used = map(statistics.median, zip(*rounds, strict=True))
        print(f"| {name} | {rate:,.0f} | {share(found, name, 'empty'):.2f} | {p50:.1f} | {p99:.1f} | {used:,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
