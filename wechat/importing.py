"""The modules of a folder, whatever they do while they are imported."""

import importlib
import pkgutil
import re
import sys
import tokenize
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from wechat.errors import StartError, short

PACKAGE = "handlers"  # the name under which the modules of the folder import one another, whatever the folder is called

HOMES = {
    "wechat.routing": "on around",
    "wechat.reply": "Text Image Voice Video Music Article News Transfer TransferToAI Raw plain",
    "wechat.message": "Message",
    "wechat.texts": "Texts",
    "wechat.settings": "own",
}
# What is typed behind `pip install`, where a package has another name there.
PIP = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "bs4": "beautifulsoup4",
    "yaml": "PyYAML",
    "dotenv": "python-dotenv",
    "sklearn": "scikit-learn",
    "Crypto": "pycryptodome",
}


def import_all(folder: Path, faults: list[str]) -> list[ModuleType]:
    """The modules of a folder, imported anew in name order; the faults get a line for each that does not import."""
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    importlib.invalidate_caches()
    modules = []
    for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.name[0] != "_"):
        try:
            modules.append(importlib.import_module(f"{PACKAGE}.{name}"))
        except StartError as error:
            faults += error.faults
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also the panic of a native module, which is no Exception
            faults.append(_broken(folder, name, error))
    return modules


def _broken(folder: Path, name: str, error: BaseException) -> str:
    line, file = 0, f"{folder.name}/{name}.py"
    if isinstance(error, SyntaxError) and error.filename:
        line, file = error.lineno or 0, short(error.filename)
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename).resolve()
            if folder in (path.parent, path.parent.parent):  # a package may stand among the modules
                line, file = frame.lineno or 0, short(frame.filename)
    hint = "".join(f"; {hint}" for hint in _hints(folder, error, folder / f"{name}.py"))
    return f"{file}:{line}: the module does not import: {type(error).__name__}: {error}{hint}"


def _hints(folder: Path, error: BaseException, file: Path) -> Iterator[str]:
    """What would be right, for whoever has just made one of the usual mistakes."""
    if isinstance(error, SyntaxError | ValueError) and not _is_utf8(Path(getattr(error, "filename", None) or file)):
        yield "save the file as UTF-8"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        yield _import_hint(folder, *error.name.split("."))
    elif isinstance(error, NameError | ImportError) and (found := re.search(r"name '(\w+)'", str(error))):
        yield from (
            f"write: from {home} import {found[1]}" for home, names in HOMES.items() if found[1] in names.split()
        )
        yield from [f"write: import {found[1]}"] * (
            isinstance(error, NameError) and found[1] in sys.stdlib_module_names
        )
    elif isinstance(error, TypeError) and (found := re.match(r"(on|around)\(\) ", str(error))):
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if getattr(frame.f_globals.get(found[1]), "__module__", "").startswith(f"{PACKAGE}."):
                yield f"a function of this module hides {found[1]} of wechat.routing: give it another name"


def _import_hint(folder: Path, package: str, *rest: str) -> str:
    stems = [file.stem for file in folder.glob("*.py")]
    if package == PACKAGE:
        close = rest and closest(rest[0], stems)
        return f"there is no {'.'.join(rest)}.py in {folder.name}/" + (f": did you mean {close}?" if close else "")
    if package in stems:
        return f"write: from {PACKAGE}.{package} import ..."
    meant = closest(package, sys.stdlib_module_names, 0.8)
    said = f"python -m pip install {PIP.get(package, package)}, and a line in requirements.txt"
    return said + (f"; or did you mean {meant}?" if meant else "")


def closest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """The one of the names that is most like it, by a ratio of `cutoff` at least; empty where none is."""
    from difflib import get_close_matches  # which nobody needs who does not mistype

    return next(iter(get_close_matches(name, list(names), n=1, cutoff=cutoff)), "")


def _is_utf8(file: Path) -> bool:
    try:
        with tokenize.open(file) as lines:
            return "\0" not in lines.read()
    except OSError:
        return True
    except (SyntaxError, UnicodeError):
        return False
