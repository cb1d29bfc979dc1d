"""The answer in one sentence. It must not count: the figures are `fit`'s."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor

from sparkops.core.wording import size
from sparkops.fit.fit import Fit
from sparkops.fit.memory import Budget
from sparkops.fit.pool import Pool


def verdict(fit: Fit) -> str:
    """The answer in one sentence."""
    asked = f"{fit.streams} {'stream' if fit.streams == 1 else 'streams'} of {fit.context:,} tokens"
    if fit.run.model is None or fit.context < 1:
        return next(iter(fit.unknown.values()))
    if fit.refused:
        return f"{asked}: not known: {fit.refused}"
    pool = fit.figures.pool
    if pool is None or fit.figures.budget is None:
        return f"{asked}: not known: {next(iter(fit.unknown.values()), '')}"
    if pool.blocks < 2:
        return f"{asked}: no: {_no_pool(fit.figures.budget, pool)}"
    many = pool.streams(fit.context)
    share = f"{_millions(fit.streams * fit.context, ceil)} of {_millions(pool.tokens(fit.context), floor)} tokens"
    if many >= fit.streams:
        return f"{asked}: yes: {share}; {many} would fit"
    most = fit.run.model.geometry.max_positions or fit.context
    longest = pool.context(fit.streams, min(most, fit.context))
    shorter = longest if longest == most else _rounded(longest)
    ways = [f"lower to {shorter:,}"] if shorter else []
    ways += [f"{many} {'stream' if many == 1 else 'streams'}"] if many else []
    return f"{asked}: no: {share}" + (f"; {', or '.join(ways)}" if ways else "")


def _no_pool(budget: Budget, pool: Pool) -> str:
    """Why there is no room for a cache."""
    allowed, total = (size(each) for each in (budget.allowed, budget.total))
    if budget.taken > budget.allowed and budget.pool < 0:
        what = "the weights" if budget.weights > budget.allowed else "weights and run"
        more = (budget.weights if budget.weights > budget.allowed else budget.taken) - budget.allowed
        return f"{what} need {size(more)} more than the {allowed} that the engine may take on a rank"
    if budget.overfull:
        return f"weights, run and cache take {size(budget.total - budget.host)} of a rank's {total}"
    return f"{size(max(0.0, budget.pool))} for the cache hold no two blocks of {pool.block_bytes:,} B"


def _millions(tokens: int, rounded: Callable[[float], int]) -> str:
    """Tokens in millions: what is asked for rounded up, what is there rounded down."""
    return f"{rounded(tokens / 1e4) / 100:.2f} M" if tokens >= 100_000 else f"{tokens:,}"


def _rounded(tokens: int) -> int:
    return tokens // 1000 * 1000 if tokens >= 10_000 else tokens
