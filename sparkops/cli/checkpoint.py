"""`sparkops checkpoint …`: inspect checkpoints here or on a hub, verify those on nodes, build one."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from sparkops.checkpoints.hub import NoRepository
from sparkops.checkpoints.inspect import FolderSource, InspectError, Inspection
from sparkops.checkpoints.inspect import inspect as inspect_source
from sparkops.checkpoints.manifest import is_repository
from sparkops.checkpoints.repositories import Record, inspection_of
from sparkops.cli import options
from sparkops.cli.interrupts import interrupts
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import answer, listener_for, show_json
from sparkops.cli.repositories import offline_option, repositories, token
from sparkops.core.errors import SparkopsError
from sparkops.inventory.limit import named
from sparkops.operate.checkpoint import build as checkpoint_build
from sparkops.operate.checkpoint.declared_hub import declared_hub
from sparkops.operate.checkpoint.verify import verify as verify_nodes
from sparkops.reports import checkpoint as renderers


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
  sparkops checkpoint inspect ORG/NAME -i inventory.yml      from its hub, with its token, at its commit

Of a hub only the headers are read, a few MB of a checkpoint of 70 GB, and once for each commit: what was found is kept
in the cache, from which --offline answers.
The exit status is 2 where the checkpoint has a fault.""",
)
@click.argument("what", metavar="FOLDER|ORG/NAME")
@click.option("--revision", default="", help="Branch, tag or commit of a repository; main")
@click.option("--endpoint", default="", help="Another hub than the public one (HF_ENDPOINT works too)")
@offline_option
@click.option(
    "-i", "--inventory", "declared", type=click.Path(path_type=Path), help="As this inventory declares the repository"
)
@options.text_or_json
@options.common
def inspect(
    common: CommonOptions, what: str, revision: str, endpoint: str, offline: bool, declared: Path | None
) -> int:
    """Show tensors by part and dtype, bytes read per token, quantisation, and structural faults.

    A token for the hub is taken from HF_TOKEN, with -i from the inventory.
    """
    found, record = _inspected(what, revision, endpoint, offline, declared)
    document = renderers.inspection_as_json(found, record)
    answer(common, document, lambda printer: renderers.render_inspection(found, record, printer))
    return 2 if found.faults else 0


@command.command(
    "verify",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops checkpoint verify                      all nodes of inventory.yml
  sparkops checkpoint verify spark-01 --deep
  sparkops checkpoint verify qwen --format json

The exit status is 2 where a file is missing or wrong, 3 where a node did not answer.""",
)
@click.argument("nodes", nargs=-1, metavar="[NODE|GROUP|SERVICE]...")
@options.inventory
@options.shard
@click.option("--deep", is_flag=True, help="Read everything again, also what has not changed since it was last read")
@options.jobs
@options.text_or_json
@options.common
def verify(common: CommonOptions, deep: bool) -> int:
    """Verify the checkpoints on nodes against their own records: offline, on all cores, as a job of the node.

    What was hashed and has not changed since is not read again.
    """
    with listener_for(common) as listener:
        made = context(common, listener)
        found = verify_nodes(made, named(made.inventory, common.nodes), deep=deep)
    answer(common, renderers.verified_as_json(found), lambda printer: renderers.render_verified(found, printer))
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
The same command resumes what ended early; nothing is in the output's place before it is complete.
An output with files that no build put there is refused.
Exit statuses: 0 built (or built already), 1 wrong input, 2 with --check: a step would be refused, 3 the hub or the
folder could not be read, 4 the build failed, 75 another command builds the same output, 130 interrupted.""",
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
@options.common
def build(
    common: CommonOptions,
    base: str,
    output: Path,
    steps: tuple[str, ...],
    layers: str,
    recipe: str,
    revision: str,
    endpoint: str,
    check: bool,
) -> int:
    """Build a checkpoint on this machine by the steps that a role or recipe declares, without an inventory.

    A token for the hub is taken from HF_TOKEN.
    """
    order = checkpoint_build.Order(
        base=base,
        output=output,
        steps=checkpoint_build.steps_of(steps, layers, recipe),
        revision=revision,
        endpoint=endpoint,
        token=token(),
    )
    return _check(order, common) if check else _build(order, common)


def _build(order: checkpoint_build.Order, common: CommonOptions) -> int:
    stop = threading.Event()
    try:
        with listener_for(common) as listener, interrupts(stop):
            built = checkpoint_build.build(order, listener=listener, stop=stop)
    except SparkopsError as error:
        if common.form != "json":
            raise
        show_json(renderers.failed_build_as_json(order, error))
        return error.exit_status
    answer(common, renderers.build_as_json(built), lambda printer: renderers.render_build(built, printer))
    return 0


def _check(order: checkpoint_build.Order, common: CommonOptions) -> int:
    stop = threading.Event()
    with listener_for(common) as listener, interrupts(stop):
        found = checkpoint_build.check(order, listener=listener, stop=stop)
    answer(common, renderers.build_check_as_json(found), lambda printer: renderers.render_build_check(found, printer))
    return 2 if found.refused else 0


def _inspected(
    what: str, revision: str, endpoint: str, offline: bool, declared: Path | None
) -> tuple[Inspection, Record | None]:
    """What a folder holds, or a repository (as an inventory declares it), and the record of that."""
    folder = Path(what).expanduser()
    if folder.is_dir():
        return inspect_source(FolderSource(folder)), None
    if folder.exists() or what.startswith((".", "/", "~")) or not is_repository(what):
        raise InspectError.of("checkpoint-not-found", what=what)
    given = token()
    if declared is not None:
        hub, known = declared_hub(declared, what)
        revision = revision or known
        if not endpoint:
            endpoint, given = hub.endpoint, hub.token
    try:
        record = repositories(offline).record(what, revision, endpoint, given)
    except NoRepository as error:
        raise NoRepository.of(
            "checkpoint-neither-folder-nor-repository", where=error.where, reason=error.what
        ) from None
    return inspection_of(record), record
