"""What happens to messages when the store goes away, stands still or breaks under load."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from sandbox.messages import text_message
from sandbox.platform import signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import TOKEN, free_port, program, wait_for_port
from tests.test_promises import shown, wait_until
from tests.test_wxserver import exchange

THREADS, MESSAGES = 8, 40


def test_a_redis_that_is_killed_under_load_costs_no_answer(serve, cloud, tmp_path):
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis_server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_port(port)
    account = {"WECHAT_ACCOUNT": "miniprogram", "WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
    store = {"WECHAT_STORE": f"redis://127.0.0.1:{port}/0", "WECHAT_API_URL": cloud.url}
    server, statuses = serve(**account, **store), []

    def push(thread):
        for number in range(MESSAGES):
            body = text_message(f"帮助 {thread}.{number}").encode()
            statuses.append(exchange(server.port, "POST", f"/weixin?{signed_query(TOKEN)}", body)[0])
            if len(statuses) == THREADS * MESSAGES // 3:
                redis_server.kill()

    threads = [threading.Thread(target=push, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis_server.wait(5) < 0
    assert statuses == [200] * THREADS * MESSAGES
    deadline = time.monotonic() + 20
    while len(cloud.sent) < len(statuses) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(cloud.sent) == len(statuses)


# Fast messages beside a store that stands still or breaks

PER_SECOND, SECONDS, BANNER = 40, 6, 5.0  # WeChat shows the banner after five seconds
ECHO = """
from wechat.routing import on

@on("text")
def echo(msg):
    return msg.Content
"""
SMALL_FILES = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
runpy.run_path("wxserver.py", run_name="__main__")
"""


@pytest.fixture
def echo(serve, tmp_path):
    """A function that starts a server which says what it hears."""
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    (handlers / "mine.py").write_text(ECHO)
    return lambda *command, **environ: serve(*command, WECHAT_HANDLERS=str(handlers), **environ)


def say(server, number):
    """The seconds that the right answer took; none where it was another one, or came too late."""
    body = text_message(f"number {number}", f"o{number:027}").encode()
    began = time.monotonic()
    status, answer = exchange(server.port, "POST", f"/weixin?{signed_query(TOKEN)}", body)
    seconds = time.monotonic() - began
    return seconds if (status, shown(answer)) == (200, f"number {number}") and seconds < BANNER else None


def speak_steadily(server, seconds=SECONDS):
    """The numbers of the messages, 40 a second, that were not answered in time."""
    begun = time.monotonic()

    def say_in_turn(number):
        time.sleep(max(0.0, begun + number / PER_SECOND - time.monotonic()))
        return say(server, number)

    with ThreadPoolExecutor(32) as pool:
        taken = list(pool.map(say_in_turn, range(int(PER_SECOND * seconds))))
    return [number for number, one in enumerate(taken) if one is None]


def test_beside_a_redis_that_stands_still_every_fast_message_is_answered(echo, tmp_path):
    port = free_port()
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis_server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        server = echo(WECHAT_STORE=f"redis://127.0.0.1:{port}/0")
        assert speak_steadily(server, 0.5) == []
        redis_server.send_signal(signal.SIGSTOP)
        assert speak_steadily(server) == []
        redis_server.send_signal(signal.SIGCONT)
        time.sleep(2)
        assert speak_steadily(server, 0.5) == []
    finally:
        redis_server.kill()
        redis_server.wait()


def test_beside_a_file_that_another_process_locks_every_fast_message_is_answered(echo, tmp_path):
    server = echo(WECHAT_STORE=f"sqlite:{tmp_path}/store.db")
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert speak_steadily(server) == []
    with closing(sqlite3.connect(tmp_path / "store.db")) as other:

        def written():
            return other.execute("SELECT count(*) FROM records WHERE key LIKE '%:message:%'").fetchone()[0]

        assert wait_until(lambda: written() == PER_SECOND * SECONDS), "what was answered meanwhile is written"


@pytest.mark.parametrize("how", ["deleted", "deleted with what is beside it", "replaced"])
def test_a_file_that_is_deleted_or_replaced_is_noticed_said_once_and_made_anew(echo, tmp_path, how):
    file = tmp_path / "store.db"
    server = echo(WECHAT_STORE=f"sqlite:{file}")
    assert speak_steadily(server, 0.5) == []
    (tmp_path / "other.db").write_bytes(b"")  # SQLite takes an empty file for an empty database
    for old in tmp_path.glob("store.db*") if how != "deleted" else [file]:
        old.unlink()
    if how == "replaced":
        (tmp_path / "other.db").rename(file)
    assert speak_steadily(server, 4) == []
    said = "the file of WECHAT_STORE was deleted or replaced"
    assert sum(said in line for line in server.lines) == 1
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (written,) = other.execute("SELECT count(*) FROM records WHERE key LIKE '%:message:%'").fetchone()
    assert written > PER_SECOND


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
def test_on_a_full_disk_every_fast_message_is_answered(echo, tmp_path):
    server = echo("-c", SMALL_FILES, WECHAT_STORE=f"sqlite:{tmp_path}/store.db")
    assert speak_steadily(server) == []
    assert any("SQLite did not write" in line for line in server.lines)
