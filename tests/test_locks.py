"""The locks hold what is pinned, and all that needs, each with its hashes; and the audit of them says what it finds."""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.audit import __main__ as audit
from tests.conftest import ROOT, free_port

LOCKS = ["requirements.lock", "requirements-dev.lock"]
OPTIONAL = {"cryptography", "redis", "hiredis"}
PYTHONS = ("3.11.2", "3.11.9", "3.12.0", "3.13.0", "3.14.0")
SYSTEMS = (("linux", "posix", "Linux"), ("darwin", "posix", "Darwin"), ("win32", "nt", "Windows"))
ENVIRONMENTS = [
    default_environment()
    | {"python_version": python.rpartition(".")[0], "python_full_version": python, "extra": ""}
    | {"sys_platform": platform, "os_name": name, "platform_system": system}
    for python in PYTHONS
    for platform, name, system in SYSTEMS
]
HASHED = re.compile(r"(\S+==\S+)((?: ; [^\n]*?)?)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")
WAITRESS = {"name": "waitress", "version": "3.0.2"}
FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["3.0.3", "3.1"]}


def pins(file):
    """What is pinned in a file of requirements, and in those that it names."""
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            yield from pins(file.parent / line[3:])
        elif line:
            yield Requirement(line)


def locked(name):
    """The requirements of a lock, which is nothing but such lines with hashes."""
    text = (ROOT / name).read_text()
    assert HASHED.sub("", text) == ""
    return {canonicalize_name(one.name): one for one in (Requirement(a + b) for a, b, _ in HASHED.findall(text))}


def is_needed(requirement, environment):
    return not requirement.marker or requirement.marker.evaluate(environment)


def test_each_line_of_a_lock_has_hashes_and_one_version():
    for name in LOCKS:
        lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith(" ")]
        assert len(locked(name)) == len(lines) > 8


def test_the_locks_hold_what_is_pinned():
    dev = {canonicalize_name(pin.name): pin for pin in pins(ROOT / "requirements-dev.txt")}
    run = {canonicalize_name(pin.name): pin for pin in pins(ROOT / "requirements.txt")}
    for name, wanted in zip(LOCKS, (run | {name: dev[name] for name in OPTIONAL}, dev), strict=True):
        found = locked(name)
        assert {key: found[key].specifier for key in wanted} == {key: pin.specifier for key, pin in wanted.items()}


def test_what_serves_is_what_was_tested():
    dev = locked("requirements-dev.lock")
    run = locked("requirements.lock")
    assert {name: dev[name].specifier for name in run} == {name: one.specifier for name, one in run.items()}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_all_that_its_packages_need_on_each_python_and_system(name):
    found = locked(name)
    for package, line in found.items():
        try:
            needed = [Requirement(one) for one in requires(package) or ()]
        except PackageNotFoundError:  # of another Python or system
            continue
        for environment in filter(lambda each: is_needed(line, each), ENVIRONMENTS):
            for one in needed:
                if is_needed(one, environment):
                    there = found[canonicalize_name(one.name)]
                    assert is_needed(there, environment), (package, one)
                    assert one.specifier.contains(next(iter(there.specifier)).version, prereleases=True)


# The audit


@pytest.fixture
def ask(serve_json, tmp_path, capsys):
    """A function that has the locks audited by a program that writes this; gives the status and what was said."""

    def run(source):
        (tmp_path / "pip_audit.py").write_text(source)
        status = audit.main(serve_json({"vulnerabilities": []}), [sys.executable, tmp_path / "pip_audit.py"])
        return status, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def serve_json(http_server):
    def serve(answer):
        class Index(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        return http_server(Index)

    return serve


def writes(status, *packages):
    return f"import sys; print({json.dumps({'dependencies': packages})!r}); sys.exit({status})"


def test_a_known_vulnerability_fails(ask):
    status, lines = ask(writes(1, {**WAITRESS, "vulns": [FLAW]}))
    assert status == 1
    assert lines == ["waitress 3.0.2: PYSEC-2026-1, mended in 3.0.3 or 3.1", "1 packages, 1 known vulnerabilities"]


def test_packages_without_one_pass(ask):
    assert ask(writes(0, {**WAITRESS, "vulns": []})) == (0, ["1 packages, 0 known vulnerabilities"])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (writes(0, {"name": "waitress", "skip_reason": "not found on PyPI"}), "pypi.org knows none of the packages"),
        ("raise SystemExit(1)", "pip-audit gave no answer"),
        ("raise SystemExit('no such option')", "pip-audit gave no answer"),
        ("raise SystemExit(2)", "ended with 2: -"),
        ("import time; time.sleep(60)", "TimeoutExpired"),
    ],
)
def test_where_it_cannot_be_asked_a_line_says_so(ask, monkeypatch, source, why):
    monkeypatch.setattr(audit, "WITHIN", 1)
    status, (line,) = ask(source)
    assert status == 0
    assert line.startswith("skipped: no audit of the dependencies: ")
    assert line.endswith(why)


def test_an_index_that_cannot_be_reached_or_knows_of_none_is_not_asked(serve_json, capsys):
    for url in (f"http://127.0.0.1:{free_port()}/", serve_json({"info": {}})):
        assert audit.main(url) == 0
        assert capsys.readouterr().out.startswith(f"skipped: no audit of the dependencies: {url} cannot be asked: ")
