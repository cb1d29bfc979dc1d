"""`sparkops init`: a first inventory, filled in with what given machines say."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from sparkops.cli import host_keys
from sparkops.cli.prompts import is_terminal
from sparkops.core import named_file
from sparkops.core.errors import InventoryError
from sparkops.inventory.json_schema import schema
from sparkops.inventory.schema import NAME
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords, terminal
from sparkops.nodes.ssh.host_keys import HostKey
from sparkops.operate.first_contact.first_inventory import Found, Proposal, cluster_name, inventory, node_names, remarks
from sparkops.operate.first_contact.look import look
from sparkops.operate.first_contact.trust import addressed, examine
from sparkops.operate.recipes import every
from sparkops.reports.formatting import safe

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(
    "init",
    epilog="""\b
Examples:
  sparkops init                                   writes inventory.yml and inventory.schema.json
  sparkops init --from-host nvidia@192.168.1.11   asks the machine and fills in what it says
  sparkops init --from-host nvidia@192.168.1.11 --accept-key SHA256:… --cluster rack   without a terminal
  sparkops init --from-ansible hosts.ini          the hosts and groups of an Ansible inventory; asks no machine
  sparkops init --from-ssh-config ~/.ssh/config   the names of its Host lines
  sparkops init -o -                              prints it""",
)
@click.option("-o", "--output", default="inventory.yml", show_default=True, help="The file to write; - prints it")
@click.option("--from-host", "hosts", multiple=True, help="[USER@]HOST[:PORT] to ask (repeatable)")
@click.option("--from-ansible", type=FILE, help="An Ansible inventory (INI, YAML) whose hosts to take over")
@click.option("--from-ssh-config", type=FILE, help="An ssh_config whose hosts to take over")
@host_keys.option
@click.option("--cluster", help="The cluster's name; asked for on a terminal, else made of the first machine's name")
def command(
    output: str,
    hosts: tuple[str, ...],
    from_ansible: Path | None,
    from_ssh_config: Path | None,
    fingerprints: tuple[str, ...],
    cluster: str | None,
) -> int:
    """Write a commented inventory to start from. An existing file is never overwritten.

    The host key of a machine that SSH does not know yet is shown and asked about; the inventory pins it. What the
    machine says (memory, GPU, driver, engines that run) decides which recipe is proposed. Nothing is changed there.
    """
    path = Path(output)
    if output != "-" and path.exists():
        raise InventoryError.of("output-exists", where=output)
    if sum(map(bool, (hosts, from_ansible, from_ssh_config))) > 1:
        raise click.UsageError("give one of --from-host, --from-ansible and --from-ssh-config")
    folder = path.parent if output != "-" else Path()
    if listed := from_ansible or from_ssh_config:
        text = _of_hosts(listed, ansible=listed is from_ansible, cluster=cluster, folder=folder)
        following = "`sparkops trust` for the host keys, then `sparkops discover` for the fabric between the nodes"
        return _written(text, following, path)
    found = _ask(hosts, fingerprints, folder)
    for name, each in zip(node_names(found), found, strict=True):
        for line in remarks(each):
            click.echo(f"{name}: {line}", err=True)
    text, best = inventory(found, _cluster(cluster, cluster_name(found, folder.resolve().name)), list(every(folder)))
    return _written(text, _next(best, found, path), path)


def _written(text: str, following: str, path: Path) -> int:
    if path == Path("-"):
        click.echo(text, nl=False)
        return 0
    named_file.write(path, text)
    beside = path.with_name("inventory.schema.json")
    named_file.write(beside, json.dumps(schema(), indent=2) + "\n")
    click.echo(f"wrote {path} and {beside} (the schema, for your editor)")
    click.echo(f"next: look through it, then {following}")
    return 0


def _of_hosts(listed: Path, *, ansible: bool, cluster: str | None, folder: Path) -> str:
    """The inventory of the hosts that another tool's file lists; what of it is not taken over is told."""
    from sparkops.importing import ansible as ansible_file
    from sparkops.importing.hosts import inventory_text
    from sparkops.inventory.load import load
    from sparkops.operate.first_contact import ssh_hosts

    hosts = ansible_file.read(listed) if ansible else ssh_hosts.read(listed)
    for message in hosts.left:
        click.echo(safe(f"warning: {message.full}"), err=True)
    text = inventory_text(hosts, _cluster(cluster, cluster_name((), folder.resolve().name)), str(listed))
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "inventory.yml").write_text(text, encoding="utf-8")
        load(Path(made) / "inventory.yml")  # what could not be read again is not written
    return text


def _next(best: Proposal, found: Sequence[Found], path: Path) -> str:
    inventory = "" if path == Path("inventory.yml") else f" -i {path}"
    if best.instead_of is None:
        return f"`sparkops plan{inventory}`"
    node = node_names(found)[0]
    if best.recipe is None:
        return f"`sparkops recipe new ORG/NAME` for the model that {best.instead_of.name} serves there"
    return f"`sparkops adopt {node} {best.service}{inventory}`: {best.instead_of.name} serves there already"


def _cluster(given: str | None, proposed: str) -> str:
    name = given or (click.prompt("Name of the cluster", default=proposed, err=True) if is_terminal() else proposed)
    if not re.match(NAME, name):
        raise InventoryError.of("declared-name-invalid", where="--cluster", instance=name)
    return name


def _ask(hosts: Sequence[str], fingerprints: Sequence[str], folder: Path) -> list[Found]:
    """What the machines say, each under the key that a person has vouched for."""
    machines = [addressed(each, folder) for each in hosts]
    connections = Connections(Passwords(terminal(), hosts))
    found = []
    for target, shown in zip(machines, examine(machines, connections), strict=True):
        keys: tuple[HostKey, ...] = shown.known
        if not keys and shown.new and not shown.fault:
            host_keys.tell(shown, err=True)
            keys = host_keys.vouched(shown, fingerprints)
            if not keys:
                raise click.Abort
        pinned = keys[0].line if keys else ""
        trusted = dataclasses.replace(target, host_keys=(pinned,) if pinned and not shown.fault else ())
        found.append(dataclasses.replace(look(trusted, connections), host_key=pinned))
    return found
