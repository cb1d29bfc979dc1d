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
    from sparkops.core.secrets import Secret
    from sparkops.operate.checkpoint_build import Checked
    from sparkops.operate.checkpoint_verify import Verified
    from sparkops.reports.text import Printer


@click.group(
    "checkpoint",
    epilog="""\b
Examples:
  sparkops checkpoint inspect Intel/Qwen3.5-122B-A10B-int4-AutoRound
  sparkops checkpoint verify spark-01 --deep
  sparkops checkpoint build ./base -o ./hybrid --step hybrid=Qwen/Qwen3.5-122B-A10B-FP8""",
)
def command() -> None:
    """Look into checkpoints here or on a hub, verify those on nodes, and build one here."""


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
    from sparkops.operate.checkpoint_verify import verify as prove
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


@command.command(
    "build",
    epilog="""\b
Examples:
  sparkops checkpoint build ./int4 -o ./hybrid --step hybrid=Qwen/Qwen3.5-122B-A10B-FP8 --step lm_head=int8
  sparkops checkpoint build ORG/NAME -o /srv/hybrid --step hybrid=Qwen/Qwen3.5-122B-A10B-FP8 --check
  sparkops checkpoint build ./int4 -o ./complete --step mtp=Qwen/Qwen3.5-122B-A10B@main --step repack=compressed-tensors
  sparkops checkpoint build ./int4 -o ./hybrid --recipe qwen3.5-122b-a10b-hybrid-legacy

BASE is a folder here, or a repository, which is fetched beside the output (what the Hugging Face cache has is linked).
The steps are done in the order given, repack only last; quantize needs a container, and so an inventory.
What ended early goes on when the same command is run again; nothing is in the output's place before it is whole.
An output that holds files which no build put there is refused.
Exit statuses: 0 built (or built already), 1 wrong input, 2 with --check: a step would be refused, 3 it could not be
found out what is there, 4 the build failed, 130 interrupted.""",
)
@click.argument("base", metavar="FOLDER|ORG/NAME")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to build")
@click.option(
    "--step",
    "steps",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="hybrid=DONOR[@REVISION], mtp[=DONOR[@REVISION]], lm_head=int8, repack=compressed-tensors",
)
@click.option(
    "--layers", default="", metavar="REGEX", help="The layers that hybrid takes, instead of the shared experts"
)
@click.option("--recipe", default="", help="Take the steps of this recipe")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of a repository as base")
@click.option("--endpoint", default="", help="Another hub than the public one (HF_ENDPOINT works too)")
@click.option("--check", is_flag=True, help="Read headers only and say what each step would do; nothing is built")
@options.text_or_json
def build(
    base: str,
    output: Path,
    steps: tuple[str, ...],
    layers: str,
    recipe: str,
    revision: str,
    endpoint: str,
    check: bool,
    form: str,
    no_color: bool,
) -> int:
    """Build a checkpoint on this machine by the steps that a role or recipe declares, without an inventory.

    A token for the hub is taken from HF_TOKEN.
    """
    import threading

    from sparkops.cli.interrupts import interrupts
    from sparkops.cli.printing import console, emit, listener_for
    from sparkops.operate import checkpoint_build
    from sparkops.reports.text import Printer

    order = checkpoint_build.Order(
        base=base,
        output=output,
        steps=checkpoint_build.steps_of(steps, layers, recipe),
        revision=revision,
        endpoint=endpoint,
        token=_token(),
    )
    stop = threading.Event()
    with listener_for(form, no_color) as listener, interrupts(stop):
        if check:
            told = checkpoint_build.check(order, listener=listener)
        else:
            report = checkpoint_build.build(order, listener=listener, stop=stop)
    if not check:
        emit(report, form, None, no_color=no_color, verbose=0)
        for notice in report.plan.notices if form == "text" else ():
            Printer(console(no_color)).line(("i ", "blue"), notice)
        if form == "text" and not report.plan.steps and report.exit_status == 0:
            click.echo(f"{output}: built already, and as declared")
        return report.exit_status
    if form == "json":
        click.echo(json.dumps({"schema": "sparkops.build-check/1", **dataclasses.asdict(told)}, indent=1))
    else:
        _print_checked(Printer(console(no_color)), told)
    return 2 if told.refused else 0


def _print_checked(printer: Printer, told: Checked) -> None:
    from sparkops.reports.formatting import count, size

    for step in told.steps:
        if step.refused:
            printer.line(("✗ ", "red"), (step.name, "bold"), f"  refused: {step.refused}")
            printer.line(f"→ {step.hint}" if step.hint else "", indent=4)
            continue
        moved = f", {size(step.from_donors)} of donors" if step.from_donors else ""
        printer.line(
            ("✓ ", "green"),
            (step.name, "bold"),
            f"  {count(step.changed, 'tensor')} changed, {step.added} added, {step.removed} removed{moved}",
        )
        for note in step.notes:
            printer.line((note, "dim"), indent=4)
    if told.files:
        words = f"{told.output}: {size(told.written)} to write of {size(told.size)} in {count(told.files, 'file')}"
        printer.line(words + (", the rest is the base's" if told.written < told.size else ""))
        room = f"{size(told.needed)} needed on its disk, {size(told.free)} free"
        if told.needed > told.free:
            printer.line(("✗ ", "red"), f"not enough space: {room}")
            printer.line("→ free some space, or give an output on a larger disk", indent=4)
        else:
            printer.line(room)
        printer.line(("the numbers are held against the base when it is built", "dim"))


def _token() -> Secret | None:
    import os

    from sparkops.core.secrets import Secret

    token = os.environ.get("HF_TOKEN")
    return Secret(token, "HF_TOKEN") if token else None


def _print_verified(printer: Printer, found: Sequence[Verified]) -> None:
    from sparkops.reports.formatting import count, duration, names, size

    for each in found:
        printer.line((each.node, "bold"), f"  {each.folder}")
        if each.why:
            printer.line(("✗ ", "red"), each.why, indent=2)
        elif each.good:
            read = f"{size(each.hashed)} read in {duration(each.seconds)}" if each.hashed else "unchanged"
            read += f", hashed {each.hashed_at}" if each.hashed_at else ""
            what = f"{_origin(each)}: {count(each.files, 'file')}, {size(each.size)}, {read}"
            printer.line(("✓ ", "green"), what, indent=2)
        for word, paths in (("missing", each.missing), ("with other content", each.wrong)):
            if paths:
                printer.line(("✗ ", "red"), f"{count(len(paths), 'file')} {word}: {names(paths)}", indent=2)
        if not each.good and not each.why:
            printer.line((_mended(each), "dim"), indent=4)


def _origin(each: Verified) -> str:
    """What a folder on a node is, or what it is built from."""
    origin = f"{each.repository}@{each.commit[:12]}"
    if not each.built:
        return origin
    donors = f" with weights of {', '.join(each.donors)}" if each.donors else ""
    return f"built from {origin} by {', '.join(each.steps)}{donors}"


def _mended(each: Verified) -> str:
    """What an apply does about missing and damaged files."""
    if not each.built:
        return "sparkops apply fetches them again, and only them"
    if "quantize" in each.steps:
        return "sparkops apply quantises and builds the whole folder again: two runs need not make the same bytes"
    return f"{_origin(each)}: sparkops apply builds them again, and only them"


def _source(what: str, revision: str, endpoint: str) -> Source:
    from sparkops.checkpoints.hub import Hub, NoRepository
    from sparkops.checkpoints.inspect import FolderSource, HubSource, InspectError
    from sparkops.checkpoints.manifest import is_repository

    folder = Path(what).expanduser()
    if folder.is_dir():
        return FolderSource(folder)
    if folder.exists() or what.startswith((".", "/", "~")) or not is_repository(what):
        raise InspectError(
            f"{what} is neither a folder nor a repository's name", hint="name a folder, or a repository as ORG/NAME"
        )
    hub = Hub(endpoint, _token())
    try:
        resolved = hub.resolve(what, revision)
    except NoRepository as error:
        raise NoRepository(f"{error.what}, and no such folder here", where=error.where, hint=error.hint) from None
    return HubSource(hub, hub.manifest(what, resolved.commit))


def _print(printer: Printer, found: Inspection) -> None:
    from sparkops.reports.formatting import count, size
    from sparkops.reports.table import table

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
