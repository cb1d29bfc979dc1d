"""`[USER@]HOST[:PORT]` as people write it after `ssh`, also with `ssh://` before it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A host, and the user and the port where they are written. An IPv6 address has no brackets here."""

    host: str
    user: str | None = None
    port: int | None = None


def parse(text: str) -> HostAddress | None:
    """The parts of an address; None for what is none. An IPv6 address with a port is written `[ADDRESS]:PORT`."""
    user, at, place = text.removeprefix("ssh://").removesuffix("/").rpartition("@")
    host, port = place, ""
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest
    elif place.count(":") == 1:
        host, _, number = place.partition(":")
        port = f":{number}"
    if not host or host.startswith("-") or any(each.isspace() for each in text) or bool(at) != bool(user):
        return None
    if port and not (port[1:].isascii() and port[1:].isdecimal() and 1 <= int(port[1:]) <= 65535):
        return None
    return HostAddress(host, user or None, int(port[1:]) if port else None)
