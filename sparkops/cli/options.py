"""Options that several commands share, and loading what they point to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from sparkops.inventory.inventory import Inventory
    from sparkops.inventory.secrets import Secrets
    from sparkops.reconcile.compile import Compiled

Command = TypeVar("Command", bound=Callable[..., Any])


class Pair(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`key=value`; the value is read as YAML, as it would be in the inventory."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, sign, text = str(value).partition("=")
        if not sign or not key:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


def inventory_argument(function: Command) -> Command:
    return click.argument("inventory", type=click.Path(path_type=Path), default=Path("inventory.yml"))(function)


def selection(function: Command) -> Command:
    """--limit, --role and -e."""
    for option in (
        click.option("-e", "--extra", type=Pair(), multiple=True, help="Set a variable: service.port=8001"),
        click.option("--role", "roles", multiple=True, help="Only these roles (repeatable)"),
        click.option(
            "--limit", multiple=True, help="Only these nodes, groups or services; globs and !x work (repeatable)"
        ),
    ):
        function = option(function)
    return function


def output(function: Command) -> Command:
    """Where the report goes, and in which form: -o, --format, -v and --no-color."""
    option = click.option(
        "-o", "--output", type=click.Path(path_type=Path), help="Write the report to a file; - prints it"
    )
    return option(form(function))


def form(function: Command) -> Command:
    """--format, -v and --no-color."""
    for option in (
        click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)"),
        click.option("-v", "--verbose", count=True, help="Also what is as declared, and texts and values whole"),
        click.option(
            "--format",
            "form",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="For people, or for programs (versioned)",
        ),
    ):
        function = option(function)
    return function


def inventory_option(function: Command) -> Command:
    """-i, for commands whose arguments are nodes or services."""
    return click.option(
        "-i", "--inventory", type=click.Path(path_type=Path), default=Path("inventory.yml"), show_default=True
    )(function)


def text_or_json(function: Command) -> Command:
    """--format and --no-color, for commands whose answer is short or flows."""
    for option in (
        click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)"),
        click.option(
            "--format",
            "form",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="For people, or for programs (versioned)",
        ),
    ):
        function = option(function)
    return function


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
    from sparkops.inventory.load import load as read
    from sparkops.inventory.secrets import Secrets
    from sparkops.reconcile.compile import compile as build

    secrets = Secrets()
    loaded = read(inventory, extra=extra)
    if lock != "as-is":
        loaded = _locked(loaded, secrets, lock, limit)
    return loaded, build(loaded, limit=limit or None, roles=roles or None, secrets=secrets), secrets


def _locked(loaded: Inventory, secrets: Secrets, lock: str, limit: tuple[str, ...]) -> Inventory:
    import dataclasses

    from sparkops.operate.locking import complete, upstream

    if lock == "upstream":
        told = upstream(loaded, secrets)
    else:
        loaded, told = complete(loaded, secrets, add=lock == "add", limit=limit)
    return dataclasses.replace(loaded, notices=(*loaded.notices, *told))


def is_terminal() -> bool:
    """Whether a person sees the output and can answer."""
    return sys.stdout.isatty() and sys.stdin.isatty()
