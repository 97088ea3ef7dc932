"""The package as others get it: a wheel, built and installed into an empty environment, and an account made with it."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT, TOKEN

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "wxserver.py", "wechat", "sandbox")
NEXT = "1.0.1"
MINUTE = 60.0  # seconds
TEMPLATE = ROOT / "wechat/data/new"
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_", "PYTHON", "VIRTUAL"))
}


def version():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config["metadata"]["version"]


def call(*command, cwd, **environ):
    """What a command says, which has to succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**CLEAN, "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The folder with this version's wheel, and that of the next one; what is built is a copy."""
    top = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, top / name)
    for number in (version(), NEXT):
        text = (ROOT / "setup.cfg").read_text("utf-8")
        (top / "setup.cfg").write_text(text.replace(f"\nversion = {version()}\n", f"\nversion = {number}\n"), "utf-8")
        call(sys.executable, "-m", "build", "--wheel", "--outdir", "dist", cwd=top)
    return top / "dist"


class Environment:
    """An environment with nothing but the wheel and pytest, and an empty folder."""

    def __init__(self, top, wheels):
        self.wheels, self.account = wheels, top / "my account"
        self.account.mkdir()
        call(sys.executable, "-m", "venv", "--without-pip", top / "venv", cwd=top)
        self.bin = top / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / "python"

    def wheel(self, number):
        return self.wheels / f"wxserver-{number}-py3-none-any.whl"

    def install(self, *what):
        """The same as `pip install` in it; a pip of its own would take seconds to install."""
        call(sys.executable, "-m", "pip", "--python", self.python, "install", "-q", *what, cwd=self.account)

    def run(self, *arguments, **environ):
        """What `python -m` says, in the account's folder."""
        return call(self.python, "-m", *arguments, cwd=self.account, **environ)


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("environment"), wheels)


def reply_of_the_sandbox(environment, serve, text):
    """What a user gets for a text from `python -m sandbox` in the account's folder."""
    process = serve("-m", "sandbox", python=environment.python, cwd=environment.account, sign="Server ")
    return environment.run("sandbox", "push", "text", text, "--url", process.url, WECHAT_TOKEN=TOKEN)


def test_the_wheel_holds_the_code_what_it_reads_and_nothing_else(wheels):
    names = set(zipfile.ZipFile(wheels / f"wxserver-{version()}-py3-none-any.whl").namelist())
    data = {str(file.relative_to(ROOT).as_posix()) for file in TEMPLATE.rglob("*") if "__pycache__" not in str(file)}
    data = {name for name in data if (ROOT / name).is_file()}
    assert (
        data | {"wechat/data/replies.py", "wechat/data/zh.txt", "sandbox/console.html", "sandbox/console.json"} <= names
    )
    assert {"wechat/py.typed", "wechat/fields.pyi", "wechat/signatures.pyi", "sandbox/py.typed"} <= names
    assert {"wxserver.py", "wechat/store/sqlite.py"} <= names
    assert {name.partition("/")[0] for name in names} == {
        "wxserver.py",
        "wechat",
        "sandbox",
        f"wxserver-{version()}.dist-info",
    }
    assert not [name for name in names if name.endswith(".pyc")]


def test_an_account_is_made_answers_and_is_tested_in_under_a_minute(environment, serve):
    began = time.monotonic()
    environment.install(environment.wheel(version()), "pytest")
    environment.run("wechat", "new", ".")
    assert reply_of_the_sandbox(environment, serve, "hello").count("你好，很高兴认识你！") == 1
    assert "2 passed" in environment.run("pytest", "-q", "-p", "no:cacheprovider")
    assert "settings: good" in environment.run("wechat", "check", WECHAT_TOKEN=TOKEN)
    assert time.monotonic() - began < MINUTE


def test_the_script_serves_the_account_by_its_env_file_and_every_command_tells_the_version(environment, serve):
    shutil.copy(environment.account / ".env.example", environment.account / ".env")
    text = (environment.account / ".env").read_text("utf-8")
    text = text.replace("WECHAT_TOKEN=", "WECHAT_PATH=/here\nWECHAT_TOKEN=of-the-file")
    (environment.account / ".env").write_text(text, "utf-8")
    script = environment.bin / "wxserver"
    assert (environment.account / "Procfile").read_text() == "web: exec wxserver\n"
    assert (environment.account / "Dockerfile").read_text().endswith('\nCMD ["wxserver"]\n')
    for command in ([script], [environment.python, "-m", "wechat"], [environment.python, "-m", "sandbox", "push"]):
        assert call(*command, "--version", cwd=environment.account) == f"wxserver {version()}\n"
    process = serve(str(script), python=environment.python, cwd=environment.account)
    assert process.url.endswith("/here")
    pushed = environment.run("sandbox", "push", "text", "hello", "--url", process.url, WECHAT_TOKEN=TOKEN)
    assert "你好" in pushed  # the environment's token, not the file's


def test_the_handlers_of_a_fork_run_on_the_package(environment, tmp_path):
    """Any of them may be copied; docs/upgrade.md says which files belong together."""
    shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
    sound = {"WECHAT_TOKEN": "a-token-of-some-length", "HOST": "127.0.0.1"}
    said = call(environment.python, "-m", "wechat", "check", cwd=tmp_path, **sound)
    assert "warning" not in said
    shutil.copy(TEMPLATE / "handlers/hello.py", tmp_path / "handlers/hello.py")
    command = [environment.python, "-m", "wechat", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False)
    assert "hello.py" in done.stderr
    assert "is claimed twice" in done.stderr


def test_the_account_runs_unchanged_on_the_next_version(environment, serve):
    """The way of docs/upgrade.md: the wheel, a line in requirements.txt, the tests, `check`."""
    files = {file: file.read_bytes() for file in environment.account.rglob("*.py")}
    shutil.copy(environment.wheel(NEXT), environment.account / "wheels")
    requirements = environment.account / "requirements.txt"
    text = requirements.read_text("utf-8")
    assert f"\nwxserver=={version()}\n" in text
    requirements.write_text(text.replace(f"=={version()}", f"=={NEXT}"), "utf-8")
    environment.install("-r", "requirements.txt")
    assert environment.run("wechat", "--version") == f"wxserver {NEXT}\n"
    assert "2 passed" in environment.run("pytest", "-q", "-p", "no:cacheprovider")
    assert "settings: good" in environment.run("wechat", "check", WECHAT_TOKEN=TOKEN)
    assert "你好" in reply_of_the_sandbox(environment, serve, "hello")
    assert {file: file.read_bytes() for file in files} == files


def test_the_versions_that_are_tested_are_among_those_that_the_package_allows():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    for line in config["options"]["install_requires"].split():
        name, least = line.split("~=")
        assert pinned[name].rpartition(".")[0] == least.rpartition(".")[0]
        assert int(pinned[name].rpartition(".")[2]) >= int(least.rpartition(".")[2])


def test_the_changelog_begins_with_the_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1]
    assert first == version()


# In a checkout


@pytest.mark.parametrize("is_there", ["a file in it", "a file"])
def test_new_refuses_a_folder_that_is_not_empty(tmp_path, is_there):
    folder = tmp_path / "mine"
    if is_there == "a file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "notes").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "wechat", "new", folder],
        cwd=ROOT,
        env=CLEAN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not empty" in done.stderr
    assert [path.read_text() for path in (folder, folder / "notes") if path.is_file()] == ["mine"]


def test_new_says_that_a_checkout_has_to_be_installed_first(tmp_path):
    said = call(sys.executable, "-m", "wechat", "new", tmp_path / "mine", cwd=ROOT)
    assert f"next: python -m pip install {ROOT}, cd {tmp_path / 'mine'} and python -m sandbox; " in said


def test_new_takes_an_empty_folder_and_one_below_others_that_are_not_there(tmp_path):
    for folder in (tmp_path, tmp_path / "new/deeper"):
        call(sys.executable, "-m", "wechat", "new", folder, cwd=ROOT)
        assert f"wxserver=={version()}\n" in Path(folder, "requirements.txt").read_text()
        assert not list(folder.rglob("__pycache__"))
        assert list(Path(folder, "wheels").iterdir()) == []  # where pip looks
