"""Files on their way to the platform and back, a piece at a time."""

from __future__ import annotations

import mimetypes
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from wechat.errors import TransportError
from wechat.platform.transport import PIECE, Body, Received

Progress = Callable[[int, int], None]  # takes the bytes so far, and all of them (0: nobody knows)

BOUNDARY = "----wxserver-7c1f4e0b9a5d4c62"
LONGEST_NAME = 60  # characters, which are 240 bytes at most; file systems take 255


def multipart(filename: str, file: BinaryIO) -> tuple[Callable[[], Body], dict[str, str]]:
    """The file as the multipart field `media`: a function that begins the body anew, and its headers."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    name = re.sub(r'[\x00-\x1f"\\/]', "_", filename)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="media"; filename="{name}"; filelength={size}\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        file.seek(start)
        yield head
        while piece := file.read(PIECE):
            yield piece
        yield tail

    length = len(head) + size + len(tail)
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(length)}


def save(received: Received, folder: Path, fallback: str, on_progress: Progress | None) -> Path:
    """Writes the body into the folder under the name that came with it; nothing is left where it breaks off.

    Raises TransportError, and OSError where the file cannot be written.
    """
    if received.status != 200:
        raise TransportError(f"{received.what}: it answered {received.status}")
    path = folder / safe_name(_name_in(received) or fallback)
    done = 0
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".download-", delete=False) as file:
        try:
            for piece in received.pieces():
                file.write(piece)
                done += len(piece)
                if on_progress:
                    on_progress(done, received.length or 0)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()  # Windows deletes no open file
            os.unlink(file.name)
            raise
    return path


def _name_in(received: Received) -> str:
    """The name in Content-Disposition; http.client has read its UTF-8 as Latin-1."""
    name = received.headers.get_filename() or ""
    try:
        return name.encode("latin-1").decode()
    except ValueError:
        return name


def safe_name(name: str) -> str:
    """The name as that of a file in this very folder: no path, no control character, no leading dot."""
    last = re.split(r"[/\\]", name)[-1]
    return re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", last)[-LONGEST_NAME:].strip(". ") or "download"
