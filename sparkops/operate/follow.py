"""Waiting for a node's call, its progress reported as that of a step. It must not know what the call does."""

from __future__ import annotations

from collections.abc import Generator

from sparkops.core import events
from sparkops.core.messages import Fields
from sparkops.nodes.session import returned


def follow(asking: Generator[Fields, None, Fields], node: str, name: str, listener: events.Listener) -> Fields:
    """The answer of a call that `Session.stream` began. Raises what the call raises."""
    answer = returned(asking, lambda progress: listener(events.StepProgress.from_mapping(node, name, progress)))
    return dict(answer)
