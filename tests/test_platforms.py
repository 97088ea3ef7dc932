"""Server, sandbox and commands on Windows and macOS, simulated: `windows/` takes away what Windows lacks."""

import ast
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint, signed_query
from sandbox.testing import APPID, SECRET
from tests.conftest import COMPAT, PLAIN, ROOT, SAFE, SEALED, TOKEN
from tests.test_house import CODE, tree
from tests.test_promises import HANDLERS, SERVE, say, shown, wait_until
from wechat.system import MACOS_OPEN_MAX, allow_open_files, take_name

WINDOWS = {"PYTHONPATH": str(ROOT / "tests/windows"), "PYTHONWARNDEFAULTENCODING": "1", "PYTHONUTF8": "0"}
CTRL_BREAK = 21


def run_on_windows(*command, **environ):
    """What a command of this Python did on Windows, in the code page of a Chinese console."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WECHAT_")}
    environ = {**clean, **WINDOWS, "WECHAT_TOKEN": TOKEN, "PYTHONIOENCODING": "gbk", **environ}
    command = [sys.executable, *command]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, encoding="gbk", timeout=30, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import resource",
        "import os; os.fork",
        "import os; os.link",
        "import os; os.register_at_fork",
        "import select; select.poll",
        "import signal; signal.SIGUSR1",
        "import signal; signal.signal(1, print)",
        "import os; os.kill(os.getpid(), 0)",
        "import select; select.select([], [], [], 0)",
        "open('README.md')",
        "import os; file = open('README.md', encoding='utf-8'); os.rename('README.md', 'README')",
    ],
)
def test_the_simulation_lacks_what_windows_lacks(code):
    assert run_on_windows("-c", code).returncode != 0


# The server


@pytest.mark.interpreter
@pytest.mark.parametrize("platform", [PLAIN, COMPAT, SAFE], ids=lambda platform: platform.mode)
def test_on_windows_a_push_is_answered_in_each_mode(serve, platform):
    sealed = {} if platform is PLAIN else {**SEALED, "WECHAT_MODE": platform.mode}
    server = serve(**WINDOWS, **sealed)
    (attempt,) = Endpoint(server.url).deliver(*platform.push(text_message("三体")), most=1)
    assert "三体" in platform.open(attempt.body)


@pytest.fixture
def start_on_windows(serve, tmp_path):
    """A function that starts a server with slow handlers on Windows."""
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers/mine.py").write_text("import re\n" + HANDLERS, "utf-8")
    return lambda **environ: serve("-c", SERVE, str(tmp_path / "handlers"), **WINDOWS, **environ)


@pytest.mark.interpreter
@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_on_windows_each_store_keeps_sessions_and_late_replies(start_on_windows, kind, request, tmp_path):
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/store.db"}.get(kind)
    url = url or request.getfixturevalue("redis_url").replace("/0", "/1")  # a database that no other test uses
    server = start_on_windows(WECHAT_STORE=url, WECHAT_REPLY_WITHIN="0.3")
    assert [say(server, "count")[1], say(server, "count")[1]] == ["1", "2"]
    assert say(server, "slow 1.2", hang_up=0.4) == (3, "还在处理，稍后回复“继续”获取结果")
    assert wait_until(lambda: say(server, "继续")[1] == "done slow 1.2")


def test_on_windows_a_late_reply_is_pushed_as_a_customer_message(start_on_windows, cloud):
    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    server = start_on_windows(WECHAT_REPLY_WITHIN="0.3", **credentials)
    assert say(server, "slow 0.6") == (1, "")
    assert wait_until(lambda: [message["text"]["content"] for _, message in cloud.sent] == ["done slow 0.6"])


@pytest.mark.interpreter
@pytest.mark.parametrize("number", [signal.SIGINT, CTRL_BREAK], ids=["Ctrl-C", "Ctrl-Break"])
def test_on_windows_either_key_ends_the_server_once_all_is_answered(start_on_windows, number):
    server = start_on_windows()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        body = text_message("slow 1").encode()
        head = f"POST /weixin?{signed_query(TOKEN)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.3)
        server.process.send_signal(number)
        assert shown(connection.recv(10_000).partition(b"\r\n\r\n")[2]) == "done slow 1"
    assert server.process.wait(10) == 0
    server.reader.join(10)
    assert server.lines[-1].endswith(" INFO wxserver: stopped")


def test_on_windows_a_port_that_another_server_has_ends_the_start(serve):
    first = serve(**WINDOWS)
    second = run_on_windows("wxserver.py", HOST="127.0.0.1", PORT=str(first.port))
    assert second.returncode == 2
    assert "HOST, PORT: cannot listen on 127.0.0.1" in second.stderr


def test_on_windows_more_connections_than_select_takes_do_not_end_the_server(serve):
    server = serve(**WINDOWS)
    crowd = []
    try:
        while len(crowd) < 560:
            crowd.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        wait_until(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) > 540, seconds=1)
    finally:
        for connection in crowd:
            connection.close()
    assert say(server, "帮助", most=1)[0] == 1
    assert server.process.poll() is None


# The sandbox and the commands


@pytest.mark.interpreter
def test_on_windows_the_sandbox_serves_its_page_and_ends_with_ctrl_c(sandbox):
    running = sandbox(**WINDOWS)
    page = Endpoint(running.page).request("GET", "")
    assert (page.status, b"<script>" in page.body) == (200, True)
    push = ["-m", "sandbox", "push", "text", "三体", "--url", running.url, "--token", TOKEN]
    assert "刘慈欣" in run_on_windows(*push).stdout
    running.write("mine.py", "from wechat.routing import on\n@on('text', 'new')\ndef new(msg): return 'loaded'\n")
    assert wait_until(lambda: say(running, "new")[1] == "loaded")
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(10) == 0


COMMANDS = [
    "-m wechat check",
    "-m wechat routes",
    "-m wechat explain 三体",
    "-m wechat token",
    "-m wechat menu push handlers/menu.json",
    "-m wechat send o9AgO5Kd5ggOC-bXrbNODIiE3bGY 你好",
    "-m sandbox check URL --token testtoken",
    "-m sandbox load URL --token testtoken --rate 20 --seconds 0.5",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_on_windows_each_command_does_its_work(serve, cloud, command):
    server = serve(**WINDOWS)
    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    arguments = command.replace("URL", server.url).split()
    done = run_on_windows(*arguments, **credentials)
    assert (done.returncode, done.stderr) == (0, "")


def test_on_windows_a_medium_is_uploaded_and_downloaded(cloud, tmp_path):
    credentials = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET, "WECHAT_API_URL": cloud.url}
    picture, copy = ROOT / "docs/page-phone.png", tmp_path / "图.png"
    media_id = run_on_windows("-m", "wechat", "media", "upload", "image", str(picture), **credentials).stdout.strip()
    done = run_on_windows("-m", "wechat", "media", "get", "-o", str(copy), "--", media_id, **credentials)
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.read_bytes() == picture.read_bytes()
    cloud.fail("/cgi-bin/media/get", "cut", times=None)
    done = run_on_windows(
        "-m", "wechat", "media", "get", "-o", str(tmp_path / "other.png"), "--", media_id, **credentials
    )
    assert "the answer was cut off" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["图.png"]


# What a platform does differently


def test_on_windows_a_process_has_no_place_where_it_can_be_looked_at():
    """os.kill(pid, 0) would send Ctrl-C to whoever has that number now: its sign of life alone decides."""
    code = "from wechat.store.owners import *; from wechat.store.memory import MemoryStore\n"
    code += "owners = Owners(MemoryStore()); gone = owners.me.replace('/', '/x', 1); print(owners.is_dead(gone))"
    assert run_on_windows("-c", code).stdout.split() == ["False"]


class Limits:
    """The module `resource` of macOS, which refuses what it says it allows."""

    RLIMIT_NOFILE, limits = 8, (256, 2**63 - 1)

    def getrlimit(self, _):
        return self.limits

    def setrlimit(self, _, limits):
        if limits[0] > MACOS_OPEN_MAX:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


@pytest.mark.parametrize(("before", "after"), [(256, MACOS_OPEN_MAX), (20_000, 20_000)])
def test_on_macos_as_many_files_are_allowed_as_it_really_allows(monkeypatch, before, after):
    monkeypatch.setitem(sys.modules, "resource", limits := Limits())
    limits.limits = (before, limits.limits[1])
    allow_open_files()
    assert limits.limits[0] == after


def test_a_name_is_given_once_also_where_there_are_no_links(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "link")
    for text in ("first", "second"):
        (tmp_path / text).write_text(text)
    take_name(tmp_path / "first", str(tmp_path / "name"))
    with pytest.raises(FileExistsError):
        take_name(tmp_path / "second", str(tmp_path / "name"))
    assert (tmp_path / "name").read_text() == "first"


def test_a_server_without_stderr_refuses_like_any_other(tmp_path):
    """pythonw.exe and services of Windows have none, and what is written to it is lost."""
    code = "import sys; sys.stderr = None; from wechat.log import configure; configure('info'); import logging\n"
    code += "logging.warning('lost'); print('goes on')"
    assert run_on_windows("-c", code).stdout == "goes on\n"


# What the code may touch


LACKING = {
    "os": {"fork", "kill", "link", "mkfifo", "register_at_fork", "getuid", "geteuid", "uname", "getppid", "waitpid"},
    "select": {"poll", "epoll", "select"},
    "signal": {"alarm", "SIGTERM", "SIGINT", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGCHLD", "SIGPIPE", "SIGQUIT"},
    "socket": {"AF_UNIX", "SO_REUSEADDR", "SO_REUSEPORT"},
    "sys": {"platform"},
}
MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "select", "termios", "msvcrt", "winreg", "platform"}


def touched(file):
    """What a module names of all this, like `os.kill`."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LACKING.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in {*MODULES, *LACKING}:
            names = {alias.name for alias in node.names}
            yield from names if node.module in MODULES else names & LACKING[node.module]


def test_only_one_module_touches_what_a_platform_may_lack():
    assert {file.name for file in CODE if list(touched(file))} == {"system.py"}
