"""What the platform saw of one call that failed.

https://developers.weixin.qq.com/doc/service/api/apimanage/api_getridinfo
"""

import argparse
import re
import time
from typing import Any
from urllib.parse import parse_qsl

from wechat.errors import WeChatError
from wechat.masking import printable
from wechat.platform.answers import check_errcode, number, parse
from wechat.platform.api import Api


def rid(text: str) -> str:
    """The rid in an error, or in a line of the log; raises ArgumentTypeError where there is none."""
    found = re.search(r"\b[0-9a-f]{6,}(?:-[0-9a-f]{6,})+\b", text)
    if not found:
        raise argparse.ArgumentTypeError("it takes what follows `rid:`, like 617682e0-09059ac5-34a8e2ea")
    return found[0]


def run_why(api: Api, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Explain a failed call of the last seven days by the rid in its error; no value that was sent is shown."""
    answer = api.post("/cgi-bin/openapi/rid/get", {"rid": options.rid}, is_repeatable=True)
    found = answer.get("request")
    request = found if isinstance(found, dict) else {}
    error = WeChatError(0, "it has not failed", "none is needed")
    try:
        check_errcode(_parsed(request, "response_body"))
    except WeChatError as failure:
        error = failure
    names = _names(request)
    data = {
        "time": _when(number(request.get("invoke_time")) or 0),
        "address": printable(str(request.get("client_ip", ""))),
        "milliseconds": number(request.get("cost_in_ms")) or 0,
        "sent": names,
        "errcode": error.errcode,
        "errmsg": error.errmsg,
        "hint": error.hint,
    }
    text = """\
came      {time} from {address}, took {milliseconds:.0f} ms
sent      {sent}
answered  {errcode}: {errmsg}
cure      {hint}"""
    shown = {
        "address": data["address"] or "an unknown address",
        "sent": ", ".join(names) or "nothing",
        "hint": error.hint or "not known: ask WeChat, with this rid",
    }
    return text.format(**{**data, **shown}), data


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if 0 < at < 2**32 else "at an unknown time"


def _parsed(request: dict[str, Any], name: str) -> dict[str, Any]:
    value = parse(str(request.get(name)).encode(errors="replace"))
    return value if isinstance(value, dict) else {}


def _names(request: dict[str, Any]) -> list[str]:
    """The fields that were sent. Their values may be a token, the secret, or what a user said."""
    query = [name for name, _ in parse_qsl(str(request.get("request_url")))]
    return [printable(name) for name in (*query, *_parsed(request, "request_body"))]
