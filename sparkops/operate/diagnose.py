"""What a bug report is made of: each node's own collection, the plan, the inventory, and this machine's versions.

Nothing is changed anywhere. What could not be had is a part with its reason.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import SecretError, SparkopsError
from sparkops.core.messages import DiagnoseService, reason_of
from sparkops.core.nested import leaves
from sparkops.core.report import Report
from sparkops.core.secrets import SecretRef
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.session import Session
from sparkops.operate.connect import Context, reach
from sparkops.operate.services import ranks
from sparkops.programs.redaction import Redaction, names_secret
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run as reconcile
from sparkops.runs import store

KIND = "diagnose"
"""The worker's module that collects."""
PATIENCE = 180.0
RUNS = 3
"""How many of the last runs' records are taken."""
FILE = 512 << 10
"""Bytes of a file of this machine, and of a part of a node's, at most."""
PARTS = 400
"""Parts of one node at most."""
PACKAGES = ("sparkops", "click", "rich", "PyYAML", "ruamel.yaml", "Jinja2", "jsonschema", "paramiko", "cryptography")
SHORTEST = 8
"""Characters of a value of this machine's environment from which on it is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of the archive; `why` says why there is no text; `cut`: only its end is there."""

    file: str
    text: str = ""
    why: Message | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All parts, not redacted yet, and what has to be taken out of them.

    `silent` maps nodes to why they did not answer; `unread` names the secrets whose values are not known here.
    """

    cluster: str
    parts: tuple[Part, ...]
    redaction: Redaction
    plan: Report | None = None
    silent: Mapping[str, Message] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def diagnose(context: Context, nodes: Sequence[str], services: Sequence[str] = ()) -> Diagnosis:
    """Collect from these nodes, of these services or of all that are there. Raises InventoryError."""
    secrets, inventory = Secrets(), context.inventory
    values, unread = _secrets(inventory, secrets)
    parts = [*_own(), *_inventory(inventory), *_runs(inventory.cluster)]
    told, silent = _nodes(context, nodes, services)
    plan, why = _plan(context, secrets)
    if plan is None:
        parts.append(Part(file="plan.json", why=why))
    return Diagnosis(
        cluster=inventory.cluster,
        parts=(*parts, *told),
        redaction=Redaction(values),
        plan=plan,
        silent=silent,
        unread=unread,
    )


def _secrets(inventory: Inventory, secrets: Secrets) -> tuple[list[str], tuple[str, ...]]:
    """The values of every secret that the inventory refers to and of those in this environment; which can't be read."""
    found, unread = [value for name, value in os.environ.items() if names_secret(name) and len(value) >= SHORTEST], []
    for ref in dict.fromkeys(_references(inventory)):
        try:
            found.append(secrets.resolve(ref).reveal())
        except SecretError:
            unread.append(str(ref))
    for node in inventory.nodes.values():
        ways = (node.connection.ssh_password, node.connection.become_password)
        found += [each for each in ways if isinstance(each, str)]
    return found, tuple(unread)


def _references(inventory: Inventory) -> Iterator[SecretRef]:
    for node in inventory.nodes.values():
        yield from _below([node.connection.ssh_password, node.connection.become_password])
        yield from _below(inventory.variables(node.name))
        for service in inventory.services_on(node.name):
            yield from _below(inventory.variables(node.name, service.name))


def _below(value: object) -> Iterator[SecretRef]:
    return (each for each in leaves(value) if isinstance(each, SecretRef))


def _own() -> Iterator[Part]:
    """This machine: versions and locale; of the environment only what sparkops and SSH read."""
    lines = [f"python {sys.version}", f"platform {platform.platform()}", f"encoding {sys.getfilesystemencoding()}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} (not installed)")
    wanted = re.compile(r"(?:SPARKOPS_|LC_|XDG_|HF_ENDPOINT|LANG|TERM$|NO_COLOR|[Hh][Tt][Tt][Pp][Ss]?_|[Nn][Oo]_).*")
    lines += [f"{name}={value}" for name, value in sorted(os.environ.items()) if wanted.fullmatch(name)]
    yield Part(file="controller/versions.txt", text="\n".join(lines) + "\n")


def _inventory(inventory: Inventory) -> Iterator[Part]:
    """The inventory's files as they are written: secrets stand in them as references."""
    folder = inventory.folder
    yield _file("inventory/" + inventory.path.name, inventory.path)
    for path in sorted(folder.glob("*.lock.yml")):
        yield _file("inventory/" + path.name, path)
    for kind in ("roles", "recipes"):
        for path in sorted((folder / kind).glob("**/*.yml"))[:50]:
            yield _file(f"inventory/{path.relative_to(folder)}", path)


def _runs(cluster: str) -> Iterator[Part]:
    """The newest records of runs on this machine, drift aside: the reports, and what happened."""
    try:
        acting = [each for each in store.latest(cluster) if each.command != "drift"][-RUNS:]
        for run in acting:
            body = store.find(run.run).body
            if body is not None:
                yield _text(f"runs/{run.run}/report.json", json.dumps(body, indent=1) + "\n")
            yield _text(f"runs/{run.run}/events.jsonl", "".join(f"{line}\n" for line in store.events(run.run)))
    except SparkopsError as error:
        yield Part(file="runs", why=error.message)


def _text(name: str, text: str) -> Part:
    """A text of this machine; of a long one its end."""
    cut = len(text) > FILE
    return Part(file=name, text=text[-FILE:].partition("\n")[2] if cut else text, cut=cut)


def _file(name: str, path: Path) -> Part:
    try:
        data = path.read_bytes()
    except OSError as error:
        return Part(file=name, why=Message.from_json(reason_of(error)))
    cut = len(data) > FILE
    data = data[-FILE:].partition(b"\n")[2] if cut else data
    return Part(file=name, text=data.decode(errors="replace"), cut=cut)


def _nodes(context: Context, nodes: Sequence[str], services: Sequence[str]) -> tuple[list[Part], dict[str, Message]]:
    declared: dict[str, list[DiagnoseService]] = {node: [] for node in nodes}
    for rank in ranks(context.inventory):
        if rank.node in declared and (not services or rank.service in services):
            container = rank.unit.container or f"sparkops-{rank.service}"
            declared[rank.node].append({"name": rank.service, "unit": rank.unit.name, "container": container})

    def ask(node: str, session: Session) -> object:
        about = {"state_dir": fleet.targets[node].state_dir, "cluster": context.inventory.cluster}
        about |= {"former": context.inventory.renamed_from}
        order = {**about, "services": declared[node], "claimed": not services}
        return session.call(f"{KIND}.collect", order, timeout=PATIENCE)

    with reach(context, nodes, [KIND]) as fleet:
        answers, silent = fleet.each(nodes, ask)
    parts = [_told(node, each) for node, answer in answers.items() for each in _list(answer)]
    return parts, {node: error.message for node, error in silent.items()}


def _list(answer: object) -> list[Mapping[str, object]]:
    return [each for each in answer if isinstance(each, Mapping)][:PARTS] if isinstance(answer, list) else []


def _told(node: str, part: Mapping[str, object]) -> Part:
    """A node's part, whose name becomes a path in the archive: it is not trusted."""
    words = [re.sub(r"[^\w.@-]", "_", word) for word in str(part.get("name")).split("/")]
    name = "/".join(word for word in words if word.strip("."))
    told = part.get("text")
    text = told[-2 * FILE :].decode(errors="replace") if isinstance(told, bytes) else ""
    why = Message.from_json(part["why"]) if part.get("why") else None
    return Part(file=f"nodes/{node}/{name}", text=text, why=why, cut=bool(part.get("cut")))


def _plan(context: Context, secrets: Secrets) -> tuple[Report | None, Message | None]:
    """What a plan of the whole inventory shows now; or why there is none."""
    inventory = context.inventory
    try:
        compiled = compile_inventory(inventory, secrets=secrets)
        chosen = RunOptions(
            command="plan",
            inventory=inventory,
            connections=context.connections,
            secrets=secrets,
            whole=compiled.whole,
            notices=inventory.notices,
            listener=context.listener,
            jobs=context.jobs,
        )
        return reconcile(compiled.resources, chosen), None
    except SparkopsError as error:
        return None, error.message
