"""The server: `python wxserver.py` serves it with waitress; another WSGI server imports `wxserver:application`.

Importing this module reads no environment. It has no annotations, so that any Python can read it and say which one
is needed.
"""

import os

from wechat.application import HANDLERS, HEALTHZ, Application, give_up, main, make_application, run, start

__all__ = ["HANDLERS", "HEALTHZ", "Application", "give_up", "main", "make_application", "run", "start"]


def __getattr__(name):  # type: (str) -> Application
    """Make `application` from the environment of the process, when it is first asked for."""
    if name != "application":
        raise AttributeError("module 'wxserver' has no attribute " + repr(name))
    globals()[name] = app = start(os.environ)
    return app


if __name__ == "__main__":
    main()
