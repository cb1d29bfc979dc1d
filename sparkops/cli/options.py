"""Options that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from sparkops.reports.formats import FORMATS

Command = TypeVar("Command", bound=Callable[..., object])


class NewFile(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """A file in a folder that is there: that is known before a node is touched."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        made = Path(str(value))
        if made.is_dir() or not made.parent.is_dir():
            self.fail(f"{str(value)!r} is not a file in a folder that is there", param, ctx)
        return made


class ReportFile(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`FORMAT=PATH`: one of FORMATS, and a file in a folder that is there: that is known before a node is touched."""

    name = "format=path"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        form, sign, path = str(value).partition("=")
        if not sign or not path or path == "-" or form not in FORMATS:
            self.fail(f"{value!r} is not FORMAT=PATH with a format of {', '.join(FORMATS)}", param, ctx)
        return form, NewFile().convert(path, param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`7d`, `12h`, `30m`, `10s`: in seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,6})([dhms])", str(value))
        if found is None:
            self.fail(
                f"{value!r} is not a number of days, hours, minutes or seconds like 7d, 12h, 30m or 10s", param, ctx
            )
        return int(found[1]) * {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}[found[2]]


class Pair(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`key=value`; the value is read as YAML, as it would be in the inventory."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        key, sign, text = str(value).partition("=")
        if not sign or not key:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, text


class Part(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`I/N`: the number of a part, from 1, and of how many."""

    name = "i/n"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", str(value))
        if found is None or int(found[1]) > int(found[2]):
            self.fail(f"{value!r} is not I/N with whole numbers, I from 1 to N, like 2/4", param, ctx)
        return int(found[1]), int(found[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """The values of the options that several commands share; a command without one of them gets its default."""

    inventory: Path = Path("inventory.yml")
    nodes: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    limit: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    roles: tuple[str, ...] = ()
    jobs: int = 64
    form: str = "text"
    no_color: bool = False
    reason: str = ""
    reports: tuple[tuple[str, Path], ...] = ()

    @property
    def selected(self) -> tuple[str, ...]:
        """The arguments NODE and --limit, which mean the same."""
        return (*self.nodes, *self.limit)


def common(function: Callable[..., object]) -> Callable[..., object]:
    """Hand the shared options to a command as one `CommonOptions`; its own options stay parameters."""
    shared = {field.name for field in fields(CommonOptions)}

    @functools.wraps(function)
    def command(**values: Any) -> object:
        own = {name: value for name, value in values.items() if name not in shared}
        return function(CommonOptions(**{name: values[name] for name in values.keys() & shared}), **own)

    return command


def inventory(function: Command) -> Command:
    """-i; with the class `WithInventory` a file among the arguments says the same."""
    return click.option(
        "-i",
        "--inventory",
        type=click.Path(path_type=Path),
        default=Path("inventory.yml"),
        show_default=True,
        help="The inventory; a file among the arguments says the same",
    )(function)


def extra(function: Command) -> Command:
    """-e, for what reads variables."""
    return click.option("-e", "--extra", type=Pair(), multiple=True, help="Set a variable: service.port=8001")(function)


def shard(function: Command) -> Command:
    """--shard"""
    text = "Only part I of N of the nodes: those that share a service or fabric stay together"
    return click.option("--shard", type=Part(), metavar="I/N", help=text)(function)


def limit(function: Command) -> Command:
    """--limit and --shard"""
    return click.option(
        "--limit", multiple=True, help="Only these nodes, groups or services; globs and !x work (repeatable)"
    )(shard(function))


def selection(function: Command) -> Command:
    """--limit, --shard, --role and -e."""
    role = click.option("--role", "roles", multiple=True, help="Only these roles (repeatable)")
    return limit(role(extra(function)))


def nodes(function: Command) -> Command:
    """The nodes that a command works on: its arguments, -i, --limit (which says the same), --shard and --jobs."""
    return click.argument("nodes", nargs=-1)(inventory(limit(jobs(function))))


def services(function: Command) -> Command:
    """The services that a command acts on: its arguments, -i, --limit, --shard, -e, -m, --jobs and --format."""
    function = reason(jobs(text_or_json(function)))
    return click.argument("services", nargs=-1)(inventory(limit(extra(function))))


def reports(function: Command) -> Command:
    """--report, for what makes a Report."""
    return click.option(
        "--report",
        "reports",
        type=ReportFile(),
        multiple=True,
        metavar="FORMAT=PATH",
        help=f"Also write the report to a file (repeatable): {', '.join(FORMATS)}",
    )(function)


def output(function: Command) -> Command:
    """Where the report goes, and in which form: -o, --format, -v and --no-color."""
    option = click.option("-o", "--output", type=NewFile(), help="Write the report to a file; - prints it")
    return option(form(function))


def form(function: Command) -> Command:
    """--report, -v, --format (all of a Report) and --no-color."""
    option = click.option("-v", "--verbose", count=True, help="Also what is as declared, and texts and values whole")
    return reports(option(_format(FORMATS)(no_color(function))))


def _format(choices: Sequence[str]) -> Callable[[Command], Command]:
    return click.option(
        "--format",
        "form",
        type=click.Choice(choices),
        default="text",
        show_default=True,
        help="For people, or for programs (versioned)",
    )


def only_form(function: Command) -> Command:
    """--format, for commands that print without colours."""
    return _format(("text", "json"))(function)


def form_or_table(function: Command) -> Command:
    """--format, also as a table, and --no-color."""
    return _format(("text", "table", "json"))(no_color(function))


def no_color(function: Command) -> Command:
    """--no-color"""
    return click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")(function)


def text_or_json(function: Command) -> Command:
    """--format and --no-color, for commands whose answer is short or flows."""
    return only_form(no_color(function))


def reason(function: Command) -> Command:
    """-m: why it is done."""
    return click.option("-m", "--reason", default="", help="Why; it goes into the nodes' history")(function)


def jobs(function: Command) -> Command:
    return click.option("--jobs", type=click.IntRange(1, 512), default=64, show_default=True, help="Nodes at once")(
        function
    )
