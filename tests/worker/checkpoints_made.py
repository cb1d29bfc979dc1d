"""Tiny checkpoints with the true tensor names and config keys of Qwen3.5-MoE, as their publishers quantise them.

All forms of one `seed` come from the same BF16 weights, so that FP8 blocks are the rounding of what they stand for.
Routed experts are random bytes in the quantised forms: nobody looks into them.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import random
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparkops.programs.build.step_hybrid import SIDE, e4m3, values
from sparkops.safetensors.header import BITS, head
from tests.lab import model

GROUP = 8
GEOMETRY = model.Geometry(
    vocab_size=96, hidden_size=136, moe_intermediate_size=8, shared_expert_intermediate_size=160, num_experts=256
)
"""Sizes that no block of 128 divides, in the shape of the 122B model: 256 experts, one layer in four of attention."""
LARGE = replace(GEOMETRY, num_experts=512)
"""The same in the shape of the 397B model."""
SMALL = replace(GEOMETRY, num_experts=4)

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""dtype, shape and bytes by name."""


def weights(name: str, shape: Sequence[int], seed: int = 0) -> bytes:
    """BF16 values of both signs between 2^-8 and 2^-4; norms are ones."""
    count = math.prod(shape)
    if len(shape) == 1:
        return b"\x80\x3f" * count
    data = bytearray(random.Random(f"{seed}/{name}").randbytes(2 * count))
    data[1::2] = bytes(data[1::2]).translate(_EXPONENTS)
    return bytes(data)


_EXPONENTS = bytes((byte & 0x80) | (0x3B + byte % 3) for byte in range(256))


def bf16(geometry: model.Geometry, seed: int = 0) -> Tensors:
    """The checkpoint as it was trained."""
    return {
        each.name: ("BF16", tuple(each.shape), weights(each.name, each.shape, seed)) for each in model.tensors(geometry)
    }


def fp8(geometry: model.Geometry, seed: int = 0) -> Tensors:
    """As published in FP8 blocks of 128: all projections but the routers, in_proj_a and in_proj_b."""
    made: Tensors = {}
    for each in model.tensors(geometry):
        name, shape = each.name, tuple(each.shape)
        if "_proj" not in name or "in_proj_a" in name or "in_proj_b" in name:
            made[name] = ("BF16", shape, weights(name, shape, seed))
            continue
        blocks = tuple(-(-side // SIDE) for side in shape)
        if ".experts." in name:
            eight, scale = random.Random(name).randbytes(math.prod(shape)), b"\0\0\x80\x3c" * math.prod(blocks)
        else:
            eight, scale = quantised(weights(name, shape, seed), shape)
        made[name] = ("F8_E4M3", shape, eight)
        made[name.removesuffix("weight") + "weight_scale_inv"] = ("F32", blocks, scale)
    return made


_LEVELS = sorted((value, byte) for byte, value in enumerate(e4m3()) if value == value and byte != 0x80)
_NUMBERS = [value for value, _ in _LEVELS]


def quantised(data: bytes, shape: Sequence[int]) -> tuple[bytes, bytes]:
    """FP8 bytes and their scales, the multipliers, of a BF16 matrix."""
    rows, columns = shape
    numbers, eight, scales = values("BF16", data), bytearray(rows * columns), array("f")
    for top in range(0, rows, SIDE):
        for left in range(0, columns, SIDE):
            places = [
                row * columns + column
                for row in range(top, min(rows, top + SIDE))
                for column in range(left, min(columns, left + SIDE))
            ]
            scales.append(max(abs(numbers[place]) for place in places) / 448)
            for place in places:
                eight[place] = _nearest(numbers[place] / scales[-1])
    return bytes(eight), scales.tobytes()


def _nearest(value: float) -> int:
    at = bisect.bisect_left(_NUMBERS, value)
    around = _LEVELS[max(0, at - 1) : at + 1]
    return min(around, key=lambda each: abs(each[0] - value))[1]


def autoround(geometry: model.Geometry, seed: int = 0, *, mtp: bool = True) -> Tensors:
    """As AutoRound publishes INT4: experts, attention and GDN packed; shared experts, head and MTP in 16 bit."""
    made: Tensors = {}
    for each in model.tensors(geometry):
        name, shape = each.name, tuple(each.shape)
        if name.startswith("mtp.") and not mtp:
            continue
        kept = "_proj" not in name or name.startswith("mtp.") or "shared_expert" in name
        if kept or "in_proj_a" in name or "in_proj_b" in name:
            made[name] = ("BF16", shape, weights(name, shape, seed))
            continue
        out, width = shape
        draw = random.Random(name)
        module = name.removesuffix(".weight")
        made[f"{module}.qweight"] = ("I32", (width // 8, out), draw.randbytes(width // 8 * out * 4))
        made[f"{module}.qzeros"] = ("I32", (width // GROUP, out // 8), b"\x77" * (width // GROUP * (out // 8) * 4))
        made[f"{module}.scales"] = ("F16", (width // GROUP, out), draw.randbytes(width // GROUP * out * 2))
    return made


def config(geometry: model.Geometry) -> dict[str, Any]:
    """config.json of the 16-bit form."""
    return dict(model.config(geometry))


def autoround_config(geometry: model.Geometry) -> dict[str, Any]:
    """config.json of the INT4 form."""
    kept = [
        each.name.removesuffix(".weight")
        for each in model.tensors(geometry)
        if "shared_expert" in each.name or "in_proj_a" in each.name or "in_proj_b" in each.name
    ]
    return {
        **model.config(geometry),
        "quantization_config": {
            "quant_method": "auto-round",
            "packing_format": "auto_round:auto_gptq",
            "bits": 4,
            "group_size": GROUP,
            "sym": True,
            "data_type": "int",
            "autoround_version": "0.12.0",
            "block_name_to_quantize": "model.language_model.layers",
            "extra_config": {name: {"bits": 16, "data_type": "fp"} for name in kept},
        },
    }


def save(folder: Path, tensors: Tensors, config: Mapping[str, Any], shards: int = 3) -> Path:
    """Write a checkpoint's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    share = -(-len(names) // shards)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = names[number * share : (number + 1) * share]
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        save_file(folder / name, {each: tensors[each] for each in part})
        weight_map |= dict.fromkeys(part, name)
    total = sum(len(data) for _, _, data in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(model.tokenizer()))
    return folder


def save_file(path: Path, tensors: Tensors) -> None:
    """One file, the widest dtypes first as the format's own writer has it."""
    order = sorted(tensors.items(), key=lambda each: -BITS[each[1][0]])
    with open(path, "wb") as file:
        file.write(head(((n, dtype, shape, len(data)) for n, (dtype, shape, data) in order), {"format": "pt"}))
        for _, (_, _, data) in order:
            file.write(data)


def load(folder: Path) -> Tensors:
    """All tensors of a folder, read by the format's description alone. A name that stands twice is an error."""
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        assert length % 8 == 0
        for name, each in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                assert name not in found, name
                start, end = (8 + length + offset for offset in each["data_offsets"])
                assert start % (BITS[each["dtype"]] // 8) == 0, name
                found[name] = (each["dtype"], tuple(each["shape"]), data[start:end])
    return found


def manifest(folder: Path) -> list[list[Any]]:
    """[[path, size, oid]] of a folder."""
    return [
        [
            path.relative_to(folder).as_posix(),
            path.stat().st_size,
            "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest(),
        ]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]


def names(tensors: Iterable[str], word: str) -> list[str]:
    """The names with a word in them."""
    return [each for each in tensors if word in each]
