"""The options of `lint` and `fit`: one pasted serve line instead of an inventory, and whether a hub may be asked."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import click

from sparkops.cli.options import Pair, shard
from sparkops.cli.repositories import offline_option, repositories
from sparkops.models.invocation import Ask, Invocation, of_text

OPTIONS = (
    click.option(
        "-i",
        "--inventory",
        type=click.Path(path_type=Path),
        help="The inventory; a file among the arguments says the same  [default: inventory.yml]",
    ),
    click.option("--serve", metavar="LINE", help="Check this `vllm serve …` line instead of an inventory; - reads it"),
    click.option("--engine", metavar="VERSION", help="The engine's version, like 0.26.0 (with --serve)"),
    click.option(
        "--gpus", type=click.IntRange(1, 64), default=1, show_default=True, help="GPUs of one node (with --serve)"
    ),
    click.option("--env", type=Pair(), multiple=True, help="NAME=VALUE of the engine (with --serve)"),
    shard,
    offline_option,
)


def serve_line(function: Callable[..., object]) -> Callable[..., object]:
    """-i, the options of a pasted line as `line` (an Invocation, or None without --serve), and `ask` for models that
    are in no knowledge."""

    @functools.wraps(function)
    def command(
        *,
        serve: str | None,
        engine: str | None,
        gpus: int,
        env: tuple[tuple[str, str], ...],
        offline: bool,
        **rest: object,
    ) -> object:
        ask = repositories(offline).model
        return function(line=_invocation(serve, engine, gpus, dict(env), ask), ask=ask, **rest)

    return functools.reduce(lambda made, option: option(made), reversed(OPTIONS), command)


def _invocation(serve: str | None, engine: str | None, gpus: int, env: dict[str, str], ask: Ask) -> Invocation | None:
    if serve is None:
        if engine or env:
            raise click.UsageError("--engine and --env go with --serve; an inventory sets them itself")
        return None
    if engine is None:
        raise click.UsageError("--serve needs --engine VERSION, like --engine 0.26.0")
    return of_text(sys.stdin.read() if serve == "-" else serve, engine, gpus, env, Path.cwd(), ask)
