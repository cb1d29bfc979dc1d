"""The inventory of a command: `-i FILE`, or the file among the arguments, whichever command it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SUFFIXES = (".yml", ".yaml")
PLACE = "[INVENTORY.yml]"


NAMED: Mapping[str, Sequence[str]] = {
    "node": ("nodes",),
    "service": ("services",),
    "services": ("services",),
    "names": ("nodes", "services"),
    "nodes": ("nodes", "groups", "services"),
    "limit": ("nodes", "groups", "services"),
}
"""Parameters whose words are names of the inventory, and the keys that these stand under."""


class Name(click.types.StringParamType):
    """A name of the inventory, or several with commas between them and `!` before them: a shell completes it."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names in the inventory of this command line; where none fits, files, as one may be the inventory."""
        from click.shell_completion import CompletionItem

        before = incomplete[: max(incomplete.rfind(",") + 1, 0)]
        before += "!" if incomplete[len(before) :].startswith("!") else ""
        found = [
            CompletionItem(before + name, help=key.removesuffix("s"))
            for key, name in _names(Path(ctx.params.get("inventory") or "inventory.yml"), self.keys)
            if name.startswith(incomplete[len(before) :])
        ]
        return found or [CompletionItem(incomplete, type="file")]


def _names(inventory: Path, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name under these keys; none of a file that can't be read: who presses TAB wants no error message."""
    from sparkops.core.errors import SparkopsError
    from sparkops.inventory.document import read

    try:
        data = read(inventory).data
    except SparkopsError:
        return
    for key in keys:
        part = data.get(key) if isinstance(data, dict) else None
        yield from ((key, str(name)) for name in (part if isinstance(part, dict) else ()))


class WithInventory(click.Command):
    """A command with the option `--inventory`, which an argument that is a file stands for as well.

    A file is what ends in .yml or .yaml, or a path that is there. Where a command has no other arguments, any word is.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for each in self.params:
            if each.name in NAMED and each.type is click.STRING:
                each.type = Name(NAMED[each.name])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = [index for index in self._arguments(args) if self._is_file(args[index])]
        options = [index for index, word in enumerate(args) if word.startswith(("-i", "--inventory"))]
        if len(words) > 1 or (words and options):
            raise click.UsageError(f"two inventories: {args[words[0]]} and {args[(words[1:] or options)[0]]}", ctx)
        if words:
            args = ["--inventory", args[words[0]], *args[: words[0]], *args[words[0] + 1 :]]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        first, *rest = super().collect_usage_pieces(ctx)
        return [first, PLACE, *rest]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Options and choices as ever; where a word may stand, also files."""
        from click.shell_completion import CompletionItem

        found = super().shell_complete(ctx, incomplete)
        return found or [CompletionItem(incomplete, type="file")]

    def _is_file(self, word: str) -> bool:
        alone = not any(isinstance(each, click.Argument) for each in self.params)
        return alone or word.endswith(SUFFIXES) or ("/" in word and Path(word).is_file())

    def _arguments(self, args: Sequence[str]) -> Iterator[int]:
        """The places of the words that are neither options nor their values, up to `--`."""
        taking = {
            word
            for each in self.params
            if isinstance(each, click.Option) and not each.is_flag and not each.count
            for word in each.opts
        }
        value = False
        for index, word in enumerate(args):
            if value:
                value = False
            elif word == "--":
                return
            elif word.startswith("--"):
                value = word in taking
            elif word.startswith("-") and len(word) > 1:
                letters = [f"-{letter}" for letter in word[1:]]
                first = next((place for place, letter in enumerate(letters) if letter in taking), None)
                value = first == len(letters) - 1
            else:
                yield index
