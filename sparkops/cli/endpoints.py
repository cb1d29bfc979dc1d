"""`sparkops endpoints`: where services answer, for people and as the configuration of others' programs."""

from __future__ import annotations

from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import printer_for
from sparkops.core import named_file
from sparkops.core.errors import InventoryError
from sparkops.inventory.load import load
from sparkops.inventory.secrets import Secrets
from sparkops.operate.endpoints import accesses, revealed
from sparkops.reports import endpoints
from sparkops.reports.formatting import safe


@click.command(
    "endpoints",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops endpoints                                    a table
  sparkops endpoints --format litellm -o litellm.yaml   then: litellm --config litellm.yaml
  eval "$(sparkops endpoints qwen --format env)"        OPENAI_BASE_URL and OPENAI_API_KEY
  sparkops endpoints --format openai -o sparks.py       from sparks import clients, models
  sparkops endpoints --format file_sd -o /etc/prometheus/sparks.json""",
)
@click.argument("services", nargs=-1, metavar="[SERVICE…]")
@options.inventory
@options.limit
@options.extra
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", *endpoints.FORMATS)),
    default="text",
    show_default=True,
    help="For people, or for programs",
)
@click.option("-o", "--output", type=options.NewFile(), help="Write to a file; - prints it")
@click.option(
    "--show-keys", is_flag=True, help="Read the keys and write them out; without it only where they come from"
)
@options.common
def command(common: CommonOptions, services: tuple[str, ...], output: Path | None, show_keys: bool) -> None:
    """Print where services answer, under which model name, and where the key comes from.

    As declared: no node is asked whether it answers (`sparkops status` does). The formats: `litellm`, the
    configuration of LiteLLM's proxy, in which a service is one model name and its engines share the requests;
    `openai`, a Python module with a client for each endpoint; `env`, lines for a shell, of one endpoint; `file_sd`,
    targets for Prometheus.
    """
    if common.form == "text" and output is not None:
        raise click.UsageError("-o goes with a --format for programs")
    inventory = load(common.inventory, extra=common.extra, shard=common.shard)
    found = accesses(inventory, services, common.limit)
    unsaid = dict(endpoints.left_out(found, common.form)) if common.form != "text" else {}
    for message in unsaid.values():
        click.echo(safe(f"warning: {message.full}"), err=True)
    found = tuple(each for each in found if each not in unsaid)
    if not found:
        raise InventoryError.of("endpoints-none", inventory=str(common.inventory))
    if common.form == "env" and len(found) > 1:
        raise InventoryError.of("endpoints-several", names=[each.endpoint.name for each in found])
    if show_keys:
        secrets = Secrets()
        found = tuple(revealed(each, secrets) for each in found)
    if common.form == "text":
        endpoints.render(found, printer_for(common.no_color), show_keys)
        return
    text = endpoints.FORMATS[common.form](inventory.cluster, found, show_keys)
    if output is None or output == Path("-"):
        click.echo(text, nl=False)
    else:
        named_file.write(output, text, private=show_keys)
