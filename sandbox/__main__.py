"""`python -m sandbox`: the server on loopback, ready to be tried without an account."""

from __future__ import annotations

import os
from collections.abc import Mapping

import wxserver
from sandbox.platform import signed_query, text_message
from wechat.settings import Settings

DEFAULTS = {
    "WECHAT_TOKEN": "sandbox",
    "HOST": "127.0.0.1",
    "WECHAT_MAX_AGE": "0",  # the printed line is to work all evening
}


def curl_line(settings: Settings, port: int, content: str) -> str:
    """A shell command that sends the text to the server on this machine, signed."""
    url = f"http://127.0.0.1:{port}{settings.path}?{signed_query(settings.tokens[0])}"
    return f"curl '{url}' -H 'Content-Type: text/xml' -d '{text_message(content)}'"


def main(environ: Mapping[str, str]) -> None:
    """Serves until it is stopped; what is set in the environment wins over the defaults."""
    app = wxserver.start({**DEFAULTS, **{name: value for name, value in environ.items() if value}})
    server = wxserver.bind(app)
    port = wxserver.addresses(server)[0][1]
    print(f"Try it, in another terminal:\n\n{curl_line(app.settings, port, '三体')}\n", flush=True)
    wxserver.serve(app, server)


if __name__ == "__main__":
    main(os.environ)
