"""How long 继续 takes in a Redis with a million keys of others: `python tests/bench/million.py [KEYS]`.

It starts a redis-server of its own, fills it, and asks 200 times. Exits 1 where the median is over the bar.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

import redis

sys.path.insert(0, ".")

from sandbox.messages import text_message
from wechat.routing import on
from wechat.settings import read
from wxserver import Application

BAR = 5.0  # ms, of the median
PIECE = 10_000  # keys in a pipeline


def fill(client, keys):
    for begin in range(0, keys, PIECE):
        with client.pipeline(transaction=False) as pipeline:
            for number in range(begin, min(begin + PIECE, keys)):
                pipeline.set(f"wxserver:another:message:o{number:027} 1714037059 {number}", '["done"]', ex=86_400)
            pipeline.execute()


def ask(app):
    """The milliseconds that one 继续 takes."""
    content = text_message("继续").encode()
    started = time.perf_counter()
    app.delivery.answer(content)
    return (time.perf_counter() - started) * 1000


def main(keys):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        server = subprocess.Popen([shutil.which("redis-server"), *options], cwd=folder, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 50))
        fill(client, keys)
        handler = on("text")(lambda msg: "nothing waits")
        settings = read({"WECHAT_TOKEN": "testtoken", "WECHAT_STORE": f"redis://127.0.0.1:{port}/0"})
        app = Application(settings, {("text",): handler})
        taken = sorted(ask(app) for _ in range(200))
        median = statistics.median(taken)
        print(f"{client.dbsize():,} keys: 继续 takes {median:.2f} ms, at most {taken[-1]:.2f} ms; bar {BAR:g} ms")
        app.close()
        server.terminate()
        server.wait(10)
    return 0 if median <= BAR else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
