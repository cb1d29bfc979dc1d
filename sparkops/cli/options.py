"""Options that several commands share, and loading what they point to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from sparkops.compile.compiler import Compiled
    from sparkops.inventory.inventory import Inventory
    from sparkops.inventory.secrets import Secrets

Command = TypeVar("Command", bound=Callable[..., Any])


class Pair(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`key=value`; the value is read as YAML, as it would be in the inventory."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, sign, text = str(value).partition("=")
        if not sign or not key:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What `plan`, `apply` and `drift` are told alike: `selection`, `jobs` and `output`."""

    extra: tuple[tuple[str, str], ...]
    limit: tuple[str, ...]
    roles: tuple[str, ...]
    jobs: int
    form: str
    no_color: bool
    verbose: int
    output: Path | None = None


def inventory_argument(function: Command) -> Command:
    return click.argument("inventory", type=click.Path(path_type=Path), default=Path("inventory.yml"))(function)


def inventory_option(function: Command) -> Command:
    """-i, for commands whose arguments are nodes or services."""
    return click.option(
        "-i", "--inventory", type=click.Path(path_type=Path), default=Path("inventory.yml"), show_default=True
    )(function)


def extra(function: Command) -> Command:
    """-e, for what reads variables."""
    return click.option("-e", "--extra", type=Pair(), multiple=True, help="Set a variable: service.port=8001")(function)


def limit(function: Command) -> Command:
    """--limit"""
    return click.option(
        "--limit", multiple=True, help="Only these nodes, groups or services; globs and !x work (repeatable)"
    )(function)


def selection(function: Command) -> Command:
    """--limit, --role and -e."""
    role = click.option("--role", "roles", multiple=True, help="Only these roles (repeatable)")
    return limit(role(extra(function)))


def nodes(function: Command) -> Command:
    """The nodes that a command looks at: its arguments, -i, --limit (which says the same) and --jobs."""
    return click.argument("nodes", nargs=-1)(inventory_option(limit(jobs(function))))


def services(function: Command) -> Command:
    """The services that a command acts on: its arguments, -i, --limit, -e, -m, --jobs, --format and --no-color."""
    function = reason(jobs(text_or_json(function)))
    return click.argument("services", nargs=-1)(inventory_option(limit(extra(function))))


def output(function: Command) -> Command:
    """Where the report goes, and in which form: -o, --format, -v and --no-color."""
    option = click.option(
        "-o", "--output", type=click.Path(path_type=Path), help="Write the report to a file; - prints it"
    )
    return option(form(function))


def form(function: Command) -> Command:
    """-v, --format and --no-color."""
    option = click.option("-v", "--verbose", count=True, help="Also what is as declared, and texts and values whole")
    return option(text_or_json(function))


def only_form(function: Command) -> Command:
    """--format, for commands that print without colours."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="For people, or for programs (versioned)",
    )(function)


def text_or_json(function: Command) -> Command:
    """--format and --no-color, for commands whose answer is short or flows."""
    return only_form(click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")(function))


def reason(function: Command) -> Command:
    """-m: why it is done."""
    return click.option("-m", "--reason", default="", help="Why; it goes into the nodes' history")(function)


def jobs(function: Command) -> Command:
    return click.option(
        "--jobs", type=click.IntRange(1, 512), default=64, show_default=True, help="Nodes to talk to at once"
    )(function)


def load(
    inventory: Path,
    extra: tuple[tuple[str, str], ...],
    limit: tuple[str, ...],
    roles: tuple[str, ...],
    lock: Literal["as-is", "add", "whole", "upstream"] = "as-is",
) -> tuple[Inventory, Compiled, Secrets]:
    """The inventory and what it means for the selected nodes. Raises InventoryError.

    `lock`: add what its lock file lacks, refuse where it is not whole, or say what moved upstream since.
    """
    from sparkops.compile.compiler import compile_inventory
    from sparkops.inventory.load import load as read
    from sparkops.inventory.secrets import Secrets

    secrets = Secrets()
    loaded = read(inventory, extra=extra)
    if lock != "as-is":
        loaded = _locked(loaded, secrets, lock, limit)
    return loaded, compile_inventory(loaded, limit=limit or None, roles=roles or None, secrets=secrets), secrets


def _locked(loaded: Inventory, secrets: Secrets, lock: str, limit: tuple[str, ...]) -> Inventory:
    import dataclasses

    from sparkops.operate.lock import complete, upstream

    if lock == "upstream":
        told = upstream(loaded, secrets)
    else:
        loaded, told = complete(loaded, secrets, add=lock == "add", limit=limit)
    return dataclasses.replace(loaded, notices=(*loaded.notices, *told))


def refuse_errors(inventory: Inventory, nodes: tuple[str, ...], roles: tuple[str, ...]) -> None:
    """What lint and fit know to fail on these nodes is not tried. Raises LintError; silent without a service."""
    from datetime import date

    from sparkops.fit import services
    from sparkops.lint.declared import refuse

    if not roles or "service" in roles:
        refuse(inventory, date.today(), nodes)
        services.refuse(inventory, date.today(), nodes)


def is_terminal() -> bool:
    """Whether a person sees the output and can answer."""
    return sys.stdout.isatty() and sys.stdin.isatty()
