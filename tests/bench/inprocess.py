"""What one text message costs inside the process, beside the peers, and with more and more handlers.

`python tests/bench/inprocess.py` exits 1 where a bar is missed. All sides run in turn, many short rounds, so that a
noisy machine is noisy for everybody; the figure is the median of the rounds' ratios.
"""

import io
import logging
import os
import statistics
import sys
import time
import timeit

import servers
from servers import PATH, TOKEN

from sandbox.platform import signed_query, text_message
from wechat.log import configure
from wechat.routing import on, prepare
from wxserver import Application

ROUNDS, CALLS = 41, 200
BARS = {"WeRoBot": 0.55, "wechatpy on Flask": 0.30}
HANDLERS_BAR = 1.1


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


def caller(app):
    """A function that sends one signed text and checks that it comes back."""
    query, body = signed_query(TOKEN), text_message("你好").encode()

    def call():
        answer = b"".join(app(environ_for(query, body), lambda status, headers, *_: None))
        assert "你好" in answer.decode(), answer
        return answer

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


def main():
    started = time.time()
    print(f"One text message in process, {ROUNDS} rounds of {CALLS} calls each, in turn.\n")
    names = ("ours", *BARS)
    times = microseconds({name: caller(servers.SERVERS[name]()) for name in names})
    is_good = True
    print("| server | µs, median | ours / theirs | bar |\n| --- | ---: | ---: | ---: |")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(times["ours"], times[name], strict=True))
        is_good = is_good and ratio <= BARS.get(name, 1)
        print(f"| {name} | {statistics.median(times[name]):.1f} | {ratio:.2f} | {BARS.get(name, '')} |")
    configure("INFO", open(os.devnull, "w"))  # noqa: SIM115
    times = microseconds({name: caller(servers.SERVERS[name]()) for name in names})
    print("\n| with our line in the log for each message (the peers write none) | µs, median | ours / theirs |")
    print("| --- | ---: | ---: |")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(times["ours"], times[name], strict=True))
        print(f"| {name} | {statistics.median(times[name]):.1f} | {ratio:.2f} |")
    logging.disable()
    counts = (10, 1_000, 10_000)
    times = microseconds({count: caller(with_handlers(count)) for count in counts})
    print("\n| exact handlers | µs, median | to 10 | bar |\n| --- | ---: | ---: | ---: |")
    for count in counts:
        ratio = statistics.median(a / b for a, b in zip(times[count], times[10], strict=True))
        is_good = is_good and ratio <= HANDLERS_BAR
        print(f"| {count:,} | {statistics.median(times[count]):.1f} | {ratio:.2f} | {HANDLERS_BAR} |")
    print(f"\n{'All bars hold.' if is_good else 'A bar is missed.'} ({time.time() - started:.0f} s)")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
