"""`python -m docs.man FOLDER`: a man page of each command, made of its help.

Source of the macros: man(7) and groff_man(7).
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sparkops import __version__
from sparkops.cli.app import COMMANDS, cli

MANUAL = "sparkops manual"


def commands(command: click.Command = cli, names: Sequence[str] = ("sparkops",)) -> Iterator[click.Context]:
    """Each command and group, by contexts that know their whole name, the outermost first."""
    context: click.Context | None = None
    for depth in range(len(names)):
        context = click.Context(
            command if depth == len(names) - 1 else click.Group(names[depth]),
            info_name=names[depth],
            parent=context,
            max_content_width=78,
            terminal_width=78,
            help_option_names=["-h", "--help"],
        )
    assert context is not None
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, [*names, name])


def page(context: click.Context, date: str) -> str:
    """The source of a command's page, `date` as YYYY-MM-DD."""
    command, name = context.command, context.command_path.replace(" ", "-")
    help_text = command.help or ""
    lines = [
        f'.TH "{name.upper()}" "1" "{date}" "sparkops {__version__}" "{MANUAL}"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(_summary(context, help_text))}",
        ".SH SYNOPSIS",
        f".B {_escaped(context.command_path)}",
        _escaped(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(help_text),
    ]
    options = [each.get_help_record(context) for each in command.get_params(context)]
    lines += [".SH OPTIONS", *_terms(each for each in options if each is not None)]
    if isinstance(command, click.Group):
        inner = ((each, command.get_command(context, each)) for each in command.list_commands(context))
        told = (
            (each, COMMANDS.get(each) if command is cli else found and found.get_short_help_str(200))
            for each, found in inner
        )
        lines += [".SH COMMANDS", *_terms((each, text or "") for each, text in told)]
    if command.epilog:
        title, _, rest = command.epilog.replace("\b\n", "", 1).partition("\n")
        examples = title == "Examples:"
        lines += [f".SH {'EXAMPLES' if examples else 'EXIT STATUS'}"]
        lines += [".nf", *map(_escaped, rest.splitlines()), ".fi"] if examples else list(_paragraphs(command.epilog))
    if context.parent is not None:
        lines += [".SH SEE ALSO", f".BR {_escaped(context.parent.command_path.replace(' ', '-'))} (1)"]
    return "\n".join(lines) + "\n"


def _summary(context: click.Context, help_text: str) -> str:
    first = " ".join(help_text.split("\n\n")[0].split()).rstrip(".")
    return COMMANDS.get(context.info_name or "", first) if context.parent and not context.parent.parent else first


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs as they are, those behind \\b line by line."""
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip())):
        if "\b" in block:
            yield from (".PP", ".nf", *map(_escaped, block.partition("\b\n")[2].splitlines()), ".fi")
        else:
            yield from ([".PP"] if number else [])
            yield _escaped(" ".join(block.split()))


def _terms(pairs: Iterator[tuple[str, str]]) -> Iterator[str]:
    for term, text in pairs:
        yield from (".TP", f".B {_escaped(term)}", _escaped(" ".join(text.split())) or "\\&")


def _escaped(text: str) -> str:
    """A line that roff takes as it stands."""
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq").replace('"', "\\(dq")
    )
    return "\\&" + plain if plain.startswith(".") else plain.rstrip()


def main(folder: Path) -> int:
    """Write the pages; SOURCE_DATE_EPOCH is their date where it is set."""
    date = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    folder.mkdir(parents=True, exist_ok=True)
    for context in commands():
        (folder / f"{context.command_path.replace(' ', '-')}.1").write_text(page(context, date), encoding="utf-8")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
