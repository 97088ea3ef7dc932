"""What a model wrote, as a user of WeChat reads it."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wechat.reply import Text, plain, to_reply

A_LINK = re.compile(r'<a href="[^"<>\s]+">[^<>]+</a>')
TAG_OF_A_LINK = re.compile(r"</?a[\s>]", re.IGNORECASE)


def link(url, words):
    return f'<a href="{url}">{words}</a>'


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("这是**重点**。", "这是重点。"),
        ("**重点：**内容", "重点：内容"),
        ("*one* and _two_ and __three__ and ~~four~~", "one and two and three and four"),
        ("**Bold**face, un**believ**able", "Boldface, unbelievable"),
        ("***both*** and **bold *and* more**", "both and bold and more"),
        ("`code` and ``more code``", "code and more code"),
        ("`**kwargs` and `a_b_c`", "**kwargs and a_b_c"),
        (r"\*as it is\* and 1\. so", "*as it is* and 1. so"),
        ("a &lt; b&nbsp;&amp; c", "a < b & c"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
    ],
)
def test_marks_go_and_words_stay(markdown, text):
    assert plain(markdown) == text


@pytest.mark.parametrize(
    "text",
    [
        "2*3*4 = 24, 2**10 * 3**2, a*b*c",
        "snake_case_name and https://example.com/a_b_c",
        "5 * 3 * 2",
        "f(*args, **kwargs)",
        "**never closed",
        "a < b > c, <b>, ]]>",
        "#no heading, -no item",
        "x | y",
        "1. first\n2. second\n   indented",
        "`one tick",
        "",
        "它的标签是 <think>，在一行中间",
    ],
)
def test_what_is_no_markdown_stays_as_it_is(text):
    assert plain(text) == text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# Title\n\n## C# ##\n\n### 第三", "Title\n\nC#\n\n第三"),
        ("* one\n- two\n  + three", "• one\n• two\n  • three"),
        ("- [ ] open\n- [x] done", "☐ open\n☑ done"),
        ("* *one*\n* **two**: 2", "• one\n• two: 2"),
        ("> said **so**\n>> - again", "│ said so\n│ • again"),
        ("a\n\n---\n\n* * *\n\n___", "a\n\n———\n\n———\n\n———"),
        ("\n\na\n\n\n\n\nb  \n\n", "a\n\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
    ],
)
def test_blocks_are_lines_that_read_well(markdown, text):
    assert plain(markdown) == text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("[页面](https://example.com/)", link("https://example.com/", "页面")),
        (
            '[a **b** `c`](https://example.com/x_(y)?q=1&r=2 "title")',
            link("https://example.com/x_(y)?q=1&r=2", "a b c"),
        ),
        ("见[[1]](http://example.com/1)。", "见" + link("http://example.com/1", "[1]") + "。"),
        ("**[x](https://example.com)**", link("https://example.com", "x")),
        ("![图](https://example.com/p.png)", link("https://example.com/p.png", "图")),
        ("![](https://example.com/p.png)", link("https://example.com/p.png", "https://example.com/p.png")),
        ("<https://example.com/*a*>", link("https://example.com/*a*", "https://example.com/*a*")),
        ("<a class=x href='https://example.com/'>**x**</a>", link("https://example.com/", "x")),
        ('[x](https://example.com/"onclick="y)', link("https://example.com/%22onclick=%22y", "x")),
        ("[</a><b>](https://example.com)", link("https://example.com", "＜/a＞＜b＞")),
        ("[x](/relative) [y](#part) [z](javascript:z())", "x (/relative) y z (javascript:z())"),
        ("![图](data:image/png;base64,AAAA)", "图"),
        ("<a>x</a> <a href=", "＜a>x＜/a> ＜a href="),
        ("<a name='n'>x</a>", "x"),
    ],
)
def test_links_are_those_that_wechat_shows(markdown, text):
    assert plain(markdown) == text


def test_code_stays_as_it_is_and_shows_no_link():
    code = 'def f(**kw):\n    return "# *x*" | y\n\n- no item'
    assert plain(f"```python\n{code}\n```\n*after*") == f"{code}\nafter"
    assert plain(f"~~~\n{code}\n```\n~~~") == f"{code}\n```"
    assert plain(f"```\n{code}") == code  # what the model did not end
    assert plain("1. so:\n   ```\n   x = 1\n   ```") == "1. so:\n   x = 1"
    assert plain('`<a href="x">y</a>`') == '＜a href="x">y＜/a>'


def test_a_table_is_a_line_for_each_row_that_names_its_cells():
    rows = "| 城市 | temp | |\n|:---|:---:|--|\n| **北京** | 20<br>21 | a\\|b |\n| 上海 | 25 |"
    assert plain(f"看：\n{rows}\n\n完") == "看：\n城市：北京 | temp: 20 21 | a|b\n城市：上海 | temp: 25\n\n完"


def test_a_head_that_is_long_is_not_said_for_each_row():
    head = "a head that is longer than a phone is wide"
    assert plain(f"{head} | b\n---|---\n1 | 2\n3 | 4") == f"{head} | b\n1 | 2\n3 | 4"


@pytest.mark.parametrize(
    "markdown",
    [
        "<think>\nso, 2 < 3\n\n**hm**\n</think>\n\nanswer",
        "<THINK>hm</think>answer",
        "<think>\n\n</think>\n\nanswer",
        "hm\n\nhm\n</think>\n\nanswer",  # the template of the model has the first tag in the prompt
        "answer<think>hm</think>",
        "answer\n<think>and",
        "answer\n<thi",
    ],
)
def test_what_a_model_thinks_is_not_said(markdown):
    assert plain(markdown) == "answer"


def test_no_beginning_of_a_stream_tells_what_a_model_thinks():
    """Nor a part of a tag, but for its first sign."""
    answer = "<think>\nsecret & secret\n\nmore </thin secret\n</think>\n\nHello **you**!"
    shown = [plain(answer[:size]) for size in range(len(answer) + 1)]
    assert not any("secret" in text or "think" in text for text in shown)
    assert {text for text in shown if "Hello" not in text} <= {"", "<", "H", "He", "Hel", "Hell"}
    assert shown[-1] == "Hello you!"


@pytest.mark.parametrize("answer", ["<think>", "<think>on and on", "\n\n", "```\n```"])
def test_an_answer_that_says_nothing_is_no_reply(answer):
    assert to_reply(plain(answer)) is None


MARKS = str.split(
    r"""
    * ** *** _ __ ~~ ` `` ``` ~~~ # ## - + > | |-|- --- === [ ] ( ) ![ ]( ](https://x.y/ <a </a> <a> <think> </think>
    <br> href= " ' \ &lt; &gt; &amp; https://x.y/z <https://x.y> [a](https://x.y) a 界 😀 1. [x]
    """
)
SPACES = ["\n", "\n\n", " ", "\t", "\r"]
PARTS = st.sampled_from([*MARKS, *SPACES, "<A href='https://x.y'>", "\x00", "\ud800"])
MARKDOWN = st.lists(PARTS | st.text(max_size=3), max_size=60).map("".join)


@given(MARKDOWN)
def test_whatever_a_model_writes_its_links_are_whole(markdown):
    text = plain(markdown)
    assert not TAG_OF_A_LINK.search(A_LINK.sub("", text)), text
    assert Text(text).nodes()


@given(st.lists(st.sampled_from("a界1 \n.，"), max_size=60).map("".join))
def test_a_text_without_marks_keeps_its_words(text):
    assert plain(text).split() == text.split()


@given(MARKDOWN)
def test_a_text_is_at_most_a_few_times_as_long(markdown):
    """Its cells are named, and an address may be said twice."""
    assert len(plain(markdown)) <= 40 * len(markdown)


HOSTILE = str.split(
    r"""
    * ** *a a* _ _a ~~ ~~a ` `a ``a` [ [a [[a] [a]( [a](( [a](x( [a](b[ ![ ]( <a <a> <think> </think> < <https://x
    https:// \ & &lt; # > - |a |-|- [a](b)[ a
    """
)
HOSTILE += ["<a href=", '[a](x "', "[a](x '", "[a](x  ", "|a" * 50 + "\n|-|-\n", "\t "]


def seconds_for(text):
    """The processor time of each of three runs, of which the fastest counts."""
    for _ in range(3):
        started = time.process_time()
        plain(text)
        yield time.process_time() - started


def grows_with_the_length_alone(part, size):
    """Whether ten times the size takes less than 30 times as long; its square would be 100."""
    most = 30 * min(seconds_for(part * (size // len(part))))
    return any(seconds < most for seconds in seconds_for(part * (10 * size // len(part))))


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("unit", HOSTILE)
def test_the_time_grows_with_the_length_alone(unit, end):
    assert grows_with_the_length_alone(unit + end, 5_000)


@settings(max_examples=50)
@given(st.lists(PARTS, min_size=1, max_size=8).map("".join))
def test_no_mixture_of_marks_takes_the_square_of_its_length(unit):
    assert grows_with_the_length_alone(unit, 4_000)
