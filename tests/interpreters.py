"""`python -m tests.interpreters`: runs the tests that are marked `interpreter` on the other Pythons of this machine.

Each supported version gets one run, on its newest release, in `.venv-VERSION` with what these tests need. Exit status 1
where a run fails, or where no Python after 3.12 is found.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SUPPORTED, NEW = (3, 11), (3, 13)  # the oldest that runs; the oldest that CI cannot do without
NEEDED = ["-r", "requirements.txt", "-c", "requirements-dev.txt", "pytest", "hypothesis", "cryptography", "redis"]
PLACES = [  # beside PATH: pyenv, uv, Debian, Homebrew, python.org's own for macOS
    *(os.environ.get("PYENV_ROOT", "~/.pyenv") + "/versions/*/bin", "~/.local/share/uv/python/*/bin"),
    *("/usr/bin", "/usr/local/bin", "/opt/*/bin", "/Library/Frameworks/Python.framework/Versions/*/bin"),
]
ASK = """
import sys
print(".".join(map(str, sys.version_info[:3])))
print(sys.version + getattr(sys, "base_prefix", sys.prefix))
"""


class Interpreter(NamedTuple):
    """A Python by its version; `identity` also tells two builds of one version apart."""

    version: tuple[int, ...]
    path: str
    identity: str

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


def ask(path: str | Path) -> Interpreter | None:
    """The interpreter at a path; None where nothing there runs."""
    try:
        done = subprocess.run([path, "-c", ASK], capture_output=True, text=True, timeout=20, check=True)
        version, identity = done.stdout.split("\n", 1)
        return Interpreter(tuple(map(int, version.split("."))), str(path), identity)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def folders() -> Iterable[Path]:
    """Where to look."""
    yield from map(Path, os.environ["PATH"].split(os.pathsep))
    for place in map(Path, map(os.path.expanduser, PLACES)):
        yield from Path(place.anchor).glob(str(place.relative_to(place.anchor)))


def find(places: Iterable[Path]) -> list[Interpreter]:
    """The newest release of each version in these folders, oldest version first."""
    files = (file for folder in places if folder.is_dir() for file in folder.iterdir())
    named = {file.resolve() for file in files if re.fullmatch(r"python[23]?(\.\d+)?", file.name)}
    found = sorted(filter(None, map(ask, named)))
    return list({one.version[:2]: one for one in found}.values())


def make_venv(interpreter: Interpreter) -> Path:
    """A virtual environment of this very interpreter, with what the tests need; gives its Python."""
    folder = ROOT / f".venv-{interpreter}"
    python = folder / "bin/python"
    made = ask(python)
    if not made or made.identity != interpreter.identity:
        subprocess.run([interpreter.path, "-m", "venv", "--clear", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *NEEDED], cwd=ROOT, check=True)
    return python


def run_tests(interpreter: Interpreter) -> bool:
    """Whether the marked tests pass on it."""
    print(f"\nThe tests marked `interpreter` on Python {interpreter}, {interpreter.path}", flush=True)
    files = [file for file in sorted(ROOT.glob("tests/test_*.py")) if "mark.interpreter" in file.read_text("utf-8")]
    try:
        command = [make_venv(interpreter), "-m", "pytest", "-q", "-m", "interpreter", "-p", "no:cacheprovider", *files]
        return subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    except subprocess.CalledProcessError as error:
        print(error)
        return False


def main() -> int:
    """Say which were found, and run the tests on those that this one is not."""
    here, found = sys.version_info, find(folders())
    print("Pythons found:", *(f"{one} ({one.path})" for one in found), sep="\n  ", flush=True)
    others = [one for one in found if one.version >= SUPPORTED and one.version[:2] != here[:2]]
    failed = [str(one) for one in others if not run_tests(one)]
    if failed:
        print(f"failed on Python {', '.join(failed)}")
    if max([here[:2], *(one.version[:2] for one in others)]) < NEW:
        print(f"no Python {NEW[0]}.{NEW[1]} or newer was found: install one, on PATH or by pyenv")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
