"""Hosts of an ssh_config, read as ssh reads them, and the nodes of an inventory written as one. Offline."""

from __future__ import annotations

import getpass
from pathlib import Path

from sparkops.core.errors import InventoryError
from sparkops.core.messages import Fields
from sparkops.core.wording import Message
from sparkops.importing.hosts import Host, Hosts, declared
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.ssh.config import DEFAULT_KEYS, SSHConfigs
from sparkops.nodes.target import Target

TAKEN = {"hostname", "user", "port", "identityfile", "proxyjump", "identitiesonly"}
"""Options that a node can have. IdentitiesOnly is what an `identity_file` means anyway."""


def read(path: Path) -> Hosts:
    """Each name of a `Host` line that is no pattern, with what the file says of it. Raises InventoryError."""
    if not path.is_file():
        raise InventoryError.of("hosts-unreadable", where=str(path), reason="there is no such file")
    found = SSHConfigs().listed(path)
    if not found:
        raise InventoryError.of("hosts-none", where=str(path))
    unread: dict[str, list[str]] = {}
    for name, options in found.items():
        several = ["a second IdentityFile"] if len(options.get("identityfile") or ()) > 1 else []
        for option in (*(each for each in options if each not in TAKEN), *several):
            unread.setdefault(option, []).append(name)
    return Hosts(
        tuple(_host(name, options) for name, options in found.items()),
        left=tuple(Message.of("host-variable-not-taken", variable=each, hosts=names) for each, names in unread.items()),
    )


def _host(name: str, options: Fields) -> Host:
    address, port = options.get("hostname") or name, str(options.get("port") or "")
    return Host(
        name=name,
        address="" if address == name else address,
        user=options.get("user"),
        port=int(port) if port.isascii() and port.isdecimal() else None,
        identity_file=next(iter(options.get("identityfile") or ()), None),
        proxy_jump=options.get("proxyjump"),
    )


def write(inventory: Inventory) -> str:
    """A block for each node that is not retired, with all that sparkops itself would use to reach it.

    What an alias of the user's own configuration brings is written out: ssh looks no second time.
    Raises InventoryError.
    """
    configs = SSHConfigs()
    known = inventory.folder / "known_hosts"
    reached = [host for host in declared(inventory).hosts if not host.local]
    return "\n".join("\n".join([f"Host {each.name}", *_options(each, configs, known), ""]) for each in reached)


def _options(host: Host, configs: SSHConfigs, known: Path) -> list[str]:
    target = Target(
        name=host.name,
        host=host.address,
        port=host.port,
        user=host.user,
        identity_file=host.identity_file,
        proxy_jump=host.proxy_jump,
    )
    *hops, end = configs.route(target).hops
    default = tuple(Path("~/.ssh", each).expanduser() for each in DEFAULT_KEYS)
    jump = host.proxy_jump or ",".join(each.place for each in hops)
    options: list[tuple[str, object]] = [("HostName", end.host)]
    options += [("User", end.user)] if host.user or end.user != getpass.getuser() else []
    options += [("Port", end.port)] if host.port or end.port != 22 else []
    named = end.identities if end.identities != default else ()
    options += [("IdentityFile", each) for each in ([host.identity_file] if host.identity_file else named)]
    options += [("IdentitiesOnly", "yes")] if end.only_those else []
    options += [("ProxyJump", jump)] if jump else []
    options += [("ProxyCommand", end.proxy_command)] if end.proxy and not jump else []
    options += [("HostKeyAlias", end.key_name)] if end.key_name else []
    options += [("UserKnownHostsFile", f"{known.resolve()} ~/.ssh/known_hosts")] if known.is_file() else []
    return [f"    {name} {_word(name, str(value), host.name)}" for name, value in options]


def _word(name: str, value: str, node: str) -> str:
    """A value as ssh_config has it: what ssh would read as something else is refused."""
    if any(sign in value for sign in '"%\n') and name != "ProxyCommand":
        raise InventoryError.of("ssh-config-unwritable", node=node, option=name, value=value)
    if name == "ProxyCommand":
        return value.replace("%", "%%")
    return f'"{value}"' if " " in value and name == "IdentityFile" else value
