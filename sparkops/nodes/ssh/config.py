"""The user's configuration of SSH and the inventory, joined into one route: the machines on the way, how to enter each.

What the inventory declares wins. Parsing is paramiko's; `Include`, which it lacks, is done here.
paramiko is imported where a file is parsed: commands and nodes without SSH do not wait for it.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparkops.core.errors import InventoryError
from sparkops.core.messages import Fields
from sparkops.nodes.target import Target

if TYPE_CHECKING:
    from paramiko.config import SSHConfig

CONNECT_TIMEOUT = 10.0
INCLUDES_DEEP = 16
HELD = "\x00"
"""Stands for the % of a ProxyCommand while paramiko reads it, which would not fill in the inventory's port and user."""
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ecdsa_sk", "id_ed25519_sk")


@dataclass(frozen=True, slots=True)
class Hop:
    """One machine to enter. `alias` is what it was called; `key_name` is HostKeyAlias, its name in known_hosts.

    `identities` are key files in the order to try; `only_those`: no other key of the agent. `agent` is IdentityAgent.
    `timeout` (seconds) limits the way to an encrypted connection. `proxy` is a command whose input and output lead
    there.
    """

    host: str
    port: int
    user: str
    alias: str = ""
    key_name: str = ""
    known_hosts: tuple[Path, ...] = ()
    identities: tuple[Path, ...] = ()
    only_those: bool = False
    agent: str = ""
    timeout: float = CONNECT_TIMEOUT
    proxy: str = ""

    @property
    def place(self) -> str:
        """`user@host:port`, for messages."""
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")

    @property
    def proxy_command(self) -> str:
        """The proxy command with its tokens filled in."""
        filled = self.proxy
        tokens = {HELD: "%", "n": self.alias, "h": self.host, "p": str(self.port), "r": self.user}
        for token, value in tokens.items():
            filled = filled.replace(HELD + token, value)
        return filled


@dataclass(frozen=True, slots=True)
class Route:
    """The machines from here to a node, the node last."""

    hops: tuple[Hop, ...]

    @property
    def end(self) -> Hop:
        """The node itself."""
        return self.hops[-1]


class SSHConfigs:
    """Configuration files of SSH, each parsed once. Any thread may use it."""

    def __init__(self) -> None:
        self._parsed: dict[tuple[Path, ...], SSHConfig] = {}
        self._lock = threading.Lock()

    def route(self, target: Target) -> Route:
        """The way to a node. Raises InventoryError for configuration that can't be read or followed."""
        files = _files(target)
        with self._lock:
            config = self._parsed.get(files)
            if config is None:
                config = self._parsed[files] = _parse(files)
            return Route(_route(config, target))

    def listed(self, file: Path) -> Mapping[str, Fields]:
        """What one file says of each name in its `Host` lines that is no pattern, in the file's order, by options in
        small letters. Raises InventoryError."""
        names: list[str] = []
        for line in _lines(file, file.parent, ["Host *"], 0):
            word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
            if word.lower() == "host":
                names += [name for name in shlex.split(rest, comments=True) if not re.search(r"[*?!]", name)]
        config = _parse((file,))
        return {name: _lookup(config, name, name) for name in dict.fromkeys(names)}


def _files(target: Target) -> tuple[Path, ...]:
    if target.ssh_config is not None:
        return (target.ssh_config,)
    named = os.environ.get("SPARKOPS_SSH_CONFIG")
    if named:
        return (Path(named),)
    return (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config"))


def _parse(files: tuple[Path, ...]) -> SSHConfig:
    lines: list[str] = []
    for file in files:
        lines += ["Host *", *_lines(file, file.parent, ["Host *"], 0)]
    from sparkops.nodes.ssh import paramiko_import  # noqa: F401 - before paramiko

    # isort: split
    from paramiko.config import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    try:
        return SSHConfig.from_text("\n".join(lines))
    except ConfigParseError as error:
        raise InventoryError.of("ssh-config-unreadable", where=str(files[0]), error=str(error)) from None


def _lines(file: Path, base: Path, block: list[str], depth: int) -> Iterator[str]:
    """The lines of a file with its includes in their places; after one, the block that it stood in goes on."""
    if depth > INCLUDES_DEEP:
        raise InventoryError.of("ssh-config-includes-itself", where=str(file))
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return
    for raw in text.splitlines():
        word, _, rest = raw.strip().replace("=", " ", 1).partition(" ")
        if word.lower() == "include":
            for pattern in shlex.split(rest, comments=True):
                whole = Path(pattern).expanduser()
                root = whole if whole.is_absolute() else base / whole
                for found in sorted(Path(root.anchor).glob(str(root.relative_to(root.anchor)))):
                    yield from _lines(found, base, list(block), depth + 1)
                    yield block[0]
            continue
        if word.lower() in ("host", "match"):
            block[0] = raw.strip()
            if "exec" in rest.lower():
                from sparkops.nodes.ssh import paramiko_import

                paramiko_import.match_exec()
        yield raw.replace("%", HELD) if word.lower() == "proxycommand" else raw


def _route(config: SSHConfig, target: Target) -> tuple[Hop, ...]:
    options = _lookup(config, target.address, target.name)
    end = _declared(_hop(options, target.address, target), target)
    jump = _jump_of(options) if target.proxy_jump is None else target.proxy_jump
    if target.proxy_jump is not None:
        end = replace(end, proxy="")
    return (*_jumps(config, jump, target, (target.address,)), end)


def _jump_of(options: Fields) -> str:
    """ProxyJump's value, or "" where there is none or where a ProxyCommand was given first (as in OpenSSH)."""
    first = next((key for key in options if key in ("proxyjump", "proxycommand")), "")
    return str(options["proxyjump"]) if first == "proxyjump" else ""


def _jumps(config: SSHConfig, jump: str, target: Target, seen: tuple[str, ...]) -> tuple[Hop, ...]:
    """The hops of a ProxyJump list. Only the first one's own way is followed, as OpenSSH does."""
    if jump.lower() in ("", "none"):
        return ()
    hops: tuple[Hop, ...] = ()
    for word in jump.split(","):
        user, host, port = _place(word.strip(), target.name)
        if host in seen:
            raise InventoryError.of("proxy-jump-loop", where=target.name, host=host)
        options = _lookup(config, host, target.name)
        hop = _hop(options, host, target)
        hop = replace(hop, user=user or hop.user, port=port or hop.port)
        before = hops or _jumps(config, _jump_of(options), target, (*seen, host))
        hops = (*before, replace(hop, proxy="") if before else hop)
    return hops


def _place(word: str, node: str) -> tuple[str, str, int]:
    """User, host and port of `[user@]host[:port]`, "" and 0 where not said; `ssh://` is allowed, IPv6 in brackets."""
    user, _, rest = word.removeprefix("ssh://").rstrip("/").rpartition("@")
    host, port = rest, ""
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.lstrip(":")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if not host or (port and not port.isdecimal()):
        raise InventoryError.of("jump-host-invalid", where=node, text=word)
    return user, host, int(port or 0)


def _lookup(config: SSHConfig, host: str, node: str) -> dict[str, object]:
    from paramiko.ssh_exception import SSHException

    try:
        return dict(config.lookup(host))
    except (SSHException, ImportError, ValueError, KeyError, OSError) as error:
        raise InventoryError.of("ssh-config-unresolved", where=node, host=host, error=str(error)) from None


def _declared(hop: Hop, target: Target) -> Hop:
    """The node itself, with what the inventory says of it."""
    hop = replace(
        hop,
        user=target.user or hop.user,
        port=target.port or hop.port,
        timeout=hop.timeout if target.connect_timeout is None else target.connect_timeout,
    )
    if target.identity_file:
        hop = replace(hop, identities=(Path(target.identity_file).expanduser(),), only_those=True)
    return hop


def _hop(options: Fields, host: str, target: Target) -> Hop:
    named = [Path(each).expanduser() for each in options.get("identityfile") or [] if each.lower() != "none"]
    default = [Path("~/.ssh", each).expanduser() for each in DEFAULT_KEYS]
    jump_decides = bool(_jump_of(options))
    return Hop(
        host=options.get("hostname") or host,
        port=_number(options, "port", 22, target),
        user=options.get("user") or getpass.getuser(),
        alias=host,
        key_name=options.get("hostkeyalias") or "",
        known_hosts=(*([target.known_hosts] if target.known_hosts else []), *_known_hosts(options)),
        identities=tuple(named or default),
        only_those=(options.get("identitiesonly") or "").lower() == "yes",
        agent=options.get("identityagent") or "",
        timeout=float(_number(options, "connecttimeout", CONNECT_TIMEOUT, target)),
        proxy="" if jump_decides else (options.get("proxycommand") or ""),
    )


def _known_hosts(options: Fields) -> Iterator[Path]:
    users = options.get("userknownhostsfile") or "~/.ssh/known_hosts ~/.ssh/known_hosts2"
    systems = options.get("globalknownhostsfile") or "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
    for word in [*shlex.split(users), *shlex.split(systems)]:
        if word.lower() != "none":
            yield Path(word.replace("%d", str(Path.home()))).expanduser()


def _number(options: Fields, key: str, default: float, target: Target) -> int:
    text = options.get(key)
    if text is None or text.lower() == "none":
        return int(default)
    try:
        return int(text)
    except ValueError:
        raise InventoryError.of("ssh-config-not-a-number", where=target.name, key=key, text=text) from None
