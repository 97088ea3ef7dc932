"""The platform's answers, read forgivingly: whatever else is wrong in one, its errcode counts.

https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from typing import Any

from wechat.errors import WeChatError
from wechat.platform.hints import hint_for
from wechat.platform.transport import to_text

NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")  # what could break a line of the log
LONGEST_ERRMSG = 200  # characters
MOST_DIGITS = 640  # which each Python turns into a number: sys.set_int_max_str_digits


def parse(body: bytes) -> Any:
    """The JSON in an answer, None where there is none."""
    for text in (to_text(body), body.decode(errors="replace")):  # a half of a character can pass for GBK
        with suppress(ValueError, RecursionError):
            return json.loads(text, strict=False, parse_int=_whole)  # control characters come as they are
    return None


def _whole(digits: str) -> float:
    return int(digits) if len(digits) <= MOST_DIGITS else inf


def number(value: object) -> float | None:
    """The number in a field, also where it is written as text; None for anything else."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    return value if isinstance(value, int | float) and abs(value) < 1e15 else None


def check_errcode(answer: Mapping[str, Any], call: str = "") -> None:
    """Raises WeChatError where the answer says that the call, like `POST /cgi-bin/stable_token`, has failed.

    An errcode that is no whole number is a failure too, with 0 for its errcode.
    """
    inner = answer.get("base_resp")
    for result in (answer, inner if isinstance(inner, dict) else {}):
        value = result.get("errcode", result.get("ret", 0))
        code = 0 if value == "" else number(value)
        if code == 0:
            continue
        errcode = int(code) if code and code == int(code) else 0
        errmsg = result.get("errmsg", "")
        said = BREAKS.sub(" ", errmsg if isinstance(errmsg, str) else reprlib.repr(errmsg))[:LONGEST_ERRMSG]
        raise WeChatError(errcode, said, hint_for(errcode, said, call))
