"""WebOb without an HTTP client and without OpenSSL: it imports what it needs for neither a request nor a response here.

That is `urlopen`, with which comes ssl, 2 MB, and for signed cookies `hashlib` and `hmac`, 3.5 MB. To be imported
before WebOb. Whoever imports these later gets the real ones.
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

NEEDED_LATER = "urllib.request", "hashlib", "hmac"
MISSING = f"""wxserver needs WebOb and waitress, which {sys.executable} does not have:
activate the environment that has them, or install them: python -m pip install -r requirements.txt
"""


class Placeholder(ModuleType):
    """A module of functions, which is imported when one of them is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # as the import itself asks for
            raise AttributeError(name)
        return lambda *arguments, **more: getattr(import_module(self.__name__), name)(*arguments, **more)


def import_webob() -> None:
    """Import WebOb, with placeholders for what was not imported before."""
    placeholders = {name: Placeholder(name) for name in NEEDED_LATER if name not in sys.modules}
    sys.modules.update(placeholders)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of `cgi`, in Python 3.11 and 3.12
            import webob  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "webob":
            raise
        sys.stderr.write(MISSING)
        raise SystemExit(2) from None
    finally:
        for name in placeholders:
            del sys.modules[name]


import_webob()
