"""`sparkops diagnose`: one archive for a bug report."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, listener_for, show_json
from sparkops.core.wording import size
from sparkops.inventory.limit import named
from sparkops.operate.diagnose import diagnose
from sparkops.reports.diagnose import write
from sparkops.reports.formatting import count


@click.command(
    "diagnose",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops diagnose                        all nodes and services
  sparkops diagnose qwen                   one service, on its nodes
  sparkops diagnose spark-01 -o report.tar.gz
  sparkops diagnose --format json          the index of the archive""",
)
@click.argument("names", nargs=-1, metavar="[SERVICE|NODE…]")
@options.inventory
@options.shard
@options.extra
@click.option("-o", "--output", type=options.NewFile(), help="The archive; a name by cluster and time")
@options.jobs
@options.text_or_json
@options.common
def command(common: CommonOptions, names: tuple[str, ...], output: Path | None) -> int:
    """Write an archive for a bug report; nothing is changed on the nodes.

    It has journals of this and the last boot, units, specifications, containers, GPU, memory, network, disk, records of
    sparkops, the inventory and the plan. Values of secrets, and whatever looks like one, are replaced by `<removed>`;
    host names and addresses stay. Read it before you give it away: index.json lists what is in it and what is not.

    Exit status 0: it is written; 3: it is written, and a node did not answer.
    """
    with listener_for(common) as listener:
        made = context(common, listener)
        services = [name for name in names if name in made.inventory.services]
        found = diagnose(made, named(made.inventory, names), services)
    cluster = re.sub(r"[^\w.-]", "_", found.cluster)
    when = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    index = write(found, output or Path(f"sparkops-diagnose-{cluster}-{when}.tar.gz"))
    if common.form == "json":
        show_json(index)
    else:
        click.echo(f"{index['archive']}: {count(len(index['files']), 'file')}, {size(index['bytes'])}, mode 0600")
        click.echo(f"{count(index['removed'], 'value')} removed; read it before you give it away")
        for ref in index["unread_secrets"]:
            click.echo(f"warning: the secret {ref} cannot be read here, so its value was not looked for", err=True)
        echo_unreachable(found.silent)
    return 3 if found.silent else 0
