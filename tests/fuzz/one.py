"""`python -m tests.fuzz.one TARGET`, then libFuzzer's own options: one target under atheris, until it is stopped.

The targets themselves know nothing of atheris, so tests/test_fuzz.py runs the corpus through them on any Python.
"""

import importlib
import sys

import atheris

OURS = ["wechat", "wxserver", "handlers", "sandbox"]


def main(target, *options):
    with atheris.instrument_imports(include=OURS):
        check = importlib.import_module(f"tests.fuzz.{target}").check
    command = f"{sys.executable} -W ignore -m tests.fuzz.one {target}"  # with -merge=1 libFuzzer calls itself
    atheris.Setup([command, *options], check)
    atheris.Fuzz()


main(*sys.argv[1:])
