"""Whether a user is left without a word where customer messages are closed: 100 with slow handlers, in each case.

`python tests/bench/closed.py` exits 1 where one is; names of cases behind it choose some. The users write within three
seconds; their handlers take 8 to 20 s. WeChat hangs up after 5 s and asks three times. Who then gets nothing for
30 s, neither an answer nor a word about 继续 nor a customer message, is left without a word. In the end each asks by
继续 until the reply is there. Each case has a server and a process of its own; they begin one after the other, and go
on side by side: they mostly wait.
"""

import random
import re
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from wsgiref.simple_server import make_server

from servers import APPID, PATH, TOKEN
from slow import SECRET, start_ours

from sandbox.cloud import Cloud
from sandbox.messages import text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import QuietHandler, ThreadingServer
from wechat.texts import Texts

USERS, ARRIVE, SHORTEST, LONGEST = 100, 3.0, 8.0, 20.0
PATIENCE = 30.0  # seconds after the longest handler
SPACED = 6.0  # seconds from the beginning of one case to the next one's
SOURCE = """
import re, time
from wechat.routing import on

@on("text", re.compile("work ([0-9.]+)"), slow=True)
def work(msg, match):
    time.sleep(float(match[1]))
    return "done " + msg.FromUserName

@on("text")
def other(msg):
    return "nothing waits"
"""
TOKEN_CALL, MESSAGES, SENDING = "/cgi-bin/stable_token", "/cgi-bin/message", "/cgi-bin/message/custom/send"
CASES = {
    "all is well": None,
    **{f"{code} of the token": (TOKEN_CALL, f"code:{code}") for code in (40164, 40125, 40013, 50007)},
    **{f"{code} of messages": (MESSAGES, f"code:{code}") for code in (45009, 50004, 48001)},
    "refused connections": "nobody",
    "no answers": "silence",
    "502 for 10 s": ("/", "status:502"),
    "48001 of sending alone": (SENDING, "code:48001"),
}
HEALED_AFTER = 10.0  # seconds, the 502
WITHOUT_BAR = {"48001 of sending alone"}  # that it is closed can be known from the first reply only


class User(threading.Thread):
    """One user: a message as WeChat delivers it, and what the user sees of the answer."""

    def __init__(self, number, port):
        super().__init__(daemon=True)
        self.openid, self.endpoint = f"o{number:027}", Endpoint(f"http://127.0.0.1:{port}{PATH}")
        self.begins, self.takes = random.uniform(0, ARRIVE), random.uniform(SHORTEST, LONGEST)
        self.heard = self.fetched = ""

    def say(self, content):
        attempts = self.endpoint.deliver(signed_query(TOKEN), text_message(content, self.openid).encode())
        found = re.search(rb"<Content><!\[CDATA\[(.*?)\]\]>", list(attempts)[-1].body, re.DOTALL)
        return found[1].decode() if found else ""

    def run(self):
        time.sleep(self.begins)
        self.heard = self.say(f"work {self.takes:.1f}")

    def fetch(self):
        """Ask until there is something, or nothing waits."""
        end = time.monotonic() + PATIENCE
        while (said := self.say("继续").partition("\n")[0]) == Texts.not_ready and time.monotonic() < end:
            time.sleep(1)
        self.fetched = said


def play(case):
    """A platform on which the case is the case; gives it and its address."""
    cloud = Cloud(APPID, SECRET)
    server = make_server("127.0.0.1", 0, cloud, ThreadingServer, QuietHandler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    port = server.server_port
    if isinstance(case, tuple):
        cloud.fail(*case, times=None)
    elif case:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = listener.getsockname()[1]
        if case == "nobody":
            listener.close()
        else:
            cloud.listener = listener
    return cloud, f"http://127.0.0.1:{port}"


def run(name, begins=0.0):
    """Plays one case, after so many seconds; gives how many users were left without a word, or without the reply."""
    time.sleep(begins)
    random.seed(13)
    cloud, url = play(CASES[name])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(SOURCE, "utf-8")
        server = start_ours(port, folder, WECHAT_APPID=APPID, WECHAT_SECRET=SECRET, WECHAT_API_URL=url)
        try:
            users = [User(number, port) for number in range(USERS)]
            for user in users:
                user.start()
            if name.startswith("502"):
                threading.Timer(HEALED_AFTER, cloud.heal).start()
            for user in users:
                user.join()
            return report(name, users, cloud)
        finally:
            server.kill()
            server.wait()


def silent_ones(users, cloud):
    """Those who saw nothing, once what was promised has had its time."""
    end = time.monotonic() + PATIENCE
    while True:
        pushed = {openid for openid, _ in cloud.sent}
        silent = [user for user in users if not user.heard and user.openid not in pushed]
        if not silent or time.monotonic() > end:
            return silent
        time.sleep(0.5)


def report(name, users, cloud):
    silent = silent_ones(users, cloud)
    asking = [threading.Thread(target=user.fetch) for user in users]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    pushed = {openid for openid, _ in cloud.sent}
    direct = sum(user.heard.startswith("done") for user in users)
    told = sum(user.heard == Texts.waiting for user in users)
    fetched = sum(user.fetched.startswith("done") for user in users)
    lost = [
        user
        for user in users
        if not (user.heard + user.fetched).count(f"done {user.openid}") and user.openid not in pushed
    ]
    print(
        f"{name:24} direct {direct:3}, told to ask {told:3}, pushed {len(pushed):3}, by 继续 {fetched:3}, "
        f"without a word {len(silent):3}, without a reply {len(lost):3}",
        flush=True,
    )
    return len(lost) + (0 if name in WITHOUT_BAR else len(silent))


def main():
    chosen = [name for name in CASES if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    with ProcessPoolExecutor(len(chosen)) as pool:
        left = pool.map(run, chosen, [number * SPACED for number in range(len(chosen))])
    if any(list(left)):
        raise SystemExit("somebody was left alone")


if __name__ == "__main__":
    main()
