"""The step `repack`: AutoRound or GPTQ integers, FP8 blocks and an INT8 head as one compressed-tensors checkpoint.

Nothing is rounded: words are moved, scales are moved or renamed, and what is left out (`qzeros`, `g_idx`) is proven to
say nothing. All or nothing, by headers and configuration alone:

    qweight, scales, qzeros, g_idx   → weight_packed, weight_scale, weight_shape         pack-quantized, 4 or 8 bits
    weight F8_E4M3, weight_scale_inv → weight, weight_scale                              float-quantized, 128 x 128
    weight I8, weight_scale F32      → weight_packed, weight_scale, weight_shape         pack-quantized, 8 bits, a row

What each of these needs was read in vllm 0.33.0 (`compressed_tensors.py`: `_get_scheme_from_parts`, `get_quant_method`,
`CompressedTensorsMoEMethod`; `schemes/compressed_tensors_wNa16.py`, `_w8a8_fp8.py`; `vocab_parallel_embedding.py`) and
compressed-tensors 0.17.0 and 0.20.0: an int8 head is served by its weight-only kernel only in the packed format; scales
may be of any float type, the engine keeps those of integers in its own compute type (as it does for GPTQ) and those of
FP8 blocks in F32. That vLLM really serves the result is not verified here.
"""

from collections.abc import Iterable, Sequence
from typing import NoReturn

from sparkops.core.messages import Refused
from sparkops.programs.build.autoround_config import config_of
from sparkops.programs.build.packed_tensors import InputOrderCheck, Offset, Shape, SymmetricZerosCheck, Transposed
from sparkops.programs.build.quantization_config import LayerSettings, Scheme, layer_settings, quantization_config
from sparkops.programs.build.step_hybrid import FUSED
from sparkops.programs.build.tensor_plan import PlannedTensor, TensorPlan

FP8_BLOCK = 128
FLOATS = ("F32", "F16", "BF16")
_PIECES = frozenset(("weight", "bias", "qweight", "scales", "qzeros", "g_idx", "weight_scale", "weight_scale_inv"))
_STRANGE = frozenset(("weight_packed", "weight_shape", "weight_zero_point", "weight_global_scale", "weight_scale_2",
                      "input_scale", "input_global_scale"))  # fmt: skip

Module = dict[str, PlannedTensor]


def apply(plan: TensorPlan, options: object) -> None:
    """Repack the whole plan, or raise Refused with the layer that stands in the way."""
    if options != "compressed-tensors":
        raise Refused.of("repack-format-unknown", format=str(options))
    declared = layer_settings(config_of(plan))
    modules = _modules(plan)
    schemes: dict[str, Scheme | None] = {}
    made: dict[str, list[PlannedTensor]] = {}
    for name, pieces in modules.items():
        scheme = _repack(name, pieces, declared, plan, made)
        if scheme is not None or _is_linear(name, pieces):
            schemes[name] = scheme
    if not any(scheme is not None and scheme.packed for scheme in schemes.values()):
        raise Refused.of("repack-nothing-to-repack")
    _check_fused(schemes)
    plan.files = {
        file: [new for entry in entries for new in made.get(entry.name, (entry,))]
        for file, entries in plan.files.items()
    }
    plan.config = {**plan.config, "quantization_config": quantization_config(schemes)}
    inner = plan.config.get("text_config")
    if isinstance(inner, dict) and "quantization_config" in inner:
        plan.config["text_config"] = {key: value for key, value in inner.items() if key != "quantization_config"}
    schemes_text = ", ".join(f"{scheme}: {count}" for scheme, count in _layers_by_scheme(schemes).items())
    plan.notice("build-repack-layers", schemes=schemes_text)


def _modules(plan: TensorPlan) -> dict[str, Module]:
    """The tensors of each layer by the last word of their names; what belongs to none is left alone."""
    found: dict[str, Module] = {}
    for entries in plan.files.values():
        for entry in entries:
            name, _, piece = entry.name.rpartition(".")
            if piece in _STRANGE:
                raise Refused.of("repack-tensor-form-unknown", tensor=entry.name)
            if piece in _PIECES:
                found.setdefault(name, {})[piece] = entry
            elif entry.dtype not in (*FLOATS, "I64", "BOOL"):
                raise Refused.of("repack-tensor-unknown", tensor=entry.name, dtype=entry.dtype)
    return found


def _repack(
    name: str, pieces: Module, declared: LayerSettings, plan: TensorPlan, made: dict[str, list[PlannedTensor]]
) -> Scheme | None:
    """How one layer is quantized, with what comes in place of its tensors added to `made`; None for a 16-bit one."""
    weight = pieces.get("weight")
    if "qweight" in pieces:
        return _gptq(name, pieces, declared, plan, made)
    if weight is not None and weight.dtype == "F8_E4M3":
        return _fp8(name, pieces, made)
    if weight is not None and weight.dtype == "I8":
        return _int8(name, pieces, made)
    left = sorted(set(pieces) - {"weight", "bias"})
    if left or (weight is not None and weight.dtype not in FLOATS):
        pieces_left = left or [f"weight {weight.dtype if weight else ''}"]
        raise Refused.of("repack-layer-form-unknown", layer=name, tensors=pieces_left)
    return None


def _is_linear(name: str, pieces: Module) -> bool:
    """Whether a 16-bit layer is one that could be quantized, so that it has to be named as left alone."""
    weight = pieces.get("weight")
    return weight is not None and len(weight.shape) == 2 and not name.endswith("embed_tokens")


def _gptq(
    name: str, pieces: Module, declared: LayerSettings, plan: TensorPlan, made: dict[str, list[PlannedTensor]]
) -> Scheme:
    _only(name, pieces, needed=("qweight", "scales", "qzeros"), besides=("g_idx", "bias"))
    bits, group = declared.of(name)
    qweight, scales, qzeros = pieces["qweight"], pieces["scales"], pieces["qzeros"]
    if qweight.dtype != "I32" or len(qweight.shape) != 2 or scales.dtype not in FLOATS or qzeros.dtype != "I32":
        raise Refused.of("repack-gptq-types", layer=name)
    words, outputs = qweight.shape
    inputs = words * 32 // bits
    size = inputs if group == -1 else group
    if not words or not outputs or inputs % size or scales.shape != (inputs // size, outputs):
        raise Refused.of(
            "repack-shapes-contradict-config",
            layer=name,
            qweight=list(qweight.shape),
            scales=list(scales.shape),
            bits=bits,
            group_size=group,
        )
    if len(qzeros.shape) != 2 or qzeros.shape[0] != inputs // size:
        raise Refused.of("repack-zeros-shape", layer=name, qzeros=list(qzeros.shape), scales=list(scales.shape))
    plan.checks.append(SymmetricZerosCheck(qzeros, bits, declared.stored_zero(bits)))
    if "g_idx" in pieces:
        order = pieces["g_idx"]
        if order.dtype != "I32" or order.shape != (inputs,):
            shape = list(order.shape)
            raise Refused.of("repack-order-shape", layer=name, dtype=order.dtype, shape=shape, inputs=inputs)
        plan.checks.append(InputOrderCheck(order, size))
        made[order.name] = []
    made[qweight.name] = _packed(name, PlannedTensor("", "I32", (outputs, words), Transposed(qweight)), inputs)
    made[scales.name] = [
        PlannedTensor(f"{name}.weight_scale", scales.dtype, (outputs, inputs // size), Transposed(scales)),
    ]
    made[qzeros.name] = []
    return Scheme("int", bits, group)


def _fp8(name: str, pieces: Module, made: dict[str, list[PlannedTensor]]) -> Scheme:
    _only(name, pieces, needed=("weight", "weight_scale_inv"), besides=("bias",))
    weight, scale = pieces["weight"], pieces["weight_scale_inv"]
    blocks = tuple(-(-each // FP8_BLOCK) for each in weight.shape)
    if len(weight.shape) != 2 or scale.shape != blocks or scale.dtype not in FLOATS:
        _refuse_scales("repack-fp8-scales", name, weight, scale)
    made[scale.name] = [scale.renamed(f"{name}.weight_scale")]
    return Scheme("float", 8, FP8_BLOCK)


def _int8(name: str, pieces: Module, made: dict[str, list[PlannedTensor]]) -> Scheme:
    _only(name, pieces, needed=("weight", "weight_scale"), besides=("bias",))
    weight, scale = pieces["weight"], pieces["weight_scale"]
    if len(weight.shape) != 2 or scale.shape != (weight.shape[0], 1) or scale.dtype not in FLOATS:
        _refuse_scales("repack-int8-scales", name, weight, scale)
    outputs, inputs = weight.shape
    if inputs % 4 or not weight.size:
        raise Refused.of("repack-int8-width", layer=name, inputs=inputs)
    made[weight.name] = _packed(name, PlannedTensor("", "I32", (outputs, inputs // 4), Offset(weight)), inputs)
    return Scheme("int", 8, -1)


def _refuse_scales(id: str, name: str, weight: PlannedTensor, scale: PlannedTensor) -> NoReturn:
    scales = f"{scale.dtype} {list(scale.shape)}"
    raise Refused.of(id, layer=name, shape=list(weight.shape), scales=scales)


def _packed(name: str, words: PlannedTensor, inputs: int) -> list[PlannedTensor]:
    shape = PlannedTensor(f"{name}.weight_shape", "I64", (2,), Shape(words.shape[0], inputs))
    return [words.renamed(f"{name}.weight_packed"), shape]


def _only(name: str, pieces: Module, needed: Sequence[str], besides: Iterable[str]) -> None:
    missing = [piece for piece in needed if piece not in pieces]
    if missing:
        raise Refused.of("repack-layer-tensor-missing", layer=name, tensors=sorted(pieces), missing=missing)
    more = sorted(set(pieces) - {*needed, *besides})
    if more:
        raise Refused.of("repack-layer-tensor-unexpected", layer=name, unexpected=more, expected=list(needed))


def _check_fused(schemes: dict[str, Scheme | None]) -> None:
    """vLLM reads one member of a fused layer and one expert of a layer, and assumes the same of the rest."""
    first: dict[str, str] = {}
    for name in schemes:
        stem, _, leaf = name.rpartition(".")
        experts, _, number = stem.rpartition(".")
        if number.isdecimal() and experts.endswith(".experts"):
            key = experts
        else:
            members = next((each for each in FUSED if leaf in each), None)
            if members is None:
                continue
            key = f"{stem}.{members[0]}"
        other = first.setdefault(key, name)
        if schemes[other] != schemes[name]:
            raise Refused.of(
                "repack-fused-layers-differ",
                layer=name,
                scheme=_description(schemes[name]),
                other=other,
                other_scheme=_description(schemes[other]),
            )


def _description(scheme: Scheme | None) -> str:
    return "16 bits" if scheme is None else scheme.description


def _layers_by_scheme(schemes: dict[str, Scheme | None]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for scheme in schemes.values():
        if scheme is not None:
            counts[scheme.description] = counts.get(scheme.description, 0) + 1
    return counts
