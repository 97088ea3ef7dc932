"""The heads of requests, without those on which waitress's parser stops: it runs in the thread of all sockets."""

import re

from waitress.parser import HTTPRequestParser, ParsingError

MAX_HEAD = 16 * 1024  # bytes; WeChat sends about 500, a proxy adds a few hundred. Node.js takes as many

_START_LINE = re.compile(rb"[^ ]+ [^ ]+(?: HTTP/[0-9]\.[0-9])?")
_LONG_GAP = b" " * 32


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """waitress's parser, without the heads that stop it: it parses in the thread that serves all sockets."""

    path = ""  # of a head that was refused; waitress 3.0.2 logs it where the client has gone meanwhile

    def parse_header(self, head: bytes) -> None:
        """Read the first line and the headers; raise ParsingError, which is answered with 400."""
        check_head(head)
        try:
            super().parse_header(head)
        except ValueError as error:  # of urlsplit() and int(): `GET http://[ HTTP/1.1`, a length of 5,000 digits
            raise ParsingError("Bad URI or length") from error


def check_head(head: bytes) -> None:
    """Raise ParsingError for a head on which waitress's regular expressions take time that grows with its square.

    waitress 3.0.2 takes 25 s for `GET a://111…` of 16 KB that does not end in a version, and 1 s for 16 KB of blanks
    after a header's colon. RFC 9112, section 5.2, lets a server refuse folded lines, which join to such blanks.
    """
    first_line = head.partition(b"\r\n")[0].rstrip()
    if not _START_LINE.fullmatch(first_line):
        raise ParsingError("Start line is invalid")
    blanks = head.replace(b"\t", b" ")
    if b"\r\n " in blanks or _LONG_GAP in blanks:
        raise ParsingError("Folded header, or too many blanks")
