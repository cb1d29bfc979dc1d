"""The step `hybrid`: chosen 16-bit linear layers of a quantised base become the FP8 blocks of a donor.

All or nothing, decided from headers: which layers there must be follows from config.json. A gate then holds samples
of the donor's numbers against the base's, which also proves the direction of the scale and the common origin of both.
"""

import math
import re
import struct
import zlib
from array import array
from collections.abc import Iterable
from functools import cache
from typing import Any

from sparkops.programs.build.base import some
from sparkops.programs.build.gptq import bits, config_of, is_autoround, note_step
from sparkops.programs.build.tensor_plan import Donor, Draft, Entry, Gate, Read
from sparkops.safetensors.parts import module_of, part_of
from sparkops.worker.calls import Refused

SIDE = 128
"""Rows and columns of a block that shares a scale."""
ERROR, COSINE = 0.05, 0.999
"""Limits of a sampled block: the rounding of E4M3 alone gives about 0.026 and 0.9997."""
SIXTEEN = ("BF16", "F16")
SCALES = ("BF16", "F16", "F32")
SHARED = "shared_expert"
_SHARED_PATTERN = r"\.mlp\.shared_expert\.(gate|up|down)_proj$"
_MLP = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj")
_MIXERS = {
    "linear_attention": (
        "linear_attn.in_proj_qkv", "linear_attn.in_proj_z", "linear_attn.in_proj_b", "linear_attn.in_proj_a",
        "linear_attn.out_proj",
    ),
    "full_attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
}  # fmt: skip
FUSED = (
    ("gate_proj", "up_proj"),
    ("q_proj", "k_proj", "v_proj"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_b", "in_proj_a"),
)
"""Layers that the engine runs as one, and which must share one quantisation."""
_LAYER = re.compile(r"^(.*\.)?layers\.\d+\.")


def apply(draft: Draft, options: dict[str, Any]) -> None:
    """Change the draft. `options`: `donor` (number in the draft's), `layers` (`shared_expert`, or a pattern)."""
    donor, layers = draft.donors[options["donor"]], str(options.get("layers") or SHARED)
    quantization = config_of(draft)
    if not is_autoround(quantization):
        raise Refused(
            f"hybrid needs a base that AutoRound quantised; its quant_method is {quantization.get('quant_method')!r}",
            hint="declare an AutoRound INT4 checkpoint as the base, or leave the step out",
        )
    modules = _chosen(draft, layers)
    _check_pairs(draft, donor, modules)
    _check_fused(draft, modules)
    _check_declared(quantization, modules)
    _replace(draft, donor, modules)
    draft.gates += _norm_gates(draft, donor)
    block = [SIDE, SIDE]
    note_step(
        draft,
        "hybrid",
        {"donor": donor.label, "modules": len(modules), "weight_block_size": block, "layers": layers,
         "format": "F8_E4M3 weight times weight_scale_inv per block"},
    )  # fmt: skip
    draft.notes.append(
        f"hybrid: {len(modules)} layers in FP8 from {donor.label}; engines see it by dtype and weight_scale_inv, "
        "and need a patched AutoRound loader for that (repack makes it readable without)"
    )


def _chosen(draft: Draft, layers: str) -> list[str]:
    """The modules to replace: exactly those that config.json says there are. Raises Refused."""
    try:
        pattern = re.compile(_SHARED_PATTERN if layers == SHARED else layers)
    except re.error as error:
        raise Refused(
            f"hybrid: `layers` is no regular expression: {error}", hint=f"leave it out for {SHARED}"
        ) from None
    present = {module_of(name) for name in draft.tensors()}
    linear = {each for each in present if each.rpartition(".")[2].find("proj") >= 0 and _LAYER.match(each)}
    matched = {each for each in linear if pattern.search(each) and part_of(each + ".weight") not in ("mtp", "vision")}
    routed = sorted(each for each in matched if part_of(each + ".") == "experts")
    if routed:
        raise Refused(
            f"hybrid: `layers` matches routed experts ({some(routed)}), which stay as the base has them",
            hint=f"narrow the expression, or leave it out for {SHARED}",
        )
    expected = {each for each in _expected(draft, linear) if pattern.search(each)}
    if not expected:
        raise Refused(f"hybrid: no layer of this model matches {layers!r}", hint=f"leave it out for {SHARED}")
    missing, unexpected = sorted(expected - matched), sorted(matched - expected)
    if missing or unexpected:
        told = [f"missing are {some(missing)}"] if missing else []
        told += [f"unexpected are {some(unexpected)}"] if unexpected else []
        raise Refused(
            f"hybrid: config.json promises {len(expected)} layers to replace, the base has {len(matched)}: "
            + "; ".join(told),
            hint="the base is not whole, or not the model of its config.json; declare another revision",
        )
    return sorted(expected)


def _expected(draft: Draft, linear: Iterable[str]) -> set[str]:
    """Every linear layer outside the routed experts that the model has by its config.json."""
    text = draft.text_config
    count = text.get("num_hidden_layers")
    if type(count) is not int or not 0 < count < 10_000:
        raise Refused("config.json of the base has no num_hidden_layers", hint="declare another revision")
    types = text.get("layer_types")
    if not isinstance(types, list) or len(types) != count:
        every = text.get("full_attention_interval") or 4
        types = ["linear_attention" if (n + 1) % every else "full_attention" for n in range(count)]
    found = {match[1] or "" for each in linear if "mtp." not in each and (match := _LAYER.match(each))}
    prefixes = sorted(each for each in found if "visual" not in each and "vision" not in each)
    if len(prefixes) != 1:
        raise Refused(f"the base's layers stand under {prefixes or 'no name'}", hint="declare a Qwen3.5-MoE checkpoint")
    shared = _MLP if text.get("shared_expert_intermediate_size") else ()
    return {
        f"{prefixes[0]}layers.{number}.{each}"
        for number, sort in enumerate(types)
        for each in (*_MIXERS.get(str(sort), ()), *shared)
    }


def _check_pairs(draft: Draft, donor: Donor, modules: list[str]) -> None:
    """Each module stands in 16 bit in the base and in FP8 blocks of the same shape in the donor. Raises Refused."""
    places = draft.tensors()
    faults = []
    for module in modules:
        if f"{module}.weight" not in places:
            faults.append(f"{module} is quantised in the base already")
            continue
        file, place = places[f"{module}.weight"]
        entry = draft.files[file][place]
        if why := _unfit(entry, donor.tensors.get(entry.name), donor.tensors.get(f"{module}.weight_scale_inv")):
            faults.append(f"{module}: {why}")
    if faults:
        raise Refused(
            f"hybrid: {len(faults)} of {len(modules)} layers can't be taken from {donor.label}: {some(faults)}",
            hint="all of them or none: declare a donor that quantised the same model to FP8 blocks, or other `layers`",
        )


def _unfit(entry: Entry, weight: Entry | None, scale: Entry | None) -> str:
    if entry.dtype not in SIXTEEN or len(entry.shape) != 2:
        return f"it is {entry.dtype} {list(entry.shape)} in the base, not a 16-bit matrix"
    if weight is None:
        return "the donor has no such weight"
    if weight.dtype != "F8_E4M3" or scale is None:
        return f"it is {weight.dtype} in the donor{'' if scale else ', without weight_scale_inv'}"
    if weight.shape != entry.shape:
        return f"its shape is {list(entry.shape)} in the base and {list(weight.shape)} in the donor"
    blocks = tuple(-(-each // SIDE) for each in weight.shape)
    if scale.shape != blocks or scale.dtype not in SCALES:
        return f"its scale is {scale.dtype} {list(scale.shape)}, not {list(blocks)} for blocks of {SIDE}"
    return ""


def _check_fused(draft: Draft, modules: list[str]) -> None:
    chosen, present = set(modules), {module_of(name) for name in draft.tensors()}
    for module in modules:
        parent, _, leaf = module.rpartition(".")
        for group in FUSED:
            others = [f"{parent}.{each}" for each in group if leaf in group and f"{parent}.{each}" in present]
            left = [each for each in others if each not in chosen]
            if left:
                raise Refused(
                    f"hybrid: {module} would be FP8 and {left[0]} not, but the engine runs {', '.join(group)} as one",
                    hint="let `layers` match all of them or none",
                )


def _check_declared(quantization: dict[str, Any], modules: list[str]) -> None:
    """The engine looks for FP8 only where it takes a layer to be unquantised."""
    covered = [f"{each} ({bits(quantization, each)} bits)" for each in modules if bits(quantization, each) < 16]
    if covered:
        raise Refused(
            f"hybrid: quantization_config of the base declares 16-bit layers as quantised: {some(covered)}",
            hint="the base contradicts itself; declare another revision",
        )


def _replace(draft: Draft, donor: Donor, modules: list[str]) -> None:
    chosen = {f"{each}.weight" for each in modules}
    for file, entries in draft.files.items():
        if not any(entry.name in chosen for entry in entries):
            continue
        after: list[Entry] = []
        for entry in entries:
            if entry.name not in chosen:
                after.append(entry)
                continue
            weight, scale = donor.tensors[entry.name], donor.tensors[f"{module_of(entry.name)}.weight_scale_inv"]
            after += [weight, scale]
            draft.gates.append(Sampled(entry, weight, scale))
        draft.files[file] = after


def _norm_gates(draft: Draft, donor: Donor) -> list[Gate]:
    """The norms of the first and the last layer, which no quantisation touches."""
    names = draft.tensors()
    norms = [name for name in names if name.endswith(".input_layernorm.weight") and part_of(name) == "norms"]
    norms.sort(key=lambda name: [int(each) for each in re.findall(r"\d+", name)])
    gates: list[Gate] = []
    for name in dict.fromkeys([*norms[:1], *norms[-1:]]):
        file, place = names[name]
        mine, other = draft.files[file][place], donor.tensors.get(name)
        if other is not None and (mine.dtype, mine.shape) == (other.dtype, other.shape):
            gates.append(Equal(mine, other, donor.label))
    if not gates:
        draft.notes.append(
            f"hybrid: {donor.label} has no norms to hold against the base; only samples prove its origin"
        )
    return gates


class Equal(Gate):
    """A tensor that both have must be the same, byte by byte."""

    def __init__(self, mine: Entry, other: Entry, label: str) -> None:
        self.inputs, self._label = (mine, other), label

    def check(self, read: Read) -> None:
        mine, other = self.inputs
        if read(0, 0, mine.size) != read(1, 0, other.size):
            raise Refused(
                f"{mine.name} differs between the base and the donor {self._label}: they are not the same base model",
                hint="declare a donor that was quantised from the very model that the base was",
            )


class Sampled(Gate):
    """Two blocks of a tensor, the last one and one more, dequantised and held against what they replace."""

    def __init__(self, mine: Entry, weight: Entry, scale: Entry) -> None:
        self.inputs = (mine, weight, scale)

    def check(self, read: Read) -> None:
        rows, columns = self.inputs[0].shape
        down, across = -(-rows // SIDE), -(-columns // SIDE)
        seed = zlib.crc32(self.inputs[0].name.encode())
        corners = ((0, 0), (0, across - 1), (down - 1, 0))
        inner = (seed % down, seed // 7919 % across)
        for row, column in {(down - 1, across - 1), inner if seed & 1 else corners[seed % 3]}:
            self._check_block(read, row, column)

    def _check_block(self, read: Read, row: int, column: int) -> None:
        mine, _, scale = self.inputs
        rows, columns = mine.shape
        top, left = row * SIDE, column * SIDE
        high, wide = min(SIDE, rows - top), min(SIDE, columns - left)
        factor = values(scale.dtype, read(2, *_at(scale, row, column)))[0]
        start, span = top * columns + left, (high - 1) * columns + wide
        base, eight = read(0, 2 * start, 2 * span), read(1, start, span)
        wanted: list[float] = []
        found: list[float] = []
        table = e4m3()
        for line in range(high):
            at = line * columns
            wanted += values(mine.dtype, base[2 * at : 2 * (at + wide)])
            found += [table[each] * factor for each in eight[at : at + wide]]
        error, cosine = likeness(wanted, found)
        if not (error <= ERROR and cosine >= COSINE):
            inverse = likeness(wanted, [each / factor / factor for each in found])[0] if factor else math.inf
            why = (
                "the donor's scale seems to be the divisor, not the multiplier"
                if inverse <= ERROR
                else "it was not quantised from the same model as the base, or arrived damaged"
            )
            raise Refused(
                f"{mine.name}, block {row},{column}: the donor's FP8 is not what it would replace "
                f"(relative error {error:.3g}, at most {ERROR}; cosine {cosine:.6f}, at least {COSINE})",
                hint=f"{why}; declare another donor, or apply again if the way to the hub is bad",
            )


def _at(scale: Entry, row: int, column: int) -> tuple[int, int]:
    """Where one scale stands in its tensor, and its bytes."""
    width = scale.size // max(1, scale.shape[0] * scale.shape[1])
    return (row * scale.shape[1] + column) * width, width


def likeness(wanted: list[float], found: list[float]) -> tuple[float, float]:
    """Relative error (Frobenius) and cosine of two blocks; two blocks of zeros are alike."""
    norm, other = math.hypot(*wanted), math.hypot(*found)
    if not math.isfinite(norm + other):
        return math.inf, 0.0
    if not norm or not other:
        return (0.0, 1.0) if norm == other else (math.inf, 0.0)
    error = math.hypot(*(one - two for one, two in zip(wanted, found, strict=True)))
    return error / norm, math.fsum(one * two for one, two in zip(wanted, found, strict=True)) / (norm * other)


def values(dtype: str, data: bytes) -> list[float]:
    """The numbers of little-endian BF16, F16 or F32."""
    if dtype == "F16":
        return list(struct.unpack(f"<{len(data) // 2}e", data))
    if dtype == "BF16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data = bytes(wide)
    return array("f", data).tolist()


@cache
def e4m3() -> tuple[float, ...]:
    """The number of each byte in F8_E4M3: one sign bit, four exponent bits (bias 7), three of mantissa, no infinity."""

    def number(byte: int) -> float:
        sign, exponent, mantissa = -1.0 if byte & 0x80 else 1.0, byte >> 3 & 15, byte & 7
        if (exponent, mantissa) == (15, 7):
            return math.nan
        return sign * (mantissa / 8 * 2.0**-6 if not exponent else (1 + mantissa / 8) * 2.0 ** (exponent - 7))

    return tuple(number(byte) for byte in range(256))
