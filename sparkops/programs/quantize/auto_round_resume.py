"""Removes the tensors that a resumed AutoRound writes twice.

auto-round 0.16.1 that goes on behind finished layers ends by saving what its model holds and this process did not
save: small tensors of the finished layers once more, in the same bytes, and their 16-bit weights beside the quantised
ones that an earlier process wrote. Engines refuse a checkpoint with either.
"""

import json
import os

from sparkops.core import atomic
from sparkops.core.messages import Refused
from sparkops.programs.build.base import INDEX, head_of
from sparkops.safetensors.header import Header, Tensor, head

_BLOCK = 16 << 20
_ROUNDED = (".qweight", ".weight_packed")
"""Ends of names that replace `.weight`."""


def remove_duplicate_tensors(folder: str) -> int:
    """Remove surplus tensors from the shards of a folder; returns their number. Raises Refused.

    The first file's tensor counts; another with other content is refused. May be interrupted and repeated.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    headers = {name: _header(os.path.join(folder, name)) for name in names}
    everything = {tensor.name for header in headers.values() for tensor in header.tensors}
    places: dict[str, tuple[str, Tensor]] = {}
    surplus: dict[str, list[Tensor]] = {}
    for name, header in headers.items():
        needed = []
        for tensor in header.tensors:
            stem = tensor.name.removesuffix(".weight")
            if stem != tensor.name and any(stem + end in everything for end in _ROUNDED):
                continue
            if tensor.name in places:
                first, other = places[tensor.name]
                _require_same(folder, (first, headers[first], other), (name, header, tensor))
                continue
            places[tensor.name] = name, tensor
            needed.append(tensor)
        if len(needed) < len(header.tensors):
            surplus[name] = needed
    if surplus:
        index = {"metadata": {}, "weight_map": {each: place for each, (place, _) in places.items()}}
        atomic.write(os.path.join(folder, INDEX), json.dumps(index, indent=2, sort_keys=True).encode(), 0o644)
    for name, needed in surplus.items():
        _rewrite(os.path.join(folder, name), headers[name], needed)
    return sum(len(headers[name].tensors) - len(needed) for name, needed in surplus.items())


def _header(path: str) -> Header:
    with open(path, "rb") as file:
        handle = file.fileno()
        size, name = os.fstat(handle).st_size, os.path.basename(path)
        return head_of(lambda start, count: os.pread(handle, count, start), size, name, "AutoRound's output")


def _require_same(folder: str, one: tuple[str, Header, Tensor], other: tuple[str, Header, Tensor]) -> None:
    (first, before, a), (second, after, b) = one, other
    with open(os.path.join(folder, first), "rb") as left, open(os.path.join(folder, second), "rb") as right:
        equal = (a.dtype, a.shape, a.size) == (b.dtype, b.shape, b.size)
        for start in range(0, a.size if equal else 0, _BLOCK):
            count = min(_BLOCK, a.size - start)
            data = os.pread(left.fileno(), count, before.data + a.start + start)
            equal = equal and data == os.pread(right.fileno(), count, after.data + b.start + start)
    if not equal:
        raise Refused.of("quantize-output-contradicts", tensor=a.name, first=first, second=second)


def _rewrite(path: str, header: Header, tensors: list[Tensor]) -> None:
    """The file with these tensors only, in their order."""
    text = head(((each.name, each.dtype, each.shape, each.size) for each in tensors), header.metadata)
    beside = path + ".part"
    with open(path, "rb") as source, open(beside, "wb") as target:
        target.write(text)
        for each in tensors:
            for start in range(each.start, each.end, _BLOCK):
                count = min(_BLOCK, each.end - start)
                target.write(os.pread(source.fileno(), count, header.data + start))
        target.flush()
        os.fsync(target.fileno())
    os.replace(beside, path)
