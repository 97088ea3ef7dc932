"""What the owner of an account with a model behind it sees: 1, 20, 200 and 500 users who write at once.

`python tests/bench/owners_table.py` exits 1 where a bar is missed: a user without a word or a reply, one who is
answered twice, one who waits longer than the threads make necessary. Each model answers after 2 to 40 s, one in ten
fails. WeChat hangs up after 5 s and asks three times; who is told to ask for the reply does so after 5 s, and every
10 s from then on. Each row has a server of its own and a process that plays its users, WeChat and the platform; the
rows begin one after the other, so that none arrives while another one's users do, and go on side by side: they mostly
wait.
"""

import asyncio
import json
import random
import re
import socket
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from footprint import megabytes
from servers import APPID, PATH, TOKEN
from slow import SECRET, start_ours

from sandbox.messages import text_message
from sandbox.platform import HEADERS, signed_query
from wechat.settings import Settings
from wechat.texts import Texts

USERS, SHORTEST, LONGEST, FAILING = (500, 200, 20, 1), 2.0, 40.0, 0.1
ROWS = [(users, pushes, kind) for users in USERS for kind in ("def", "async def") for pushes in (True, False)]
SPACED = 16.0  # seconds from one row's beginning to the next one's
HANG_UP, MOST_ATTEMPTS, FIRST_PAUSE, PAUSE = 5.0, 3, 5.0, 10.0
BAR, PATIENCE = 5.0, 60.0  # seconds beyond what is necessary: that a user is content with, and that is waited for
WORK = """
import asyncio, re, time
from wechat.routing import on

@on("text", re.compile(r"ask (\\S+) (\\S+)"), slow=True)
def ask(msg, match):
    time.sleep(float(match[1]))
    return say(msg, match)

@on("text", re.compile(r"await (\\S+) (\\S+)"))
async def ask_async(msg, match):
    await asyncio.sleep(float(match[1]))
    return say(msg, match)

def say(msg, match):
    if match[2] == "fails":
        raise ConnectionError("the model is away")
    return "answer for " + msg.FromUserName + "。" * 300

@on("error")
def sorry(msg, error):
    return "no answer for " + msg.FromUserName

@on("text")
def other(msg):
    return "nothing waits"
"""


@dataclass
class User:
    """One who asks once, and what came of it."""

    openid: str
    takes: float  # seconds that the model needs
    fails: bool
    begins: float = 0.0
    way: str = ""  # by which the reply came
    waited: float = 0.0  # beyond the model's own time
    replies: int = 0
    has_word: bool = False

    def note(self, text: str, way: str) -> None:
        if f"answer for {self.openid}" not in text:
            return
        self.replies += 1
        if not self.way:
            self.way, self.has_word = way, True
            self.waited = time.monotonic() - self.begins - self.takes


def necessary(takes, threads):
    """The longest that anybody may wait for a thread where none rests meanwhile, in whatever order they come."""
    return (sum(takes) - min(takes)) / threads if len(takes) > threads else 0.0


class Row:
    """So many users of one server."""

    def __init__(self, count, pushes, kind):
        dice = random.Random(13)  # the same for all rows
        self.users = {}
        for number in range(count):
            openid = f"o{number:027}"
            self.users[openid] = User(openid, round(dice.uniform(SHORTEST, LONGEST), 1), dice.random() < FAILING)
        self.count, self.pushes, self.kind = count, pushes, kind
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        takes = [user.takes for user in self.users.values()]
        self.necessary = necessary(takes, Settings.slow_threads) if kind == "def" else 0.0
        self.memory = self.threads = 0

    # WeChat

    async def say(self, user, content):
        """What the user sees of the answer to a text: None where it is the banner."""
        query, body = signed_query(TOKEN, openid=user.openid), text_message(content, user.openid).encode()
        for _ in range(MOST_ATTEMPTS):
            with suppress(OSError, TimeoutError):
                status, said = await asyncio.wait_for(self.post(query, body), HANG_UP)
                if status == 200:
                    found = re.search(rb"<Content><!\[CDATA\[(.*?)\]\]>", said, re.DOTALL)
                    return found[1].decode() if found else ""
        return None

    async def post(self, query, body):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            fields = {**HEADERS, "Host": "localhost", "Content-Length": len(body), "Connection": "close"}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            writer.write(f"POST {PATH}?{query} HTTP/1.1\r\n{head}\r\n".encode() + body)
            said = await reader.read()
            return int(said.split()[1]) if said else 0, said
        finally:
            writer.close()

    # A user

    async def ask(self, user):
        """Ask the model, and for the reply as one is told."""
        user.begins = time.monotonic()
        said = await self.say(user, f"{'ask' if self.kind == 'def' else 'await'} {user.takes} {said_of(user)}")
        user.note(said or "", "direct")
        end, pause = user.begins + user.takes + self.necessary + PATIENCE, FIRST_PAUSE
        user.has_word = user.has_word or said == Texts.waiting
        while not user.way and time.monotonic() < end:
            await asyncio.sleep(pause if said == Texts.waiting else 1.0)
            if said == Texts.waiting and not user.way:
                user.note(await self.say(user, Texts.next) or "", "asked")
            pause = PAUSE

    # The platform

    async def serve_platform(self, reader, writer):
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if b"custom/send" in head:
                    sent = json.loads(body)
                    self.users[sent["touser"]].note(sent["text"]["content"], "pushed")
                said = b'{"errcode":0,"access_token":"token","expires_in":7200}'
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)

    # The server

    async def watch(self, pid):
        while True:
            self.memory = max(self.memory, megabytes(pid))
            self.threads = max(self.threads, len(list(Path(f"/proc/{pid}/task").iterdir())))
            await asyncio.sleep(0.5)

    async def run(self, folder):
        platform = await asyncio.start_server(self.serve_platform, "127.0.0.1", 0, backlog=1024)
        url = f"http://127.0.0.1:{platform.sockets[0].getsockname()[1]}"
        api = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": url, "WECHAT_MODE": "plain"}
        process = await asyncio.to_thread(start_ours, self.port, folder, **(api if self.pushes else {}))
        watching = asyncio.create_task(self.watch(process.pid))
        try:
            await asyncio.gather(*map(self.ask, self.users.values()))
            await asyncio.sleep(BAR)  # in which a second reply would come
        finally:
            watching.cancel()
            process.kill()
            process.wait()

    def report(self):
        """The row, and whether its bars hold."""
        users = self.users.values()
        ways = [sum(user.way == way for user in users) for way in ("direct", "pushed", "asked")]
        longest = max(user.waited for user in users)
        silent = sum(not user.has_word for user in users)
        most = self.necessary + BAR + (PAUSE if ways[2] else 0.0)
        print(
            f"| {self.count} | {'yes' if self.pushes else 'no'} | `{self.kind}` | {ways[0]} | {ways[1]} | {ways[2]} "
            f"| {longest:.1f} s | {most:.1f} s | {self.memory:.0f} MB | {self.threads} | {silent} |",
            flush=True,
        )
        odd = sum(user.replies != 1 for user in users)
        if odd:
            print(f"{odd} of these users had no reply, or more than one")
        return longest <= most and not silent and not odd


def said_of(user):
    return "fails" if user.fails else "answers"


def play(number, folder):
    """Plays one row, in its turn."""
    time.sleep(number * SPACED)
    row = Row(*ROWS[number])
    asyncio.run(row.run(folder))
    return row


def main():
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(len(ROWS)) as pool:
        Path(folder, "mine.py").write_text(WORK, "utf-8")
        rows = list(pool.map(play, range(len(ROWS)), [folder] * len(ROWS)))
    print(
        "| users at once | customer messages | handler | directly | pushed | by 继续 | longest wait beyond the", end=""
    )
    print(" model's own time | bar | memory | threads | without a word |")
    print("| ---: | --- | --- |" + " ---: |" * 8)
    is_good = min([row.report() for row in sorted(rows, key=lambda row: row.count)])
    print("\nAll bars hold." if is_good else "\nA bar is missed.")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
