"""Digests of contents, and short ones of the values of states: they tell a later run whether it is the same.

No secret has one.
"""

from __future__ import annotations

import hashlib
import json

from sparkops.core.nested import leaves, plain
from sparkops.core.secrets import Secret
from sparkops.core.states import Pending, Unknown

SYMBOLS = ("declared", "current")
"""Values by which a kind says "as it is declared" without naming it: of secrets, and of what other resources decide."""


def sha256(content: bytes) -> str:
    """`sha256:…` of a content."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest(value: object) -> str:
    """The digest of one value; "" where the value is printed as something else than it is."""
    if value in SYMBOLS or any(isinstance(each, (Secret, Pending, Unknown)) for each in leaves(value)):
        return ""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
