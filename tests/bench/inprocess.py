"""What one text message costs inside the process, beside the peers, and with more and more handlers.

`python tests/bench/inprocess.py` exits 1 where a bar is missed. All sides run in turn, many short rounds, so that a
noisy machine is noisy for everybody; the figure is the median of the rounds' ratios.
"""

import io
import math
import os
import shutil
import statistics
import sys
import tempfile
import timeit
from base64 import b64decode
from pathlib import Path

import servers
from servers import AES_KEY, APPID, PATH, TOKEN

from sandbox.messages import text_message
from sandbox.platform import Platform
from wechat.log import collect_less, configure
from wechat.routing import on, prepare
from wxserver import Application

ROUNDS, CALLS = 41, 200
BARS = {"WeRoBot": 0.55, "wechatpy on Flask": 0.30, "floor": 1.75}
LOGGED_BARS = {"floor": 2.1}
SAFE_BARS = {"wechatpy on Flask, safe": 0.50}
AROUND = """
from wechat.routing import around
@around("image")
def outer(msg, answer): return answer()
"""
HANDLERS_BARS = {"10,000 handlers": 1.1, "1,000 handlers": 1.1, "10 handlers": 1.1}
PLAIN = Platform(TOKEN)
SAFE = Platform(TOKEN, "safe", b64decode(AES_KEY + "="), APPID)


def environ_for(query, body):
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": PATH,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "text/xml",
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8080",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def caller(app, platform=PLAIN):
    """A function that pushes one text after the other, each with a MsgId of its own."""
    # Sealing costs more than what is measured, so it is done before; more than are used in all rounds.
    pushes = iter([platform.push(text_message("你好")) for _ in range((ROUNDS + 2) * CALLS)])

    def call():
        query, body = next(pushes)
        return b"".join(app(environ_for(query, body), lambda status, headers, *_: None))

    assert "你好" in platform.open(call()), call()
    return call


def microseconds(calls):
    """For each of the named calls the time of one call, in each round."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(timeit.timeit(call, number=CALLS) / CALLS * 1e6)
    return times


def with_handlers(count):
    """Our application with so many exact handlers beside the one that answers."""
    settings, routes = prepare({"WECHAT_TOKEN": TOKEN}, servers.HANDLERS)

    def other(msg):
        return "other"

    for number in range(count):
        on("text", f"word {number}")(other)
        routes["text", f"word {number}"] = other
    del other.wechat_marks
    return Application(settings, routes)


def with_around():
    """Our application, with an `@around` for messages of another kind than the one that is answered."""
    with tempfile.TemporaryDirectory() as folder:
        handlers = shutil.copytree(servers.HANDLERS, Path(folder) / "handlers")
        (handlers / "outer.py").write_text(AROUND)
        return Application(*prepare({"WECHAT_TOKEN": TOKEN}, handlers))


def print_table(title, times, base, bars):
    """One row for each side, with the median of the rounds' ratios; says whether all bars hold."""
    is_good = True
    print(f"\n| {title} | µs, median | {base} / it | bar |\n| --- | ---: | ---: | ---: |")
    for name, rounds in times.items():
        ratio = statistics.median(a / b for a, b in zip(times[base], rounds, strict=True))
        is_good = is_good and ratio <= bars.get(name, math.inf)
        print(f"| {name} | {statistics.median(rounds):.1f} | {ratio:.2f} | {bars.get(name, '')} |")
    return is_good


def main():
    print(f"One text message in process, {ROUNDS} rounds of {CALLS} calls each, in turn.")
    sides = ("ours", *BARS, "tutorial")
    plain = microseconds({name: caller(servers.SERVERS[name]()) for name in sides})
    servers.keep("in process, microseconds", {name: statistics.median(rounds) for name, rounds in plain.items()})
    is_good = print_table("plain mode, no log, as the peers", plain, "ours", BARS)
    sealed = {name: caller(servers.SERVERS[name](), SAFE) for name in ("ours, safe", *SAFE_BARS)}
    is_good &= print_table("safe mode, no log", microseconds(sealed), "ours, safe", SAFE_BARS)
    counts = {f"{count:,} handlers": caller(with_handlers(count)) for count in (10_000, 1_000, 10)}
    is_good &= print_table("exact handlers", microseconds(counts), "10,000 handlers", HANDLERS_BARS)
    wrapped = {"no @around": caller(with_handlers(10)), "an @around of pictures": caller(with_around())}
    print_table("`@around`, where it is not used", microseconds(wrapped), "no @around", {})
    configure("info", stream=open(os.devnull, "w"))  # noqa: SIM115
    collect_less()
    logged = microseconds({name: caller(servers.SERVERS[name]()) for name in sides})
    is_good &= print_table("plain mode, our log on; the peers have none", logged, "ours", LOGGED_BARS)
    print("\nAll bars hold." if is_good else "\nA bar is missed.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
