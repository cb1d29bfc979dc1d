"""Questions before something is changed."""

from __future__ import annotations

import sys
from typing import Any

import click

from sparkops.core.errors import InventoryError


def confirm(question: str, yes: bool, refusal: str = "", **args: Any) -> bool:
    """The answer to `question`; true with --yes.

    Without a terminal it is false, or where `refusal` is an id in `knowledge/errors/`, InventoryError of it.
    """
    if yes:
        return True
    if is_terminal():
        return click.confirm(question)
    if refusal:
        raise InventoryError.of(refusal, **args)
    return False


def is_terminal() -> bool:
    """Whether a person sees the output and can answer."""
    return sys.stdout.isatty() and sys.stdin.isatty()
