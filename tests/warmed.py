"""Commands in processes that need no time to start: each is forked from one that has imported everything.

`popen` and `run` take what those of `subprocess` take. A command gets a real start where that may matter: with options
or settings for the interpreter itself, an encoding of its own, another Python, another system than Linux.
"""

import atexit
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = ["cryptography.hazmat.primitives.ciphers.aead", "redis", "sandbox.testing", "waitress.server", "wxserver"]
IMPORTED += ["wechat.store.sqlite", "wechat.store.redis", "wechat.__main__", "sandbox.__main__"]
OURS = {"wechat", "sandbox", "wxserver", "handlers"}
HARMLESS = {"PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)}  # both are so in any case
OF_THE_START = {name: value for name, value in os.environ.items() if name.startswith(("PYTHON", "LC_"))}


def popen(command, **options):
    """A process; a forked one where that makes no difference to the command."""
    return (Forked if can_fork(command, options.get("env") or os.environ) else subprocess.Popen)(command, **options)


def run(command, timeout=30, **options):
    """A command that has ended, with what it said."""
    with popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}) as process:
        try:
            said = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, *said)


def can_fork(command, environ):
    python, first, *_ = map(str, command)
    is_of_python = python == sys.executable and (first in ("-m", "-c") or first.endswith(".py"))
    own = {name: value for name, value in environ.items() if name.startswith(("PYTHON", "LC_"))}
    return sys.platform == "linux" and is_of_python and own.items() <= OF_THE_START.items() | HARMLESS.items()


class Forked(subprocess.Popen):
    """A process whose parent is not this one, which hears from it over a socket."""

    def _execute_child(self, args, _1, _2, _3, _4, cwd, env, _5, _6, _7, *more):
        pipes = more[:6]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = [list(map(str, args[1:])), str(cwd or Path.cwd()), dict(os.environ if env is None else env)]
        self._news, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(forking(), [json.dumps(request).encode()], [theirs.fileno(), *streams])
        self._close_pipe_fds(*pipes)
        self.pid = int(self._news.recv(16))
        self._child_created = True

    def _try_wait(self, flags):
        if flags == os.WNOHANG and not select.select([self._news], [], [], 0)[0]:
            return 0, 0
        with self._news:
            return self.pid, int(self._news.recv(16) or signal.SIGKILL)

    def _internal_poll(self, **_):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


@functools.cache
def forking():
    """The socket to a process that forks, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.warmed", str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
    process.returncode = 0  # nobody waits for it
    atexit.register(ours.close)
    return ours


def serve(requests):
    """Fork at each request; return in the processes that shall do what is asked, with the request."""
    for name in IMPORTED:
        importlib.import_module(name)
    for name in ("wechat.__main__", "sandbox.__main__"):
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who tell
    while True:
        content, descriptors, *_ = socket.recv_fds(requests, 2**20, 4)
        if not content:
            os._exit(0)
        if not os.fork():
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            tell_of_a_child(*descriptors)
            return json.loads(content)
        for descriptor in descriptors:
            os.close(descriptor)


def tell_of_a_child(news, *streams):
    """Return in a child that has these streams; tell its number, and how it ends."""
    if child := os.fork():
        for stream in streams:
            os.close(stream)
        os.write(news, b"%d" % child)
        os.write(news, b"%d" % os.waitpid(child, 0)[1])
        os._exit(0)
    os.close(news)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in {*streams} - {0, 1, 2}:
        os.close(stream)


def open_streams():
    """What the start of an interpreter does; whether a stream can seek is found out then."""
    for number, name, mode in ((0, "stdin", "rb"), (1, "stdout", "wb"), (2, "stderr", "wb")):
        was = getattr(sys, name)
        by_line = name == "stderr" or os.isatty(number)
        buffer = os.fdopen(number, mode, closefd=False)
        buffer.raw.name = f"<{name}>"
        stream = io.TextIOWrapper(buffer, was.encoding, was.errors, line_buffering=by_line)
        stream.mode = mode[0]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def do(arguments, folder, environ):
    """What `python` does with the arguments."""
    first, *rest = arguments
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    open_streams()
    if folder != str(ROOT) and Path("wechat").is_dir():  # the command's modules are others
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
    paths = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    place = str(Path(first).resolve().parent) if first.endswith(".py") else folder if first == "-m" else ""
    sys.path[:1] = [place, *paths]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    do(*serve(socket.socket(fileno=int(sys.argv[1]))))
