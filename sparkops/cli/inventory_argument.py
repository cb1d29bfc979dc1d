"""The inventory of a command: `-i FILE`, or the file among the arguments, whichever command it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SUFFIXES = (".yml", ".yaml")
PLACE = "[INVENTORY.yml]"


class WithInventory(click.Command):
    """A command with the option `--inventory`, which an argument that is a file stands for as well.

    A file is what ends in .yml or .yaml, or a path that is there. Where a command has no other arguments, any word is.
    """

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
