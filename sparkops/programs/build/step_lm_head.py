"""The step `lm_head: int8`: the output head as symmetric INT8 with one scale per row, the scales beside it as data.

For a row w: scale s = max|w| / 127 as F32; q = w / s, rounded to the nearest, ties to even, within ±127. A row of zeros
has the scale 0 and zeros, so that q times s is 0 and never NaN.
"""

from array import array
from collections.abc import Sequence
from functools import cache, lru_cache

from sparkops.core.messages import Refused
from sparkops.programs.build.autoround_config import bits, config_of, is_autoround, note_step
from sparkops.programs.build.step_hybrid import SIXTEEN, values
from sparkops.programs.build.tensor_plan import Computed, PlannedTensor, Read, TensorPlan
from sparkops.safetensors.parts import part_of

AT_ONCE = 1 << 20
"""Values that are in memory at once."""
INFINITE = {"BF16": 0x7F80, "F16": 0x7C00}
"""From here on the bits of a magnitude are infinities and NaN."""


def apply(plan: TensorPlan, options: object) -> None:
    """Change the plan. `options` is `int8`."""
    if options != "int8":
        raise Refused.of("lm-head-format-unknown", format=str(options))
    if plan.config.get("tie_word_embeddings") or plan.text_config.get("tie_word_embeddings"):
        raise Refused.of("lm-head-tied")
    heads = [
        (file, place, entry)
        for file, entries in plan.files.items()
        for place, entry in enumerate(entries)
        if part_of(entry.name) == "head"
    ]
    if len(heads) != 1 or heads[0][2].dtype not in SIXTEEN or len(heads[0][2].shape) != 2:
        raise Refused.of(
            "lm-head-not-16-bit", found=[f"{entry.name} {entry.dtype}" for _, _, entry in heads] or ["none"]
        )
    file, place, entry = heads[0]
    if is_autoround(config := config_of(plan)) and bits(config, "lm_head") < 16:
        raise Refused.of("lm-head-config-contradicts")
    stem = entry.name.removesuffix(".weight")
    plan.files[file] = [
        *plan.files[file][:place],
        PlannedTensor(entry.name, "I8", entry.shape, QuantizedRows(entry)),
        PlannedTensor(f"{stem}.weight_scale", "F32", (entry.shape[0], 1), RowScales(entry)),
        *plan.files[file][place + 1 :],
    ]
    how = {"format": "I8 weight times F32 weight_scale per row", "from": entry.dtype}
    note_step(plan, "lm_head", {**how, "reader": "an engine with an INT8 head"})
    plan.notice("build-lm-head-int8")


class Rows(Computed):
    """Something made of each row of a 16-bit matrix. `width` is the bytes of a row of it."""

    width: int

    def __init__(self, entry: PlannedTensor) -> None:
        super().__init__(entry)
        self.rows, self.columns = entry.shape

    def blocks(self) -> Sequence[tuple[int, int]]:
        step = max(1, AT_ONCE // max(1, self.columns)) * self.width
        return [(start, min(start + step, self.rows * self.width)) for start in range(0, self.rows * self.width, step)]

    def block(self, start: int, end: int, read: Read) -> bytes:
        first, count, row = start // self.width, (end - start) // self.width, 2 * self.columns
        data = read(0, first * row, count * row)
        numbers, sizes = memoryview(data).cast("H"), memoryview(magnitudes(data)).cast("H")
        return b"".join(
            self.made(numbers[at : at + self.columns], self._largest(sizes[at : at + self.columns], first))
            for at in range(0, count * self.columns, self.columns)
        )

    def _largest(self, sizes: memoryview, first: int) -> int:
        largest = max(sizes)
        if largest >= INFINITE[self.inputs[0].dtype]:
            raise Refused.of("lm-head-not-finite", tensor=self.inputs[0].name, row=first)
        return int(largest)

    def made(self, numbers: memoryview, largest: int) -> bytes:
        """What comes of one row, given the bits of its largest magnitude."""
        raise NotImplementedError


class QuantizedRows(Rows):
    """The rows' INT8 values."""

    def __init__(self, entry: PlannedTensor) -> None:
        super().__init__(entry)
        self.width = self.columns

    def made(self, numbers: memoryview, largest: int) -> bytes:
        return bytes(map(table(self.inputs[0].dtype, largest).__getitem__, numbers))


class RowScales(Rows):
    """The rows' scales."""

    width = 4

    def made(self, numbers: memoryview, largest: int) -> bytes:
        return array("f", [scale(self.inputs[0].dtype, largest)]).tobytes()


def magnitudes(data: bytes) -> bytes:
    """16-bit floats without their signs; their bits then are in the order of their values."""
    mask = int.from_bytes(b"\xff\x7f" * (len(data) // 2), "little")
    return (int.from_bytes(data, "little") & mask).to_bytes(len(data), "little")


@cache
def numbers_of(dtype: str) -> list[float]:
    """The value of each magnitude by its bits."""
    return values(dtype, array("H", range(1 << 15)).tobytes())


def scale(dtype: str, largest: int) -> float:
    """The F32 scale of a row whose largest magnitude has these bits."""
    return array("f", [numbers_of(dtype)[largest] / 127])[0]


@lru_cache(4096)
def _steps(dtype: str, largest: int) -> bytes:
    """The INT8 magnitudes of the 16-bit ones up to `largest`, from the first that is not 0 on."""
    unit, numbers = scale(dtype, largest), numbers_of(dtype)
    steps = bytearray()
    for each in range(largest, 0, -1):
        step = min(127, round(numbers[each] / unit))
        if not step:
            break
        steps.append(step)
    return bytes(reversed(steps))


@lru_cache(64)
def table(dtype: str, largest: int) -> bytes:
    """The INT8 value, as a byte, of each of the 65536 numbers in 16 bit, in a row with that largest magnitude."""
    steps = _steps(dtype, largest) if largest else b""
    zeros, rest = bytes(largest + 1 - len(steps)), bytes((1 << 15) - largest - 1)
    negative = bytes(256 - each for each in steps)
    return zeros + steps + rest + zeros + negative + rest
