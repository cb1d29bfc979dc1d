"""SHA-256 for small things without OpenSSL, whose loading takes a node longer than hashing a hundred small files."""

import sys
from typing import Any

SMALL = 256 << 10
"""Bytes up to which the interpreter's own implementation is not slower, its start included."""


def sha256(size: int) -> Any:
    """A hash object for about `size` bytes, as `hashlib.sha256` makes them."""
    if size <= SMALL and "hashlib" not in sys.modules:
        for module in ("_sha2", "_sha256"):  # from Python 3.12 on, and before
            try:
                return __import__(module).sha256()
            except ImportError:
                continue
    import hashlib

    return hashlib.sha256()
