"""The step `hybrid`: chosen 16-bit linear layers of a quantised base become the FP8 blocks of a donor.

All or nothing, decided from headers: which layers there must be follows from config.json. A gate then holds samples
of the donor's numbers against the base's, which also proves the direction of the scale and the common origin of both.
"""

import math
import re
import struct
import zlib
from array import array
from collections.abc import Iterable, Mapping
from functools import cache

from sparkops.core.messages import Refused
from sparkops.programs.build.autoround_config import bits, config_of, is_autoround, note_step
from sparkops.programs.build.tensor_plan import Check, DonorTensors, PlannedTensor, Read, TensorPlan
from sparkops.safetensors.parts import module_of, part_of

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
"""Layers that the engine runs as one, so they must share one quantization.

Source: `packed_modules_mapping` of vLLM's qwen3_5 and qwen3_vl.
"""
_LAYER = re.compile(r"^(.*\.)?layers\.\d+\.")


def apply(plan: TensorPlan, options: Mapping[str, object]) -> None:
    """Change the plan. `options`: `donor` (number in the plan's), `layers` (`shared_expert`, or a pattern)."""
    donor, layers = plan.donors[int(str(options["donor"]))], str(options.get("layers") or SHARED)
    quantization = config_of(plan)
    if not is_autoround(quantization):
        raise Refused.of("hybrid-base-not-autoround", method=str(quantization.get("quant_method")))
    modules = _chosen(plan, layers)
    _check_pairs(plan, donor, modules)
    _check_fused(plan, modules)
    _check_declared(quantization, modules)
    _replace(plan, donor, modules)
    plan.checks += _norm_checks(plan, donor)
    block = [SIDE, SIDE]
    note_step(
        plan,
        "hybrid",
        {"donor": donor.label, "modules": len(modules), "weight_block_size": block, "layers": layers,
         "format": "F8_E4M3 weight times weight_scale_inv per block"},
    )  # fmt: skip
    plan.notice("build-hybrid-layers", layers=len(modules), donor=donor.label)


def _chosen(plan: TensorPlan, layers: str) -> list[str]:
    """The modules to replace: exactly those that config.json says there are. Raises Refused."""
    try:
        pattern = re.compile(_SHARED_PATTERN if layers == SHARED else layers)
    except re.error as error:
        raise Refused.of("hybrid-layers-invalid", pattern=layers, text=str(error)) from None
    present = {module_of(name) for name in plan.tensors()}
    linear = {each for each in present if each.rpartition(".")[2].find("proj") >= 0 and _LAYER.match(each)}
    matched = {each for each in linear if pattern.search(each) and part_of(each + ".weight") not in ("mtp", "vision")}
    routed = sorted(each for each in matched if part_of(each + ".") == "experts")
    if routed:
        raise Refused.of("hybrid-routed-experts", layers=routed)
    expected = {each for each in _expected(plan, linear) if pattern.search(each)}
    if not expected:
        raise Refused.of("hybrid-no-layer-matches", pattern=layers)
    missing, unexpected = sorted(expected - matched), sorted(matched - expected)
    if missing or unexpected:
        raise Refused.of(
            "hybrid-layers-missing" if missing else "hybrid-layers-unexpected",
            expected=len(expected),
            found=len(matched),
            layers=missing or unexpected,
        )
    return sorted(expected)


def _expected(plan: TensorPlan, linear: Iterable[str]) -> set[str]:
    """Every linear layer outside the routed experts that the model has by its config.json."""
    text = plan.text_config
    count = text.get("num_hidden_layers")
    if type(count) is not int or not 0 < count < 10_000:
        raise Refused.of("hybrid-config-without-layers")
    types = text.get("layer_types")
    if not isinstance(types, list) or len(types) != count:
        given = text.get("full_attention_interval")
        every = given if isinstance(given, int) and given > 0 else 4
        types = ["linear_attention" if (n + 1) % every else "full_attention" for n in range(count)]
    found = {match[1] or "" for each in linear if "mtp." not in each and (match := _LAYER.match(each))}
    prefixes = sorted(each for each in found if "visual" not in each and "vision" not in each)
    if len(prefixes) != 1:
        raise Refused.of("hybrid-layer-names-unknown", prefixes=prefixes)
    shared = _MLP if text.get("shared_expert_intermediate_size") else ()
    return {
        f"{prefixes[0]}layers.{number}.{each}"
        for number, sort in enumerate(types)
        for each in (*_MIXERS.get(str(sort), ()), *shared)
    }


def _check_pairs(plan: TensorPlan, donor: DonorTensors, modules: list[str]) -> None:
    """Each module is in 16 bit in the base and in FP8 blocks of the same shape in the donor. Raises Refused."""
    present = plan.tensors()
    faults: list[tuple[str, str, dict[str, object]]] = []
    for module in modules:
        if (entry := present.get(f"{module}.weight")) is None:
            faults.append((module, "hybrid-base-already-quantized", {}))
            continue
        fault = _mismatch(entry, donor.tensors.get(entry.name), donor.tensors.get(f"{module}.weight_scale_inv"))
        if fault is not None:
            faults.append((module, *fault))
    if faults:
        layer, id, args = faults[0]
        about = {"count": len(faults), "total": len(modules), "donor": donor.label, "layer": layer}
        raise Refused(id, {**about, **args})


def _mismatch(
    entry: PlannedTensor, weight: PlannedTensor | None, scale: PlannedTensor | None
) -> tuple[str, dict[str, object]] | None:
    """Why a layer cannot be taken from the donor: the error's id and arguments."""
    shape = list(entry.shape)
    if entry.dtype not in SIXTEEN or len(shape) != 2:
        return "hybrid-base-not-16-bit", {"dtype": entry.dtype, "shape": shape}
    if weight is None:
        return "hybrid-donor-layer-missing", {}
    if weight.dtype != "F8_E4M3":
        return "hybrid-donor-not-fp8", {"dtype": weight.dtype}
    if scale is None:
        return "hybrid-donor-scale-missing", {}
    if weight.shape != entry.shape:
        return "hybrid-shapes-differ", {"shape": shape, "donor_shape": list(weight.shape)}
    blocks = [-(-each // SIDE) for each in weight.shape]
    if list(scale.shape) != blocks or scale.dtype not in SCALES:
        return "hybrid-donor-scale-shape", {"scale": f"{scale.dtype} {list(scale.shape)}", "expected": blocks}
    return None


def _check_fused(plan: TensorPlan, modules: list[str]) -> None:
    chosen, present = set(modules), {module_of(name) for name in plan.tensors()}
    for module in modules:
        parent, _, leaf = module.rpartition(".")
        for group in FUSED:
            others = [f"{parent}.{each}" for each in group if leaf in group and f"{parent}.{each}" in present]
            left = [each for each in others if each not in chosen]
            if left:
                raise Refused.of("hybrid-fused-layers-split", layer=module, other=left[0], fused=list(group))


def _check_declared(quantization: dict[str, object], modules: list[str]) -> None:
    """The engine expects FP8 only in layers that are declared as not quantized."""
    covered = [each for each in modules if bits(quantization, each) < 16]
    if covered:
        raise Refused.of("hybrid-config-contradicts-layers", layers=covered)


def _replace(plan: TensorPlan, donor: DonorTensors, modules: list[str]) -> None:
    chosen = {f"{each}.weight" for each in modules}
    for file, entries in plan.files.items():
        if not any(entry.name in chosen for entry in entries):
            continue
        after: list[PlannedTensor] = []
        for entry in entries:
            if entry.name not in chosen:
                after.append(entry)
                continue
            weight, scale = donor.tensors[entry.name], donor.tensors[f"{module_of(entry.name)}.weight_scale_inv"]
            after += [weight, scale]
            plan.checks.append(SampleCheck(entry, weight, scale))
        plan.files[file] = after


def _norm_checks(plan: TensorPlan, donor: DonorTensors) -> list[Check]:
    """The norms of the first and the last layer, which no quantisation touches."""
    present = plan.tensors()
    norms = [name for name in present if name.endswith(".input_layernorm.weight") and part_of(name) == "norms"]
    norms.sort(key=lambda name: [int(each) for each in re.findall(r"\d+", name)])
    checks: list[Check] = []
    for name in dict.fromkeys([*norms[:1], *norms[-1:]]):
        mine, other = present[name], donor.tensors.get(name)
        if other is not None and (mine.dtype, mine.shape) == (other.dtype, other.shape):
            checks.append(EqualTensorCheck(mine, other, donor.label))
    if not checks:
        plan.notice("build-hybrid-no-norms", donor=donor.label)
    return checks


class EqualTensorCheck(Check):
    """A tensor that both have must be the same, byte by byte."""

    def __init__(self, mine: PlannedTensor, other: PlannedTensor, label: str) -> None:
        super().__init__(mine, other)
        self._label = label

    def check(self, read: Read) -> None:
        mine, other = self.inputs
        if read(0, 0, mine.size) != read(1, 0, other.size):
            raise Refused.of("hybrid-norms-differ", tensor=mine.name, donor=self._label)


class SampleCheck(Check):
    """Two blocks of a weight with its scale (inputs 1 and 2), the last one and one more, dequantized and compared with
    what they replace (input 0)."""

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
            raise Refused.of(
                "hybrid-scale-inverse" if inverse <= ERROR else "hybrid-sample-differs",
                tensor=mine.name,
                block=f"{row},{column}",
                error=f"{error:.3g}",
                most=ERROR,
                cosine=f"{cosine:.6f}",
                least=COSINE,
            )


def _at(scale: PlannedTensor, row: int, column: int) -> tuple[int, int]:
    """Offset of one scale in its tensor, and its bytes."""
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
