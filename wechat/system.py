"""What operating systems and uWSGI do differently: only this module touches what Windows or macOS lack."""

import errno
import logging
import os
import select
import signal
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from wechat.errors import StartError

logger = logging.getLogger("wxserver")

# Ctrl-C, a supervisor's request, Ctrl-Break: https://docs.python.org/3/library/signal.html#signal.SIGBREAK
END_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
    END_SIGNALS.append(signal.SIGHUP)  # a terminal that is closed

# Without poll() there is select(), which fails on the 513th socket on Windows, listening ones included.
MOST_CONNECTIONS = 1000 if hasattr(select, "poll") else 500

MACOS_OPEN_MAX = 10_240  # files; macOS refuses a higher limit even where it reports none


def at_fork(task: Callable[[], None]) -> None:
    """Run the task in each process that this one forks, before anything else; on Windows there are none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=task)


def may_be_running(pid: int) -> bool:
    """Whether there is such a process; True on Windows, where one cannot look: signal 0 is Ctrl-C there."""
    if sys.platform != "win32":
        try:
            with suppress(PermissionError):
                os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def others_can_read(file: Path) -> bool:
    """Whether every user of the machine may read the file; False on Windows, where modes say nothing of that."""
    return sys.platform != "win32" and file.exists() and bool(file.stat().st_mode & stat.S_IROTH)


def allow_open_files() -> None:
    """Raise the limit of open files: connections and a file for each thread do not fit into 1,024 (macOS: 256)."""
    if sys.platform != "win32":  # which has no such limit
        import resource

        current, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in (most, max(current, MACOS_OPEN_MAX)):
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
                return


def check_port(host: str, port: int) -> None:
    """Raise OSError if another server listens there: on Windows, SO_REUSEADDR would let both have the port."""
    if sys.platform == "win32":
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, port))


def advise(error: Exception) -> str:
    """Why it is not possible to listen, and what to do."""
    cures = {
        errno.EADDRINUSE: "another program listens there: stop it, or set PORT to a free one, like PORT=9000",
        errno.EACCES: "ports below 1024 are for root: set PORT to a higher one, like PORT=8080",
        errno.EADDRNOTAVAIL: "this machine has no such address: set HOST=0.0.0.0 for all that it has",
    }
    said = str(error).partition(" (while")[0]  # create_server names the address once more
    return f"{said}; {cures[code]}" if (code := getattr(error, "errno", None)) in cures else said


def take_name(file: Path, name: str) -> None:
    """Give the file this name; raises FileExistsError if another file has it."""
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except (AttributeError, OSError):  # no hard links on this system, or on this file system
        if os.path.exists(name):
            raise FileExistsError(name) from None
        os.rename(file, name)  # Windows checks once more


FORK_HOOKS = {"py-call-uwsgi-fork-hooks", "py-call-osafterfork"}
FORKS = (
    "uWSGI is about to fork this process without telling Python, which would leave its workers without the threads "
    "that write the log and claim messages: add lazy-apps, or where its options are not yours see docs/deploy.md"
)
NO_THREADS = (
    "uWSGI runs threads only while a request is handled: add enable-threads. Until then log lines are late, slow "
    "handlers stand still between requests, and processes that share a store take this one for dead"
)


def check_uwsgi(uwsgi: Any) -> None:
    """Raise StartError where uWSGI would break the threads that are about to start; warn where it holds them up.

    `uwsgi` is the module of that name, which exists inside uWSGI alone; None elsewhere.
    https://uwsgi-docs.readthedocs.io/en/latest/ThingsToKnow.html
    """
    if not uwsgi:
        return
    will_fork = uwsgi.worker_id() == 0 and (uwsgi.masterpid() or uwsgi.numproc > 1)  # a worker's number is 1 or more
    if will_fork and not FORK_HOOKS & set(uwsgi.opt):
        raise StartError([FORKS])
    if not uwsgi.has_threads:
        logger.warning(NO_THREADS)
