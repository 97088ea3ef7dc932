"""The application under other people's WSGI servers, and what uWSGI does to its threads."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from sandbox.messages import text_message
from sandbox.platform import Endpoint
from tests.conftest import PLAIN, ROOT, TOKEN, Account, copy_project, free_port, wait_for_port
from tests.test_promises import shown, wait_until
from wechat.errors import StartError
from wechat.system import check_uwsgi

DEPLOY = (ROOT / "docs/deploy.md").read_text("utf-8")
BIN = Path(sys.executable).parent
GUNICORN = "gunicorn --no-control-socket --threads 8 --bind 127.0.0.1:{port}"
UWSGI = "uwsgi --disable-logging --http-socket 127.0.0.1:{port}"
UWSGI_INI = "uwsgi --ini deploy/uwsgi.ini --http-socket 127.0.0.1:{port}"
SERVERS = {
    "waitress": "waitress-serve --listen=127.0.0.1:{port} wxserver:application",
    "waitress wsgi": "waitress-serve --listen=127.0.0.1:{port} wsgi:application",
    "gunicorn": GUNICORN + " wxserver:application",
    "gunicorn wsgi": GUNICORN + " wsgi",
    "gunicorn --preload": GUNICORN + " --preload wxserver:application",
    "uwsgi.ini": UWSGI_INI,
    "uwsgi.ini, two processes": UWSGI_INI + " --processes 2",
    "uWSGI with hooks": UWSGI + " --master --threads 8 --py-call-uwsgi-fork-hooks --die-on-term --wsgi-file wsgi.py",
    "uWSGI without a master": UWSGI + " --threads 8 --die-on-term --module wsgi",
}
ENDS_BY_ITSELF = {  # with wrong settings
    "waitress": SERVERS["waitress wsgi"],
    "gunicorn --preload": SERVERS["gunicorn --preload"],
    "uWSGI": UWSGI + " --wsgi-file wsgi.py",
    "uWSGI with a master": UWSGI + " --master --py-call-uwsgi-fork-hooks --wsgi-file wsgi.py",
}
SLOW = """
import time
from wechat.routing import on

@on("text", "slow", slow=True)
def slow(msg):
    time.sleep(0.3)
    return "done"
"""


@pytest.fixture
def project(tmp_path):
    """A copy of what users deploy, with a slow handler."""
    folder = tmp_path / "project"
    folder.mkdir()
    copy_project(folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    (folder / "handlers/mine.py").write_text(SLOW, "utf-8")
    return folder


@contextlib.contextmanager
def running(command, folder, **environ):
    """The server in the folder: its address, its process, and what it says so far."""
    port, output = free_port(), folder / "output"
    program, *rest = command.format(port=port).split()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    with output.open("w") as file:
        process = subprocess.Popen([BIN / program, *rest], cwd=folder, env=clean | environ, stdout=file, stderr=file)
    try:
        yield f"http://127.0.0.1:{port}/weixin", process, output.read_text
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def say(url, text):
    """What a user gets for a text."""
    return [shown(attempt.body) for attempt in Endpoint(url).deliver(*PLAIN.push(text_message(text)), 1)]


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_a_push_is_answered_a_slow_one_too_and_the_threads_live(project, command):
    """The thread of the log lives in the process that answers, and no line holds a signed URL."""
    store = f"sqlite:{project}/store.db" if "processes" in command else "memory:"
    with running(command, project, WECHAT_TOKEN=TOKEN, WECHAT_STORE=store) as (url, process, said):
        wait_for_port(int(url.split(":")[2].split("/")[0]))
        for number in range(4):
            assert say(url, "帮助")[0].startswith("发送书名"), number
            assert say(url, "slow") == ["done"]
        assert wait_until(lambda: said().count("handlers.mine.slow: text, direct") == 4)
        process.terminate()
        process.wait(30)
    assert said().count("handlers.welcome.help_text: text, direct") == 4
    assert "signature" not in said()


def test_uwsgi_answers_what_is_in_flight_when_it_is_stopped(project):
    with running(UWSGI_INI, project, WECHAT_TOKEN=TOKEN) as (url, process, said):
        wait_for_port(int(url.split(":")[2].split("/")[0]))
        assert say(url, "slow") == ["done"]
        stopping = threading.Timer(0.1, process.terminate)
        stopping.start()
        assert say(url, "slow") == ["done"]
        stopping.join()
        assert process.wait(30) == 0
    assert "goodbye to uWSGI" in said()


@pytest.mark.parametrize("command", ENDS_BY_ITSELF.values(), ids=ENDS_BY_ITSELF)
def test_wrong_settings_end_the_start_with_status_2_and_a_line_each(project, command):
    with running(command, project, WECHAT_MODE="open", WECHAT_PATH="x") as (_, process, said):
        assert process.wait(30) == 2
    lines = [line for line in said().splitlines() if "wxserver: " in line]
    assert [line.split()[1] for line in lines] == ["WECHAT_MODE", "WECHAT_PATH", "WECHAT_TOKEN"]
    assert "Traceback" not in said()


def test_uwsgi_is_refused_where_its_workers_would_have_no_threads(project):
    command = UWSGI + " --master --threads 8 --wsgi-file wsgi.py"
    with running(command, project, WECHAT_TOKEN=TOKEN) as (_, process, said):
        assert process.wait(30) == 2
    (line,) = [line for line in said().splitlines() if line.startswith("wxserver: ")]
    assert "add lazy-apps" in line


def test_the_file_for_a_host_that_runs_uwsgi_makes_the_application_in_the_worker(project):
    """uWSGI forks after it has read the file."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL)
    file = project / "host_wsgi.py"
    file.write_text(block.replace("/home/you/wxserver", str(project)).replace("LettersAndDigits1", TOKEN), "utf-8")
    with running(UWSGI + " --master --die-on-term --wsgi-file host_wsgi.py", project) as (url, _, said):
        wait_for_port(int(url.split(":")[2].split("/")[0]))
        assert say(url, "slow") == ["done"]
        assert wait_until(lambda: "handlers.mine.slow: text, direct" in said())


def test_mod_wsgi_finds_the_application_in_the_namespace_of_the_file(monkeypatch):
    """It runs the file as a module of a name of its own making, and looks into the dict.

    https://modwsgi.readthedocs.io/en/master/user-guides/reloading-source-code.html
    """
    monkeypatch.setenv("WECHAT_TOKEN", TOKEN)
    monkeypatch.delitem(sys.modules, "wxserver")  # so that it makes the application anew
    module = types.ModuleType("_mod_wsgi_8bf2f5d7")
    module.__file__ = str(ROOT / "wsgi.py")
    exec(compile((ROOT / "wsgi.py").read_text("utf-8"), module.__file__, "exec"), module.__dict__)
    application = vars(module)["application"]
    assert "发送书名" in Account(application).say("帮助")["Content"]
    application.close()


# What uWSGI says of itself


def uwsgi(worker=1, master=1, processes=1, has_threads=1, **options):
    """The module that exists inside uWSGI."""
    return types.SimpleNamespace(
        worker_id=lambda: worker, masterpid=lambda: master, numproc=processes, has_threads=has_threads, opt=options
    )


FORKS_UNTOLD = {
    "a master": uwsgi(worker=0, master=4242),
    "two processes without one": uwsgi(worker=0, master=0, processes=2),
}
KEEPS_THREADS = {
    "no uWSGI": None,
    "a worker that loads the application itself": uwsgi(**{"lazy-apps": True}),
    "the only process": uwsgi(worker=0, master=0),
    "hooks": uwsgi(worker=0, master=4242, **{"py-call-uwsgi-fork-hooks": True}),
    "the older hook": uwsgi(worker=0, master=4242, **{"py-call-osafterfork": True}),
}


@pytest.mark.parametrize("module", FORKS_UNTOLD.values(), ids=FORKS_UNTOLD)
def test_a_fork_that_python_is_not_told_of_stops_the_start(module):
    with pytest.raises(StartError, match="add lazy-apps"):
        check_uwsgi(module)


@pytest.mark.parametrize("module", KEEPS_THREADS.values(), ids=KEEPS_THREADS)
def test_nothing_is_said_where_threads_live(module, log):
    check_uwsgi(module)
    assert not log.records


def test_a_uwsgi_without_threads_is_a_warning(log):
    check_uwsgi(uwsgi(has_threads=0))
    (record,) = log.records
    assert (record.levelname, "add enable-threads" in record.message) == ("WARNING", True)
