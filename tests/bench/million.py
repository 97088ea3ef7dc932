"""What a fast message and 继续 take as a store grows: `python tests/bench/million.py [KEYS ...]`.

Each store gets 10,000, 100,000 and a million records of other messages, or so many as are given. Redis is a server of
its own. The figure is the median of 200 in one thread, in process. Exits 1 where one is over the bar.
"""

import statistics
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from stores import redis_server

sys.path.insert(0, ".")

from sandbox.messages import text_message
from wechat.routing import on
from wechat.settings import read
from wechat.store.opening import open_store
from wechat.store.writes import Change
from wxserver import Application

BAR = 5.0  # ms
PIECE = 250  # keys in a write; more would be given up after half a second on a busy machine
VALUE = '{"state": "done", "document": "%s"}' % ("x" * 300)


def fill(url, begin, end):
    with closing(open_store(url, "another")) as store:
        for first in range(begin, end, PIECE):
            numbers = range(first, min(first + PIECE, end))
            store.swap(
                *(Change(f"message:o{number:027} 1714037059 {number}", ..., VALUE, 86_400) for number in numbers)
            )


def milliseconds(app, content):
    """What one message takes."""
    body = text_message(content).encode()
    started = time.perf_counter()
    app.delivery.answer(body)
    return (time.perf_counter() - started) * 1000


def measure(name, url, sizes):
    """A line for each size; gives the longest of the medians."""
    handler, before, longest = on("text")(lambda msg: "nothing waits"), 0, 0.0
    for size in sizes:
        fill(url, before, size)
        before = size
        app = Application(read({"WECHAT_TOKEN": "testtoken", "WECHAT_STORE": url}), {("text",): handler})
        taken = {content: sorted(milliseconds(app, content) for _ in range(200)) for content in ("fast", "继续")}
        app.close()
        fast, fetch = map(statistics.median, taken.values())
        longest = max(longest, fast, fetch)
        print(f"| {name} | {size:,} | {fast:.2f} | {fetch:.2f} |", flush=True)
    return longest


def main(sizes):
    print("| store | other keys | fast message, ms | 继续, ms |\n| --- | ---: | ---: | ---: |")
    with TemporaryDirectory() as folder, redis_server(folder) as port:
        redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50)).ping()
        longest = measure("sqlite", f"sqlite:{Path(folder, 'store.db')}", sizes)
        longest = max(longest, measure("redis", f"redis://127.0.0.1:{port}/0", sizes))
    return 1 if longest > BAR else 0


if __name__ == "__main__":
    sys.exit(main(list(map(int, sys.argv[1:])) or [10_000, 100_000, 1_000_000]))
