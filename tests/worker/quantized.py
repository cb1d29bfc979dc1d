"""A tiny Qwen3.5-MoE as AutoRound leaves one, with every true name: random words, in memory, standard library only.

Like the released INT4 ones: experts, attention and linear attention are INT4 (one layer's `in_proj` pair INT8), the
rest 16-bit; and, as the steps before a repack leave them, shared experts in FP8 blocks and the head in INT8 with scales
of its rows.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sparkops.programs.build.tensor_plan import Computed, PlannedTensor, Read, Stored, TensorPlan
from tests.lab import model
from tests.worker.checkpoints_made import Tensors

GROUP = 32
_FINITE = bytes(min(byte & 0x7F, 0x7E) | byte & 0x80 for byte in range(256))
"""FP8 (E4M3) bytes without the two that are no numbers."""
SMALL = model.Geometry(
    hidden_size=128, num_hidden_layers=4, moe_intermediate_size=128, shared_expert_intermediate_size=128, head_dim=32,
    linear_key_head_dim=32, linear_value_head_dim=32,
)  # fmt: skip
MANY = replace(
    SMALL, hidden_size=32, moe_intermediate_size=32, shared_expert_intermediate_size=32, vocab_size=64, num_experts=256
)
"""As many experts as the 122B model has, each as small as can be."""
INT4 = ("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj")
INT8_LAYERS = (
    "model.language_model.layers.1.linear_attn.in_proj_qkv",
    "model.language_model.layers.1.linear_attn.in_proj_z",
)
_SMALL = bytes(byte & 0x80 | 0x3D for byte in range(256))
"""The upper byte of a BF16 number between 0.03 and 0.13, of either sign."""


def tensors(
    geometry: model.Geometry = SMALL,
    *,
    fp8: bool = True,
    head: bool = True,
    eight: Collection[str] = INT8_LAYERS,
    stored_less_one: bool = True,
) -> Tensors:
    """The whole checkpoint; without `fp8` and `head` it is the base alone; `eight` are the INT8 layers."""
    draw = random.Random(5)
    found: Tensors = {}
    for tensor in model.tensors(geometry):
        name, shape = tensor.name.removesuffix(".weight"), tuple(tensor.shape)
        leaf = name.rpartition(".")[2]
        if ".layers." in name and not name.startswith("mtp.") and (".experts." in name or leaf in INT4):
            found |= integers(name, shape, draw, bits=8 if name in eight else 4, stored_less_one=stored_less_one)
        elif fp8 and ".shared_expert." in name and not name.startswith("mtp."):
            blocks = tuple(-(-each // 128) for each in shape)
            found[tensor.name] = "F8_E4M3", shape, draw.randbytes(math.prod(shape)).translate(_FINITE)
            found[f"{name}.weight_scale_inv"] = "F32", blocks, _floats("f", math.prod(blocks), draw)
        elif head and name == "lm_head":
            found[tensor.name] = "I8", shape, draw.randbytes(math.prod(shape)).replace(b"\x80", b"\x81")
            found["lm_head.weight_scale"] = "F32", (shape[0], 1), _floats("f", shape[0], draw)
        else:
            halves = bytearray(draw.randbytes(2 * math.prod(shape)))
            halves[1::2] = halves[1::2].translate(_SMALL)
            found[tensor.name] = "BF16", shape, bytes(halves)
    return found


def integers(
    name: str, shape: tuple[int, ...], draw: random.Random, *, bits: int, stored_less_one: bool = True
) -> Tensors:
    """A layer as GPTQ packs it."""
    outputs, inputs = shape
    groups, words = inputs // GROUP, inputs * bits // 32
    zero = (1 << bits - 1) - stored_less_one
    byte = zero * 0x11 if bits == 4 else zero
    return {
        f"{name}.qweight": ("I32", (words, outputs), draw.randbytes(4 * words * outputs)),
        f"{name}.qzeros": ("I32", (groups, outputs * bits // 32), bytes([byte]) * (groups * outputs * bits // 8)),
        f"{name}.scales": ("F16", (groups, outputs), _floats("e", groups * outputs, draw)),
    }


def config(
    geometry: model.Geometry = SMALL, *, eight: Collection[str] = INT8_LAYERS, **quantization: Any
) -> dict[str, Any]:
    """config.json of it; `quantization` replaces values of its quantization_config."""
    return {
        **model.config(geometry),
        "quantization_config": {
            "quant_method": "auto-round",
            "packing_format": "auto_round:auto_gptq",
            "bits": 4,
            "group_size": GROUP,
            "sym": True,
            "data_type": "int",
            "extra_config": {
                **{name: {"bits": 8} for name in eight},
                "model.language_model.layers.0.mlp.shared_expert.gate_proj": {"bits": 16, "data_type": "fp"},
            },
            **quantization,
        },
    }


def _floats(kind: str, count: int, draw: random.Random) -> bytes:
    return struct.pack(f"<{count}{kind}", *(draw.uniform(0.001, 0.02) for _ in range(count)))


class Memory:
    """Tensors in memory as a plan of one file, or several, and what the plan makes of them."""

    def __init__(self, found: Tensors, said: dict[str, Any], *, files: int = 2) -> None:
        self.data: dict[str, bytearray] = {}
        drafted: dict[str, list[PlannedTensor]] = {}
        for number, (name, (dtype, shape, data)) in enumerate(found.items()):
            path = f"model-{number * files // len(found) + 1:05}-of-{files:05}.safetensors"
            body = self.data.setdefault(path, bytearray())
            entry = PlannedTensor(name, dtype, shape, Stored(-1, path, len(body), len(body) + len(data)))
            drafted.setdefault(path, []).append(entry)
            body += data
        self.plan = TensorPlan(drafted, said)

    def bytes_of(self, entry: PlannedTensor) -> bytes:
        content = entry.content
        if isinstance(content, Stored):
            return bytes(self.data[content.path][content.start : content.end])
        blocks = content.blocks()
        assert [start for start, _ in blocks] == [0, *[end for _, end in blocks[:-1]]], "blocks leave no gap"
        return b"".join(content.block(start, end, self.reader(content)) for start, end in blocks)

    def reader(self, content: Computed | Any) -> Read:
        """`read` for what has `inputs`."""

        def read(number: int, start: int, count: int) -> bytes:
            found = self.bytes_of(content.inputs[number])[start : start + count]
            assert len(found) == count
            return found

        return read

    def pass_checks(self) -> None:
        for check in self.plan.checks:
            check.check(self.reader(check))

    def tensors(self) -> Tensors:
        """What the plan is, made."""
        entries = [entry for each in self.plan.files.values() for entry in each]
        made = {entry.name: (entry.dtype, entry.shape, self.bytes_of(entry)) for entry in entries}
        assert len(made) == len(entries)
        assert all(len(data) == entry.size for entry, (_, _, data) in zip(entries, made.values(), strict=True))
        return made
