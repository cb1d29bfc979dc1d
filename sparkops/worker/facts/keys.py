"""Fingerprints of keys on the node: of SSH keys whose private half lies there, and of the groups of ranks.

Of a private key's file only the public half in it is read out (OpenSSH PROTOCOL.key: it is not encrypted): no digest of
a secret is made.
"""

import base64
import contextlib
import glob
import hashlib
import os

from sparkops.core import group_keys
from sparkops.core.descriptors import names
from sparkops.worker.facts.system import text
from sparkops.worker.system.root import at

HOMES = ("/root/.ssh/id_*", "/home/*/.ssh/id_*")
HOST = "/etc/ssh/ssh_host_*_key.pub"
BEGIN = "-----BEGIN OPENSSH PRIVATE KEY-----"
MAGIC = b"openssh-key-v1\0"


def keys(root: str) -> dict[str, object]:
    """`host` and `private`: lists of fingerprints as ssh-keygen prints them; what has another format is not told."""
    host = {fingerprint(text(root, path) or "") for path in _paths(root, HOST)}
    private = {of_private(text(root, path) or "") for pattern in HOMES for path in _paths(root, pattern)}
    return {"host": sorted(filter(None, host)), "private": sorted(filter(None, private))}


def of_groups(root: str) -> dict[str, str]:
    """Of the keys by which the ranks of services know each other's messages, by service. Raises OSError."""
    folder = at(root, group_keys.FOLDER)
    found = {}
    for name in names(folder):
        if name.endswith(group_keys.SUFFIX):
            with open(os.path.join(folder, name), "rb") as file:
                found[name.removesuffix(group_keys.SUFFIX)] = group_keys.fingerprint(file.read())
    return found


def _paths(root: str, pattern: str) -> list[str]:
    there = at(root, "/").rstrip("/")
    return [path.removeprefix(there) for path in sorted(glob.glob(at(root, pattern))) if os.path.isfile(path)]


def fingerprint(line: str) -> str:
    """Of a public key's line (`ssh-ed25519 AAAA… comment`); "" where it is none."""
    words = line.split()
    with contextlib.suppress(ValueError, IndexError):
        return _digest(base64.b64decode(words[1], validate=True))
    return ""


def of_private(content: str) -> str:
    """Of a private key in OpenSSH's own format, by the public half that stands in it; "" for any other."""
    lines = content.strip().splitlines()
    if not lines or lines[0] != BEGIN:
        return ""
    with contextlib.suppress(ValueError, IndexError):
        data = base64.b64decode("".join(lines[1:-1]), validate=True)
        if data.startswith(MAGIC):
            rest = data[len(MAGIC) :]
            for _ in range(3):  # cipher, key derivation and its options
                _, rest = _string(rest)
            return _digest(_string(rest[4:])[0])
    return ""


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A length-prefixed string, and what follows it. Raises ValueError where it is cut off."""
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise ValueError("cut off")
    return data[4 : 4 + length], data[4 + length :]


def _digest(blob: bytes) -> str:
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
