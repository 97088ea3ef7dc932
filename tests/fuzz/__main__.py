"""`python -m tests.fuzz [SECONDS]`: every target under atheris, all at once; exit status 1 where one found something.

What they write stays in `.fuzz/`, which git ignores: the logs, new inputs, and whatever broke a promise.
"""

import importlib.util
import platform
import re
import subprocess
import sys
from pathlib import Path

TARGETS = ("message", "typed", "envelope", "callable")
HERE = Path(__file__).parent
LEFT = Path(".fuzz")
DONE = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+)", re.MULTILINE)
OPTIONS = (
    f"-dict={HERE / 'wechat.dict'}",
    "-max_len=8192",  # bytes
    "-timeout=10",  # seconds for one input; more is a finding
)


def main(seconds="60"):
    """Says how each target ended, in a line where it found nothing."""
    if not importlib.util.find_spec("atheris"):
        machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        print(f"fuzzing is skipped: tests/fuzz/requirements.txt names no atheris for {machine}")
        return 0
    processes = {target: start(target, seconds) for target in TARGETS}
    return max([report(target, process.wait(), seconds) for target, process in processes.items()])


def start(target, seconds):
    found = LEFT / target
    found.mkdir(parents=True, exist_ok=True)
    # The first folder is where libFuzzer puts new inputs; the others it only reads.
    folders = [found, HERE / "corpus" / target]
    ends = [f"-max_total_time={seconds}", f"-artifact_prefix={LEFT}/{target}-"]
    # Warnings would be one for each strange method.
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.one", target, *map(str, folders), *OPTIONS, *ends]
    with log_of(target).open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def report(target, status, seconds):
    """1 where there is a finding, or where the target did not run to its end."""
    log = log_of(target).read_text("utf-8", "replace")
    done = DONE.search(log)
    if status == 0 and done:
        inputs = f"{int(done[1]):,} inputs, {done[2]} branches reached"
        print(f"fuzz {target}: nothing found in {seconds} s, {inputs}", flush=True)
        return 0
    lines = [line for line in log.splitlines() if not line.startswith(("#", "INFO", "WARNING", "0x"))]
    print(f"fuzz {target}: a finding, status {status}", *lines[-30:], sep="\n    ")
    for crash in sorted(LEFT.glob(f"{target}-*"), key=lambda file: file.stat().st_mtime)[-1:]:
        print(f"    again: {sys.executable} -m tests.fuzz.one {target} {crash}")
    return 1


def log_of(target):
    return LEFT / f"{target}.log"


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
