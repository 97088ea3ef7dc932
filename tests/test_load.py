"""Many messages, several attempts at each, several processes, and processes that die."""

import http.client
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import ROOT, TOKEN
from tests.test_promises import SERVE, shown, wait_until
from tests.test_wxserver import exchange

HANDLERS = """
import os, re, time
from wechat.routing import on
RUNS = os.open(__file__ + ".runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@on("text", re.compile("work .*"))
def work(msg):
    os.write(RUNS, (msg.Content + "\\n").encode())
    return msg.Content

@on("text", re.compile("slow .*"), slow=True)
def slow(msg):
    time.sleep(float(msg.Content.split()[1]))
    return msg.Content

@on("text")
def any_text(msg): return "any"

@on("error")
def sorry(msg, error): return msg.Content
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/mine.py").write_text(HANDLERS)
    return tmp_path / "handlers"


MESSAGES, CONNECTIONS = 2_000, 32


def test_2_000_messages_sent_up_to_four_times_to_two_processes_run_once_and_are_answered_alike(
    serve, folder, shared_store
):
    servers = [serve("-c", SERVE, str(folder), WECHAT_STORE=shared_store, LOG_LEVEL="WARNING") for _ in range(2)]
    chance = random.Random(5)
    sendings = [number for number in range(MESSAGES) for _ in range(chance.randint(1, 4))]
    chance.shuffle(sendings)
    bodies = [text_message(f"work {number}", f"o{number % 97:027}").encode() for number in range(MESSAGES)]
    answers, queue = defaultdict(set), iter(sendings)

    def send(place):
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=30) for server in servers]
        turn = random.Random(place)
        for number in queue:
            connection = turn.choice(connections)
            connection.request("POST", f"/weixin?{signed_query(TOKEN)}", bodies[number])
            response = connection.getresponse()
            answers[number].add((response.status, response.read()))
        for connection in connections:
            connection.close()

    threads = [threading.Thread(target=send, args=(place,)) for place in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == MESSAGES
    assert [number for number, seen in answers.items() if len(seen) != 1] == []
    assert {(status, shown(body)) for ((status, body),) in answers.values()} == {
        (200, f"work {number}") for number in range(MESSAGES)
    }
    runs = (folder / "mine.py.runs").read_text().split("\n")[:-1]
    assert sorted(runs) == sorted(f"work {number}" for number in range(MESSAGES))


KILLS = 50


def test_no_acknowledged_message_stays_unanswered_across_50_times_kill_9(serve, folder, cloud, tmp_path):
    """Slow handlers under load; the server is killed at random moments and started again on the same SQLite file."""
    environ = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    environ |= {"WECHAT_STORE": f"sqlite:{tmp_path}/store.db", "WECHAT_REPLY_WITHIN": "0.05", "LOG_LEVEL": "WARNING"}
    chance, acknowledged, numbers = random.Random(9), [], iter(range(10**9))
    state = {"server": serve("-c", SERVE, str(folder), **environ)}
    is_over = threading.Event()

    def send():
        while not is_over.is_set():
            content = f"slow {chance.choice((0.1, 0.3, 0.6))} {next(numbers)}"
            connection = http.client.HTTPConnection("127.0.0.1", state["server"].port, timeout=5)
            try:
                connection.request(
                    "POST",
                    f"/weixin?{signed_query(TOKEN)}",
                    text_message(content, f"o{chance.randrange(97):027}").encode(),
                )
                if connection.getresponse().read() == b"success":
                    acknowledged.append(content)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
            finally:
                connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, 0.25))
        state["server"].process.kill()
        state["server"].process.wait(10)
        state["server"] = serve("-c", SERVE, str(folder), **environ)
    is_over.set()
    for thread in threads:
        thread.join()
    assert len(acknowledged) > KILLS

    def is_all_answered():
        return set(acknowledged) <= {message["text"]["content"] for _, message in cloud.sent}

    # Where the machine is slow, most of what is left has been started twice, and starts one by one.
    assert wait_until(is_all_answered, 90)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no terminals that hang up")
def test_a_terminal_that_is_closed_ends_the_server_as_sigterm_does_but_not_under_nohup(serve, folder):
    server, kept = serve("-c", SERVE, str(folder)), serve(sys.executable, "wxserver.py", python="nohup")
    push = f"/weixin?{signed_query(TOKEN)}", text_message("slow 0.5").encode()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(exchange, server.port, "POST", *push)
        time.sleep(0.2)
        for each in (server, kept):
            each.process.send_signal(signal.SIGHUP)
        assert shown(answer.result()[1]) == "slow 0.5"
    assert server.process.wait(10) == 0
    assert exchange(kept.port, "GET", "/healthz") == (200, b'{"status": "ok"}')


def test_sigterm_with_20_requests_in_flight_gives_20_answers_and_status_0(serve, folder):
    server, answers = serve("-c", SERVE, str(folder)), []

    def send(number):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request(
            "POST", f"/weixin?{signed_query(TOKEN)}", text_message(f"slow 1.0 {number}", f"o{number:027}").encode()
        )
        answers.append(shown(connection.getresponse().read()))
        connection.close()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    early = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    early.request("GET", "/healthz")
    assert early.getresponse().read() == b'{"status": "ok"}'
    server.process.terminate()
    time.sleep(0.2)
    early.request("GET", "/healthz")
    response = early.getresponse()
    assert (response.status, response.read()) == (503, b'{"status": "draining"}')
    assert response.getheader("Connection") == "close"  # a proxy would keep it busy, and hold up the end
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=5).connect()
    for thread in threads:
        thread.join()
    early.close()
    assert sorted(answers) == sorted(f"slow 1.0 {number}" for number in range(20))
    assert server.process.wait(10) == 0


def test_sigterm_waits_no_longer_than_it_is_told_and_what_is_owed_stays_written(serve, folder, cloud, tmp_path):
    environ = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url, "WECHAT_DRAIN": "1"}
    environ |= {"WECHAT_STORE": f"sqlite:{tmp_path}/store.db", "WECHAT_REPLY_WITHIN": "0.2"}
    server = serve("-c", SERVE, str(folder), **environ)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", f"/weixin?{signed_query(TOKEN)}", text_message("slow 3.0 owed").encode())
    assert connection.getresponse().read() == b"success"
    connection.close()
    started = time.monotonic()
    server.process.terminate()
    assert server.process.wait(10) == 0
    assert 0.9 < time.monotonic() - started < 2
    assert cloud.sent == []
    serve("-c", SERVE, str(folder), **environ)
    assert wait_until(lambda: [message["text"]["content"] for _, message in cloud.sent] == ["slow 3.0 owed"])


MILLION = """
import resource, sys
sys.path.insert(0, "tests/bench")
import inprocess, servers
app = servers.ours()
head, tail = inprocess.text_message("x").split("<MsgId>")[0].encode(), b"</MsgId></xml>"
for number in range(int(sys.argv[1])):
    app.delivery.answer(b"%s<MsgId>%d%s" % (head, number, tail))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_distinct_messages_do_not_grow_the_process():
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", MILLION, str(count)], cwd=ROOT, capture_output=True, check=True
            ).stdout
        )
        for count in (10_000, 100_000)
    ]
    assert peaks[1] - peaks[0] <= 2, peaks


def test_a_host_name_that_stands_for_two_addresses_is_served_and_stopped(serve, folder):
    """waitress then has a server for each address, and a class of its own for both."""
    server = serve("-c", TWO_ADDRESSES + SERVE, str(folder))
    assert server.wait_for_lines("listening on ", 2)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    server.process.terminate()
    assert server.process.wait(5) == 0


TWO_ADDRESSES = """
import socket
known = socket.getaddrinfo
both = ("127.0.0.1", "127.0.0.2")
socket.getaddrinfo = lambda host, *more, **names: [found for one in both for found in known(one, *more, **names)]
"""


def test_an_attempt_that_waits_for_a_process_that_dies_is_answered_by_its_own(serve, folder, shared_store):
    """As when a proxy passes on at once what another process died over: its number may still be there."""
    dying, other = (serve("-c", SERVE, str(folder), WECHAT_STORE=shared_store) for _ in range(2))
    query, body, seen = signed_query(TOKEN), text_message("slow 1.0 x").encode(), []
    first = threading.Thread(target=list, args=[Endpoint(dying.url).deliver(query, body, 1)])
    second = threading.Thread(target=lambda: seen.extend(Endpoint(other.url).deliver(query, body, 1)))
    for thread in (first, second):
        thread.start()
        time.sleep(0.3)
    dying.process.kill()
    dying.process.wait(10)
    for thread in (first, second):
        thread.join()
    assert shown(seen[0].body) == "slow 1.0 x"
    assert seen[0].seconds < 3
