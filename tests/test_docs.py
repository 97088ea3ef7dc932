"""What the documents say: that each recipe runs, and that each setting, command and link is there."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sandbox.__main__ import make_parser as sandbox_parser
from tests.conftest import ROOT
from wechat.__main__ import _parser as wechat_parser
from wechat.errors import RoutingError
from wechat.routing import arounds_of, load, name_of
from wechat.settings import NAMES

READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
SETTINGS_PAGES = [ROOT / "docs/settings.md", ROOT / "docs/settings.zh-CN.md"]
DOCUMENTS = [*READMES, *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/*.md"))]
each_document = pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
each_settings_page = pytest.mark.parametrize("page", SETTINGS_PAGES, ids=lambda file: file.name)

COOKBOOK = (ROOT / "docs/handlers.md").read_text("utf-8")
BLOCK = re.compile(r"^```python\n((?:# (?P<path>(?:handlers|tests)/\w+\.py)\n)?.*?)^```$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^\s*```(.*)$", re.MULTILINE)
REPLACES = re.compile(r"Replaces\s([^.]+?)\sin\s`handlers/(\w+)\.py`")

CONFTEST = """
import functools

import pytest

import wechat.routing
import wxserver
from wechat.routing import Handler, load


def pytest_pycollect_makemodule(module_path):
    load(module_path.parents[1] / "handlers")  # so that a test can import them


@pytest.fixture(autouse=True)
def handlers_of_the_recipe(request, monkeypatch):
    folder = request.path.parents[1] / "handlers"
    monkeypatch.setattr(wxserver, "make_application", functools.partial(wxserver.make_application, handlers=folder))


@pytest.fixture(autouse=True)
def who_answered(monkeypatch):
    def noted(function, name, *rest):
        @functools.wraps(function)
        def call(*arguments, **offers):
            with open("answered", "a") as file:
                print(name, file=file)
            return function(*arguments, **offers)

        return Handler(call, name, *rest)

    monkeypatch.setattr(wechat.routing, "Handler", noted)


"""


class Recipe(NamedTuple):
    """A section of the cookbook: its text, and the files that its blocks are."""

    title: str
    text: str
    files: dict[str, str]

    def replaced(self) -> set[str]:
        """The functions that ship and that it says it replaces."""
        return {f"handlers.{module}.{name}" for names, module in REPLACES.findall(self.text) for name in quoted(names)}


def quoted(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall("`([^`]+)`", text)


def files_in(title: str, text: str) -> Iterator[tuple[str, str]]:
    """Path and source of each block: the path in its first line, else one that is made from the title."""
    name = re.sub(r"\W+", "_", title.casefold())
    for block in BLOCK.finditer(text):
        source, path = block[1], block["path"]
        yield path or (f"tests/test_{name}.py" if "def test_" in source else f"handlers/{name}.py"), source


def sections(text: str) -> list[Recipe]:
    """The parts of a document that begin with a heading, each without those below it."""
    parts = re.split(r"^#{1,3} (?!handlers/|tests/)(.+)\n", text, flags=re.MULTILINE)[1:]
    titles, texts = parts[::2], parts[1::2]
    return [Recipe(title, text, dict(files_in(title, text))) for title, text in zip(titles, texts, strict=True)]


SECTIONS = sections(COOKBOOK)
RECIPES = [recipe for recipe in SECTIONS[1:] if recipe.files]
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)


def test_no_block_of_the_cookbook_is_left_out():
    """A block is marked as Python, or as something that is not run."""
    assert set(FENCE.findall(COOKBOOK)) <= {"python", "text", ""}
    assert FENCE.findall(COOKBOOK)[::2].count("") == 0
    assert sum(len(section.files) for section in SECTIONS) == COOKBOOK.count("```python\n")
    assert list(SECTIONS[0].files) == ["tests/conftest.py"]


@each_recipe
def test_a_recipe_is_a_handler_and_its_test(recipe):
    assert {path.partition("/")[0] for path in recipe.files} == {"handlers", "tests"}


class Kitchen(NamedTuple):
    """Where all recipes were tried: the folder of each by its title, what pytest said, and who answered."""

    folders: dict[str, Path]
    said: str
    answered: set[str]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """Every recipe in a folder of its own, and the tests of them all run by one pytest."""
    top = tmp_path_factory.mktemp("cookbook")
    (top / "conftest.py").write_text(CONFTEST + SECTIONS[0].files["tests/conftest.py"], "utf-8")
    folders = {recipe.title: top / f"recipe{number:02}" for number, recipe in enumerate(RECIPES)}
    for recipe in RECIPES:
        write(recipe, folders[recipe.title])
    (top / "answered").touch()
    options = [
        "-v",
        "--tb=short",
        "--import-mode=importlib",
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Kitchen(folders, done.stdout + done.stderr, set((top / "answered").read_text().split()))


def write(recipe, folder):
    """Puts the files of the recipe into the folder, and the picture that one of them sends."""
    for path, source in {"handlers/__init__.py": "", **recipe.files}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source, "utf-8")
    shutil.copy(ROOT / "docs/page-phone.png", folder / "handlers/picture.png")


@each_recipe
def test_a_recipe_answers_as_it_says(recipe, kitchen):
    """Its own tests pass."""
    name = kitchen.folders[recipe.title].name
    outcomes = re.findall(rf"^{name}/.* ([A-Z]+) ", kitchen.said, re.MULTILINE)
    assert outcomes, kitchen.said
    assert set(outcomes) == {"PASSED"}, kitchen.said


@each_recipe
def test_each_handler_of_a_recipe_is_tested(recipe, kitchen):
    """It has been called with a push."""
    routes = load(kitchen.folders[recipe.title] / "handlers")
    handlers = {name_of(function) for function in (*routes.values(), *(function for _, function in arounds_of(routes)))}
    assert handlers <= kitchen.answered


@each_recipe
def test_a_recipe_says_what_it_replaces(recipe, tmp_path):
    """It loads beside the handlers that ship, but for those that it names."""
    shutil.copytree(ROOT / "handlers", tmp_path / "handlers")
    write(recipe, tmp_path)
    assert clashes(tmp_path / "handlers") == recipe.replaced()


def clashes(folder):
    """The handlers that ship and whose path another one claims."""
    try:
        load(folder)
    except RoutingError as error:
        named = set(re.findall(r"at (handlers\.\w+\.\w+)", str(error)))
        return named & {name_of(function) for function in load(ROOT / "handlers").values()}
    return set()


# Settings, commands and links

SETTINGS = set(NAMES)
SETTINGS_OF_HANDLERS = {
    name for file in ROOT.glob("handlers/*.py") for name in re.findall(r'own\("(\w+)"', file.read_text("utf-8"))
}
PARSERS = {"wechat": wechat_parser(), "sandbox": sandbox_parser({})}
# What a parser looks at, of the words that stand for something.
STAND_FOR = {"PATH": "/cgi-bin/menu/get", "JSON": "{}", "RID": "617682e0-09059ac5-34a8e2ea"}


@each_settings_page
def test_each_setting_has_a_row(page):
    rows = set(re.findall(r"^\| `(\w+)` \|", page.read_text("utf-8"), re.MULTILINE))
    assert rows == SETTINGS | SETTINGS_OF_HANDLERS


@each_document
def test_each_setting_that_is_named_exists(file):
    named = set(re.findall(r"\b(?:WECHAT|BOOKS|DOUBAN)_[A-Z_]+\b", file.read_text("utf-8")))
    assert named <= SETTINGS | SETTINGS_OF_HANDLERS


def commands(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that a parser takes, like `menu push`, with its own parser."""
    subs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not subs:
        yield name, parser
    for word, sub in subs[0].choices.items() if subs else ():
        yield from commands(sub, f"{name} {word}".strip())


@each_settings_page
@pytest.mark.parametrize("package", PARSERS)
def test_each_command_has_a_row(page, package):
    """`python -m wechat menu get` stands for the first of a row, `menu push` for the others."""
    text = page.read_text("utf-8")
    for command, _ in commands(PARSERS[package]):
        assert re.search(rf"`(python -m {package} )?{command}\b", text), command


def typed(file: Path) -> Iterator[str]:
    """The calls of `python -m …` in a document, between backticks or on a line of a block."""
    text = file.read_text("utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^(?:\$ )?(?:\S+=\S* )*(?:\S*/)?python -m ((?:wechat|sandbox)\b.*)", block, re.MULTILINE)
    yield from re.findall(r"`(?:\w+=\S* )*python -m ((?:wechat|sandbox)\b[^`\n]*)`", text)


@pytest.mark.parametrize("call", sorted({call for file in DOCUMENTS for call in typed(file)}))
def test_each_command_that_is_named_is_taken(call):
    package, *arguments = shlex.split(re.sub(r"[][]", "", call))
    options = {option for _, parser in commands(PARSERS[package]) for option in parser._option_string_actions}
    assert {argument for argument in arguments if argument.startswith("--")} <= options  # argparse takes short forms
    PARSERS[package].parse_args([STAND_FOR.get(argument, argument) for argument in arguments])


@each_document
def test_each_target_of_make_that_is_named_exists(file):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make (\w+)", file.read_text("utf-8"), re.MULTILINE)) <= set(targets)


def anchors(file: Path) -> set[str]:
    """What GitHub calls the headings of a document."""
    text = re.sub(r"^```.*?^```$", "", file.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.casefold()).replace(" ", "-") for heading in headings}


@each_document
def test_each_link_leads_somewhere(file):
    for link in re.findall(r"\]\(([^)\s]+)\)", file.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
