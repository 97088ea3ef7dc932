"""What a user gets when a handler is slow: real waitress, and a client that hangs up and asks again like WeChat.

WeChat's 5 s are 0.55 s here, by WECHAT_REPLY_WITHIN.
"""

import os
import re
import subprocess
import sys
import threading
import time

import pytest

from sandbox.messages import USER, text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import QUIET, ROOT, TOKEN
from tests.test_wxserver import exchange

WITHIN, HANG_UP = 0.42, 0.55  # further apart than 4.5 and 5: a busy machine may stop a process for 100 ms
SERVE = """
import os, sys, wxserver
from wechat.log import configure
configure("info")
app = wxserver.make_application(os.environ, sys.argv[1])
wxserver.run(app)
"""
HANDLERS = """
import time
from wechat.reply import Article, News
from wechat.routing import on
RUNS = __file__ + ".runs"

def work(msg):
    with open(RUNS, "a", encoding="utf-8") as file:
        file.write(msg.Content + "\\n")
    time.sleep(float(msg.Content.split()[1]))
    return "done " + msg.Content

@on("text", re.compile("slow .*"), slow=True)
def slow(msg): return work(msg)

@on("text", re.compile("unmarked .*"))
def unmarked(msg): return work(msg)

@on("text", re.compile("long .*"))
def long(msg): return "".join(f"{number:04}界" for number in range(600))

@on("text", "count")
def count(msg, session):
    session["count"] = session.get("count", 0) + 1
    time.sleep(0.01)
    return str(session["count"])

@on("text", re.compile("note .*"))
def note(msg, session):
    session["noted"] = session.get("noted", "") + msg.Content[-1]
    time.sleep(0.1)
    return session["noted"]

@on("text")
def fast(msg): return "fast " + msg.Content
"""


@pytest.fixture
def start(serve, tmp_path, cloud):
    """A function that starts a server with the slow handlers; with `can_push`, customer messages go to the stand-in."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/mine.py").write_text("import re\n" + HANDLERS, "utf-8")

    def run(can_push=False, **environ):
        credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url} if can_push else {}
        within = {"WECHAT_REPLY_WITHIN": str(WITHIN)}
        server = serve("-c", SERVE, str(tmp_path / "handlers"), **{**within, **credentials, **environ})
        server.runs = lambda: (tmp_path / "handlers/mine.py.runs").read_text().split("\n")[:-1]
        return server

    return run


def say(server, content, openid=USER, **more):
    """Delivers a text like WeChat; gives the number of the attempt that was answered, and what the user sees."""
    endpoint = Endpoint(server.url, hang_up=more.pop("hang_up", HANG_UP))
    attempts = list(endpoint.deliver(signed_query(TOKEN), text_message(content, openid).encode(), **more))
    return len(attempts), shown(attempts[-1].body)


def shown(body):
    """The text of a reply; empty for `success`."""
    found = re.search(r"<Content><!\[CDATA\[(.*)\]\]></Content>", body.decode(), re.DOTALL)
    return found[1] if found else body.decode().replace("success", "")


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (is_met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_met


STORES = ["memory", "sqlite", "redis"]


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    if request.param == "memory":
        return "memory:"
    return f"sqlite:{tmp_path}/store.db" if request.param == "sqlite" else request.getfixturevalue("redis_url")


@pytest.mark.parametrize("kind", ["slow", "unmarked"])
def test_without_customer_messages_each_reply_comes_once_directly_or_by_continue(start, store, kind):
    server = start(WECHAT_STORE=store)
    assert say(server, f"{kind} 0.1") == (1, f"done {kind} 0.1")
    assert say(server, f"{kind} 0.75") == (2, f"done {kind} 0.75")
    assert say(server, f"{kind} 1.75") == (3, "还在处理，稍后回复“继续”获取结果")
    assert say(server, "继续") == (1, "还没好，请稍后再回复“继续”")
    assert wait_until(lambda: say(server, "继续")[1] == f"done {kind} 1.75")
    assert say(server, "继续") == (1, "fast 继续")
    assert server.runs() == [f"{kind} 0.1", f"{kind} 0.75", f"{kind} 1.75"]


def texts(cloud):
    return [message["text"]["content"] for _, message in cloud.sent]


def test_with_customer_messages_a_late_reply_is_pushed(start, store, cloud):
    server = start(can_push=True, WECHAT_STORE=store)
    assert say(server, "slow 0.1") == (1, "done slow 0.1")
    for number, length in enumerate(("0.75", "1.75"), 1):
        assert say(server, f"slow {length}")[1] == "", "at the first attempt, where the machine is not busy"
        assert wait_until(lambda number=number: len(cloud.sent) == number)
    assert texts(cloud) == ["done slow 0.75", "done slow 1.75"]
    assert all(openid == USER for openid, _ in cloud.sent)
    assert len(server.runs()) == 3
    assert "/cgi-bin/message/custom/typing" in [call.path for call in cloud.journal]


def test_a_late_handler_that_is_not_marked_is_answered_once_too(start, store, cloud):
    """Its own attempt waits in the handler's thread, so the next one is the first that can be answered."""
    server = start(can_push=True, WECHAT_STORE=store)
    assert say(server, "unmarked 0.75") == (2, "done unmarked 0.75")
    assert say(server, "unmarked 1.75") == (2, "")
    assert wait_until(lambda: texts(cloud) == ["done unmarked 1.75"])
    assert len(server.runs()) == 2


def test_a_second_question_meanwhile_is_its_own_message(start):
    server, answers = start(), {}
    threads = [
        threading.Thread(target=lambda text=text: answers.update({text: say(server, text)[1]}))
        for text in ("slow 0.6", "slow 0.5", "quick")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"slow 0.6": "done slow 0.6", "slow 0.5": "done slow 0.5", "quick": "fast quick"}


def test_an_account_without_the_right_to_push_is_remembered(start, cloud):
    cloud.fail("/cgi-bin/message/custom/send", "unauthorized", times=None)
    server = start(can_push=True)
    assert say(server, "slow 0.75") == (1, "")
    assert server.wait_for_lines(": kept", 1)
    announced = "done slow 0.8\n\n有一条回复在等你，回复“继续”查看"
    assert say(server, "slow 0.8") == (2, announced), "the next one is held, and tells of the one before"
    assert say(server, "继续") == (1, "done slow 0.75")


CLOSED = [
    *(("stable_token", f"code:{errcode}") for errcode in (40164, 40125, 40013, 50007)),
    *(("message", f"code:{errcode}") for errcode in (45009, 50004, 48001)),
    ("", "status:502"),
    ("message/custom/typing", "slow:3"),
]


@pytest.mark.parametrize(("path", "fault"), CLOSED, ids=str)
def test_where_customer_messages_are_closed_the_first_user_is_told_already(start, cloud, path, fault):
    cloud.fail(f"/cgi-bin/{path}", fault, times=None)
    server = start(can_push=True)
    assert say(server, "slow 2.5") == (3, "还在处理，稍后回复“继续”获取结果")
    if fault.startswith("slow"):  # it was not known in time, and the reply is sent all the same
        assert wait_until(lambda: texts(cloud) == ["done slow 2.5"])
    else:
        assert server.wait_for_lines("no customer messages for", 1)
        assert wait_until(lambda: say(server, "继续")[1] == "done slow 2.5")


def test_a_reply_that_was_ready_while_the_platform_was_away_is_sent_once_it_is_back(start, cloud):
    cloud.fail("/", "status:502", times=None)
    server = start(can_push=True)
    assert say(server, "slow 2") == (3, "还在处理，稍后回复“继续”获取结果")
    assert server.wait_for_lines("replies are tried again", 1)
    cloud.heal()
    assert wait_until(lambda: texts(cloud) == ["done slow 2"])
    assert wait_until(lambda: say(server, "继续") == (1, "fast 继续")), "as soon as that is noted"


@pytest.mark.parametrize("fault", ["code:45015", "code:45047"])
def test_a_reply_that_the_platform_refuses_is_kept(start, cloud, fault):
    cloud.fail("/cgi-bin/message/custom/send", fault)
    server = start(can_push=True)
    assert say(server, "slow 0.75")[1] == ""
    assert server.wait_for_lines("kept", 1)
    assert say(server, "继续") == (1, "done slow 0.75")


def test_a_busy_platform_is_asked_again(start, cloud):
    cloud.fail("/cgi-bin/message/custom/send", "busy")
    server = start(can_push=True)
    assert say(server, "slow 0.75")[1] == ""
    assert wait_until(lambda: cloud.sent)


WHOLE = "".join(f"{number:04}界" for number in range(600))


def test_the_rest_of_a_long_text_follows_as_customer_messages(start, cloud):
    _, first = say(start(can_push=True), "long text")
    assert wait_until(lambda: first + "".join(texts(cloud)) == WHOLE)


def test_the_rest_of_a_long_text_follows_though_the_process_is_killed_in_between(start, tmp_path, cloud):
    store = f"sqlite:{tmp_path}/store.db"
    first = start(can_push=True, WECHAT_STORE=store)
    _, beginning = say(first, "long text")
    first.process.kill()
    first.process.wait(10)
    assert texts(cloud) == []
    start(can_push=True, WECHAT_STORE=store)
    assert wait_until(lambda: beginning + "".join(texts(cloud)) == WHOLE, 20)


def test_the_rest_of_a_long_text_is_fetched_by_continue(start):
    server = start()
    pieces, ending = [say(server, "long text")[1]], "\n\n回复“继续”查看下文"
    while pieces[-1].endswith(ending):
        assert len(pieces[-1].encode()) <= 2047
        assert wait_until(lambda: (said := say(server, "继续")[1]) != "fast 继续" and not pieces.append(said))
    assert "".join(piece.removesuffix(ending) for piece in pieces) == WHOLE


def test_continue_gives_the_oldest_reply_first_and_says_that_there_are_more(start):
    server = start()
    for length in ("1.75", "1.8"):
        assert say(server, f"slow {length}")[0] == 3
    assert server.wait_for_lines("kept", 2)
    assert say(server, "继续") == (1, "done slow 1.75\n\n回复“继续”查看下文")
    assert say(server, " 继续 ") == (1, "done slow 1.8")


def test_every_attempt_at_a_message_gets_the_same_document(start):
    server, query, body = start(), signed_query(TOKEN), text_message("hello").encode()
    answers = {exchange(server.port, "POST", f"/weixin?{query}", body) for _ in range(5)}
    assert len(answers) == 1


def test_messages_of_one_user_that_use_the_session_lose_no_update(start, store):
    servers = [start(WECHAT_STORE=store) for _ in range(1 if store == "memory:" else 2)]
    said = []

    def count(server):
        said.extend(int(say(server, "count", hang_up=20)[1]) for _ in range(10))

    threads = [threading.Thread(target=count, args=(server,)) for server in servers for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == list(range(1, 10 * len(threads) + 1))


def say_together(server, content, openids):
    """Lets these users say it at the same time; gives the threads, and what each user gets."""
    said = {}
    threads = [
        threading.Thread(target=lambda openid=openid: said.update({openid: say(server, content, openid)}))
        for openid in openids
    ]
    for thread in threads:
        thread.start()
    return threads, said


@pytest.mark.parametrize("is_slow", [False, True], ids=["fast", "slow"])
def test_messages_of_one_user_that_use_the_session_come_in_their_order(start, tmp_path, store, is_slow):
    source = (tmp_path / "handlers/mine.py").read_text("utf-8")
    (tmp_path / "handlers/mine.py").write_text(source.replace('note .*")', f'note .*"), slow={is_slow}'), "utf-8")
    servers = [start(WECHAT_STORE=store, WECHAT_REPLY_WITHIN="4") for _ in range(1 if store == "memory:" else 2)]
    for _ in range(3):
        user, said = os.urandom(8).hex(), {}

        def note(number, user=user, said=said):
            said[number] = say(servers[number * 7 % 5 % len(servers)], f"note {number}", user, hang_up=20)[1]

        threads = [threading.Thread(target=note, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
        for thread in threads:
            thread.join()
        assert said == {number: "012345"[: number + 1] for number in range(6)}


def test_when_most_workers_wait_a_slow_message_is_not_held(start):
    server = start(WECHAT_THREADS="8")
    threads, _ = say_together(server, "slow 1.2", "abcdef")
    time.sleep(0.2)
    started = time.monotonic()
    assert say(server, "slow 0.3") == (1, "还在处理，稍后回复“继续”获取结果")
    assert say(server, "quick") == (1, "fast quick")
    assert time.monotonic() - started < 0.3
    for thread in threads:
        thread.join()


def test_as_many_users_as_may_wait_are_all_answered_directly_at_the_second_attempt(start):
    """What WeChat has left holds no worker once it asks again, though it would for 1.5 s."""
    threads, said = say_together(start(WECHAT_THREADS="8"), "slow 0.75", "abcdef")
    for thread in threads:
        thread.join()
    assert said == dict.fromkeys("abcdef", (2, "done slow 0.75"))


def test_the_attempts_of_one_user_make_it_crowded_for_nobody_else(start):
    server = start(WECHAT_THREADS="16", WECHAT_WAITING_PER_USER="100", WECHAT_DRAIN="1")
    crowd = [threading.Thread(target=say, args=(server, f"slow 0.{number}")) for number in range(60, 90)]
    for thread in crowd:
        thread.start()
    time.sleep(0.2)
    threads, said = say_together(server, "slow 0.75", "abcdefghijk")
    for thread in [*threads, *crowd]:
        thread.join()
    assert said == dict.fromkeys("abcdefghijk", (2, "done slow 0.75"))


def test_an_unmarked_handler_that_takes_seconds_is_named(start):
    server = start()
    say(server, "unmarked 1.2")
    assert server.wait_for_lines(
        "handlers.mine.unmarked is not marked slow=True, and holds up others: it took 1.2 s", 1
    )


def test_the_log_says_which_attempt_was_answered_and_how(start):
    server = start()
    say(server, "quick")
    say(server, "slow 0.75")
    say(server, "slow 1.75")
    assert server.wait_for_lines("-> handlers.mine.fast: text, direct, ", 1)
    assert server.wait_for_lines("-> handlers.mine.slow: text, retry at attempt 2, ", 1)
    assert server.wait_for_lines("-> handlers.mine.slow: success, later at attempt 3, ", 1)
    assert server.wait_for_lines(": kept", 1)


# What an audit found


def attempt(server, query, body):
    """One attempt at the server, which WeChat gives up after its time."""
    return shown(Endpoint(server.url, hang_up=HANG_UP).request("POST", query, body).body)


@pytest.mark.parametrize("order", ["AB", "BA", "AAB", "ABA", "ABB"])
def test_attempts_that_come_to_two_processes_count_as_of_one(start, shared_store, order):
    servers = {name: start(WECHAT_STORE=shared_store) for name in "AB"}
    length = 0.75 if len(order) == 2 else 1.75
    push = signed_query(TOKEN), text_message(f"slow {length}").encode()
    said = [attempt(servers[name], *push) for name in order]
    if len(order) == 2:
        assert said == ["", f"done slow {length}"]
        time.sleep(1.5)
        assert say(servers["A"], "继续") == (1, "fast 继续"), "a reply that was given is not kept too"
    else:
        assert said == ["", "", "还在处理，稍后回复“继续”获取结果"]
        assert wait_until(lambda: say(servers["B"], "继续")[1] == f"done slow {length}")
    assert len(servers["A"].runs()) == 1


def test_a_run_whose_process_dies_is_done_again_for_the_attempt_that_another_one_holds(start, tmp_path):
    store = f"sqlite:{tmp_path}/store.db"
    first, second = (start(WECHAT_STORE=store) for _ in range(2))
    push = signed_query(TOKEN), text_message("slow 2.5").encode()
    assert [attempt(server, *push) for server in (first, second, second)][-1].startswith("还在处理")
    first.process.kill()
    first.process.wait(10)
    assert wait_until(lambda: say(second, "继续")[1] == "done slow 2.5", 20)


def test_continue_is_answered_while_all_slow_workers_are_busy(start, tmp_path):
    source = HANDLERS.replace('@on("text")\ndef fast', '@on("text", slow=True)\ndef fast')
    (tmp_path / "handlers").mkdir(exist_ok=True)
    server = start(WECHAT_THREADS="4")
    (tmp_path / "handlers/mine.py").write_text("import re\n" + source, "utf-8")
    server = start(WECHAT_THREADS="4")
    assert say(server, "slow 1.75")[1].startswith("还在处理")
    assert server.wait_for_lines("kept", 1)
    threads = [threading.Thread(target=say, args=(server, f"slow 2.{number}")) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert say(server, "继续")[1].startswith("done slow 1.75")
    for thread in threads:
        thread.join()
    server.process.kill()  # it would wait for what nobody fetches


def test_the_sessions_of_one_user_do_not_hold_up_another_one(start, tmp_path):
    server = start(WECHAT_THREADS="8")
    source = HANDLERS.replace("time.sleep(0.01)", "time.sleep(1.0)")
    (tmp_path / "handlers/mine.py").write_text("import re\n" + source, "utf-8")
    server = start(WECHAT_THREADS="8", WECHAT_DRAIN="1")
    threads = [threading.Thread(target=say, args=(server, "count")) for _ in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    assert say(server, "quick") == (1, "fast quick")
    assert time.monotonic() - started < 0.6
    for thread in threads:
        thread.join()


def test_a_piece_of_a_long_text_that_was_sent_is_not_sent_again(start, cloud):
    cloud.fail("/cgi-bin/message/custom/send", "slow:0", "busy")
    server = start(can_push=True)
    _, first = say(server, "long text")
    assert wait_until(lambda: len(cloud.sent) >= 1 and first + "".join(texts(cloud)) == WHOLE)


def test_the_end_of_a_kept_text_comes_before_what_was_kept_later(start, tmp_path):
    source = HANDLERS.replace('return "done " + msg.Content', "return msg.Content.split()[2] * 1500")
    server = start()
    (tmp_path / "handlers/mine.py").write_text("import re\n" + source, "utf-8")
    server = start()
    for word in ("a", "b"):
        assert say(server, f"slow 1.75 {word}")[0] == 3
    assert server.wait_for_lines("kept", 2)
    said = [say(server, "继续")[1].split("\n")[0] for _ in range(2)]
    assert [set(text) for text in said] == [{"a"}, {"b"}]


@pytest.mark.parametrize(
    "error", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "type('Cancelled', (BaseException,), {})"]
)
def test_whatever_a_handler_raises_its_message_is_answered(make_account, error):
    account = make_account(
        f'@on("text")\ndef leaves(msg): raise {error}\n@on("error")\ndef sorry(msg): return "sorry"\n'
    )
    assert account.say("x")["Content"] == "sorry"
    assert wait_until(account.app.delivery.is_idle)


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("end", ["return 'fine'", "yield 'fine'", "raise ValueError(said)"])
@pytest.mark.parametrize(
    "change", ["msg.clear()", "del msg['ToUserName']", "msg['FromUserName'] = 5", "msg['FromUserName'] = 'other'"]
)
def test_whatever_a_handler_does_to_its_message_the_user_is_answered(make_account, log, kind, end, change):
    source = f"""
@on("text")
{kind} changes(msg, session):
    said, session["seen"] = msg.Content, True
    {change}
    {end}

@on("error")
def sorry(msg, error, session): return "sorry " + msg.Content
"""
    answer = make_account(source).say("tulips")
    assert answer["Content"] == ("sorry tulips" if "raise" in end else "fine")
    assert answer["ToUserName"] == USER
    assert "tulips" not in log.text


FORK = """
import os, signal, sys, time, wxserver
from sandbox.messages import text_message
app = wxserver.make_application(os.environ, sys.argv[1])
pools = app.delivery.lanes, app.delivery._outbox.lanes
for pool in pools:
    pool.submit("a lane", lambda: None)
while any(map(len, pools)):
    time.sleep(0.01)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(10)
sys.stdout.write(app.delivery.answer(text_message("slow 0.1").encode()).decode())
pools[1].submit("a lane", lambda: sys.stdout.write("sent") and None)
while any(map(len, pools)):
    time.sleep(0.01)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.interpreter
def test_a_forked_process_has_threads_of_its_own(start, tmp_path, redis_url):
    """gunicorn --preload: the process that forks has paid what was owed, and its threads stay behind."""
    environ = {**os.environ, "WECHAT_TOKEN": TOKEN, "WECHAT_STORE": redis_url}
    command = [sys.executable, *QUIET, "-c", FORK, str(tmp_path / "handlers")]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert "done slow 0.1" in done.stdout
    assert done.stdout.endswith("sent")
    assert done.returncode == 0
