"""The groups of an Ansible inventory, with their precedence and ranges of names; the INI form of one."""

from __future__ import annotations

import ast
import re
import shlex
import string
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

from sparkops.core.errors import InventoryError

ALL, UNGROUPED = "all", "ungrouped"
SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
RANGE = re.compile(r"\[([^\[\]:]*):([^\[\]:]+)(?::(\d+))?\]")
MOST = 10_000
"""Hosts that one range may stand for."""


@dataclass
class Groups:
    """Groups, their hosts, variables and children. The group `all` holds everything."""

    _hosts: dict[str, dict[str, None]] = field(default_factory=lambda: {ALL: {}})
    _vars: dict[str, dict[str, object]] = field(default_factory=dict)
    _children: dict[str, dict[str, None]] = field(default_factory=dict)
    _own: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(self, group: str) -> None:
        self._hosts.setdefault(group, {})

    def put(self, group: str, host: str, variables: Mapping[str, object]) -> None:
        """A host of a group, with variables of its own."""
        self.add(group)
        self._hosts[group][host] = None
        self._own.setdefault(host, {}).update(variables)

    def set(self, group: str, variables: Mapping[str, object]) -> None:
        self.add(group)
        self._vars.setdefault(group, {}).update(variables)

    def nest(self, group: str, child: str) -> None:
        self.add(child)
        self._children.setdefault(group, {})[child] = None

    def named(self) -> tuple[str, ...]:
        """The groups but for Ansible's own."""
        return tuple(name for name in self._hosts if name not in (ALL, UNGROUPED))

    def members(self, group: str) -> tuple[str, ...]:
        """The hosts of a group and of its children, in the order of the file."""
        found = {host for name in self._below(group) for host in self._hosts[name]}
        return tuple(host for host in self._own if host in found)

    def variables(self) -> dict[str, dict[str, object]]:
        """Each host's variables: those of `all`, of its groups (parents first, then by name), its own."""
        merged = {host: dict(self._vars.get(ALL, {})) for host in self._own}
        named = [name for name in self._vars if name != ALL]
        for group in sorted(named, key=lambda name: (self._depth(name, frozenset()), name)):
            for host in self.members(group):
                merged[host].update(self._vars[group])
        return {host: {**each, **self._own[host]} for host, each in merged.items()}

    def undefined(self, defined: Container[str]) -> Iterator[str]:
        """The groups that are spoken of and not among the defined ones."""
        return (name for name in self._hosts if name not in (ALL, UNGROUPED) and name not in defined)

    def _below(self, group: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
        yield group
        for child in self._children.get(group, ()):
            if child not in seen:
                yield from self._below(child, seen | {group})

    def _depth(self, group: str, seen: frozenset[str]) -> int:
        parents = [name for name, children in self._children.items() if group in children and name not in seen]
        return 1 + max((self._depth(each, seen | {group}) for each in parents), default=0)


def parse(text: str, where: str) -> Groups:
    """The groups of an INI file. Raises InventoryError for a line that Ansible would not take either."""
    groups = Groups()
    group, kind = UNGROUPED, "hosts"
    defined = set()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        place = f"{where}:{number}:1"
        if not line or line[0] in "#;":
            continue
        if line.startswith("[") and (section := SECTION.fullmatch(line)):
            group, kind = section[1], section[2] or "hosts"
            groups.add(group)
            if kind not in ("hosts", "vars", "children"):
                raise InventoryError.of("hosts-malformed", where=place, reason=f"no such section: {line}")
            defined |= {group} if kind != "vars" else set()
        elif line.startswith("[") and line.endswith("]"):
            raise InventoryError.of("hosts-malformed", where=place, reason=f"no such section: {line}")
        elif kind == "vars":
            name, sign, value = (each.strip() for each in line.partition("="))
            if not sign:
                raise InventoryError.of("hosts-malformed", where=place, reason="expected NAME=VALUE")
            groups.set(group, {name: _value(value)})
        elif kind == "children":
            groups.nest(group, line.partition("#")[0].strip())
        else:
            _host(groups, group, line, place)
    for name in groups.undefined(defined):
        raise InventoryError.of("hosts-malformed", where=where, reason=f"there is no group {name}")
    return groups


def _host(groups: Groups, group: str, line: str, where: str) -> None:
    try:
        pattern, *words = shlex.split(line, comments=True)
    except ValueError as error:
        raise InventoryError.of("hosts-malformed", where=where, reason=str(error)) from None
    variables: dict[str, object] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise InventoryError.of("hosts-malformed", where=where, reason=f"expected NAME=VALUE, not {word}")
        variables[name] = _value(value)
    pattern, port = _port(pattern)
    for host in expanded(pattern, where):
        groups.put(group, host, {**({"ansible_port": port} if port is not None else {}), **variables})


def _port(pattern: str) -> tuple[str, int | None]:
    """A name and the port behind it; an IPv6 address has brackets where a port follows."""
    plain = RANGE.sub("0", pattern)
    if not re.fullmatch(r"(?:[^:]+|\[[^\]]+\]):\d+", plain):
        return pattern, None
    name, _, port = pattern.rpartition(":")
    return (name[1:-1] if plain.startswith("[") else name), int(port)


def expanded(pattern: str, where: str) -> list[str]:
    """The names that a pattern with ranges stands for: `node[01:04]`, `rack[a:c]-[1:9:2]`."""
    found = RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last, step = found[1] or "0", found[2], int(found[3] or 1)
    letters = string.ascii_letters
    made: list[str] = []
    if step and first.isdecimal() and last.isdecimal() and (first[0] != "0" or first == "0" or len(first) == len(last)):
        width = len(first) if first[0] == "0" else 0
        if int(last) - int(first) > MOST * step:
            raise InventoryError.of("hosts-malformed", where=where, reason=f"{found[0]} stands for too many hosts")
        made = [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)]
    elif step and first in letters and last in letters and len(first) == len(last) == 1:
        made = list(letters[letters.index(first) : letters.index(last) + 1 : step])
    if not made:
        raise InventoryError.of("hosts-malformed", where=where, reason=f"{found[0]} is no range of numbers or letters")
    head, rest = pattern[: found.start()], pattern[found.end() :]
    names = [head + each + tail for each in made for tail in expanded(rest, where)]
    if len(names) > MOST:
        raise InventoryError.of("hosts-malformed", where=where, reason=f"{pattern} stands for too many hosts")
    return names


def _value(text: str) -> object:
    """A value as Ansible reads it: what is a literal of Python is one, anything else is text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
