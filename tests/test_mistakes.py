"""What beginners do wrong, and the line that they read: each row is a mistake and what is said about it."""

import errno
import os
import re
import socket
import sys
from typing import NamedTuple

import pytest

from sandbox.reload import Folder, snapshot
from tests import warmed
from tests.conftest import ROOT, TOKEN, Process
from wechat.errors import RoutingError
from wechat.importing import HOMES
from wechat.mistakes import find_mistakes, unknown_settings
from wechat.routing import load
from wechat.system import advise

HEAD = "import re\nfrom wechat.routing import around, on\n"
HELLO = '@on("text", "hello")\ndef hello(msg):\n    return "hello"\n'


class Mistake(NamedTuple):
    """What stands in the folder, by file name, beside a handler that is right; and what is said."""

    title: str
    files: dict[str, str | bytes]
    said: str

    @classmethod
    def of(cls, title, source, said):
        """In a module `mine`, below the imports, which have two lines."""
        return cls(title, {"mine.py": HEAD + source}, said)


F = "def f(msg): return 'x'\n"
FAULTS = [  # they stop the start
    Mistake.of("@on without parentheses", f"@on\n{F}", r'mine.py:3: .*: @on needs parentheses, and a path in them: @on\("text"\)'),
    Mistake.of("@around without parentheses", "@around\ndef f(msg, answer): return answer()", "@around needs parentheses"),
    Mistake.of("@on()", f"@on()\n{F}", "mine.py:3: .*missing 1 required positional argument: 'msg_type'"),
    Mistake.of("an event in first place", f'@on("CLICK", "KEY")\n{F}', r'write @on\("event", "CLICK", "KEY"\)'),
    Mistake.of("an event in first place of @around", '@around("CLICK", "KEY")\ndef f(msg): pass', r'write @around\("event", "CLICK", "KEY"\)'),
    Mistake.of("two texts in one mark", f'@on("text", "hi", "hallo")\n{F}', "has at most 2 parts: one @on for each"),
    Mistake.of("a list of texts", f'@on("text", ["hi", "hallo"])\n{F}', "part 2 is a list, not a string or a compiled pattern; one @on for each"),
    Mistake.of("the same text twice", f'@on("text", "hi")\n{F}@on("text", "HI")\ndef g(msg): pass', r"is claimed twice: at handlers.mine.f \(.*:3\) and at handlers.mine.g \(.*:5\)"),
    Mistake.of("the same pattern twice", f'@on("text", re.compile("h."))\n{F}@on("text", re.compile("h."))\ndef g(msg): pass', "is claimed twice"),
    Mistake.of("the same name twice", f'@on("text", "a")\n{F}@on("text", "b")\n{F}', "hides handlers.mine.f .*: give one of them another name"),
    Mistake.of("no parameter", '@on("text")\ndef f(): return "x"', "takes no parameter: the first one is the message"),
    Mistake.of("a second parameter", '@on("text")\ndef f(msg, text): return text', "asks for text: after the message there are only match, session, api, error"),
    Mistake.of("a handler called on", f'@on("text", "a")\ndef on(msg): return "x"\n@on("text", "b")\n{F}', "a function of this module hides on of wechat.routing: give it another name"),
    Mistake.of("timeout as text", f'@on("text", timeout="5")\n{F}', "timeout takes seconds above 0"),
    Mistake.of("tabs and spaces", '@on("text")\ndef f(msg):\n    x = 1\n\treturn "x"\n', "mine.py:6: .*inconsistent use of tabs and spaces"),
    Mistake.of("a colon is missing", '@on("text")\ndef f(msg)\n    return "x"\n', "mine.py:4: the module does not import: SyntaxError: expected ':'"),
    Mistake.of("await in a def", '@on("text")\ndef f(msg): return await x()\n', "mine.py:4: .*'await' outside async function"),
    Mistake.of("an async busy handler", '@on("busy")\nasync def f(msg): return "x"\n', "it has to be a `def` that does not yield"),
    Mistake.of("a yield in @around", '@around()\ndef f(msg, answer):\n    yield answer()\n', "what it answers is returned, it cannot yield"),
    Mistake.of("a helper by its bare name", "import _helper\n", "mine.py:3: .*write: from handlers._helper import ..."),
    Mistake.of("a helper by its bare name, from", "from _helper import x\n", "write: from handlers._helper import ..."),
    Mistake.of("a helper misspelt", "from handlers._helpr import x\n", "there is no _helpr.py in .*/: did you mean _helper?"),
    Mistake.of("a package that is missing", "import requets_of_mine.models\n", "mine.py:3: .*python -m pip install requets_of_mine, and a line in requirements.txt"),
    Mistake.of("a package with another name", "from PIL import Image\n", "python -m pip install pillow, and a line in requirements.txt"),
    Mistake.of("a module of Python's misspelt", "import jsonn\n", "or did you mean json?"),
    Mistake.of("on from the package", "from wechat import on\n", "mine.py:3: .*write: from wechat.routing import on"),
    Mistake.of("a reply that is not imported", "X = Text('x')\n", "mine.py:3: .*name 'Text' is not defined; write: from wechat.reply import Text"),
    Mistake("on is not imported", {"mine.py": f'@on("text")\n{F}'}, "mine.py:1: .*name 'on' is not defined; write: from wechat.routing import on"),
    Mistake("re is not imported", {"mine.py": f'from wechat.routing import on\n@on("text", re.compile("x"))\n{F}'}, "write: import re"),
    Mistake("a file in GBK", {"mine.py": (HEAD + '@on("text", "你好")\n' + F).encode("gbk")}, "mine.py:.*; save the file as UTF-8"),
    Mistake("a file in UTF-16", {"mine.py": (HEAD + F).encode("utf-16")}, "mine.py:.*; save the file as UTF-8"),
]  # fmt: skip
WARNINGS = [  # they stop nothing
    Mistake.of("a text in first place", f'@on("hi there")\n{F}', r'handlers.mine.f \(.*/mine.py:3\): @on\("hi there"\): WeChat has no MsgType "hi there": did you mean @on\("text", "hi there"\)\?'),
    Mistake.of("a MsgType misspelt", f'@on("txt")\n{F}', r'no MsgType "txt": did you mean @on\("text", "txt"\), or @on\("text"\)\?'),
    Mistake.of("a MsgType misspelt for @around", '@around("imgae")\ndef f(msg, answer): return answer()', r'or @around\("image"\)\?'),
    Mistake.of("an event alone in first place", f'@on("subscribe")\n{F}', r'an event comes second: write @on\("event", "subscribe"\)'),
    Mistake.of("an event in capitals in first place", f'@on("CLICK")\n{F}', r'an event comes second: write @on\("event", "CLICK"\)'),
    Mistake.of("an event misspelt", f'@on("event", "subscirbe")\n{F}', 'WeChat has no event "subscirbe": did you mean "subscribe"?'),
    Mistake.of("an event misspelt, with a key", f'@on("event", "scancode_waitmessage", "KEY")\n{F}', 'did you mean "scancode_waitmsg"?'),
    *(
        Mistake.of(f"a pattern as text: {text}", f'@on("text", r"{text}")\n{F}', re.escape(f'where it is a pattern, write re.compile(r"{text}")'))
        for text in (r"order \d+", "hello.*", "^hello$", "^hello", "hello$", "你好|您好", "[0-9]+", r"(a|b)", r"x{4}", "(?i)hello", "你好.+")
    ),
    Mistake.of("a pattern as event", f'@on("event", "card_.*")\n{F}', "where it is a pattern, write"),
    Mistake.of("a pattern as key", f'@on("event", "CLICK", r"DISH_\\d+")\n{F}', "where it is a pattern, write"),
    Mistake.of("a method", "class Bot:\n    @on('text')\n    def f(self, msg): return 'x'\n", "mine.py:4: f never answers: it stands in the class Bot"),
    Mistake.of("a nested function", "def outer():\n    @on('text')\n    def f(msg): return 'x'\n", "mine.py:4: f never answers: it stands in the function outer"),
    Mistake.of("a handler in a handler", '@on("text")\ndef f(msg):\n    @on("image")\n    async def g(msg): return "x"\n    return "y"\n', "mine.py:5: g never answers: it stands in the function f"),
    Mistake.of("another function of its name", f'@on("text")\n{F}def f(): pass\n', "mine.py:3: f never answers: its mark is lost"),
    Mistake.of("another decorator on top", f'def top(f): return lambda msg: f(msg)\n@top\n@on("text")\n{F}', "mine.py:4: f never answers: its mark is lost: let @on be the topmost decorator"),
    Mistake.of("a factory whose product is dropped", 'def make(text):\n    @on("text", text)\n    def f(msg): return text\nmake("a")\n', "f never answers: it stands in the function make"),
    Mistake.of("no return", '@on("text")\ndef f(msg):\n    """Greets."""\n    f"hello {msg.Content}"\n', """mine.py:3: f returns nothing: write return before f'hello {msg.Content}'"""),
    Mistake.of("no return, a bare text", '@on("text")\ndef f(msg):\n    "hello"\n', "f returns nothing: write return before"),
    Mistake.of("no return, a reply", 'from wechat.reply import Text\n@on("text")\ndef f(msg):\n    if msg.Content:\n        Text("x")\n', "f returns nothing: write return before Text"),
    Mistake.of("print", '@on("text")\ndef f(msg): print("hello")\n', "f returns nothing: write return before print"),
    Mistake.of("@around without return", '@around()\ndef f(msg, answer): answer()\n', r"f returns nothing: write return before answer\(\)"),
    Mistake.of("async @around without return", '@around()\nasync def f(msg, answer): await answer()\n', r"f returns nothing: write return before answer\(\)"),
    Mistake.of("no await", '@on("text")\nasync def f(msg, api):\n    api.send("o1", "x")\n    return "x"\n', r"mine.py:3: f does not wait: write await before api.send\('o1', 'x'\)"),
    Mistake.of("no await in @around", '@around()\nasync def f(msg, answer):\n    answer()\n', r"f does not wait: write await before answer\(\)"),
    Mistake("no mark", {"mine.py": "def f(msg):\n    return 'x'\n"}, 'mine.py:1: f has no mark: write @on\\("text"\\) above it'),
    Mistake("a mark in a helper", {"_more.py": f'{HEAD}@on("text")\n{F}', "mine.py": "import handlers._more\n"}, "_more.py:3: f never answers: handlers belong into a module without _"),
    Mistake("a folder", {"games/guess.py": f'{HEAD}@on("text")\n{F}'}, "games/: nobody loads what is in a folder: move guess.py up"),
    Mistake("a package", {"games/__init__.py": "", "games/guess.py": f'{HEAD}@on("text")\n{F}'}, "games/: nobody loads what is in a folder: move guess.py up"),
    Mistake("Windows hides the ending", {"mine.py.txt": f'{HEAD}@on("text")\n{F}'}, "mine.py.txt: nobody loads it: the name of a module ends in .py"),
    Mistake("no ending", {"mine": f'{HEAD}@on("text")\n{F}'}, "mine: nobody loads it: the name of a module ends in .py"),
    Mistake("pyw", {"mine.pyw": ""}, "mine.pyw: nobody loads it"),
    Mistake("a dot in the name", {"mine.v2.py": f'{HEAD}@on("text")\n{F}'}, "mine.v2.py: nobody loads it: take the dot out of its name"),
]  # fmt: skip


def write(folder, files):
    for name, source in {"hello.py": HEAD + HELLO, "_helper.py": "x = 1\n", **files}.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(source if isinstance(source, bytes) else source.encode())
    return folder


def titles(mistakes):
    return pytest.mark.parametrize("mistake", mistakes, ids=lambda mistake: mistake.title)


@pytest.mark.interpreter
@titles(FAULTS)
def test_a_mistake_that_cannot_be_passed_over_stops_the_start(mistake, tmp_path):
    with pytest.raises(RoutingError) as caught:
        load(write(tmp_path, mistake.files), {})
    (fault,) = caught.value.faults
    assert re.search(mistake.said, fault), fault


@pytest.mark.interpreter
@titles(WARNINGS)
def test_a_mistake_that_stops_nothing_is_said(mistake, tmp_path):
    folder = write(tmp_path, mistake.files)
    (said,) = find_mistakes(folder, load(folder, {}))
    assert re.search(mistake.said, said), said


RIGHT = {
    "books.csv": "isbn,title\n",
    "menu.json": "{}",
    "words.txt": "hello\n",
    "picture.png": b"\x89PNG",
    "README": "what stands here\n",
    ".hidden.py.swp": "",
    "hello.py~": "",
    "lib/__init__.py": "",
    "lib/prices.py": "price = 5\n",
    "pictures/one.png": b"\x89PNG",
    "bom.py": b"\xef\xbb\xbf" + HEAD.encode(),
    "gbk.py": ("# coding: gbk\n" + HEAD + '@on("text", "你好")\ndef f(msg): return "您好"\n').encode("gbk"),
    "calendar.py": f'import calendar\n{HEAD}assert calendar.month_name\n@on("text", "month")\ndef month(msg): return "x"\n',
    "my handlers.py": f'{HEAD}@on("text", "blank")\ndef f(msg): return "x"\n',
    "texts.py": "from wechat.texts import Texts\nTEXTS = Texts()\ndef helper(msg): return 5\n",
    "prices.py": "def price(number): return 5\n",
    "all.py": HEAD
    + '''
from functools import wraps
from handlers.lib.prices import price
from handlers._marked import marked

def noted(function):
    @wraps(function)
    def noting(msg, **more): return function(msg, **more)
    return noting

def top(function):
    @wraps(function)
    def inner(msg): return function(msg)
    return inner

def make(text):
    @on("text", text)
    def answer(msg): return text
    return answer

first, second = make("one"), make("two")

@top
@on("text", "wrapped")
def wrapped(msg): return "x"

@on("Text", " Hi ")
@on("EVENT", "subscribe")
@on("event", "click", "https://example.com/?a=1+1&b=[x]")
async def several(msg): return helper(msg)

def helper(msg): return "x"

@on("event", "VIEW")
def view(msg): print("opened")

@on("event", "unsubscribe")
def leave(msg, session):
    """Nothing can be said."""

@on("text", "bye")
def bye(msg, session):
    session.clear()

@on("error")
def failed(msg, error): print(error)

@on("text", "c++")
@on("text", "^_^")
@on("text", "a+")
@on("text", "what?")
@on("text", "5$")
@on("text", "[微笑]")
@on("text", "...")
@on("text", "(:")
@on("event", "some_new_event")
@on("event", "CLICK", "a|b")
@on(re.compile("device_.*"))
@on("text", "yields")
def odd(msg):
    yield "x"

if price:
    @on("text", "price")
    def told(msg): return str(price)
else:
    @on("text", "no price")
    def untold(msg): return "x"

@around("text")
def note(msg, answer):
    print("seen")
    return answer()

@around("image")
def closed(msg): return "closed"
''',
    "_marked.py": f'{HEAD}@on("text", "marked")\ndef marked(msg): return "x"\n',
    "_off.py": "this is no Python @on(\n",
}  # fmt: skip


def test_what_is_right_or_data_is_not_spoken_of(tmp_path):
    folder = write(tmp_path, RIGHT)
    routes = load(folder, {})
    assert find_mistakes(folder, routes) == []
    assert {("text", "blank"), ("text", "month"), ("text", "你好"), ("text", "two"), ("text", "marked")} <= set(routes)


@pytest.mark.parametrize(
    "folder",
    ["handlers", "examples/assistant", "wechat/data/new/handlers", "tests/bench/handlers", "tests/mortal_handlers"],
)
def test_the_handlers_of_this_project_are_without_a_mistake(folder):
    environ = {"ASSISTANT_KEY": "k" * 20, "ASSISTANT_URL": "https://example.com/v1", "ASSISTANT_MODEL": "m"}
    assert find_mistakes(ROOT / folder, load(ROOT / folder, environ)) == []


def test_a_folder_without_a_handler_is_said(tmp_path):
    (said,) = find_mistakes(tmp_path, load(tmp_path, {}))
    assert said == f'{tmp_path.name}/: no handler in it: write @on("text") above a function, in a module of the folder'


def test_a_folder_with_nothing_but_a_wrapper_is_said(tmp_path):
    (tmp_path / "mine.py").write_text(HEAD + '@around()\ndef closed(msg): return "closed"\n')
    (said,) = find_mistakes(tmp_path, load(tmp_path, {}))
    assert "no handler in it" in said


def test_the_homes_of_names_are_right():
    for module, names in HOMES.items():
        __import__(module)
        known = vars(sys.modules[module])
        assert [name for name in names.split() if name not in known and name != "TransferToAI"] == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WECHAT_TOKN", "WECHAT_TOKEN"),
        ("WECHATTOKEN", "WECHAT_TOKEN"),
        ("WEIXIN_TOKEN", "WECHAT_TOKEN"),
        ("wechat_token", "WECHAT_TOKEN"),
        ("WECHAT_APP_ID", "WECHAT_APPID"),
        ("WECHAT_AESKEY", "WECHAT_AES_KEY"),
        ("WECHAT_APPSECRET", "WECHAT_SECRET"),
    ],
)
def test_a_setting_that_is_none_is_said_with_the_nearest(name, meant):
    assert list(unknown_settings({name: "secret", "WECHAT_TOKEN": "x", "PATH": "x"})) == [
        f"{name} is not a setting of the server: did you mean {meant}?"
    ]


# Where it is said


def test_a_port_in_use_is_said_with_what_to_set():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("wxserver.py", HOST="127.0.0.1", PORT=port)
    assert done.returncode == 2
    assert done.stderr.startswith(f"wxserver: HOST, PORT: cannot listen on 127.0.0.1:{port}: ")
    assert done.stderr.endswith("; another program listens there: stop it, or set PORT to a free one, like PORT=9000\n")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "set PORT to a higher one"),
        (errno.EADDRNOTAVAIL, "set HOST=0.0.0.0"),
        (errno.EIO, "[Errno 5] no"),
    ],
)
def test_why_it_is_not_possible_to_listen_is_said(number, said):
    assert said in advise(OSError(number, "no"))


def run(*arguments, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    return warmed.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONUTF8": "1", "WECHAT_TOKEN": TOKEN, **environ},
    )


def test_check_says_it_and_is_content(tmp_path):
    folder = write(tmp_path, {"mine.py": f'{HEAD}@on("hi there")\n{F}'})
    sound = {"WECHAT_TOKEN": "a-token-of-some-length", "HOST": "127.0.0.1"}
    done = run("-m", "wechat", "--handlers", str(folder), "check", **sound)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert 'did you mean @on("text", "hi there")?' in line


def test_the_start_says_it_and_serves(tmp_path):
    folder = write(tmp_path, {"mine.py": f'{HEAD}@on("hi there")\n{F}'})
    server = Process(WECHAT_HANDLERS=str(folder), WECHAT_TOKN="x")
    server.stop()
    warnings = [line.partition(" WARNING wxserver: ")[2] for line in server.lines if " WARNING " in line]
    assert len(warnings) == 2
    assert warnings[0] == "WECHAT_TOKN is not a setting of the server: did you mean WECHAT_TOKEN?"
    assert 'did you mean @on("text", "hi there")?' in warnings[1]


def test_a_reload_says_it_and_uses_the_handlers(tmp_path):
    told, used = [], []
    folder = Folder(write(tmp_path, {}), snapshot(tmp_path), {}, used.append, lambda menu: 0, told.append)
    (tmp_path / "mine.py").write_text(f'{HEAD}@on("hi there")\n{F}')
    folder.look()
    assert list(used[0]) == [("text", "hello"), ("hi there",)]
    assert [re.sub(r"\(.*?\)", "", line) for line in told[0]] == [
        'warning: handlers.mine.f : @on: WeChat has no MsgType "hi there": did you mean @on?'
    ]
