"""WebOb without an HTTP client and without OpenSSL: it imports what it needs for neither a request nor a response here.

That is `urlopen`, with which comes ssl, 2 MB, and for signed cookies `hashlib` and `hmac`, 3.5 MB. To be imported
before WebOb. Whoever imports these later gets the real ones.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

NEEDED_LATER = "urllib.request", "hashlib", "hmac"


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
        import webob  # noqa: F401
    finally:
        for name in placeholders:
            del sys.modules[name]


import_webob()
