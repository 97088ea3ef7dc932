"""Handlers that sleep 20 ms and are not marked as slow: our workers beside waitress's own, requests/s and p99.

`python tests/bench/blocking.py` exits 1 where a bar is missed. Both run in turn, several rounds; the figure is the
median of the rounds' ratios. Fewer threads at work must cost such a handler little.
"""

import re
import statistics
import subprocess
import sys
import time
import urllib.request

from servers import ROOT  # noqa: F401, it sets the path

SLEEP, THREADS, CONNECTIONS, SECONDS, ROUNDS, FIRST_PORT = 0.02, 64, (4, 32), 3, 5, 8961
P99_BAR, RATE_BAR = 1.5, 0.85  # beside waitress's own
SIDES = ("ours", "waitress")


def serve(side, port):
    import waitress

    from wechat.workers import Workers

    def app(environ, start_response):
        time.sleep(SLEEP)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        return [b"success"]

    options = {"_dispatcher": Workers(THREADS)} if side == "ours" else {"threads": THREADS}
    waitress.create_server(app, host="127.0.0.1", port=port, **options).run()


def start(side, port):
    process = subprocess.Popen([sys.executable, __file__, side, str(port)])
    for _ in range(200):
        time.sleep(0.05)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return process
        except OSError:
            continue
    raise SystemExit(f"{side} does not start")


def measure(port, connections):
    """Requests per second, and the p99 in milliseconds."""
    options = ["-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    said = subprocess.run(["wrk", *options, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    number, unit = re.search(r"99%\s+([\d.]+)(m?s)", said.stdout).groups()
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)[1])
    return rate, float(number) * (1 if unit == "ms" else 1000)


def main():
    ports = {side: FIRST_PORT + number for number, side in enumerate(SIDES)}
    processes = [start(side, port) for side, port in ports.items()]
    is_good = True
    print("| connections | ours, requests/s | ours / waitress | p99, ms | ours / waitress |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    try:
        for connections in CONNECTIONS:
            rounds = [[measure(ports[side], connections) for side in SIDES] for _ in range(ROUNDS)]
            rates, p99s = zip(*(ours for ours, _ in rounds), strict=True)
            rate, p99 = (statistics.median(ours[at] / other[at] for ours, other in rounds) for at in (0, 1))
            is_good = is_good and rate >= RATE_BAR and p99 <= P99_BAR
            row = f"{statistics.median(rates):,.0f} | {rate:.2f} | {statistics.median(p99s):.1f} | {p99:.2f}"
            print(f"| {connections} | {row} |")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    print("\nAll bars hold." if is_good else "\nA bar is missed.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else main())
