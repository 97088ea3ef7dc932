"""Every exception that the server raises on purpose.

    Error
    ├── StartError       SettingsError, RoutingError
    ├── StoreError
    ├── GivenUp
    ├── ApiError         TransportError, WeChatError
    └── Refusal          Unreadable 400, Forbidden 403, NotFound 404, MethodNotAllowed 405, TooLarge 413
    Left, HandedOn       no Errors: they pass by whoever catches those

No message holds a secret, a token, a signed URL or a user's text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Error(Exception):
    """The base of them all."""


class StartError(Error):
    """The server cannot start, and ends with status 2. `faults` says what is wrong, a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def short(filename: str) -> str:
    """A file's name with its folder, as faults name it."""
    return "/".join(Path(filename).parts[-2:])


class SettingsError(StartError):
    """A setting is missing or wrong; the fault names it and says what would be right."""


class RoutingError(StartError):
    """A handler module does not import, or two handlers claim one path, or a parameter has no meaning."""


class StoreError(Error):
    """The store does not answer, or not as a store; the cause is behind it."""


class Left(BaseException):
    """A handler came back too late: its lane has gone on, and nothing of what it says counts."""


class HandedOn(BaseException):
    """A handler within others hands its message on to the handler of another one."""

    def __init__(self, message: Any) -> None:
        super().__init__()
        self.message = message


class GivenUp(Error):
    """A message is not answered any more: its process ended each time."""


class ApiError(Error):
    """A call to the platform did not succeed."""


class TransportError(ApiError):
    """No answer from the platform, or none that could be WeChat's."""


class WeChatError(ApiError):
    """The platform refused the call. `hint` says what to do; it is empty where nobody knows."""

    def __init__(self, errcode: int, errmsg: str, hint: str = "") -> None:
        super().__init__(f"{errcode}: {errmsg}" + (f" ({hint})" if hint else ""))
        self.errcode = errcode
        self.errmsg = errmsg
        self.hint = hint


class Refusal(Error):
    """A request is refused. The message is for the log alone; the client gets the status."""

    status = 400


class Unreadable(Refusal):
    """Signed, but not a message that can be read."""


class Forbidden(Refusal):
    """Not shown to come from WeChat: a signature that is bad, missing or stale."""

    status = 403


class NotFound(Refusal):
    """No such path."""

    status = 404


class MethodNotAllowed(Refusal):
    """The path exists, the method does not. `allowed` is the value of the Allow header."""

    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(f"only {allowed} here")
        self.allowed = allowed


class TooLarge(Refusal):
    """The body is larger than any message of WeChat's."""

    status = 413
