"""examples/assistant: a language model behind the account; the model is a stand-in that streams, stalls and fails."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wxserver
from sandbox.testing import SETTINGS, User
from tests.conftest import ROOT
from wechat.errors import StartError
from wechat.message import Message
from wechat.routing import load

FOLDER = ROOT / "examples/assistant"
KEY = "sk-secret"
LONG = "很长的一段话。" * 40


class ModelServer(BaseHTTPRequestHandler):
    """POST /v1/chat/completions as https://platform.openai.com/docs/api-reference/chat-streaming describes it.

    What it does is in the question.
    """

    protocol_version = "HTTP/1.1"
    asked, released = [], None

    def log_message(self, *_):
        pass

    def handle(self):
        with suppress(ConnectionError):  # who has waited long enough goes away
            super().handle()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        question = asked["messages"][-1]["content"]
        if self.path != "/v1/chat/completions":
            return self.send(404, b"{}")
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.send(401, b'{"error": {"message": "Incorrect API key provided: sk-secret"}}')
        if question.isdecimal():
            return self.send(int(question), b'{"error": {"message": "no"}}')
        return getattr(self, question.partition(" ")[0], self.echo)(question)

    def send(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # Streams

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def write(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, **event):
        self.write(f"data: {json.dumps(event)}\n\n".encode())

    def say(self, text, size=3):
        for place in range(0, len(text), size):
            self.event(choices=[{"index": 0, "delta": {"content": text[place : place + size]}, "finish_reason": None}])

    def end(self):
        self.event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self.event(choices=[], usage={"total_tokens": 7})
        self.write(b": a comment\n\ndata: [DONE]\n\n")
        self.write(b"")

    def answer(self, text):
        self.begin()
        self.event(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
        self.say(text)
        self.end()

    # What questions ask for

    def echo(self, question):
        self.answer(f"**You** said: {question}")

    def think(self, question):
        self.answer(f"<think>\nHm. **Secret.** {LONG}\n\nsecret {LONG}\n\n```\n\nsecret\n</think>\n\nThe answer.")

    def ponder(self, question):
        self.answer("<think>\nHm. And so on, secretly")

    def paragraphs(self, question):
        self.answer(f"## One\n{LONG}\n\n```\n{LONG}\n\n{LONG}\n```\n\nshort\n\nthree")

    def wait(self, question):
        """Goes on after the first paragraph only when the test lets it."""
        self.begin()
        self.say(f"{LONG}\n\n")
        type(self).released.wait(5)
        self.say("the end")
        self.end()

    def stall(self, question):
        self.begin()
        self.say("half an answ")
        time.sleep(9)

    def drip(self, question):
        self.begin()
        for _ in range(900):
            self.write(b": still there\n\n")
            time.sleep(0.01)

    def hang(self, question):
        time.sleep(9)

    def broken(self, question):
        self.begin()
        self.write(b'data: {"choices": [{"delta\n\n')

    def odd(self, question):
        self.begin()
        self.write(b'data: {"choices": "many"}\n\n')

    def fail(self, question):
        self.begin()
        self.say(f"{LONG}\n\nand")
        self.event(error={"message": "overloaded"})

    def drop(self, question):
        self.begin()
        self.say("and then")
        self.close_connection = True

    def cut(self, question):
        """As a proxy does whose own server died in the middle."""
        self.begin()
        self.say("half an answ")
        self.write(b"")

    def finished(self, question):
        """As a server does that ends without `[DONE]`."""
        self.begin()
        self.say("all of it")
        self.event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self.write(b"")

    def flood(self, question):
        self.begin()
        for _ in range(40):
            self.write(b"data:" + b" " * 65536)

    def whole(self, question):
        """As a server does that does not know `stream`."""
        message = {"role": "assistant", "content": "At **once**."}
        self.send(200, json.dumps({"choices": [{"message": message}]}).encode())

    def halves(self, question):
        """As a server does that cuts between UTF-16 code units, and says in each event that there is no error."""
        self.begin()
        for half in ("\ud83d", "\ude00", " and \ud83d"):
            self.event(error=None, choices=[{"index": 0, "delta": {"content": half}}])
        self.end()

    def html(self, question):
        self.send(200, b"<html>a portal</html>", "text/html")


@pytest.fixture
def model(http_server):
    """The stand-in; `asked` has what it was asked."""
    server = type("OneModelServer", (ModelServer,), {"asked": []})
    server.url = http_server(server)
    return server


@pytest.fixture
def environ(model):
    return {
        "ASSISTANT_URL": f"{model.url}/v1/",
        "ASSISTANT_KEY": KEY,
        "ASSISTANT_MODEL": "a-model",
        "ASSISTANT_TIMEOUT": "2",
        "ASSISTANT_DAILY": "3",
    }


class Follower:
    """Somebody whose texts go straight to the handler, and whose session is kept."""

    def __init__(self, handler):
        self.handler, self.session = handler, {}

    def asks(self, question):
        """The texts that come back."""
        return asyncio.run(self.all_of(question))

    async def all_of(self, question):
        async with aclosing(self.handler(Message(MsgType="text", Content=question), self.session)) as texts:
            said = [text async for text in texts]
        self.session = json.loads(json.dumps(self.session))
        return said


@pytest.fixture
def follower(environ):
    return Follower(load(FOLDER, environ)[("text",)])


def module():
    return sys.modules["handlers.assistant"]


@pytest.fixture(scope="module")
def paragraphs():
    """The class, whose texts may be short here."""
    load(FOLDER, {"ASSISTANT_URL": "http://127.0.0.1:9", "ASSISTANT_MODEL": "x"})
    made = sys.modules["handlers._paragraphs"]
    made.LEAST = 3
    return made.Paragraphs


# Answers


def test_an_answer_comes_as_plain_text(follower, model):
    assert follower.asks("hello 世界") == ["You said: hello 世界"]
    asked = model.asked[0]
    assert (asked["model"], asked["stream"]) == ("a-model", True)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]


def test_paragraphs_come_as_texts_of_their_own_and_code_stays_whole(follower):
    assert follower.asks("paragraphs please") == [f"One\n{LONG}", f"{LONG}\n\n{LONG}", "short\n\nthree"]


def test_the_first_paragraph_comes_while_the_model_still_speaks(follower, model):
    async def first_and_rest():
        model.released = threading.Event()
        async with aclosing(follower.handler(Message(MsgType="text", Content="wait"), {})) as texts:
            first = await anext(texts)
            model.released.set()
            return first, [text async for text in texts]

    assert asyncio.run(first_and_rest()) == (LONG, ["the end"])


def test_what_the_model_thinks_is_not_said_and_not_told_again(follower, model):
    assert follower.asks("think about it") == ["The answer."]
    follower.asks("and now?")
    assert "ecret" not in json.dumps(model.asked[1])


def test_who_only_thinks_has_no_answer_and_that_costs_no_question(follower):
    assert follower.asks("ponder") == [module().NOTHING]
    assert follower.session == {}


def test_a_character_that_comes_in_halves_is_one(follower):
    assert follower.asks("halves") == ["😀 and \ufffd"]
    assert follower.session["turns"] == [["halves", "😀 and \ufffd"]]


def test_an_api_that_does_not_stream_answers_all_the_same(follower):
    assert follower.asks("whole") == ["At once."]


def test_a_stream_that_says_that_it_is_finished_needs_no_done(follower):
    assert follower.asks("finished") == ["all of it"]


def test_the_http_client_writes_no_lines_of_its_own(follower, caplog):
    with caplog.at_level("DEBUG"):
        follower.asks("hello")
    assert not [record.name for record in caplog.records if record.name.startswith("http")]


ANSWERS = st.lists(st.sampled_from([*"a界\n`~ <>", "\n\n", "```\n", "<think>", "</think>\n"]), max_size=40).map("".join)


@given(ANSWERS, st.data())
def test_it_does_not_matter_how_an_answer_is_cut_into_pieces(paragraphs, answer, data):
    whole, cut = paragraphs(), paragraphs()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=5)))
    pieces = [answer[start:end] for start, end in pairwise([0, *cuts, len(answer)])]
    texts = [text for piece in pieces for text in cut.feed(piece)] + cut.rest()
    assert texts == whole.feed(answer) + whole.rest()


# Failures


@pytest.mark.parametrize(
    ("question", "text", "why"),
    [
        ("401", "助手暂时不能用，请稍后再来。", "401: look at ASSISTANT_KEY"),
        ("404", "助手暂时不能用，请稍后再来。", "404: look at ASSISTANT_URL and ASSISTANT_MODEL"),
        ("429", "现在问的人太多，请过一会儿再试。", "429: too many questions at once"),
        ("500", "助手出了点问题，请稍后再试。", "it answered 500\n"),
        ("302", "助手出了点问题，请稍后再试。", "302"),
        ("broken", "助手出了点问题，请稍后再试。", "its JSON cannot be read"),
        ("odd", "助手出了点问题，请稍后再试。", "its JSON cannot be read"),
        ("html", "助手出了点问题，请稍后再试。", "its JSON cannot be read"),
        ("flood", "助手出了点问题，请稍后再试。", "over 1048576 bytes"),
        ("hang", "这个问题想得太久了，请换个问法，或者稍后再试。", "no answer within 2 s"),
        ("drip", "这个问题想得太久了，请换个问法，或者稍后再试。", "no answer within 2 s"),
    ],
)
def test_a_failure_is_told_to_the_user_and_the_log_says_why(follower, log, question, text, why):
    started = time.monotonic()
    assert follower.asks(question) == [text]
    assert time.monotonic() - started < 7
    assert why in log.text
    assert KEY not in log.text
    assert follower.session == {}


def test_an_api_that_cannot_be_reached_is_a_failure(environ, log):
    environ["ASSISTANT_URL"] = "http://127.0.0.1:9/v1"
    assert Follower(load(FOLDER, environ)[("text",)]).asks("hi") == ["助手出了点问题，请稍后再试。"]
    assert "ConnectError on the way" in log.text


@pytest.mark.parametrize(
    ("question", "said"),
    [("stall", ["half an answ"]), ("cut", ["half an answ"]), ("drop", ["and then"]), ("fail", [LONG, "and"])],
)
def test_an_answer_that_breaks_off_is_told_as_far_as_it_came(follower, question, said):
    assert follower.asks(question) == [*said, module().BROKEN_OFF]
    assert follower.session["turns"] == [[question, "\n\n".join(said)]]


# What is remembered


def test_the_model_is_told_what_was_said_before(follower, model):
    follower.asks("my name is 小明")
    follower.asks("what is my name?")
    assert [(message["role"], message["content"]) for message in model.asked[1]["messages"][1:]] == [
        ("user", "my name is 小明"),
        ("assistant", "You said: my name is 小明"),
        ("user", "what is my name?"),
    ]


def test_a_new_subject_forgets_what_was_said(follower, environ):
    routes = load(FOLDER, environ)
    follower.asks("hello")
    assert routes["text", "新话题"](Message(), follower.session) == "好，我们从头开始。"
    assert follower.session.keys() == {"day", "asked"}


def test_what_is_remembered_has_bounds(follower):
    short = [["q", "a"]] * 20
    assert module().within_bounds(short) == short[:10]
    long = [[str(number), "界" * 2000] for number in range(5)]  # 6 KB each
    assert module().within_bounds(long) == long[-2:]
    assert module().within_bounds([["q", "界" * 6000]]) == []


def test_questions_are_counted_for_each_user_and_day(follower, environ, monkeypatch):
    for _ in range(3):
        assert follower.asks("hi") == ["You said: hi"]
    assert follower.asks("hi") == ["今天的提问次数用完了，请明天再来。"]
    assert Follower(follower.handler).asks("hi") == ["You said: hi"]
    monkeypatch.setattr(module(), "today", lambda: "2030-01-01")
    assert follower.asks("hi") == ["You said: hi"]
    assert follower.session["asked"] == 1


def test_a_question_that_failed_is_not_counted(follower):
    for _ in range(5):
        follower.asks("500")
    assert follower.asks("hi") == ["You said: hi"]


def test_no_limit_is_no_limit(environ):
    follower = Follower(load(FOLDER, {**environ, "ASSISTANT_DAILY": "0"})[("text",)])
    assert [follower.asks("hi") for _ in range(5)] == [["You said: hi"]] * 5


# Through the server


@pytest.fixture
def user(cloud, environ):
    """Somebody who writes to the account that the folder makes."""
    app = wxserver.make_application({**SETTINGS, "WECHAT_API_URL": cloud.url, **environ}, FOLDER)
    yield User(app, cloud)
    app.close()


def test_a_short_answer_is_the_direct_one(user):
    assert user.says("hello 世界").Content == "You said: hello 世界"


def test_the_first_text_is_the_direct_answer_and_the_others_follow(user):
    assert user.says("paragraphs please").Content == f"One\n{LONG}"
    followed = [user.waits_for_message()["text"]["content"] for _ in range(2)]
    assert followed == [f"{LONG}\n\n{LONG}", "short\n\nthree"]


def test_without_customer_messages_the_texts_are_joined_or_fetched(environ, cloud):
    app = wxserver.make_application({"WECHAT_TOKEN": SETTINGS["WECHAT_TOKEN"], **environ}, FOLDER)
    user = User(app, cloud)
    said = user.says("paragraphs please").Content
    while said.endswith("回复“继续”查看下文"):
        said = said.removesuffix("回复“继续”查看下文") + user.says("继续").Content
    app.close()
    assert "".join(said.split()) == f"One{LONG}{LONG}{LONG}shortthree"  # wherever it was cut


def test_what_was_said_is_in_the_session(user, model):
    assert user.says("my name is 小明").Content
    assert user.says("and?").Content
    assert "小明" in json.dumps(model.asked[1], ensure_ascii=False)
    assert user.says("新话题").Content == "好，我们从头开始。"
    assert user.says("who am I?").Content
    assert "小明" not in json.dumps(model.asked[2], ensure_ascii=False)


def test_the_limit_is_for_each_user(user):
    answers = [user.says(f"question {number}").Content for number in range(4)]
    assert answers == [*(f"You said: question {number}" for number in range(3)), module().USED_UP]
    assert user.another("o-another").says("hi").Content == "You said: hi"


@pytest.mark.parametrize(("question", "text"), [("think", "The answer."), ("429", "现在问的人太多，请过一会儿再试。")])
def test_thoughts_are_not_said_and_failures_are(user, question, text):
    assert user.says(question).Content == text


def test_a_model_that_stalls_is_told_as_far_as_it_came(user):
    assert user.says("stall").Content == "half an answ"
    assert user.waits_for_message()["text"]["content"] == module().BROKEN_OFF


def test_a_voice_is_a_question(user):
    assert user.sends("voice", Recognition="你好").Content == "You said: 你好"


# The other handlers, the settings and the documents


def test_what_is_no_text_is_answered(environ):
    routes = load(FOLDER, environ)
    voice = {"MsgType": "voice", "FromUserName": "o_user"}
    assert routes[("voice",)](Message(voice, Recognition="你好")) == {
        **voice,
        "MsgType": "text",
        "Content": "你好",
        "Recognition": "你好",
    }
    assert routes[("voice",)](Message(voice)) == "没有听清，请再说一遍，或者发送文字。"
    assert routes[("default",)](Message(MsgType="image")) == "我只看得懂文字和语音。"
    assert routes[("default",)](Message(MsgType="event")) is None
    assert "新话题" in routes["event", "subscribe"](Message())
    assert routes[("error",)](Message())


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("ASSISTANT_URL", "", "ASSISTANT_URL is missing"),
        ("ASSISTANT_URL", "api.example.com", "ASSISTANT_URL is missing or not an address"),
        ("ASSISTANT_URL", "http://[::1/v1", "ASSISTANT_URL is missing or not an address"),
        ("ASSISTANT_URL", "http://example.com:99999/v1", "ASSISTANT_URL is missing or not an address"),
        ("ASSISTANT_MODEL", "", "ASSISTANT_MODEL is missing"),
        ("ASSISTANT_KEY", "sk-\tsecret", "ASSISTANT_KEY is not a key"),
        ("ASSISTANT_TIMEOUT", "300", "ASSISTANT_TIMEOUT is '300'"),
        ("ASSISTANT_DAILY", "-1", "ASSISTANT_DAILY is '-1'"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_no_key_is_told(environ, name, value, fault):
    with pytest.raises(StartError, match=fault) as raised:
        load(FOLDER, {**environ, name: value})
    assert "secret" not in str(raised.value)


def test_each_setting_is_in_the_readme_of_the_example():
    code = "".join(file.read_text("utf-8") for file in FOLDER.glob("*.py"))
    page = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) == set(re.findall(r'own\("(\w+)"', code))


def test_the_first_question_imports_nothing_big(environ):
    """On the loop that would hold up everybody."""
    code = "import os, sys; from wechat.routing import load; load(sys.argv[1]); print('httpcore' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, FOLDER], cwd=ROOT, env={**os.environ, **environ}, capture_output=True, check=True
    )
    assert done.stdout.strip() == b"True"


def test_a_call_has_no_line_of_its_own_in_the_log(follower, log):
    follower.asks("hi")
    assert not log.records


def test_the_core_needs_nothing_of_it():
    assert "httpx" not in (ROOT / "requirements.txt").read_text()
    assert "httpx" in (FOLDER / "requirements.txt").read_text()
