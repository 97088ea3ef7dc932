"""`wsgi:application`, for servers that look into a module's namespace without asking it: uWSGI and mod_wsgi.

Importing this module reads the environment, and wrong settings end the process with status 2, a line for each.
"""

from wxserver import application

__all__ = ["application"]
