"""A checkpoint as it is going to be: which tensor is in which file, and where its bytes come from.

The steps of a build (`step_hybrid`, `step_mtp`, …) each change a plan and move no bytes; `build` writes it out and
does not know what a step means. Pure values; `sparkops.safetensors` has checked the headers.
"""

import math
from collections.abc import Callable, Sequence

from sparkops.safetensors.header import BITS

BLOCK = 64 << 20
"""Bytes of a tensor that are in memory at once, at most."""

Read = Callable[[int, int, int], bytes]
"""`read(input, start, count)`: exactly so many bytes of the entry `inputs[input]`, from its own byte `start`."""


class Stored:
    """Bytes `start` to `end` of a file, unchanged. `origin` is -1 for the base, else the donor's number."""

    __slots__ = ("end", "origin", "path", "start")

    def __init__(self, origin: int, path: str, start: int, end: int) -> None:
        self.origin, self.path, self.start, self.end = origin, path, start, end


class Computed:
    """Bytes that are computed from other tensors, block by block and in any order.

    `blocks` gives start and end of each block in the output (without gaps, each at most BLOCK bytes), `block` its
    bytes.
    """

    __slots__ = ("inputs",)

    def __init__(self, *inputs: "PlannedTensor") -> None:
        self.inputs = inputs

    def blocks(self) -> Sequence[tuple[int, int]]:
        raise NotImplementedError

    def block(self, start: int, end: int, read: Read) -> bytes:
        raise NotImplementedError


class PlannedTensor:
    """One tensor of the checkpoint to be."""

    __slots__ = ("content", "dtype", "name", "shape")

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], content: Stored | Computed) -> None:
        self.name, self.dtype, self.shape, self.content = name, dtype, shape, content

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * BITS[self.dtype] // 8

    def renamed(self, name: str) -> "PlannedTensor":
        return PlannedTensor(name, self.dtype, self.shape, self.content)


class DonorTensors:
    """Another checkpoint that tensors are taken from: its tensors by name and its config.json."""

    def __init__(self, label: str, tensors: dict[str, PlannedTensor], config: dict[str, object]) -> None:
        self.label, self.tensors, self.config = label, tensors, config


class Check:
    """A test of bytes before anything is written: `check` raises Refused when `inputs` are not what they must be."""

    __slots__ = ("inputs",)

    def __init__(self, *inputs: PlannedTensor) -> None:
        self.inputs = inputs

    def check(self, read: Read) -> None:
        raise NotImplementedError


class TensorPlan:
    """What every step changes.

    files: the safetensors files, each with its tensors in the order of their bytes. config: config.json.
    checks: what has to hold before the first byte is written. notices: id and arguments of what a person should know.
    """

    def __init__(
        self, files: dict[str, list[PlannedTensor]], config: dict[str, object], donors: Sequence[DonorTensors] = ()
    ) -> None:
        self.files, self.config, self.donors = files, config, tuple(donors)
        self.checks: list[Check] = []
        self.notices: list[tuple[str, dict[str, object]]] = []

    def notice(self, id: str, **args: object) -> None:
        self.notices.append((id, args))

    def tensors(self) -> dict[str, PlannedTensor]:
        return {entry.name: entry for entries in self.files.values() for entry in entries}

    @property
    def text_config(self) -> dict[str, object]:
        """The language model's part of config.json: `text_config`, or all of it where there is none."""
        inner = self.config.get("text_config")
        return inner if isinstance(inner, dict) else self.config
