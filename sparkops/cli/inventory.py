"""`sparkops inventory`: the merged variables of a node and where each came from; the hosts for other tools."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.core import named_file
from sparkops.importing import ansible
from sparkops.importing.hosts import declared
from sparkops.inventory.load import load
from sparkops.inventory.show import show as origins
from sparkops.inventory.show import values
from sparkops.operate.first_contact import ssh_hosts
from sparkops.reports.formatting import safe


@click.group("inventory")
def command() -> None:
    """Look into the inventory, offline; secrets stay references."""


@command.command(
    "show",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops inventory show spark-01
  sparkops inventory show spark-01 --service qwen --origin""",
)
@click.argument("node")
@options.inventory
@click.option("--service", help="As this service on the node sees it")
@click.option("--origin", is_flag=True, help="Say for each value where it came from")
@options.only_form
@options.extra
def show(
    node: str, inventory: Path, service: str | None, origin: bool, form: str, extra: tuple[tuple[str, str], ...]
) -> None:
    """Print the merged variables of a node, or of a service on it."""
    loaded = load(inventory, extra=extra)
    if not origin:
        found = values(loaded, node, service)
        text = json.dumps(found, indent=2) if form == "json" else yaml.safe_dump(found, sort_keys=False).rstrip()
        click.echo(text)
        return
    lines = origins(loaded, node, service)
    if form == "json":
        rows = [{"path": each.path, "value": each.value, "layer": each.layer, "where": each.where} for each in lines]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(each.path) for each in lines), default=0)
    for each in lines:
        click.echo(f"{each.path:{width}}  {json.dumps(each.value)}  # {each.layer}, {each.where}")


@command.command(
    "export",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops inventory export --format ansible -o hosts.yml      ansible -i hosts.yml all -m ping
  sparkops inventory export --format ssh_config -o ssh_config  ssh -F ssh_config spark-01""",
)
@options.inventory
@click.option("--format", "form", type=click.Choice(("ansible", "ssh_config")), required=True, help="For which tool")
@click.option("-o", "--output", type=options.NewFile(), help="Write to a file; - prints it")
def export(inventory: Path, form: str, output: Path | None) -> None:
    """Print the nodes for another tool: addresses, users, ports, keys' files, jump hosts, groups; no secrets.

    `ansible` is a YAML inventory of what is declared; ~/.ssh/config then says the rest, as here. `ssh_config` has all
    that sparkops itself would use, so that `ssh -F` needs no other file. Retired nodes are left out.
    """
    loaded = load(inventory)
    hosts = declared(loaded)
    for message in hosts.left:
        click.echo(safe(f"warning: {message.full}"), err=True)
    text = ansible.write(hosts) if form == "ansible" else ssh_hosts.write(loaded)
    if output is None or output == Path("-"):
        click.echo(text, nl=False)
    else:
        named_file.write(output, text)
