"""The head in INT8: each number against the definition, in plain arithmetic."""

from __future__ import annotations

import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.messages import Refused
from sparkops.programs.build import step_lm_head
from sparkops.programs.build.step_hybrid import values
from sparkops.programs.build.step_lm_head import QuantizedRows, RowScales
from sparkops.programs.build.tensor_plan import BLOCK, PlannedTensor, Stored, TensorPlan
from tests.errors import fails


def head(dtype: str, rows: int, columns: int) -> PlannedTensor:
    return PlannedTensor("lm_head.weight", dtype, (rows, columns), Stored(-1, "f", 0, 2 * rows * columns))


def made(kind: type[step_lm_head.Rows], entry: PlannedTensor, data: bytes) -> bytes:
    content = kind(entry)
    out = b""
    for start, end in content.blocks():
        assert len(out) == start
        assert end - start <= BLOCK
        out += content.block(start, end, lambda _, at, count: data[at : at + count])
    return out


@st.composite
def matrices(draw: st.DrawFn) -> tuple[str, int, int, bytes]:
    """Any finite numbers, near ties, zeros and outliers among them."""
    dtype = draw(st.sampled_from(["BF16", "F16"]))
    most = step_lm_head.INFINITE[dtype] - 1
    number = st.integers(0, most) | st.integers(most - 200, most) | st.sampled_from([0, 1, 2, 0x3F80, 0x3F81, 0x4100])
    columns = draw(st.integers(1, 9))
    rows = draw(st.integers(1, 5))
    bits = [draw(number) | draw(st.sampled_from([0, 0x8000])) for _ in range(rows * columns)]
    return dtype, rows, columns, array("H", bits).tobytes()


@given(matrices())
def test_every_number_is_the_nearest_of_its_rows_255_steps(matrix: tuple[str, int, int, bytes]) -> None:
    dtype, rows, columns, data = matrix
    entry = head(dtype, rows, columns)
    steps = struct.unpack(f"{rows * columns}b", made(QuantizedRows, entry, data))
    scales = array("f", made(RowScales, entry, data))
    numbers = values(dtype, data)
    for row in range(rows):
        line = numbers[row * columns : (row + 1) * columns]
        assert scales[row] == array("f", [max(map(abs, line)) / 127])[0]
        for number, step in zip(line, steps[row * columns : (row + 1) * columns], strict=True):
            wanted = max(-127, min(127, round(number / scales[row]))) if scales[row] else 0
            assert step == wanted
            assert math.isfinite(step * scales[row])


def test_a_row_of_zeros_has_the_scale_zero() -> None:
    entry = head("BF16", 2, 4)
    data = bytes(8) + b"\x80\x3f" * 4
    assert made(QuantizedRows, entry, data) == bytes(4) + b"\x7f" * 4
    assert array("f", made(RowScales, entry, data)).tolist()[0] == 0.0


@pytest.mark.parametrize(("dtype", "bits"), [("BF16", 0x7F80), ("BF16", 0x7FC0), ("F16", 0xFC00)])
def test_infinity_and_no_number_are_refused(dtype: str, bits: int) -> None:
    data = array("H", [0x1234, bits]).tobytes()
    with fails("lm-head-not-finite", Refused):
        made(QuantizedRows, head(dtype, 1, 2), data)


@pytest.mark.parametrize(
    ("entries", "config", "id"),
    [
        ([], {}, "lm-head-not-16-bit"),
        ([PlannedTensor("lm_head.qweight", "I32", (1, 8), Stored(-1, "f", 0, 32))], {}, "lm-head-not-16-bit"),
        ([PlannedTensor("lm_head.weight", "F8_E4M3", (4, 8), Stored(-1, "f", 0, 32))], {}, "lm-head-not-16-bit"),
        ([head("BF16", 4, 8)], {"tie_word_embeddings": True}, "lm-head-tied"),
        ([head("BF16", 4, 8)], {"text_config": {"tie_word_embeddings": True}}, "lm-head-tied"),
        (
            [head("BF16", 4, 8)],
            {
                "quantization_config": {
                    "quant_method": "auto-round",
                    "bits": 4,
                    "extra_config": {"lm_head": {"bits": 4}},
                }
            },
            "lm-head-config-contradicts",
        ),
    ],
)
def test_what_is_no_16_bit_head_of_its_own_is_refused(
    entries: list[PlannedTensor], config: dict[str, object], id: str
) -> None:
    with pytest.raises(Refused) as refused:
        step_lm_head.apply(TensorPlan({"f": entries}, dict(config)), "int8")
    assert refused.value.id == id
