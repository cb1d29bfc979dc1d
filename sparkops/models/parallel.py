"""Whether the arguments of an engine make one engine of several nodes. Pure; it must not know services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def world(serve: Mapping[str, object]) -> int:
    """The ranks of one engine: tensor × pipeline parallel size."""
    return _size(serve, "tensor-parallel-size") * _size(serve, "pipeline-parallel-size")


def grouped(nodes: Sequence[str], serve: Mapping[str, object]) -> bool:
    """Whether these nodes are the ranks of one engine that sparkops gives its ranks; `nnodes` says it all itself."""
    return len(nodes) > 1 and world(serve) > 1 and "nnodes" not in serve


def spans_nodes(serve: Mapping[str, object]) -> bool:
    """Whether several nodes with these arguments are one engine: by its ranks, by `nnodes`, or by data parallelism."""
    spelt = {str(key).replace("_", "-") for key in serve}
    return world(serve) > 1 or "nnodes" in spelt or any(key.startswith("data-parallel") for key in spelt)


def _size(serve: Mapping[str, object], flag: str) -> int:
    value = serve.get(flag, serve.get(flag.replace("-", "_")))
    return value if isinstance(value, int) else 1
