"""The modules of a folder, whatever they do while they are imported."""

import importlib
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

from wechat.errors import StartError, short

PACKAGE = "handlers"  # the name under which the modules of the folder import one another, whatever the folder is called


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
            if Path(frame.filename).resolve().parent == folder:
                line, file = frame.lineno or 0, short(frame.filename)
    return f"{file}:{line}: the module does not import: {type(error).__name__}: {error}"
