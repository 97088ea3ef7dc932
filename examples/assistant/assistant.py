"""A language model behind the account: each text is a question, and the answer comes in paragraphs."""

import logging
import re
import time
from contextlib import aclosing

from handlers._model import ModelFailed, choose
from handlers._paragraphs import Paragraphs
from wechat.errors import SettingsError
from wechat.message import Message
from wechat.routing import on
from wechat.settings import own

logger = logging.getLogger(__name__)

MODEL = choose()
PROMPT = own("ASSISTANT_PROMPT", "你是一个微信公众号的助手。回答要准确、简短，用提问的人的语言。")
DAILY = own("ASSISTANT_DAILY", "50")  # questions of one user; 0: as many as they like
if not re.fullmatch(r"[0-9]{1,6}", DAILY):
    raise SettingsError([f"ASSISTANT_DAILY is {DAILY!r}: it takes questions a day, a whole number from 0 to 999999"])

MOST_TURNS = 10  # questions with their answers that the model is told again
MOST_BYTES = 16 * 1024  # of those, as UTF-8
LONGEST_QUESTION = 4000  # characters
CHINA = 8 * 3600  # seconds from UTC

HELLO = "你好！有什么想问的，直接发给我。发送“新话题”，我就忘掉前面说过的。"
FORGOTTEN = "好，我们从头开始。"
USED_UP = "今天的提问次数用完了，请明天再来。"
NOTHING = "这个问题我没有想出回答，请换个问法。"
BROKEN_OFF = "（回答到这里断了，请稍后再问一次。）"
NOT_HEARD = "没有听清，请再说一遍，或者发送文字。"
NOT_READ = "我只看得懂文字和语音。"
SORRY = "出了点问题，请稍后再试。"


@on("text", timeout=MODEL.seconds + 10)
async def assistant(msg, session):
    """Each `yield` is a reply of its own; what the user and the model said before is in the session."""
    question = msg.Content.strip()[:LONGEST_QUESTION]
    if not may_ask(session):
        yield USED_UP
        return
    said = []
    try:
        async with aclosing(answer(question, session.get("turns", []))) as texts:
            async for text in texts:
                said.append(text)
                yield text
    except ModelFailed as failure:
        logger.warning("the model failed: %s", failure)
        yield BROKEN_OFF if said else failure.text
    else:
        if not said:
            yield NOTHING
    if said:
        count_question(session)
        session["turns"] = within_bounds([*session.get("turns", []), [question, "\n\n".join(said)]])


async def answer(question, turns):
    """The answer as texts for WeChat, each as soon as it is there; raises ModelFailed."""
    paragraphs, failure = Paragraphs(), None
    try:
        async with aclosing(MODEL.ask(conversation(question, turns))) as pieces:
            async for piece in pieces:
                for text in paragraphs.feed(piece):
                    yield text
    except ModelFailed as error:
        failure = error
    for text in paragraphs.rest():
        yield text
    if failure:
        raise failure


def conversation(question, turns):
    """What the model is told: its task, what was said before, and the question."""
    messages = [{"role": "system", "content": PROMPT}]
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def within_bounds(turns):
    """The last of the turns; an answer that alone is too long is not told again."""
    turns = turns[-MOST_TURNS:]
    while sum(len(text.encode()) for turn in turns for text in turn) > MOST_BYTES:
        turns = turns[1:]
    return turns


def today():
    """The day in China, where the users' midnight is."""
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + CHINA))


def may_ask(session):
    """Whether the user has questions left for today."""
    return DAILY == "0" or session.get("day") != today() or session["asked"] < int(DAILY)


def count_question(session):
    """Notes a question that was answered, be it in part."""
    asked = session["asked"] if session.get("day") == today() else 0
    session.update(day=today(), asked=asked + 1)


@on("text", "新话题")
def forget(msg, session):
    session.pop("turns", None)
    return FORGOTTEN


@on("event", "subscribe")
def subscribe(msg):
    return HELLO


@on("event", "unsubscribe")
def unsubscribe(msg, session):
    """The questions left for today stay, or who leaves and comes back would have new ones."""
    session.pop("turns", None)


@on("voice")
def voice(msg):
    """`Recognition` is there while speech recognition is switched on for the account."""
    heard = msg.get("Recognition", "")
    return Message({**msg, "MsgType": "text", "Content": heard}) if heard else NOT_HEARD


@on("default")
def default(msg):
    return None if msg.MsgType == "event" else NOT_READ


@on("error")
def error(msg):
    return SORRY
