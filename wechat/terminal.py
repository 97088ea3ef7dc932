"""What every command prints on, and how it ends: neither a closed pipe nor a narrow encoding is a traceback."""

import argparse
import errno
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from wechat.errors import StartError
from wechat.platform.answers import BREAKS
from wechat.startup import read_env_file, version

OK, WARN, FAIL = "ok", "warn", "FAIL"  # FAIL breaks the account, or opens it to others; WARN does not today
LOST = (errno.EPIPE, errno.EINVAL)  # what writing to a closed pipe gives; EINVAL is Windows' own
INTERRUPTED = 130  # the exit status that shells give a program ended by Ctrl-C


class Parser(argparse.ArgumentParser):
    """A parser with the options of all commands; it tells how to pass a value that begins with a dash.

    The outermost one takes the default of `handlers`: options may stand before or after a command's name.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if is_chinese():
            from wechat.chinese import Help

            self.formatter_class = Help
        self.add_argument("--version", action="version", version=f"wxserver {version()}")
        self.add_argument(
            "--handlers",
            type=Path,
            default=argparse.SUPPRESS,
            metavar="FOLDER",
            help="default: WECHAT_HANDLERS, or else handlers",
        )

    def error(self, message: str) -> NoReturn:
        known = {"--", *self._option_string_actions}
        is_about_values = message.startswith(("unrecognized arguments", "the following arguments are required"))
        if is_about_values and any(given[:1] == "-" and given not in known for given in sys.argv[1:]):
            message += "; put a value that begins with a dash after --"
        with suppress(OSError):
            self.print_usage(sys.stderr)
        complain(f"{self.prog}: error: {message}")
        raise SystemExit(2)


def complain(*lines: object) -> None:
    """Print lines to stderr; a stderr that is gone changes nothing about what the command does."""
    with suppress(OSError):
        print(*map(localized, lines), sep="\n", file=sys.stderr, flush=True)


def say(*lines: object) -> None:
    """Print lines to stdout."""
    print(*map(localized, lines), sep="\n", flush=True)


def localized(line: object) -> str:
    """The line in the language of whoever reads it; `wechat.chinese` has what is said in Chinese."""
    if not is_chinese():
        return str(line)
    from wechat.chinese import translate

    return translate(str(line))


def is_chinese() -> bool:
    """Whether the locale asks for Chinese, and stdout can show it: a narrow encoding reads better in English."""
    locale = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    can_show = "简体".encode(encoding, "replace").decode(encoding) == "简体"
    return bool(re.match(r"zh(?![a-z])", locale, re.I)) and can_show


def api_path(text: str) -> str:
    """A path of the API; raises ArgumentTypeError for anything else."""
    if not re.fullmatch("/[!-~]*", text):
        raise argparse.ArgumentTypeError("it takes a path like /cgi-bin/get_api_domain_ip")
    return text


def json_value(text: str) -> Any:
    """The JSON in the text; raises ArgumentTypeError where there is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"it is not JSON: {error}") from None


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON, with escapes where stdout's encoding lacks a character: JSON knows no other ones."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a command as this process, and exit with the status that it gives.

    A file `.env` in the working directory is read first. The status is 1 where the output could not be written, 2 where
    that file or a setting is wrong, and 130 after Ctrl-C; none of them prints a traceback.
    """
    _prepare()
    status: int | str | None = 1
    try:
        read_env_file(os.environ)
        status = main(sys.argv[1:])
    except StartError as error:
        complain(error)
        status = 2
    except SystemExit as end:
        status = end.code
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:
        _tell(error)
    is_whole = _flush()
    sys.exit(status if status or is_whole else 1)


def _prepare() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the start: the next file or socket to be opened would get its place
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, it lives as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> bool:
    """Write what is still buffered; whether stdout took it. Else Python would do it, and end with status 120."""
    is_whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout:
                is_whole = False
                _tell(error)
    return is_whole


def _tell(error: OSError) -> None:
    if error.errno not in LOST or error.filename:  # whoever has closed a pipe has seen enough
        complain(f"{error.filename}: {error.strerror}" if error.filename else error)


class Finding(NamedTuple):
    """The outcome of one check; `cure` says what to do about a fault, and where."""

    tried: str
    came: str
    mark: str = OK
    cure: str = ""


def report(findings: Iterable[Finding], what: str) -> int:
    """Print a line for each finding, and their sum; gives the exit status, 1 where there is a FAIL."""
    marks: Counter[str] = Counter()
    for tried, came, mark, cure in findings:
        marks[mark] += 1
        line = f"{mark:4}  {localized(tried)}: {localized(came)}{cure and ' -> ' + localized(cure)}"
        print(BREAKS.sub(" ", line), flush=True)
    say(f"{marks.total()} {what}: {marks[OK]} ok, {marks[WARN]} warn, {marks[FAIL]} FAIL")
    return 1 if marks[FAIL] else 0
