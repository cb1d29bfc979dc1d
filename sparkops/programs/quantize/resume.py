"""What a resumed AutoRound leaves twice, taken out again.

auto-round 0.16.1 that goes on behind finished layers ends by saving what its model holds and this process did not
save: small tensors of the finished layers once more, in the same bytes, and their 16-bit weights beside the quantised
ones that an earlier process wrote. Engines refuse a checkpoint with either.
"""

import json
import os
from functools import partial

from sparkops.programs import atomic
from sparkops.safetensors.header import Broken, Header, Tensor, head, read_header
from sparkops.worker.calls import Refused

INDEX = "model.safetensors.index.json"
_BLOCK = 16 << 20
_ROUNDED = (".qweight", ".weight_packed")
"""Ends of names that stand in place of `.weight`."""


def mend(folder: str) -> int:
    """Take the surplus tensors out of the shards of a folder; how many there were. Raises Refused.

    An earlier file's word counts; one that says something else is refused. Can be cut short and repeated.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    headers = {name: _header(os.path.join(folder, name)) for name in names}
    everything = {tensor.name for header in headers.values() for tensor in header.tensors}
    places: dict[str, tuple[str, Tensor]] = {}
    surplus: dict[str, list[Tensor]] = {}
    for name, header in headers.items():
        kept = []
        for tensor in header.tensors:
            stem = tensor.name.removesuffix(".weight")
            if stem != tensor.name and any(stem + end in everything for end in _ROUNDED):
                continue
            if tensor.name in places:
                first, other = places[tensor.name]
                _same(folder, (first, headers[first], other), (name, header, tensor))
                continue
            places[tensor.name] = name, tensor
            kept.append(tensor)
        if len(kept) < len(header.tensors):
            surplus[name] = kept
    if surplus:
        told = {"metadata": {}, "weight_map": {each: place for each, (place, _) in places.items()}}
        atomic.write(os.path.join(folder, INDEX), json.dumps(told, indent=2, sort_keys=True).encode(), 0o644)
    for name, kept in surplus.items():
        _rewrite(os.path.join(folder, name), headers[name], kept)
    return sum(len(headers[name].tensors) - len(kept) for name, kept in surplus.items())


def _header(path: str) -> Header:
    with open(path, "rb") as file:
        try:
            return read_header(partial(_read, file.fileno()), os.fstat(file.fileno()).st_size)
        except Broken as error:
            name = os.path.basename(path)
            raise Refused(f"what AutoRound wrote is not whole: {name}: {error}", hint="run apply again") from None


def _read(handle: int, start: int, count: int) -> bytes:
    return os.pread(handle, count, start)


def _same(folder: str, one: tuple[str, Header, Tensor], other: tuple[str, Header, Tensor]) -> None:
    (first, before, a), (second, after, b) = one, other
    with open(os.path.join(folder, first), "rb") as left, open(os.path.join(folder, second), "rb") as right:
        equal = (a.dtype, a.shape, a.size) == (b.dtype, b.shape, b.size)
        for start in range(0, a.size if equal else 0, _BLOCK):
            count = min(_BLOCK, a.size - start)
            kept = os.pread(left.fileno(), count, before.data + a.start + start)
            equal = equal and kept == os.pread(right.fileno(), count, after.data + b.start + start)
    if not equal:
        raise Refused(
            f"what AutoRound wrote is not whole: {a.name} stands in {first} and, with other content, in {second}",
            hint="remove the folder of the unfinished work, and run apply again",
        )


def _rewrite(path: str, header: Header, kept: list[Tensor]) -> None:
    """The file with these tensors only, in their order."""
    text = head(((each.name, each.dtype, each.shape, each.size) for each in kept), header.metadata)
    beside = path + ".part"
    with open(path, "rb") as source, open(beside, "wb") as target:
        target.write(text)
        for each in kept:
            for start in range(each.start, each.end, _BLOCK):
                count = min(_BLOCK, each.end - start)
                target.write(os.pread(source.fileno(), count, header.data + start))
        target.flush()
        os.fsync(target.fileno())
    os.replace(beside, path)
