"""A language model behind any API of the shape of https://platform.openai.com/docs/api-reference/chat"""

import asyncio
import json
import logging
import re
from contextlib import aclosing

import httpx

from wechat.errors import SettingsError
from wechat.settings import own

CONNECT = 5.0  # seconds
LARGEST = 1024 * 1024  # bytes of an answer, with all that stands around its words
SSL = httpx.create_ssl_context()  # once, and here: it would hold up all who share the loop
httpx.AsyncHTTPTransport(verify=SSL)  # imports what the first call would import there
for library in ("httpx", "httpcore"):
    logging.getLogger(library).setLevel(logging.WARNING)  # they have lines for each call

FAILED = "助手出了点问题，请稍后再试。"
TEXTS = {  # what a user reads, by the status of the API
    401: "助手暂时不能用，请稍后再来。",
    402: "助手暂时不能用，请稍后再来。",
    403: "助手暂时不能用，请稍后再来。",
    404: "助手暂时不能用，请稍后再来。",
    408: "这个问题想得太久了，请换个问法，或者稍后再试。",
    429: "现在问的人太多，请过一会儿再试。",
}
CURES = {
    401: "look at ASSISTANT_KEY",
    402: "the account at the API is empty",
    403: "look at ASSISTANT_KEY",
    404: "look at ASSISTANT_URL and ASSISTANT_MODEL",
    429: "too many questions at once, or the account at the API is empty",
}


class ModelFailed(Exception):
    """No answer, or only its beginning. Says why for the log, without words of users; `text` is for the user."""

    def __init__(self, why, text=FAILED):
        super().__init__(why)
        self.text = text


class Model:
    """One model of one API; `seconds` are for a whole answer."""

    def __init__(self, url, key, name, seconds):
        self.url, self.name, self.seconds = f"{url}/chat/completions", name, seconds
        self.headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}

    async def ask(self, messages):
        """The pieces of the answer, as they come; raises ModelFailed."""
        deadline = asyncio.get_running_loop().time() + self.seconds
        timeout = httpx.Timeout(self.seconds, connect=CONNECT)
        try:
            async with (
                httpx.AsyncClient(verify=SSL, timeout=timeout) as client,
                aclosing(self._pieces(client, messages)) as pieces,
            ):
                # Each wait by itself: a time-out around a `yield` would end whatever else its task does meanwhile.
                while (piece := await _next(pieces, deadline)) is not None:
                    yield piece
        except (TimeoutError, httpx.TimeoutException):
            raise ModelFailed(f"no answer within {self.seconds:g} s", TEXTS[408]) from None
        except httpx.HTTPError as error:
            raise ModelFailed(f"{type(error).__name__} on the way") from None

    async def _pieces(self, client, messages):
        asked = {"model": self.name, "messages": messages, "stream": True}
        async with client.stream("POST", self.url, headers=self.headers, json=asked) as response:
            status = response.status_code
            if status != 200:
                cure = f": {CURES[status]}" if status in CURES else ""
                raise ModelFailed(f"it answered {status}{cure}", TEXTS.get(status, FAILED))
            is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
            is_over = not is_stream
            async for line in _lines(response) if is_stream else _whole(response):
                if line == "[DONE]":
                    return
                is_over = is_over or bool(re.search(r'"finish_reason":\s*"', line))
                yield _words(line)
            if not is_over:  # as a proxy in between ends it whose own server has died
                raise ModelFailed("its stream ended before its answer")


async def _next(pieces, deadline):
    async with asyncio.timeout_at(deadline):
        return await anext(pieces, None)


async def _whole(response):
    """The answer of an API that does not stream, as the only line of a stream."""
    yield b"".join([chunk async for chunk in _chunks(response)])


async def _lines(response):
    """The data of the events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    rest = b""
    async for chunk in _chunks(response):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].decode(errors="replace").strip()


async def _chunks(response):
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > LARGEST:
            raise ModelFailed(f"its answer has over {LARGEST} bytes")
        yield chunk


def _words(text):
    """The words in one event; none where it is about something else."""
    try:
        event = json.loads(text)
        if event.get("error"):
            raise ModelFailed("it broke off its answer with an error")
        choice = (event.get("choices") or [{}])[0]
        content = (choice.get("delta") or choice.get("message") or {}).get("content")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        raise ModelFailed("its JSON cannot be read") from None
    return content if isinstance(content, str) else ""


def _is_address(text):
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    is_complete = re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", text)
    return bool(is_complete and url.host) and (url.port or 1) < 65_536


def choose():
    """The model that the settings ASSISTANT_URL, ASSISTANT_KEY, ASSISTANT_MODEL and ASSISTANT_TIMEOUT ask for.

    Raises SettingsError.
    """
    url, key, name = own("ASSISTANT_URL").rstrip("/"), own("ASSISTANT_KEY"), own("ASSISTANT_MODEL")
    faults = []
    if not _is_address(url):
        faults.append("ASSISTANT_URL is missing or not an address: it takes one like https://api.example.com/v1")
    if not name:
        faults.append("ASSISTANT_MODEL is missing: it takes the name of a model that the API has")
    if not re.fullmatch(r"[!-~]*", key):
        faults.append("ASSISTANT_KEY is not a key: copy it from the API's page, without blanks")
    seconds = own("ASSISTANT_TIMEOUT", "60")
    if not re.fullmatch(r"[1-9][0-9]?|[12][0-9][0-9]", seconds):
        faults.append(f"ASSISTANT_TIMEOUT is {seconds!r}: it takes seconds, a whole number from 1 to 299")
    if faults:
        raise SettingsError(faults)
    return Model(url, key, name, int(seconds))
