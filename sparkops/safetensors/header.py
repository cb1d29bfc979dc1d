"""What stands at the head of a safetensors file, believed only after every claim of it was checked.

The layout: eight bytes with the header's length (little-endian), a JSON object `name → {dtype, shape, data_offsets}`,
then one buffer without gaps. Pure values out of bytes, so that controller and node share it; it must not know files,
hubs or models. Standard library only. Source: the format description of
huggingface/safetensors; the largest header is that of huggingface_hub 2.4.0 (`SAFETENSORS_MAX_HEADER_LENGTH`).
"""

import json
from collections.abc import Callable, Iterable

from sparkops.safetensors.bounded_json import NotFlat, Reader

LENGTH = 8
"""Bytes before the header that tell its length."""
LARGEST = 25_000_000
"""Bytes of the largest header that is read, as the hub's own client has it."""

_ENTRY = 4096
"""Characters of the longest entry of a tensor: 64 dimensions of 20 digits and some words."""

BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one value by dtype."""


class Broken(ValueError):
    """A head that is not one of a whole safetensors file; the message says in what."""


class Tensor:
    """One tensor: its name, dtype, shape, and where its bytes stand in the buffer behind the header."""

    __slots__ = ("dtype", "end", "name", "shape", "start")

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], start: int, end: int) -> None:
        self.name, self.dtype, self.shape, self.start, self.end = name, dtype, shape, start, end

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return _product(self.shape)


class Header:
    """All tensors of one file in the order of their bytes, the file's free metadata, and how long the file must be."""

    __slots__ = ("length", "metadata", "names", "tensors")

    def __init__(self, tensors: tuple[Tensor, ...], metadata: dict[str, str], length: int) -> None:
        self.tensors, self.metadata, self.length = tensors, metadata, length
        self.names = frozenset(each.name for each in tensors)

    @property
    def data(self) -> int:
        """Where the buffer begins in the file, in bytes."""
        return LENGTH + self.length

    @property
    def file_size(self) -> int:
        """Bytes that the whole file must have."""
        return self.data + (self.tensors[-1].end if self.tensors else 0)


def header_length(head: bytes) -> int:
    """The header's length out of a file's first eight bytes. Raises Broken."""
    if len(head) < LENGTH:
        raise Broken(f"it ends after {len(head)} bytes")
    length = int.from_bytes(head[:LENGTH], "little")
    if length > LARGEST:
        raise Broken(f"its header claims {length} bytes, more than the {LARGEST} that are read")
    if length < 2:
        raise Broken(f"its header claims {length} bytes, too few for one")
    return length


def parse_header(text: bytes) -> Header:
    """The header of its JSON text, every claim checked. Raises Broken."""
    try:
        tensors, metadata = _members(Reader(text.decode("utf-8")))
    except NotFlat as error:
        raise Broken(f"its header is none: {error}") from None
    except UnicodeDecodeError as error:
        raise Broken(f"its header is no UTF-8: {error}") from None
    tensors.sort(key=lambda each: (each.start, each.end))
    _check_gapless(tensors)
    return Header(tuple(tensors), metadata, len(text))


def read_header(read: Callable[[int, int], bytes], size: int) -> Header:
    """The header of a file of `size` bytes through `read(start, count)`. Raises Broken, also for another size."""
    length = header_length(read(0, min(LENGTH, size)))
    if size < LENGTH + length:
        raise Broken(f"it has {size} bytes and its header alone claims {length}")
    header = parse_header(read(LENGTH, length))
    if header.file_size != size:
        verb = "is cut off" if size < header.file_size else "is too long"
        raise Broken(f"it {verb}: {size} bytes where its header needs {header.file_size}")
    return header


def head(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str]) -> bytes:
    """What stands before the buffer of a file with these tensors (name, dtype, shape, bytes), in this order.

    Padded with spaces so that the buffer begins at a multiple of 8, as the format's own writer does.
    """
    value: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, dtype, shape, size in tensors:
        value[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH, "little") + text


def _members(reader: Reader) -> tuple[list[Tensor], dict[str, str]]:
    tensors: list[Tensor] = []
    metadata: dict[str, str] = {}
    for name in reader.members():
        if name == "__metadata__":
            metadata = {key: reader.string() for key in reader.members()}
        else:
            tensors.append(_tensor(name, reader.small(_ENTRY)))
    reader.end()
    return tensors, metadata


def _tensor(name: str, entry: object) -> Tensor:
    try:
        return _checked(name, entry)
    except Broken as error:
        raise Broken(f"its tensor {name[:120]!r} {error}") from None


def _checked(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Broken("has not exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise Broken(f"is of an unknown dtype {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or len(shape) > 64 or not all(map(_natural, shape)):
        raise Broken("has a shape that is none")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_natural, offsets)):
        raise Broken("has offsets that are none")
    start, end = offsets
    bits = _product(shape) * BITS[dtype]
    if end < start or (end - start) * 8 != bits:
        raise Broken(f"has {end - start} bytes, but {shape} of {dtype} are {bits / 8:g}")
    return Tensor(name, dtype, tuple(shape), start, end)


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 60


def _product(shape: "tuple[int, ...] | list[int]") -> int:
    product = 1
    for each in shape:
        product *= each
        if product >= 1 << 80:
            raise Broken(f"has a shape {str(shape)[:80]} that is larger than any file")
    return product


def _check_gapless(tensors: list[Tensor]) -> None:
    end = 0
    for each in tensors:
        if each.start != end:
            what = "overlaps the one before it" if each.start < end else f"leaves a gap of {each.start - end} bytes"
            raise Broken(f"its tensor {each.name[:120]!r} {what}")
        end = each.end
