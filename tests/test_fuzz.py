"""The inputs that the fuzzers keep, through their targets: they hold on every Python, without atheris too."""

import importlib

import pytest

from tests.conftest import ROOT
from tests.fuzz.__main__ import TARGETS

CORPUS = ROOT / "tests/fuzz/corpus"


@pytest.mark.filterwarnings("ignore::wsgiref.validate.WSGIWarning")  # at a method that nobody knows
@pytest.mark.parametrize("target", TARGETS)
def test_every_input_in_the_corpus_keeps_the_promises(target):
    check = importlib.import_module(f"tests.fuzz.{target}").check
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) > 20
    for file in inputs:
        check(file.read_bytes())


def test_the_corpus_is_small():
    assert sum(file.stat().st_size for file in CORPUS.rglob("*")) < 300_000
