"""The steps of a message, and what a handler's author imports.

Whatever is run, this package is imported before any module that an old Python cannot read.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036, the reason why it is here
    said = "wxserver needs Python 3.11 or newer; this is %s, %s\n"
    sys.stderr.write(said % (sys.version.split()[0], sys.executable))
    raise SystemExit(2)
