"""`sparkops explain`: what an id in a message means, its cause and the way out."""

from __future__ import annotations

import click

from sparkops.core import wording
from sparkops.core.errors import InventoryError
from sparkops.inventory.faults import suggest
from sparkops.lint import rules
from sparkops.reports.explain import error_page, rule_page


@click.command(
    "explain",
    epilog="""\b
Examples:
  sparkops explain host-key-unknown
  sparkops explain align-block-over-batched-tokens
  sparkops explain                                   all ids""",
)
@click.argument("identity", metavar="[ID]", required=False)
def command(identity: str | None) -> int:
    """Explain an error, violation, notice or lint rule by the id that its message shows."""
    return show(identity)


def show(identity: str | None) -> int:
    """Print the page of an id, or all ids. Raises InventoryError for none."""
    errors, known = wording.entries(), rules.rules()
    if identity is None:
        click.echo("\n".join(sorted({*errors, *known})))
    elif identity in known:
        click.echo(rule_page(known[identity]))
    elif found := wording.explained(identity):
        click.echo("\n\n".join(error_page(each) for each in found))
    else:
        every = {*errors, *known}
        raise InventoryError.of(
            "id-unknown", id=identity, near=suggest(identity, [id for id in every if id.startswith(identity)] or every)
        )
    return 0
