"""SHA-1, a comparison and random names without OpenSSL: `hashlib` and `secrets` load it, 3.5 MB at rest.

Where a Python lacks the modules below, as PyPy and those of some Linux distributions do, these are OpenSSL's.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha1
    from hmac import compare_digest
else:
    try:
        from _operator import _compare_digest as compare_digest
        from _sha1 import sha1
    except ImportError:
        from hashlib import sha1
        from hmac import compare_digest

__all__ = ["compare_digest", "random_below", "random_hex", "sha1"]


def random_hex(size: int) -> str:
    """So many bytes that nobody guesses, as hexadecimal digits."""
    return os.urandom(size).hex()


def random_below(limit: int) -> int:
    """A number from 0 on that nobody guesses; `limit` is far below 2 ** 64."""
    return int.from_bytes(os.urandom(16), "big") % limit
