"""`sparkops checkpoint …`: what checkpoints hold, in a folder here or on a hub; whether those on nodes are right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparkops.checkpoints.inspect import Inspection, Source
    from sparkops.operate.verifying import Verified
    from sparkops.reports.text import Printer


@click.group(
    "checkpoint",
    epilog="""\b
Examples:
  sparkops checkpoint inspect Intel/Qwen3.5-122B-A10B-int4-AutoRound
  sparkops checkpoint verify spark-01 --deep""",
)
def command() -> None:
    """Look into checkpoints here or on a hub, and verify those on nodes."""


@command.command(
    "inspect",
    epilog="""\b
Examples:
  sparkops checkpoint inspect ./Qwen3.5-122B-A10B-int4-AutoRound
  sparkops checkpoint inspect Intel/Qwen3.5-122B-A10B-int4-AutoRound
  sparkops checkpoint inspect ORG/NAME --revision v1.0 --format json

Of a hub only the headers are read, a few MB of a checkpoint of 70 GB.
The exit status is 2 where the checkpoint has a fault.""",
)
@click.argument("what", metavar="FOLDER|ORG/NAME")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of a repository")
@click.option("--endpoint", default="", help="Another hub than the public one (HF_ENDPOINT works too)")
@options.text_or_json
def inspect(what: str, revision: str, endpoint: str, form: str, no_color: bool) -> int:
    """Show tensors by part and dtype, bytes read per token, quantisation, and structural faults.

    A token for the hub is taken from HF_TOKEN.
    """
    from sparkops.checkpoints.inspect import inspect as look
    from sparkops.cli.printing import console
    from sparkops.reports.text import Printer

    found = look(_source(what, revision, endpoint))
    if form == "json":
        value = dataclasses.asdict(found)
        del value["config"]
        click.echo(json.dumps({"schema": "sparkops.checkpoint/1", **value}, indent=1))
    else:
        _print(Printer(console(no_color)), found)
    return 2 if found.faults else 0


@command.command(
    "verify",
    epilog="""\b
Examples:
  sparkops checkpoint verify                      all nodes of inventory.yml
  sparkops checkpoint verify spark-01 --deep
  sparkops checkpoint verify qwen --format json

The exit status is 2 where a file is missing or wrong, 3 where a node did not answer.""",
)
@click.argument("nodes", nargs=-1, metavar="[NODE|GROUP|SERVICE]...")
@options.inventory_option
@click.option("--deep", is_flag=True, help="Read everything again, also what has not changed since it was last read")
@options.jobs
@options.text_or_json
def verify(nodes: tuple[str, ...], inventory: Path, deep: bool, jobs: int, form: str, no_color: bool) -> int:
    """Prove the checkpoints on nodes against their own records: offline, on all cores, as a job of the node.

    What was hashed and has not changed since is not read again.
    """
    from sparkops.cli.printing import console, listener_for, passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.verifying import verify as prove
    from sparkops.reports.text import Printer

    loaded = load(inventory)
    with listener_for(form, no_color) as listener:
        connections = Connections(passwords_for(loaded))
        found = prove(loaded, named(loaded, nodes), connections, deep=deep, jobs=jobs, listener=listener)
    if form == "json":
        rows = [dataclasses.asdict(each) for each in found]
        click.echo(json.dumps({"schema": "sparkops.verify/1", "checkpoints": rows}, indent=1))
    else:
        _print_verified(Printer(console(no_color)), found)
    if any(not each.good and not each.silent for each in found):
        return 2
    return 3 if any(each.silent for each in found) else 0


def _print_verified(printer: Printer, found: Sequence[Verified]) -> None:
    from sparkops.reports.words import count, duration, names, size

    for each in found:
        printer.line((each.node, "bold"), f"  {each.folder}")
        if each.why:
            printer.line(("✗ ", "red"), each.why, indent=2)
        elif each.good:
            read = f"{size(each.hashed)} read in {duration(each.seconds)}" if each.hashed else "unchanged"
            read += f", hashed {each.hashed_at}" if each.hashed_at else ""
            what = f"{each.repository}@{each.commit[:12]}: {count(each.files, 'file')}, {size(each.size)}, {read}"
            printer.line(("✓ ", "green"), what, indent=2)
        for word, paths in (("missing", each.missing), ("with other content", each.wrong)):
            if paths:
                printer.line(("✗ ", "red"), f"{count(len(paths), 'file')} {word}: {names(paths)}", indent=2)
        if not each.good and not each.why:
            printer.line(("sparkops apply fetches them again, and only them", "dim"), indent=4)


def _source(what: str, revision: str, endpoint: str) -> Source:
    import os

    from sparkops.checkpoints.hub import Hub
    from sparkops.checkpoints.inspect import FolderSource, HubSource, InspectError
    from sparkops.checkpoints.manifest import is_repository
    from sparkops.core.secrets import Secret

    folder = Path(what).expanduser()
    if folder.is_dir():
        return FolderSource(folder)
    if folder.exists() or what.startswith((".", "/", "~")) or not is_repository(what):
        raise InspectError(
            f"{what} is neither a folder nor a repository's name", hint="name a folder, or a repository as ORG/NAME"
        )
    token = os.environ.get("HF_TOKEN")
    hub = Hub(endpoint, Secret(token, "HF_TOKEN") if token else None)
    resolved = hub.resolve(what, revision)
    return HubSource(hub, hub.manifest(what, resolved.commit))


def _print(printer: Printer, found: Inspection) -> None:
    from sparkops.reports.table import table
    from sparkops.reports.words import count, size

    printer.line(
        (found.name, "bold"),
        f": {count(found.files, 'file')}, {size(found.size)}, {count(found.tensors, 'tensor')}, "
        f"{found.quantization or 'not quantised'}",
    )
    rows = [
        (share.part, share.dtype, str(share.tensors), _amount(share.values), size(share.size)) for share in found.shares
    ]
    table(printer, ("PART", "DTYPE", "TENSORS", "VALUES", "BYTES"), rows)
    if found.read_per_token is not None:
        printer.line(f"decoding reads {size(found.read_per_token)} of weights per token, without speculation")
    for fault in found.faults:
        where = f"{fault.file}: " if fault.file else ""
        printer.line(("✗ ", "red"), f"{where}{fault.text}", (f"; {fault.hint}" if fault.hint else "", "dim"))
    if not found.faults:
        printer.line(("✓ ", "green"), "every tensor stands once, where the index says, in whole files")


def _amount(values: int) -> str:
    return f"{values / 1e9:.2f} B" if values >= 1e8 else f"{values / 1e6:.2f} M"
