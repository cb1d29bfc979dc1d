"""How the key of a group of ranks is told from another without showing it. Standard library only: nodes run it."""

import hashlib
import hmac

FOLDER, SUFFIX = "/etc/sparkops/services", ".group"
"""Where the key of a service lies on each of its nodes: FOLDER/SERVICE.group, of mode 0600."""


def fingerprint(key: bytes) -> str:
    """An HMAC by the key itself, which has 256 random bits: it cannot be found from this."""
    return hmac.new(key, b"sparkops group key", hashlib.sha256).hexdigest()[:32]
