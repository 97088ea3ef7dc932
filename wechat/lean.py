"""WebOb without an HTTP client: it imports `urlopen`, which it never calls, and with it ssl, 2 MB.

To be imported before WebOb. Whoever imports urllib.request later gets the real one.
"""

import sys
from types import ModuleType

CLIENT = "urllib.request"

if CLIENT not in sys.modules:
    placeholder = ModuleType(CLIENT)
    placeholder.urlopen = None  # type: ignore[attr-defined]
    sys.modules[CLIENT] = placeholder
    try:
        import webob  # noqa: F401
    finally:
        del sys.modules[CLIENT]
