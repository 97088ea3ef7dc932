"""That a document in Chinese is in step with its original: the same headings in the same order, and the same code."""

import re

import pytest

from tests.conftest import ROOT

TRANSLATED = sorted([*ROOT.glob("*.zh-CN.md"), *ROOT.glob("docs/*.zh-CN.md"), *ROOT.glob("examples/*/*.zh-CN.md")])
each_translated = pytest.mark.parametrize("file", TRANSLATED, ids=lambda file: file.name)
CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def original(file):
    return file.with_name(file.name.replace(".zh-CN", ""))


def levels(text):
    """The level of each heading, and what of it is code or a number, which no language changes."""
    headings = re.findall(r"^(#+) (.*)", CODE.sub("", text), re.MULTILINE)
    return [(len(marks), re.findall(r"`[^`]+`|\b\d{5}\b", title)) for marks, title in headings]


def test_the_documents_that_chinese_users_read_are_there():
    names = {file.relative_to(ROOT).as_posix() for file in TRANSLATED}
    assert names >= {
        "README.zh-CN.md",
        *(f"docs/{name}.zh-CN.md" for name in ("handlers", "troubleshooting", "deploy")),
    }


@each_translated
def test_the_headings_are_the_same(file):
    assert levels(file.read_text("utf-8")) == levels(original(file).read_text("utf-8"))


@each_translated
def test_the_code_is_the_same(file):
    """Byte for byte: what was tried in one is what is typed from the other."""
    assert CODE.findall(file.read_text("utf-8")) == CODE.findall(original(file).read_text("utf-8"))


@each_translated
def test_rows_of_tables_are_as_many(file):
    rows = [len(re.findall(r"^\|", text.read_text("utf-8"), re.MULTILINE)) for text in (file, original(file))]
    assert rows[0] == rows[1]


@each_translated
def test_each_language_links_to_the_other(file):
    for text, other in ((file, original(file)), (original(file), file)):
        assert f"]({other.name})" in text.read_text("utf-8")
