"""Files on their way to the platform and back, a piece at a time."""

import mimetypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from wechat.digests import random_below, random_hex
from wechat.errors import TransportError
from wechat.platform.answers import to_text
from wechat.platform.connecting import translated
from wechat.platform.transport import PIECE, Body, HttpResponse, Transport
from wechat.settings import Settings

LARGEST_FILE = 100 * 1024 * 1024  # bytes; the platform takes in a tenth of that
LONGEST_NAME = 60  # characters, which are 240 bytes at most; file systems take 255
ILLEGAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')  # in a file name, on Windows
# Devices, whatever follows the dot: https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE)

GLOBAL_UNICAST, NAT64 = ip_network("2000::/3"), ip_network("64:ff9b::/96")
# Not global, whatever an older Python says: https://www.iana.org/assignments/iana-ipv4-special-registry (and -ipv6-)
SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2002::/16", "3fff::/20")))


def multipart(filename: str, file: BinaryIO) -> tuple[Body, dict[str, str]]:
    """The file as the multipart field `media`: a function that begins the body anew, and its headers."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    boundary = random_hex(16)  # which no file can hold on purpose
    name = ILLEGAL.sub("_", readable(filename))
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="media"; filename="{name}"; filelength={size}\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        file.seek(start)
        yield head
        left = size
        while piece := file.read(min(PIECE, left)):  # not what is written into it meanwhile
            left -= len(piece)
            yield piece
        yield tail

    length = len(head) + size + len(tail)
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}


def readable(filename: str) -> str:
    """A name as Python gives it, also one whose bytes on the disk are GBK and not UTF-8 (PEP 383)."""
    try:
        return to_text(filename.encode(errors="surrogateescape"))
    except UnicodeEncodeError:  # half of a character, which is no byte of a name
        return filename.encode(errors="replace").decode()


def save(received: HttpResponse, folder: Path, fallback: str) -> Path:
    """Writes the body into the folder under the name that came with it, or one like it that is free.

    Nothing is left where it breaks off. Raises TransportError, and OSError where the file cannot be written.
    """
    if received.status != 200:
        raise TransportError(f"{received.what}: it answered {received.status}")
    file = _create(folder, safe_name(_name_in(received) or fallback))
    try:
        with file:
            file.writelines(received.pieces(LARGEST_FILE))
    except BaseException:
        os.unlink(file.name)
        raise
    return Path(file.name)


def save_from(url: str, settings: Settings, folder: Path, fallback: str, timeout: float) -> Path:
    """Writes what is at an address on the public internet, or on a very server of the API, into the folder.

    No redirect is followed. `timeout` is in seconds for the whole; raises what `save` raises.
    """
    with translated("the address of the video"):
        parts = urlsplit(url)
        may_reach = None if _origin(url) in map(_origin, settings.api_urls) else is_public
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TransportError("the platform named no address of the video")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    with (
        closing(Transport(server, may_reach=may_reach, proxy=settings.proxy)) as transport,
        transport.open("GET", target, timeout=timeout) as received,
    ):
        return save(received, folder, fallback)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; an IPv4 address counts also where IPv6 wraps it."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped or ip in NAT64:
            ip = IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in SPECIAL)


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _name_in(received: HttpResponse) -> str:
    """The name in Content-Disposition, empty where there is none; http.client has read its bytes as Latin-1."""
    name = ""
    with suppress(Exception):  # email's parser raises TypeError at filename*0*=a; filename*0*=b
        name = received.headers.get_filename() or ""
    with suppress(UnicodeEncodeError):  # filename*=, which is decoded already
        return to_text(name.encode("latin-1"))
    return name


def safe_name(name: str) -> str:
    """The name as that of a file in this very folder, on any system: no path, no device, nothing that a shell hides."""
    encoding = sys.getfilesystemencoding()
    known = name.encode(encoding, "replace").decode(encoding)
    last = ILLEGAL.sub("_", re.split(r"[/\\]", known)[-1])[-LONGEST_NAME:].strip(". ") or "download"
    return f"_{last}" if RESERVED.match(last) else last


def _create(folder: Path, name: str) -> BinaryIO:
    """A new file of this name, or of the next one that is free; no two callers get the same."""
    stem, suffix = os.path.splitext(name)
    path, number = folder / name, 1
    while True:
        try:
            return path.open("xb")
        except FileExistsError:
            number = number + 1 if number < 100 else random_below(10**9)  # a look at thousands would take long
            path = folder / f"{stem}-{number}{suffix}"
