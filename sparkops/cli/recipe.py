"""`sparkops recipe`: the recipes there are, what two differ in, and reading those of others."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.printing import printer_for, show_json
from sparkops.cli.repositories import offline_option, repositories, token
from sparkops.core import named_file
from sparkops.core.errors import InventoryError
from sparkops.importing import Choice, convert
from sparkops.operate.recipes import Difference, as_json, differences, every, fastest, find, text
from sparkops.reports import schemas
from sparkops.reports.formatting import safe
from sparkops.reports.printer import table


@click.group(
    "recipe",
    epilog="""\b
Examples:
  sparkops recipe list
  sparkops recipe show qwen3.5-122b-a10b-int4
  sparkops recipe diff qwen3.5-397b-a17b-2x my-own.yml
  sparkops recipe import docker-compose.yml -o recipes/mine.yml
  sparkops recipe new openai/gpt-oss-120b -o recipes/gpt-oss.yml""",
)
def command() -> None:
    """Look at recipes and compare them, import those of others, and propose one for any model."""


@command.command("list")
@options.inventory
@options.text_or_json
def list_(inventory: Path, form: str, no_color: bool) -> None:
    """List the recipes beside the inventory and the bundled ones. Tokens a second: one stream, as published."""
    found = list(every(inventory.parent))
    if form == "json":
        show_json({"schema": schemas.RECIPES, "recipes": [as_json(each) for each in found]})
        return
    rows = [
        [each.name, str(each.nodes), each.engine or "", fastest(each.speeds), " ".join(each.summary.split())]
        for each in found
    ]
    table(printer_for(no_color), ("RECIPE", "NODES", "ENGINE", "TOKENS/S", ""), rows)


@command.command("show")
@click.argument("recipe")
@options.inventory
@options.text_or_json
def show(recipe: str, inventory: Path, form: str, no_color: bool) -> None:
    """Print a recipe (a name, or a file) with its sources, published speeds and what is unverified."""
    found = find(recipe, inventory.parent)
    if form == "json":
        show_json({"schema": schemas.RECIPE, **as_json(found)})
    else:
        click.echo(f"# {safe(found.file)}\n{safe(text(found)).rstrip()}")


@command.command("diff")
@click.argument("first")
@click.argument("second")
@options.inventory
@options.text_or_json
def diff(first: str, second: str, inventory: Path, form: str, no_color: bool) -> None:
    """Print in what two recipes differ; each is a name, or a file."""
    one, two = find(first, inventory.parent), find(second, inventory.parent)
    found = differences(one, two)
    if form == "json":
        rows = [{"path": each.path, "first": each.first, "second": each.second} for each in found]
        show_json({"schema": schemas.RECIPE_DIFF, "differences": rows})
        return
    for each in found:
        click.echo(_difference(each))
    if not found:
        click.echo(f"{one.name} and {two.name} declare the same", err=True)


@command.command(
    "import",
    epilog="""\b
Examples:
  sparkops recipe import qwen3.5-122b.yaml -o recipes/qwen.yml     sparkrun, eugr or vLLM recipes
  sparkops recipe import docker-compose.yml --service vllm
  echo 'vllm serve org/model --max-model-len 32768' | sparkops recipe import -""",
)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("-o", "--output", type=options.NewFile(), help="Write to a file; - prints it")
@click.option("--service", help="Which service of a compose file")
@click.option("--variant", help="Which variant of a recipe of vllm-project/recipes")
@click.option("--engine", help="The version of vLLM in the image, where its name does not tell it")
def import_(file: Path, output: Path | None, service: str | None, variant: str | None, engine: str | None) -> None:
    """Make a recipe of another project's: sparkrun and its registries, eugr, vllm-project/recipes, a compose file, or a
    plain `vllm serve` or `docker run` line. Whatever can't be carried over is told on standard error."""
    name = "standard input" if str(file) == "-" else str(file)
    try:
        content = (sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")).lstrip("\ufeff")
    except UnicodeDecodeError:
        raise InventoryError.of("recipe-not-utf8", where=name) from None
    made = convert(content, name, Choice(service=service, variant=variant, engine=engine))
    for line in made.left:
        click.echo(safe(f"not carried over: {line}"), err=True)
    for line in made.notes:
        click.echo(safe(f"note: {line}"), err=True)
    _put(made.text, output)


@command.command(
    "new",
    epilog="""\b
Examples:
  sparkops recipe new openai/gpt-oss-120b                       print a recipe for one node
  sparkops recipe new ORG/NAME --nodes 2 -o recipes/mine.yml    write one for two nodes
  sparkops recipe new ORG/NAME --engine 0.28.0

Nothing is written without -o. The recipe passes lint and fit; where none can, the exit status is 1 and the reason is
told. What nobody has verified, and what fit could not count, stands in the recipe.""",
)
@click.argument("model", metavar="ORG/NAME")
@click.option("--nodes", type=click.IntRange(1, 16), help="How many nodes one engine takes; 1 by default")
@click.option("--engine", metavar="VERSION", help="The engine's version; by default the newest that takes the model")
@click.option("--revision", default="", help="Branch, tag or commit of the repository; main by default")
@click.option("-o", "--output", type=options.NewFile(), help="Write to a file; - prints it")
@offline_option
def new(model: str, nodes: int | None, engine: str | None, revision: str, output: Path | None, offline: bool) -> None:
    """Propose a complete recipe for a model: engine, image, parsers, and the context and streams that fit.

    A model that is in no knowledge is read from the hub once (configuration and tensor headers) and kept in the cache.
    """
    from sparkops.proposing.proposal import Wish, propose
    from sparkops.proposing.recipe_text import recipe_text

    hub = repositories(offline)
    wish = Wish(model=model, nodes=nodes, engine=engine, revision=revision, beside=Path.cwd())
    made = propose(wish, hub.model)
    at = made.model.from_hub
    own_code = at is not None and "auto_map" in hub.record(model, revision, "", token()).config
    _put(recipe_text(made, own_code), output)


def _put(text: str, output: Path | None) -> None:
    """Print a recipe, or write it where nothing is yet."""
    if output is None or output == Path("-"):
        click.echo(text, nl=False)
    elif output.exists():
        raise InventoryError.of("recipe-output-exists", output=output)
    else:
        named_file.write(output, text)


def _difference(each: Difference) -> str:
    if each.second is None:
        return safe(f"- {each.path}: {_word(each.first)}")
    if each.first is None:
        return safe(f"+ {each.path}: {_word(each.second)}")
    return safe(f"~ {each.path}: {_word(each.first)} → {_word(each.second)}")


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
