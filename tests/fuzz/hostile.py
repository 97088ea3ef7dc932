"""`python -m tests.fuzz.hostile [NUMBER] [SEED]`: raw requests that nobody honest sends, against `python wxserver.py`.

Paths, heads, chunks, pipelines, resets, other protocols and signed pushes that were damaged on the way. Exit status 1
where the log has a line that does not begin as a line of the log, an error or a traceback, where a request gets a 500,
or where a signed push is not answered afterwards. The same SEED sends the same bytes.
"""

import random
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from sandbox.messages import text_message
from sandbox.platform import signed_query
from tests.conftest import TOKEN, Process

SENDERS = 8
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: \S")
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)
FORGED = "2026-01-01 00:00:00,000 ERROR wxserver: forged"

# What a log, a terminal or a parser may trip over, as a path has it.
SCRAPS = str.split(r"""
%0a %0d %0d%0a %00 %1b[2J %07 %7f %c2%85 %e2%80%a8 %e2%80%ae %ed%a0%80 %ff .. / // \ ? # % %zz [ ] : @ ; & = + a weixin
%s%n%d {0} ${jndi:ldap://x} <script> '1'='1 😀
""")
SCRAPS += [FORGED.replace(" ", "%20"), "%0a    " + FORGED, "\x00", "\xff", "\u2028"]
TARGETS = str.split("""
http://[ http://[::1 http://]/ //[ http://℀/ a://1 http://x:99999999/ http://@/ http:/// * ? /? x /weixin
/weixin? /weixin?% /weixin?signature=x&signature=y
""")
METHODS = [*str.split("GET POST HEAD OPTIONS TRACE CONNECT PRI get"), "G E T", "", "\x00", "GET\x1b", "X" * 5000]
VERSIONS = [*str.split("HTTP/1.1 HTTP/1.0 HTTP/0.9 HTTP/2.0 HTTP/9.9 HTTP/1.10 http/1.1 HTTP/ ICY"), "", "\x00"]
HEADERS = f"""
Content-Length: -1|Content-Length: +1|Content-Length: 1_0|Content-Length: 0x1|Content-Length: 1e3|Content-Length:
Content-Length: 5\r~Content-Length: 6|Content-Length: 5, 5|Content-Length: {"9" * 5000}|Content-Length: 300000
Content-Length: ١|Content-Length : 5|Content-Length: 5|Transfer-Encoding: chunked|Transfer-Encoding: gzip
Transfer-Encoding: chunked, identity|Transfer-Encoding: \x0bchunked|Transfer-Encoding:\tchunked|TE: trailers
Expect: 100-continue|Expect: \x00|Connection: close|Connection: keep-alive|Upgrade: h2c|Host: a\r~Host: b
Host: \x1b[31m|Host:|X: {FORGED}|X:\r~ {FORGED}|X: a\rb|X: a~b|X\x00: y|: empty|no colon| leading: blank
X: {"y" * 20_000}|X_Forwarded_For: 1|X-Forwarded-For: \x00|Forwarded: for="|Range: bytes=0-|X: \u2028|ÿ: ÿ
"""
HEADERS = [header.replace("~", "\n") for header in re.split(r"[|\n]", HEADERS.strip())] + ["X: y\r\n" * 3000]
CHUNKS = """
5\r~hello\r~0\r~\r~|5\r~hello0\r~\r~|-1\r~|0x5\r~hello\r~|g\r~|\r~\r~|5;a=b\r~hello\r~|5;\x00\r~hello\r~
0\r~X: y\r~\r~|0\r~\r~GET /|5~hello~| 5\r~hello\r~|5 \r~hello\r~|fffffffffffffffffff\r~x
"""
CHUNKS = [chunk.replace("~", "\n") for chunk in re.split(r"[|\n]", CHUNKS.strip())] + [
    "f" * 3000,
    '1;a="' + "\\a" * 500,
]
OTHERS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS, as a browser begins
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x05\x01\x00",  # SOCKS
    b"*1\r\n$4\r\nPING\r\n",  # Redis
    b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",  # RDP
    b"\x00" * 4096,
    b"\r\n" * 2000,
]
BOMBS = [  # on which waitress's own parser takes from a second to a minute
    b"GET a://" + b"1" * 15_000 + b" HTTP/1.1x\r\n\r\n",
    b"GET /a://" + b"1" * 15_000 + b" \r\n\r\n",
    b"GET / HTTP/1.1\r\nX:" + b" \t" * 7_500 + b"y\r\n\r\n",
    b"GET / HTTP/1.1\r\nX:\r\n" + b" \r\n" * 5_000 + b" y\r\n\r\n",
]
ENDS = ["finish", "finish", "finish", "reset", "read and reset", "vanish", "urgent"]


class Attack(NamedTuple):
    """What is sent, in how many pieces, and how the sender leaves."""

    content: bytes
    pieces: int
    end: str


def attacks(number, seed=0):
    """So many of them, each another one."""
    chance = random.Random(seed)
    kinds = (path, head, chunked, pipeline, flood, damaged, other, noise)
    for count in range(number):
        content = chance.choice(BOMBS) if count % 500 == 499 else chance.choice(kinds)(chance)
        yield Attack(content, chance.choice((1, 1, 1, 2, 5)), chance.choice(ENDS))


def encoded(text):
    return text.encode("utf-8", "surrogatepass") if max(text, default="") > "\xff" else text.encode("latin-1")


def path(chance):
    scraps = "".join(chance.choices(SCRAPS, k=chance.randint(1, 12)))
    target = chance.choice((f"/{scraps}", f"/weixin?{scraps}", f"/weixin/{scraps}", chance.choice(TARGETS) + scraps))
    return encoded(f"{chance.choice(METHODS[:7])} {target} HTTP/1.1\r\nHost: x\r\n\r\n")


def head(chance):
    lines = [f"{chance.choice(METHODS)} {chance.choice(('/', '/weixin', *TARGETS))} {chance.choice(VERSIONS)}"]
    lines += chance.choices(HEADERS, k=chance.randint(1, 4))
    return encoded(chance.choice(("\r\n", "\r\n", "\r\n", "\n", "\r")).join(lines) + "\r\n\r\nhello")


def chunked(chance):
    lines = ["POST /weixin HTTP/1.1", "Transfer-Encoding: chunked", *chance.choices(HEADERS, k=chance.randint(0, 2))]
    return encoded("\r\n".join(lines) + "\r\n\r\n" + "".join(chance.choices(CHUNKS, k=chance.randint(1, 4))))


def pipeline(chance):
    return b"".join(chance.choice((path, head, chunked, damaged))(chance) for _ in range(chance.randint(2, 6)))


def flood(chance):
    """One request again and again, so that the connection breaks while there are still some to be answered."""
    return path(chance) * chance.randint(100, 400)


def damaged(chance):
    """A signed push; of most a few bytes are changed, and some carry a message that would forge a line."""
    kind = chance.choice(("text", "text", f"text\n{FORGED}", "\x1b]0;x\x07", "event", "é", "x" * 5000, "\u202e"))
    body = (
        text_message("你好")
        .replace("[text]", f"[{kind}]")
        .replace("<MsgId>", "<MsgId>" + chance.choice(("", "\n9", "\u2028")))
    )
    content = body.encode()
    first = f"POST /weixin?{signed_query(TOKEN)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    whole = bytearray(first.encode() + content)
    for _ in range(chance.choice((0, 0, 1, 3, 10))):
        place = chance.randrange(len(whole))
        whole[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(whole)


def other(chance):
    return chance.choice(OTHERS)


def noise(chance):
    return chance.randbytes(chance.choice((1, 10, 100, 10_000))) + chance.choice(
        (b"", b"\r\n\r\n", b" / HTTP/1.1\r\n\r\n")
    )


def send(port, attack):
    """What the server answers, until it closes."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        step = len(attack.content) // attack.pieces + 1
        for start in range(0, len(attack.content), step):
            connection.sendall(attack.content[start : start + step])
        if attack.end == "urgent":
            connection.send(b"!", socket.MSG_OOB)
        if attack.end.endswith("reset"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if attack.end == "read and reset":
            connection.settimeout(0.05)
            return connection.recv(1)
        if attack.end in ("reset", "vanish"):
            return answer
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            answer += part
    return answer


def assault(port, number, seed=0):
    """Sends so many; how often each status was the answer."""
    statuses, queue, lock = Counter(), attacks(number, seed), threading.Lock()

    def work():
        while True:
            with lock:
                attack = next(queue, None)
            if not attack:
                return
            found = STATUS.findall(send(port, attack))
            with lock:
                statuses.update(int(status) for status in found)

    threads = [threading.Thread(target=work) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def push(port):
    """What a signed push gets now, and in how many seconds."""
    body, started = text_message("三体").encode(), time.monotonic()
    first = (
        f"POST /weixin?{signed_query(TOKEN)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}"
    )
    answer = send(port, Attack(f"{first}\r\n\r\n".encode() + body, 1, "finish"))
    return answer.decode(), time.monotonic() - started


def faults_in(lines):
    """The lines that do not begin as one of the log, and those that tell of an error."""
    return [line for line in lines if not LINE.match(line) or " ERROR " in line[:40] or "Traceback" in line]


def main(number="10000", seed="0"):
    server = Process(LOG_LEVEL="INFO")
    try:
        started = time.monotonic()
        statuses = assault(server.port, int(number), int(seed))
        answer, seconds = push(server.port)
    finally:
        server.stop()
    faults, seconds_in_all = faults_in(server.lines), time.monotonic() - started
    print(f"{number} hostile requests in {seconds_in_all:.0f} s, seed {seed}; {len(server.lines)} lines of log")
    print("answers:", ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items())))
    print(f"then a signed push: {answer.splitlines()[:1]}, {seconds * 1000:.0f} ms")
    print(f"{len(faults)} lines of the log are none, or tell of an error", *faults[:20], sep="\n    ")
    return 1 if faults or 500 in statuses or "三体" not in answer else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
