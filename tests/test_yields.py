"""Handlers that yield: each yield is a reply of its own, in order, as soon as it is there."""

import threading
import time

import pytest

from sandbox.messages import USER, text_message
from tests.conftest import nodes
from tests.test_async import API, HEAD, meanwhile, says
from tests.test_promises import SERVE, say, wait_until
from wechat.texts import Texts

STORY = """
@on("text", re.compile(r"(\\d+) pieces, (\\S+) s each"))
{kind} story(msg, match):
    for number in range(int(match[1])):
        {sleep}(float(match[2]))
        yield f"piece {{number}}"
"""
KINDS = {
    "def": STORY.format(kind="def", sleep="time.sleep"),
    "async def": STORY.format(kind="async def", sleep="await asyncio.sleep"),
}
REST = """
from wechat.reply import Article, Image, News, Transfer

@on("text", "mixed")
async def mixed(msg):
    yield "one"
    yield None
    yield ""
    yield Image("m1")
    yield "two"

@on("text", "fails")
def fails(msg):
    yield "one"
    yield "two"
    raise ValueError("no")

@on("text", "fails async")
async def fails_async(msg):
    yield "one"
    yield "two"
    raise ValueError("no")

@on("text", "odd")
async def odd(msg):
    try:
        yield "one"
        yield 5
        yield "never"
    finally:
        ended.append("odd")

@on("text", "late", timeout=0.3)
async def late(msg, session):
    yield "one"
    await asyncio.sleep(60)

@on("text", "nothing")
def nothing(msg):
    if False: yield "never"

@on("text", "returns")
def returns(msg, session):
    session["seen"] = session.get("seen", 0) + 1
    yield "one"
    return f"two {session['seen']}"

@on("text", "hands on")
def hands_on(msg):
    yield "one"
    return Message({**msg, "Content": "2 pieces, 0 s each"})

@on("text", "long")
def long(msg):
    yield "长" * 1000
    yield "end"

@on("text", "human")
def human(msg):
    yield "one"
    yield Transfer()

@on("error")
def error(msg, error):
    return f"sorry, {type(error).__name__}"

ended = []

@on("text", "ended")
def seen(msg):
    return str(ended)
"""


@pytest.fixture(params=list(KINDS))
def make(make_account, request):
    """A function that makes an account whose story is told by a `def`, or an `async def`."""
    return lambda **environ: make_account(HEAD + KINDS[request.param] + REST, **environ)


def texts(cloud, openid=USER):
    return [message["text"]["content"] for to, message in cloud.sent if to == openid]


def settled(account):
    return wait_until(account.app.delivery.is_idle)


def test_the_first_is_the_direct_answer_and_the_others_are_sent_as_soon_as_they_are_there(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    begun = time.monotonic()
    assert account.say("4 pieces, 0.5 s each")["Content"] == "piece 0"
    assert time.monotonic() - begun < 0.9
    assert wait_until(lambda: len(texts(cloud)) >= 1)
    assert time.monotonic() - begun < 2
    assert wait_until(lambda: len(texts(cloud)) == 3)
    assert texts(cloud) == ["piece 1", "piece 2", "piece 3"]
    assert settled(account)


def test_the_log_names_what_was_yielded_where_nothing_follows_it(make, cloud, caplog):
    account = make(**API, WECHAT_API_URL=cloud.url)
    with caplog.at_level("INFO", "wxserver"):
        for _ in range(20):
            assert account.say("1 pieces, 0 s each")["Content"] == "piece 0"
    lines = [record.getMessage() for record in caplog.records if "-> handlers.mine.story: " in record.getMessage()]
    assert [line.partition("story: ")[2].partition(",")[0] for line in lines] == ["text"] * 20


def test_a_retry_gets_the_first_again_while_the_handler_goes_on(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    body = text_message("3 pieces, 0.3 s each")
    assert [nodes(account.post(body))["Content"] for _ in range(3)] == ["piece 0"] * 3
    assert settled(account)
    assert nodes(account.post(body))["Content"] == "piece 0"
    assert texts(cloud) == ["piece 1", "piece 2"]


def test_five_customer_messages_are_the_most(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("9 pieces, 0.02 s each")["Content"] == "piece 0"
    assert settled(account)
    assert texts(cloud) == [*(f"piece {number}" for number in range(1, 5)), "piece 5\n\npiece 6\n\npiece 7\n\npiece 8"]


def test_what_comes_too_late_for_the_direct_answer_is_sent_in_order(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.1")
    assert account.say("3 pieces, 0.3 s each") == {}
    assert settled(account)
    assert texts(cloud) == ["piece 0", "piece 1", "piece 2"]


def test_without_customer_messages_what_is_ready_is_one_text(make):
    account = make()
    assert account.say("3 pieces, 0.1 s each")["Content"] == "piece 0\n\npiece 1\n\npiece 2"
    assert account.app.store.linked(f"user:{USER}") == {}


def test_without_customer_messages_the_last_attempt_gets_what_is_there_and_the_rest_waits(make):
    account = make(WECHAT_REPLY_WITHIN="0.5", WECHAT_THREADS="64")
    body = text_message("4 pieces, 0.7 s each")
    first = meanwhile(account.post, body)
    time.sleep(0.6)
    second = meanwhile(account.post, body)
    time.sleep(0.5)
    said = nodes(account.post(body))["Content"]
    assert said.startswith("piece 0")
    assert said.endswith("\n\n回复“继续”查看下文")
    assert "piece 3" not in said
    assert wait_until(lambda: len(account.app.delivery.lanes) == 0)
    rest = account.say("继续")["Content"]
    assert [f"piece {number}" in said for number in range(4)] == [f"piece {number}" not in rest for number in range(4)]
    assert rest.endswith("piece 3")
    assert nodes(account.post(body))["Content"] == said
    first.join()
    second.join()


def test_replies_that_are_no_texts_go_as_they_are_and_nothing_is_passed_over(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("mixed")["Content"] == "one"
    assert settled(account)
    assert [message["msgtype"] for _, message in cloud.sent] == ["image", "text"]
    assert account.say("nothing") == {}


def test_without_customer_messages_replies_that_are_no_texts_wait_one_by_one(make):
    account = make()
    assert account.say("mixed")["Content"] == "one\n\n回复“继续”查看下文"
    assert settled(account)
    assert account.say("继续")["MediaId"] == "m1"
    assert account.say("继续")["Content"] == "two"


@pytest.mark.parametrize("said", ["fails", "fails async"])
def test_what_was_yielded_before_an_error_stays_and_the_error_handler_follows(make, cloud, said):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say(said)["Content"] == "one"
    assert settled(account)
    assert texts(cloud) == ["two", "sorry, ValueError"]


@pytest.mark.parametrize("mark", ["", ", slow=True"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_an_error_handler_yields_is_given_whoever_failed(make_account, kind, mark):
    account = make_account(
        f"""
@on("text"{mark})
def fails(msg):
    raise ValueError("no")

@on("error")
{kind} error(msg, error):
    yield "sorry"
    yield type(error).__name__
"""
    )
    assert account.say("x")["Content"] == "sorry\n\nValueError"


def test_an_error_handler_that_may_take_long_holds_no_worker(make_account):
    account = make_account(
        HEAD
        + """
@on("text")
def fails(msg):
    raise ValueError("no")

@on("error", slow=True)
def error(msg, error):
    return thread()
"""
    )
    assert account.say("x")["Content"] == "slow"


def test_a_yield_of_what_is_no_reply_is_an_error_of_the_handler(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("odd")["Content"] == "one"
    assert settled(account)
    assert texts(cloud) == ["sorry, TypeError"]
    assert account.say("ended")["Content"] == "['odd']"


def test_a_handler_that_yields_has_its_time(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("late")["Content"] == "one"
    assert settled(account)
    assert texts(cloud) == ["sorry, TimeoutError"]
    assert account.app.store.get(f"lock:{USER}") is None


def test_what_a_generator_returns_is_its_last_reply(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("returns")["Content"] == "one"
    assert settled(account)
    assert account.say("hands on")["Content"] == "one"
    assert settled(account)
    assert texts(cloud) == ["two 1", "piece 0", "piece 1"]


def test_the_rest_of_a_long_first_reply_comes_before_the_second(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    first = account.say("long")["Content"]
    assert settled(account)
    *rest, last = texts(cloud)
    assert first + "".join(rest) == "长" * 1000
    assert last == "end"


def test_what_can_only_be_the_direct_answer_is_dropped_later(make, cloud, log):
    account = make(**API, WECHAT_API_URL=cloud.url)
    assert account.say("human")["Content"] == "one"
    assert settled(account)
    assert not cloud.sent
    assert "can only be the direct answer" in log.text


def test_the_replies_of_two_users_go_their_own_ways(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    threads = [meanwhile(says, account, "4 pieces, 0.05 s each", f"o{number}") for number in range(10)]
    for thread in threads:
        thread.join()
    assert settled(account)
    for number in range(10):
        assert texts(cloud, f"o{number}") == ["piece 1", "piece 2", "piece 3"]


def test_the_next_message_waits_for_all_of_a_story(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url, WECHAT_REPLY_WITHIN="0.1")
    for _ in range(2):
        says(account, "3 pieces, 0.2 s each")
    assert settled(account)
    assert texts(cloud) == ["piece 0", "piece 1", "piece 2"] * 2


def test_refused_pieces_wait_for_continue_in_order(make, cloud):
    account = make(**API, WECHAT_API_URL=cloud.url)
    cloud.fail("/cgi-bin/message/custom/send", "code:48001", times=None)
    assert account.say("3 pieces, 0.1 s each")["Content"] == "piece 0"
    assert settled(account)
    said = [account.say("继续").get("Content", "") for _ in range(2)]
    assert [text.partition("\n")[0] for text in said] == ["piece 1", "piece 2"]


def test_after_a_crash_all_of_it_is_told_again(serve, tmp_path, cloud, shared_store):
    """At least once: a process that dies in the midst of it has another one begin anew."""
    (tmp_path / "handlers").mkdir()
    source = "import re\nfrom wechat.routing import on\n" + HEAD + KINDS["async def"]
    (tmp_path / "handlers/mine.py").write_text(source)
    environ = {**API, "WECHAT_API_URL": cloud.url, "WECHAT_STORE": shared_store}
    first = serve("-c", SERVE, str(tmp_path / "handlers"), **environ, WECHAT_REPLY_WITHIN="2")
    assert say(first, "3 pieces, 0.5 s each", hang_up=5) == (1, "piece 0")
    first.process.kill()
    first.process.wait(10)
    serve("-c", SERVE, str(tmp_path / "handlers"), **environ)
    assert wait_until(lambda: len(cloud.sent) == 3)
    assert texts(cloud) == ["piece 0", "piece 1", "piece 2"]


def test_what_a_def_yields_after_its_time_is_dropped(make_account, cloud, log):
    account = make_account(
        HEAD
        + """
@on("text", "hangs", timeout=0.3)
def hangs(msg):
    yield "one"
    time.sleep(0.6)
    yield "too late"

@on("error")
def error(msg, error):
    return f"sorry, {type(error).__name__}"
""",
        **API,
        WECHAT_API_URL=cloud.url,
    )
    assert account.say("hangs")["Content"] == "one"
    assert wait_until(lambda: "it came back too late" in log.text)
    assert settled(account)
    assert texts(cloud) == ["sorry, TimeoutError"]


# What the simulation has found


PARTS = """
from wechat.reply import Image

@on("text", "parts")
async def parts(msg):
    yield "one"
    yield Image("m1")
    yield "two"
    yield Image("m2")
    yield "three"

@on("text", "fast")
def fast(msg):
    return "fast"
"""


def say_of(account, content):
    reply = account.say(content)
    return reply.get("MediaId") or reply.get("Content", "").partition("\n")[0]


def test_what_is_yielded_last_is_kept_though_what_came_before_is_nobodys_already(make_account):
    """The sender is quick: it has kept the first reply before the others were there, and they were lost."""
    account = make_account(HEAD + PARTS, WECHAT_REPLY_WITHIN="1")
    delivery = account.app.delivery
    delivery._outbox.deliver = lambda entry, after=0.0: delivery._outbox._go_on(entry)
    give = delivery._give

    def promise_first(entry, push, reply):
        delivery._ledger.promise(entry, push.text, True)
        give(entry, push, reply)

    delivery._give = promise_first
    account.say("parts")
    assert settled(account)
    assert [say_of(account, "继续") for _ in range(5)] == ["one", "m1", "two", "m2", "three"]


@pytest.mark.parametrize("content", ["fails", "fails async"])
def test_what_comes_last_stands_behind_what_waits_already(make, cloud, content):
    """It stood in the record of the message, which is the first of all, and 继续 fetched it first."""
    account = make(**API, WECHAT_API_URL=cloud.url)
    cloud.fail("/cgi-bin/message/custom/send", "code:45015", times=None)
    assert account.say(content)["Content"] == "one"
    assert settled(account)
    assert [say_of(account, "继续") for _ in range(2)] == ["two", "sorry, ValueError"]


def test_continue_does_not_overtake_what_is_being_sent(make_account, cloud):
    account = make_account(HEAD + PARTS, **API, WECHAT_API_URL=cloud.url)
    may_go, send = threading.Event(), account.app.api.send_message
    account.app.api.send_message = lambda *message: may_go.wait(10) and send(*message)
    assert account.say("parts")["Content"] == "one"
    assert wait_until(
        lambda: any('"is_sending": true' in raw for raw in account.app.store.linked(f"user:{USER}").values())
    )
    assert account.say("继续")["Content"] == Texts.not_ready
    may_go.set()
    assert settled(account)
    sent = [message.get("image", message.get("text")) for _, message in cloud.sent]
    assert [next(iter(part.values())) for part in sent] == ["m1", "two", "m2", "three"]


def test_what_is_yielded_first_says_that_another_reply_waits(make_account, cloud):
    account = make_account(HEAD + PARTS, **API, WECHAT_API_URL=cloud.url)
    cloud.fail("/cgi-bin/message/custom/send", "code:45015", times=None)
    account.say("parts")
    assert settled(account)
    assert account.say("parts")["Content"] == f"one\n\n{Texts.announce}"
