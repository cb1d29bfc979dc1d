"""Waiting for a node's call, its progress reported as that of a step. It must not know what the call does."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from sparkops.core import events
from sparkops.core.messages import Fields


def follow(
    asking: Generator[Mapping[str, object], None, object], node: str, name: str, listener: events.Listener
) -> Fields:
    """The answer of a call that `Session.stream` began. Raises what the call raises."""
    while True:
        try:
            progress = next(asking)
        except StopIteration as done:
            return dict(done.value)
        listener(events.StepProgress.from_mapping(node, name, progress))
