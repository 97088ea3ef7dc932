"""What uWSGI does to the threads of an application, and which option keeps them alive."""

from __future__ import annotations

import logging
from typing import Any

from wechat.errors import StartError

logger = logging.getLogger("wxserver")

FORK_HOOKS = {"py-call-uwsgi-fork-hooks", "py-call-osafterfork"}
FORKS = (
    "uWSGI is about to fork this process without telling Python, which would leave its workers without the threads "
    "that write the log and claim messages: add lazy-apps, or where its options are not yours see docs/deploy.md"
)
NO_THREADS = (
    "uWSGI runs threads only while a request is handled: add enable-threads. Until then log lines are late, slow "
    "handlers stand still between requests, and processes that share a store take this one for dead"
)


def check_uwsgi(uwsgi: Any) -> None:
    """Raise StartError where uWSGI would break the threads that are about to start; warn where it holds them up.

    `uwsgi` is the module of that name, which exists inside uWSGI alone; None elsewhere.
    https://uwsgi-docs.readthedocs.io/en/latest/ThingsToKnow.html
    """
    if not uwsgi:
        return
    will_fork = uwsgi.worker_id() == 0 and (uwsgi.masterpid() or uwsgi.numproc > 1)  # a worker's number is 1 or more
    if will_fork and not FORK_HOOKS & set(uwsgi.opt):
        raise StartError([FORKS])
    if not uwsgi.has_threads:
        logger.warning(NO_THREADS)
