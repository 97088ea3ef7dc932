"""Makes this Python one on Windows, as far as that can be done elsewhere: with this folder in PYTHONPATH it runs first.

What Windows lacks is gone, and what does something else there does it here. Paths, the console, the registry and the
network stack stay those of this machine. Each rule names where it comes from.
"""

# ruff: noqa: F401  what looks at the platform when it is imported is imported first: only the product is to be tried
import asyncio
import concurrent.futures.thread
import http.server
import logging.handlers
import mimetypes
import multiprocessing.connection
import os
import platform
import select
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
import webbrowser
from pathlib import Path

# https://docs.python.org/3/library/os.html, "Availability: Unix"; a FAT drive has no links.
LACKING = {
    os: """chown chroot confstr fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpriority
        getuid initgroups killpg lchown link lockf mkfifo mknod nice openpty posix_fallocate posix_spawn posix_spawnp
        pread preadv pwrite register_at_fork sched_getaffinity sched_yield sendfile setgid setpgid setsid setuid statvfs
        sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 waitid O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC
        WNOHANG""",
    select: "poll epoll PIPE_BUF",
    selectors: "PollSelector EpollSelector",
    # https://docs.python.org/3/library/signal.html#signal.signal
    signal: """SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1
        SIGUSR2 alarm pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait""",
    socket: "AF_UNIX SO_REUSEPORT sendmsg CMSG_LEN send_fds recv_fds",
    time: "tzset pthread_getcpuclockid",
}
MODULES = ["crypt", "fcntl", "grp", "nis", "pty", "pwd", "readline", "resource", "spwd", "syslog", "termios", "tty"]
STEP = 15_625_000  # ns; https://docs.python.org/3/whatsnew/3.13.html#time

kill, link, reuse_port = os.kill, os.link, socket.SO_REUSEPORT
for owner, names in LACKING.items():
    for name in set(names.split()) & set(vars(owner)):
        delattr(owner, name)
for name in MODULES:
    sys.modules[name] = None
selectors.DefaultSelector = selectors.SelectSelector


def terminate(pid, number):
    """Is TerminateProcess, but for two numbers that are Ctrl-C and Ctrl-Break; os.kill says so."""
    if number in (0, 1):
        os.write(2, b"os.kill(pid, 0) would have sent Ctrl-C\n")
        os._exit(99)
    kill(pid, 9)


def select_some(readers, writers, others, timeout=None, select=select.select):
    """Takes 512 sockets, and not none at all; https://docs.python.org/3/library/select.html#select.select."""
    if max(map(len, (readers, writers, others))) > 512:
        raise ValueError("too many file descriptors in select()")
    if not (readers or writers or others):
        raise OSError(22, "An invalid argument was supplied")
    return select(readers, writers, others, timeout)


def handle_signal(number, handler, handle=signal.signal):
    """Knows seven signals."""
    if number not in (2, 4, 6, 8, 11, 15, signal.SIGBREAK):
        raise ValueError("invalid signal value")
    return handle(number, handler)


def set_option(self, level, name, value, *more, set_option=socket.socket.setsockopt):
    """SO_REUSEADDR shares a port, SO_EXCLUSIVEADDRUSE does not; the socket is of this machine all the same."""
    is_reuse = (level, name) == (socket.SOL_SOCKET, socket.SO_REUSEADDR)
    return set_option(self, level, reuse_port if is_reuse else name, value, *more)


def in_steps(clock, step):
    """The clock as it was before Python 3.13, in steps of 16 ms."""
    return lambda: clock() // step * step


def is_open(path):
    """Whether this process has the file open, which keeps it where it is."""
    held = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return os.path.realpath(path) in held


def refuse_open(function):
    """The function, for files that nobody has open; https://docs.python.org/3/library/os.html#os.remove."""

    def checked(*paths, **more):
        for path in paths:
            if is_open(path):
                raise PermissionError(13, "The process cannot access the file", str(path))
        return function(*paths, **more)

    return checked


def rename(old, new):
    """Never puts a file into another one's place; https://docs.python.org/3/library/os.html#os.rename."""
    if Path(old).is_dir():
        return replace(old, new)
    link(old, new)
    return remove(old)


remove, replace = os.remove, os.replace
os.kill, os.rename = terminate, refuse_open(rename)
os.remove = os.unlink = refuse_open(os.remove)
os.replace = refuse_open(os.replace)
shutil._use_fd_functions, shutil._rmtree_impl = False, shutil._rmtree_unsafe  # up to 3.13, and since 3.14
select.select = select_some
signal.SIGBREAK, signal.CTRL_C_EVENT, signal.CTRL_BREAK_EVENT = 21, 0, 1
signal.signal = handle_signal
socket.SO_EXCLUSIVEADDRUSE = ~socket.SO_REUSEADDR
socket.socket.setsockopt = set_option
time.time_ns, time.monotonic_ns = in_steps(time.time_ns, STEP), in_steps(time.monotonic_ns, STEP)
time.time, time.monotonic = in_steps(time.time, STEP / 1e9), in_steps(time.monotonic, STEP / 1e9)
# A text file is in the console's code page: https://docs.python.org/3/library/io.html#text-encoding
warnings.filterwarnings("error", category=EncodingWarning)
platform.system = lambda: "Windows"
sys.platform = "win32"
