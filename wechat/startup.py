"""What every command needs before it begins: the file `.env`, the folder of handlers, the version."""

import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache
from pathlib import Path

from wechat.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]  # where `wxserver.py` is
HANDLERS = "WECHAT_HANDLERS"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][\w.-]*)\s*=([^\0]*)", re.ASCII)
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}  # in double quotes; before any other character a backslash goes


def is_installed() -> Path | None:
    """What pip writes beside the modules that it installs; None in a checkout."""
    return next(ROOT.glob("wxserver-*.dist-info"), None)


@cache
def version() -> str:
    """The version of the server, as `setup.cfg` has it; empty where someone has copied the modules alone."""
    if info := is_installed():
        return info.stem.partition("-")[2]
    file = ROOT / "setup.cfg"
    found = re.search(r"^version = (\S+)$", file.read_text("utf-8"), re.MULTILINE) if file.exists() else None
    return found[1] if found else ""


def handlers_folder(environ: Mapping[str, str]) -> Path:
    """WECHAT_HANDLERS; by default `handlers` beside `wxserver.py`, or in the working directory of a package's user."""
    return Path(environ.get(HANDLERS, "").strip() or (Path() if is_installed() else ROOT) / "handlers")


def read_env_file(environ: MutableMapping[str, str], file: Path = Path(".env")) -> None:
    """Add the settings of a file to the environment, which wins; without the file, do nothing.

    Raises SettingsError with a line for each bad line of the file, and never with what it says.
    """
    if not file.is_file():  # some people's virtual environment is called .env
        return
    found: dict[str, str] = {}
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{file} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:  # at its first byte where Windows PowerShell wrote the file by `>`
        number = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError([f"{file}, line {number}: it is not UTF-8; save the file as UTF-8"]) from None
    if faults := list(_read_lines(text, found, file)):
        raise SettingsError(faults)
    for name, value in found.items():
        environ.setdefault(name, os.fsdecode(value.encode()))  # as a shell would have set it, whatever the locale


def _read_lines(text: str, found: dict[str, str], file: Path) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        match = _LINE.fullmatch(line)
        try:
            if match:
                found[match[1]] = _value(match[2])
            elif line and line[0] != "#":
                raise ValueError("it takes NAME=value")
        except ValueError as error:
            yield f"{file}, line {number}: {error}"


def _value(text: str) -> str:
    """The value as other readers of such files take it: quotes go, and a comment behind a blank."""
    if text.lstrip()[:1] not in ("'", '"'):
        return re.split(r"\s#", text, maxsplit=1)[0].strip()
    match = _QUOTED.fullmatch(text.strip())
    if not match:
        raise ValueError("a quote that begins the value has to end it, on the same line")
    single, double = match.groups()
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), double) if single is None else single
