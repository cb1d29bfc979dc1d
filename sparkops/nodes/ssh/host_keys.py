"""Which keys a node may have: a pin in the inventory, else known_hosts files, read as OpenSSH reads them.

No network here: keys are compared as the text that such files hold, `ssh-ed25519 AAAA…`.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.core import atomic
from sparkops.core.errors import HostKeyError, InventoryError


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key of a host. `blob` is its wire form, `where` the file and line (or the pin) that tells it."""

    blob: bytes
    where: str = field(default="", compare=False)

    @property
    def type(self) -> str:
        """The key's type as known_hosts names it, such as `ssh-ed25519` or `ssh-rsa`."""
        size = int.from_bytes(self.blob[:4], "big")
        return self.blob[4 : 4 + size].decode("ascii", "replace")

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def line(self) -> str:
        """`ssh-ed25519 AAAA…`: what `host_key:` takes, and the end of a line of known_hosts."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one host: its keys, revoked ones, and authorities (which are not followed)."""

    keys: tuple[HostKey, ...] = ()
    revoked: tuple[HostKey, ...] = ()
    authorities: tuple[HostKey, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """The types of the known keys, best known first, each once."""
        return tuple(dict.fromkeys(key.type for key in self.keys))


@dataclass(frozen=True, slots=True)
class _Line:
    marker: str
    patterns: tuple[str, ...]
    key: HostKey


class KnownHosts:
    """Some known_hosts files, read once; the first has the first word. Missing files are empty."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self._lines = [line for path in self.paths for line in _read(path)]

    def known(self, name: str) -> Known:
        """What they say of a host by its name there: `host`, or `[host]:port` for another port than 22."""
        here = [line for line in self._lines if _names(line.patterns, name)]
        return Known(
            keys=tuple(line.key for line in here if not line.marker),
            revoked=tuple(line.key for line in here if line.marker == "@revoked"),
            authorities=tuple(line.key for line in here if line.marker == "@cert-authority"),
        )


def host_name(host: str, port: int) -> str:
    """The name of a host in known_hosts."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def pinned(text: str, node: str) -> HostKey:
    """The key of a `host_key:` line. Raises InventoryError."""
    fields = text.split()
    key = _key(fields[0], fields[1], "host_key") if len(fields) >= 2 else None
    if key is None:
        raise InventoryError.of("host-key-pin-invalid", where=node)
    return key


def check(shown: HostKey, known: Known, *, node: str, host: str, hop: bool = False) -> None:
    """Accept the key that a host has shown, or raise HostKeyError with the reason and the way out."""
    place = f"the jump host {host}" if hop else host
    for key in known.revoked:
        if key.blob == shown.blob:
            raise HostKeyError.of(
                "host-key-revoked", where=node, place=place, fingerprint=shown.fingerprint, known_at=key.where
            )
    if any(key.blob == shown.blob for key in known.keys):
        return
    same_type = [key for key in known.keys if key.type == shown.type] or list(known.keys)
    if same_type:
        raise changed(same_type[0], shown, node=node, place=place)
    args: dict[str, Any] = {"place": host, "fingerprint": shown.fingerprint, "type": shown.type, "node": node}
    if hop:
        raise HostKeyError.of("host-key-unknown-jump-host", where=node, **args)
    if known.authorities:
        authority = known.authorities[0].where
        raise HostKeyError.of("host-key-authority-ignored", where=node, authority=authority, **args)
    raise HostKeyError.of("host-key-unknown", where=node, **args)


def changed(old: HostKey, shown: HostKey | None, *, node: str, place: str) -> HostKeyError:
    """The error for another key than the known one; `shown` is None where the host no longer has that type."""
    args: dict[str, Any] = {"place": place, "known": old.fingerprint, "known_at": old.where, "node": node}
    if shown is None:
        return HostKeyError.of("host-key-type-gone", where=node, type=old.type, **args)
    return HostKeyError.of("host-key-changed", where=node, fingerprint=shown.fingerprint, type=shown.type, **args)


def add(path: Path, name: str, keys: Sequence[HostKey]) -> None:
    """Write keys of a host into a known_hosts file (0600), in place of none; the file is replaced as a whole.

    Keys that the file has already for `name` are left as they are.
    """
    have = {key.blob for key in KnownHosts([path]).known(name).keys}
    old = path.read_text() if path.exists() else ""
    if old and not old.endswith("\n"):
        old += "\n"
    new = "".join(f"{name} {key.line}\n" for key in keys if key.blob not in have)
    if not new:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path.resolve(), (old + new).encode(), 0o600)


def _read(path: Path) -> Iterable[_Line]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for number, raw in enumerate(text.splitlines(), 1):
        fields = raw.split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        key = _key(fields[1], fields[2], f"{path}:{number}") if len(fields) >= 3 else None
        if key is not None:
            yield _Line(marker, tuple(fields[0].split(",")), key)


def _key(type: str, encoded: str, where: str) -> HostKey | None:
    try:
        key = HostKey(base64.b64decode(encoded, validate=True), where)
    except (binascii.Error, ValueError):
        return None
    return key if key.type == type else None


def _names(patterns: Sequence[str], name: str) -> bool:
    """Whether the names of a line mean this host: plain, with * and ?, negated with !, or hashed."""
    found = False
    for pattern in patterns:
        if pattern.startswith("|1|"):
            found = found or _hashed(pattern, name)
        elif pattern.startswith("!"):
            if _like(name, pattern[1:]):
                return False
        else:
            found = found or _like(name, pattern)
    return found


def _like(name: str, pattern: str) -> bool:
    """OpenSSH knows * and ? only; a bracket stands for itself (`[host]:port`)."""
    return fnmatch.fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hashed(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        want = base64.b64decode(digest)
        have = hmac.new(base64.b64decode(salt), name.encode(), hashlib.sha1).digest()
    except ValueError:
        return False
    return hmac.compare_digest(want, have)
