"""An Ansible inventory: the INI and the YAML form, read; the YAML form, written.

Source: Ansible's documentation, "How to build your inventory", and its plugins `ini`, `yaml` and `ssh`. Values are read
as they stand: what Ansible computes (templates, vaults, plugins, folders of variables) is told and not taken over.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.importing import ansible_ini
from sparkops.importing.ansible_ini import Groups, expanded
from sparkops.importing.hosts import Host, Hosts

YAML = (".yml", ".yaml", ".json")
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "address": ("ansible_host", "ansible_ssh_host"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "identity_file": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "become": ("ansible_become",),
    "connection": ("ansible_connection",),
    "proxy_jump": ("ansible_ssh_common_args",),
}
"""What is read, by Ansible's names."""
SAME: Mapping[str, tuple[object, ...]] = {
    "ansible_become_method": ("sudo", "ansible.builtin.sudo"),
    "ansible_become_user": ("root",),
}
"""What needs not be said of a node, where it has one of these values."""
SECRET = (
    "ansible_password",
    "ansible_ssh_pass",
    "ansible_ssh_password",
    "ansible_become_password",
    "ansible_become_pass",
)
SSH = ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")
LOCAL = ("local", "ansible.builtin.local")
WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
_UNSAID: object = object()


def read(path: Path) -> Hosts:
    """The hosts and groups of a file. Raises InventoryError for what is no inventory, or one that Ansible computes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InventoryError.of("hosts-unreadable", where=str(path), reason=reason) from None
    groups = _yaml(path, text) if path.suffix in YAML else ansible_ini.parse(text, str(path))
    variables = groups.variables()
    if not variables:
        raise InventoryError.of("hosts-none", where=str(path))
    reading = _Reading(str(path))
    made = {name: reading.host(name, each) for name, each in variables.items()}
    taken = tuple(each for each in made.values() if each is not None)
    named = {each.name for each in taken}
    folders = [name for name in ("group_vars", "host_vars") if (path.parent / name).is_dir()]
    if folders:
        reading.left.insert(0, Message.of("hosts-folders-not-read", folders=folders, path=str(path)))
    members = {name: tuple(each for each in groups.members(name) if each in named) for name in groups.named()}
    return Hosts(taken, {name: each for name, each in members.items() if each}, tuple(reading.told()))


def write(hosts: Hosts) -> str:
    """The YAML form. What a host does not say is left to Ansible, as it is left to SSH here."""
    listed = {each.name: _variables(each) for each in hosts.hosts}
    children: dict[str, object] = {
        name: {"hosts": {each: {} for each in members}} for name, members in hosts.groups.items() if members
    }
    content = {"all": {"hosts": listed, **({"children": children} if children else {})}}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _variables(host: Host) -> dict[str, object]:
    jump = host.proxy_jump
    found = {
        "ansible_connection": "local" if host.local else None,
        "ansible_host": host.address or None,
        "ansible_user": host.user,
        "ansible_port": host.port,
        "ansible_ssh_private_key_file": host.identity_file,
        "ansible_ssh_common_args": f"-o {shlex.quote(f'ProxyJump={jump}')}" if jump is not None else None,
        "ansible_become": host.become,
    }
    return {name: value for name, value in found.items() if value is not None}


class _Loader(yaml.SafeLoader):
    """Ansible's own tags become what is not read."""


@dataclass(frozen=True)
class _Computed:
    """A value that only Ansible knows."""


_Loader.add_multi_constructor("!", lambda *_: _Computed())


def _yaml(path: Path, text: str) -> Groups:
    try:
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InventoryError.of("hosts-malformed", where=str(path), reason=" ".join(str(error).split())) from None
    if isinstance(content, Mapping) and "plugin" in content:
        raise InventoryError.of("hosts-computed", where=str(path))
    if not isinstance(content, Mapping):
        raise InventoryError.of("hosts-malformed", where=str(path), reason="it is no mapping of groups")
    groups = Groups()
    for name, group in content.items():
        _group(groups, str(name), group, str(path), 0)
    return groups


def _group(groups: Groups, name: str, content: object, where: str, depth: int) -> None:
    parts = content if content is not None else {}
    if not isinstance(parts, Mapping) or depth > 50 or {*parts} - {"hosts", "vars", "children"}:
        raise InventoryError.of(
            "hosts-malformed", where=where, reason=f"{name} is no group of hosts, vars and children"
        )
    for key, part in parts.items():
        if not isinstance(part, (Mapping, type(None))):
            raise InventoryError.of("hosts-malformed", where=where, reason=f"{key} of {name} is no mapping")
    groups.add(name)
    groups.set(name, parts.get("vars") or {})
    for pattern, variables in (parts.get("hosts") or {}).items():
        for host in expanded(str(pattern), where):
            groups.put(name, host, variables or {})
    for child, inner in (parts.get("children") or {}).items():
        groups.nest(name, str(child))
        _group(groups, str(child), inner, where, depth + 1)


@dataclass
class _Reading:
    """Hosts in the making, and by variable the hosts for which it is not taken over."""

    where: str
    left: list[Message] = field(default_factory=list)
    unread: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def host(self, name: str, variables: Mapping[str, object]) -> Host | None:
        """A host by its merged variables; None where it is not reached by SSH, which is told."""
        known = {each for names in VARIABLES.values() for each in names}
        for each, value in variables.items():
            if each in SECRET:
                self._leave("host-secret-not-taken", each, name)
            elif each not in known and value not in SAME.get(each, ()):
                self._leave("host-variable-not-taken", each, name)
        found = {key: self._value(name, key, variables) for key in VARIABLES}
        connection = found.pop("connection")
        if connection not in (None, *SSH, *LOCAL):
            self.left.append(Message.of("host-not-taken", host=name, connection=connection))
            return None
        return Host(name=name, local=connection in LOCAL, **{**found, "address": found["address"] or ""})

    def told(self) -> Iterator[Message]:
        """All that is not taken over."""
        yield from self.left
        for (id, variable), hosts in self.unread.items():
            yield Message.of(id, variable=variable, hosts=hosts)

    def _leave(self, id: str, variable: str, host: str) -> None:
        self.unread.setdefault((id, variable), []).append(host)

    def _value(self, host: str, key: str, variables: Mapping[str, Any]) -> Any:
        given = {each: variables[each] for each in VARIABLES[key] if variables.get(each) is not None}
        values: list[object] = []
        for name, value in given.items():
            taken = _typed(key, value)
            if taken is _UNSAID:
                self._leave("host-value-not-read", name, host)
            elif taken not in values:
                values.append(taken)
        if len(values) > 1:
            self._leave("host-value-not-read", " and ".join(given), host)
        return values[0] if len(values) == 1 else None


def _typed(key: str, value: object) -> object:
    """A value as a Host has it; _UNSAID for what is not understood, which is never guessed at."""
    if isinstance(value, (_Computed, list, dict)) or (isinstance(value, str) and ("{{" in value or "{%" in value)):
        return _UNSAID
    if key == "become":
        return WORDS.get(str(value).lower(), _UNSAID)
    if key == "port":
        text = str(value)
        return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 65536 else _UNSAID
    return _jump(str(value)) if key == "proxy_jump" else str(value)


def _jump(text: str) -> object:
    """The jump hosts, where the arguments for ssh say nothing else."""
    try:
        words = shlex.split(text)
    except ValueError:
        return _UNSAID
    joined = "".join(words[:1] + words[1:2]) if words[:1] in (["-o"], ["-J"]) else "".join(words[:1])
    for start in ("-oProxyJump=", "-J"):
        if joined.startswith(start) and len(words) == 1 + (words[0] in ("-o", "-J")) and joined != start:
            return joined.removeprefix(start)
    return _UNSAID
