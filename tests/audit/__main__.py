"""Asks pypi.org, by pip-audit, whether a package of the locks has a known vulnerability; exit status 1 where one has.

Where that cannot be asked, a line says so, and the exit status is 0: a network that is away is no fault of ours.
"""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements-dev.lock"  # which has all of requirements.lock, as tests/test_locks.py sees to
PROBE = "https://pypi.org/pypi/waitress/3.0.2/json"
VENV = ROOT / ".venv-audit"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
AUDIT = [BIN / "pip-audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off", "--timeout", "5"]
WITHIN = 60  # seconds for each step


class Skipped(Exception):
    """It cannot be asked, for this reason."""


def probe(url=PROBE):
    """Look whether the index answers, and knows of vulnerabilities."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            json.load(response)["vulnerabilities"]
    except (OSError, ValueError, KeyError) as error:
        raise Skipped(f"{url} cannot be asked: {type(error).__name__} {error}") from error


def install():
    """Make an environment for pip-audit, which needs other versions of some packages than the tests."""
    for command in (
        [sys.executable, "-m", "venv", VENV],
        [BIN / "python", *PIP, "-r", ROOT / "tests/audit/requirements.txt"],
    ):
        run(command, {0})


def run(command, statuses):
    """What the command writes to stdout, where it ends in time with one of the statuses."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Skipped(f"{name}: {type(error).__name__}") from error
    if done.returncode not in statuses:
        raise Skipped(f"{name} ended with {done.returncode}: {(done.stderr.strip() or '-').splitlines()[-1]}")
    return done.stdout


def found(audit):
    """A line for each vulnerability, and how many packages were asked for."""
    said = run([*audit, "--format", "json", "-r", LOCK], {0, 1})
    try:
        packages = json.loads(said)["dependencies"]
    except ValueError as error:  # it ends with 1 too where it cannot ask
        raise Skipped("pip-audit gave no answer") from error
    known = [package for package in packages if "vulns" in package]
    if not known:
        raise Skipped("pypi.org knows none of the packages")
    lines = [
        f"{package['name']} {package['version']}: {each['id']}, mended in {' or '.join(each['fix_versions']) or 'none'}"
        for package in known
        for each in package["vulns"]
    ]
    return lines, len(known)


def main(url=PROBE, audit=None):
    """Print what pip-audit, or another program that tests put in its place, finds; gives the exit status."""
    try:
        probe(url)
        if not audit:
            install()
        lines, number = found(audit or AUDIT)
    except Skipped as why:
        print(f"skipped: no audit of the dependencies: {why}")
        return 0
    print(*lines, f"{number} packages, {len(lines)} known vulnerabilities", sep="\n")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
