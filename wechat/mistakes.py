"""Mistakes that stop nothing and would be silent: what `check`, the start and each reload say about handlers."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from wechat.calling import Function, Route
from wechat.errors import short
from wechat.importing import PACKAGE, closest
from wechat.kinds import EVENTS, MSG_TYPES
from wechat.marks import BUSY, DEFAULT, ERROR, marks_of, spell, where
from wechat.routing import Routes, arounds_of
from wechat.settings import NAMES

EVENT_NAMES = {event.casefold(): event for event in EVENTS}
HEADS = {*MSG_TYPES, *DEFAULT, *ERROR, *BUSY}
# What keys hardly hold, and patterns do: `hello.*`, `[0-9]+`, `^hello`, `hello$`, `\d`, `x{4}`, `(?i)x`; texts: `a|b`.
PATTERN = r"[.\])][*+]|^\^[^\W_].*[^^]$|(?:[a-z]{3}|[\u4e00-\u9fff])\$$|\\[dwsb]|\{\d+,?\d*\}|\(\?"
PATTERNS = re.compile(rf"{PATTERN}|\w\|\w"), re.compile(rf"{PATTERN}|\w\|\w"), re.compile(PATTERN, re.I)
SAYS = re.compile(r"(Text|Image|Voice|Video|Music|Article|News|Transfer|TransferToAI|Raw|answer|print)\(")

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Location = tuple[Path, int]  # of a function: its file, and the line in which its first decorator stands


def find_mistakes(folder: Path, routes: Routes) -> list[str]:
    """A line for each mistake in the folder from which the routes have just been loaded; none of them is a fault."""
    folder = folder.resolve()
    marked = [*(("around", *pair) for pair in arounds_of(routes)), *(("on", *pair) for pair in routes.items())]
    said = [f"{where(function)}: {fault}" for mark, path, function in marked for fault in _of_path(mark, path)]
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(f"{PACKAGE}.")]
    files = {Path(file).resolve() for module in modules if (file := getattr(module, "__file__", None))}
    answering = {
        _location(function)
        for module in modules
        if module.__name__.count(".") == 1 and not module.__name__.startswith(f"{PACKAGE}._")
        for function in vars(module).values()
        if marks_of(function)
    }
    for file in sorted(file for file in files if file.suffix == ".py"):
        said += _of_module(file, folder, answering)
    said += _of_files(folder, files)
    if not routes:
        said.append(f'{folder.name}/: no handler in it: write @on("text") above a function, in a module of the folder')
    return list(dict.fromkeys(said))


def unknown_settings(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each name that begins like a setting and is none, with the nearest that is one."""
    for name in sorted(environ):
        if name.upper().startswith(("WECHAT", "WEIXIN")) and name not in NAMES:
            close = closest(name.upper(), NAMES)
            yield f"{name} is not a setting of the server" + (f": did you mean {close}?" if close else "")


# Paths


def _of_path(mark: str, path: Route) -> Iterator[str]:
    head, event, *_ = (*path, "", "")
    said = f"@{mark}({spell(path)})"
    if isinstance(head, str) and head not in {*HEADS, ""}:
        if name := EVENT_NAMES.get(head):
            yield f'{said}: the name of an event comes second: write @{mark}("event", "{name}")'
        else:
            also = f', or @{mark}("{close}")' if (close := closest(head, MSG_TYPES)) else ""
            yield f'{said}: WeChat has no MsgType "{head}": did you mean @{mark}("text", "{head}"){also}?'
    elif head == "event" and isinstance(event, str) and (close := closest(event, EVENT_NAMES, 0.8)) not in ("", event):
        yield f'{said}: WeChat has no event "{event}": did you mean "{EVENT_NAMES[close]}"?'
    for part, pattern in zip(path[1:], PATTERNS[1:], strict=False):
        if isinstance(part, str) and pattern.search(part):
            yield f'{said}: "{part}" means just that text: where it is a pattern, write re.compile(r"{part}")'


# Functions


def _location(function: Function) -> Location:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (Path(code.co_filename).resolve(), code.co_firstlineno) if code else (Path(), 0)


def _of_module(file: Path, folder: Path, answering: set[Location]) -> Iterator[str]:
    """What is wrong with its functions, of which those at the places answer."""
    source = file.read_bytes()
    functions = list(_functions(ast.parse(source), ""))
    is_marked = b"TEXTS" in source or file.name[0] == "_"
    for function, inside in functions:
        line = min(node.lineno for node in (function, *function.decorator_list))
        said, marks = f"{short(str(file))}:{line}: {function.name}", "".join(map(_mark, function.decorator_list))
        is_marked |= bool(marks)
        if marks and (file, line) not in answering and inside != "a condition":
            is_of_folder = file.parent == folder and file.name[0] != "_"
            yield f"{said} never answers: {_why(inside) if is_of_folder else 'handlers belong into a module without _'}"
        elif marks and isinstance(function, ast.AsyncFunctionDef) and (call := _not_awaited(function)):
            yield f"{said} does not wait: write await before {call}"
        elif marks and (lost := _lost_reply(function, marks)):
            yield f"{said} returns nothing: write return before {lost}"
    for function, inside in functions:
        if not (is_marked or inside) and [arg.arg for arg in function.args.args][:1] in (["msg"], ["message"]):
            said = f"{short(str(file))}:{function.lineno}: {function.name}"
            yield f'{said} has no mark: write @on("text") above it; a module without handlers begins with _'


def _functions(node: ast.AST, inside: str) -> Iterator[tuple[Definition, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield child, inside
            yield from _functions(child, f"the function {child.name}")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"the class {child.name}")
        else:
            yield from _functions(child, inside or "a condition")


def _mark(decorator: ast.expr) -> str:
    said = ast.unparse(decorator)
    return said if re.match(r"([\w.]*\.)?(on|around)\(", said) else ""


def _why(inside: str) -> str:
    if inside:
        return f"it stands in {inside}, and a mark counts on functions of the module alone: move it out"
    return "its mark is lost: let @on be the topmost decorator, and give nothing else in the module this name"


def _not_awaited(function: Definition) -> str:
    said = (ast.unparse(node) for node in _own_nodes(function) if isinstance(node, ast.Expr))
    return next((call for call in said if re.match(r"(api\.\w+|answer)\(", call)), "")


def _lost_reply(function: Definition, marks: str) -> str:
    """What the function says and does not return, where it returns nothing at all."""
    nodes = list(_own_nodes(function))
    if any(
        isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and node.value) for node in nodes
    ):
        return ""
    for node in nodes:
        said = ast.unparse(node).removeprefix("await ") if isinstance(node, ast.Expr) else ""
        is_note = said.startswith("print(") and re.search("'event'|'error'|around", marks)
        if isinstance(node, ast.Expr) and (_is_text(node.value, function) or (SAYS.match(said) and not is_note)):
            return said.splitlines()[0][:60]
    return ""


def _is_text(value: ast.expr, function: Definition) -> bool:
    """Whether it is a text that is no docstring; one in single quotes, on a line alone, is none."""
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return isinstance(value, ast.JoinedStr)
    quotes = (value.end_col_offset or 0) - value.col_offset - len(value.value.encode())
    return value.lineno != function.body[0].lineno or (len(function.body) == 1 and quotes == len("''"))


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield child
            yield from _own_nodes(child)


# Files


def _of_files(folder: Path, loaded: set[Path]) -> Iterator[str]:
    """What of the folder nobody loads, though it looks like handlers; data is nobody's mistake."""
    for entry in sorted(folder.iterdir()):
        said = f"{folder.name}/{entry.name}"
        if entry.name[0] in "._#" or entry.name[-1] == "~":
            continue
        if entry.is_dir():
            left = [file for file in entry.rglob("*.py") if file.resolve() not in loaded and file.stem != "__init__"]
            if left and (len(left) == len(list(entry.rglob("*.py"))) or any(map(_looks_like_handlers, left))):
                yield f"{said}/: nobody loads what is in a folder: move {left[0].name} up, beside the other modules"
        elif entry.suffix == ".py":
            if entry.resolve() not in loaded:
                yield f"{said}: nobody loads it: take the dot out of its name"
        elif re.search(r"\.py(?!i$|c$)", entry.name, re.I) or _looks_like_handlers(entry):
            yield f"{said}: nobody loads it: the name of a module ends in .py"


def _looks_like_handlers(file: Path) -> bool:
    return file.is_file() and b"wechat.routing" in file.read_bytes()[:100_000]
