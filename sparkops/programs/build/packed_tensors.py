"""Bits of a repack: how GPTQ's tensors become those of compressed-tensors, and what has to hold of the ones left out.

GPTQ keeps a layer of `in` inputs and `out` outputs with its rows along the inputs: `qweight` I32 [in·bits/32, out],
`scales` [groups, out]. compressed-tensors' pack-quantized format keeps the transpose: `weight_packed` I32
[out, in·bits/32], `weight_scale` [out, groups]. Both put the first input into a word's lowest bits, as an unsigned
number whose zero stands at 2^(bits-1), so a word moves as it is. An int8 weight gains that offset: the top bit flips.
Sources: auto-round 0.16.1 (`qlinear_torch_zp`, `qlinear_torch`), compressed-tensors 0.17.0 and 0.20.0
(`pack_quantized`). It must not know configurations or names of models.
"""

from array import array
from collections.abc import Sequence

from sparkops.core.messages import Refused
from sparkops.programs.build.tensor_plan import BLOCK, Check, Computed, PlannedTensor, Read
from sparkops.safetensors.header import BITS

BAND = 8 << 20
"""Bytes of one block: several may be worked on at once, and the pieces that its input is read in stay long."""
TILE = 1024
"""Columns that are turned at once, so that what is written stays in the processor's cache."""

_ITEMS = {2: "H", 4: "I"}
_FLIP = bytes(byte ^ 0x80 for byte in range(256))


class Transposed(Computed):
    """The transpose of a matrix of 2- or 4-byte items; a block is some of its rows, hence some columns of the input."""

    __slots__ = ()

    def blocks(self) -> Sequence[tuple[int, int]]:
        size, row = self.inputs[0].size, self._row()
        step = max(1, BAND // row) * row
        return [(start, min(start + step, size)) for start in range(0, size, step)]

    def block(self, start: int, end: int, read: Read) -> bytes:
        entry, row = self.inputs[0], self._row()
        rows, columns = entry.shape
        item = BITS[entry.dtype] // 8
        first, last = start // row, end // row
        if (first, last) == (0, columns):
            return transpose(read(0, 0, entry.size), rows, item)
        starts = ((number * columns + first) * item for number in range(rows))
        return transpose(b"".join([read(0, at, (last - first) * item) for at in starts]), rows, item)

    def _row(self) -> int:
        """Bytes of a row of the output."""
        entry = self.inputs[0]
        return entry.shape[0] * BITS[entry.dtype] // 8


def transpose(data: bytes, rows: int, item: int) -> bytes:
    """The transpose of a matrix with so many rows of items of 2 or 4 bytes each."""
    source = array(_ITEMS[item])
    source.frombytes(data)
    columns = len(source) // rows
    turned = []
    for left in range(0, columns, TILE):
        right = min(left + TILE, columns)
        tile = array(_ITEMS[item], bytes((right - left) * rows * item))
        for row in range(rows):
            tile[row::rows] = source[row * columns + left : row * columns + right]
        turned.append(tile)
    return b"".join(turned)


class Offset(Computed):
    """An int8 matrix as unsigned numbers around 128, four to a word: each byte with its top bit flipped."""

    __slots__ = ()

    def blocks(self) -> Sequence[tuple[int, int]]:
        """As its input is made, if it is, so that no block of that is made twice."""
        entry = self.inputs[0]
        if isinstance(entry.content, Computed):
            return entry.content.blocks()
        return [(start, min(start + BAND, entry.size)) for start in range(0, entry.size, BAND)]

    def block(self, start: int, end: int, read: Read) -> bytes:
        return read(0, start, end - start).translate(_FLIP)


class Shape(Computed):
    """The two numbers, I64, that tell a packed matrix's true shape."""

    __slots__ = ("shape",)

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def blocks(self) -> Sequence[tuple[int, int]]:
        return [(0, 8 * len(self.shape))]

    def block(self, start: int, end: int, read: Read) -> bytes:
        return b"".join([each.to_bytes(8, "little") for each in self.shape])


class SymmetricZerosCheck(Check):
    """`qzeros` says nothing but the symmetric zero point, `stored` at each place; only then may it be left out."""

    __slots__ = ("bits", "stored")

    def __init__(self, entry: PlannedTensor, bits: int, stored: int) -> None:
        super().__init__(entry)
        self.bits, self.stored = bits, stored

    def check(self, read: Read) -> None:
        entry = self.inputs[0]
        wanted = self.stored * 0x11 if self.bits == 4 else self.stored
        for start in range(0, entry.size, BLOCK):
            data = read(0, start, min(BLOCK, entry.size - start))
            if data.count(wanted) != len(data):
                other = next(byte for byte in data if byte != wanted)
                values = {other & 15, other >> 4} if self.bits == 4 else {other}
                found = next(value for value in sorted(values) if value != self.stored)
                raise Refused.of(
                    "repack-zero-points-not-symmetric", tensor=entry.name, found=found, expected=self.stored
                )


class InputOrderCheck(Check):
    """`g_idx` says that input i is in group i // group, as it is without activation order."""

    __slots__ = ("group",)

    def __init__(self, entry: PlannedTensor, group: int) -> None:
        super().__init__(entry)
        self.group = group

    def check(self, read: Read) -> None:
        entry = self.inputs[0]
        (inputs,) = entry.shape
        step = BAND // 4
        for start in range(0, inputs, step):
            end = min(start + step, inputs)
            wanted = b"".join([(place // self.group).to_bytes(4, "little") for place in range(start, end)])
            if read(0, 4 * start, 4 * (end - start)) != wanted:
                raise Refused.of("repack-input-order", tensor=entry.name)
