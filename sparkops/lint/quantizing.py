"""Rules about quantisation, KV types and attention backends, and what the validators want.

It must not know another version than the case's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sparkops.lint.case import Case, Found
from sparkops.lint.spelling import did_you_mean, unless_known
from sparkops.models.architecture.geometry import FLOAT32
from sparkops.models.effective import serves

FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("awq", "awq_marlin", "auto_awq", "cpu_awq"), "awq"),
    **dict.fromkeys(("gptq", "gptq_marlin", "auto_gptq"), "gptq"),
    **dict.fromkeys(("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8"), "modelopt"),
    "fp8": "fp8",
    "compressed-tensors": "compressed-tensors",
}
"""Methods whose checkpoints are their own: named for another family's checkpoint the engine refuses them."""

FROM_CHECKPOINT = (
    *(name for name, family in FAMILIES.items() if family in ("awq", "gptq", "modelopt")),
    "inc",
    "moe_wna16",
    "torchao",
    "fbgemm_fp8",
)
"""Methods that are read from a checkpoint's own files, and do not quantise on the fly."""

NOT_FLOAT32 = ("fp8", "inc", "awq_marlin", "auto_awq", "gptq_marlin", "auto_gptq", "modelopt_fp4")
ACTIVATIONS: Mapping[str, str] = {"modelopt_fp4": "[torch.bfloat16, torch.float16, torch.float8_e4m3fn]"}
MOE_WORDS: Mapping[str, str] = {"16 bit": "MoeUnquantized", "fp8": "MoeFp8", "nvfp4": "MoeNvfp4"}
"""The list of the engine's page that holds the backends of experts in a format."""

AUTOMATIC = ("auto", "humming")
"""Words with which the engine chooses by itself where the format has none of that name."""

MODELOPT_BESIDE = ("", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4")
"""The algorithms that the engine reads from hf_quant_config.json (vLLM model_arch_config_convertor.py)."""

MARLIN = ("inc", "gptq_marlin", "auto_gptq", "awq_marlin", "auto_awq", "compressed-tensors")
MARLIN_COLUMNS = 64
"""The least output columns of one rank's part of a layer that Marlin takes (GPTQ_MARLIN_MIN_THREAD_N in
vLLM quantization/utils/marlin_utils.py)."""


def quantization_unknown(case: Case) -> Iterable[Found]:
    method, known = _asked(case), case.engine.quantization_methods
    drafted = case.line.mapping("speculative-config").get("quantization")
    if isinstance(drafted, str) and drafted.lower() not in known:
        yield Found(
            f"Unknown quantization method: {drafted}. Must be one of {list(known)}",
            "--speculative-config",
            remedy=did_you_mean(drafted, known),
        )
    if not method or method in known or _detected(case):
        return
    others = unless_known(case, "quantization_methods", method)
    yield Found(
        f"Unknown quantization method: {method}. Must be one of {list(known)}{others}",
        "--quantization",
        remedy="" if others else did_you_mean(method, known),
    )


def quantization_deprecated(case: Case) -> Iterable[Found]:
    method = _asked(case) if not _detected(case) else ""
    if method not in case.engine.quantization_methods or case.line.get("allow-deprecated-quantization"):
        return
    if method in case.engine.deprecated_quantization_methods:
        yield Found(f"The quantization method {method} is deprecated", "--quantization")


def quantization_of_another_checkpoint(case: Case) -> Iterable[Found]:
    method, own = _asked(case), case.quantized
    if not method or not own or method not in case.engine.quantization_methods:
        return
    if _detected(case):
        return
    if method in FAMILIES and own in FAMILIES and FAMILIES[method] != FAMILIES[own]:
        yield Found(
            f"Quantization method specified in the model config ({own}) does not match the quantization method "
            f"specified in the quantization argument ({method})",
            "--quantization",
            remedy="take --quantization out: the engine finds the checkpoint's own method",
        )


def modelopt_algorithm_refused(case: Case) -> Iterable[Found]:
    declared = case.quantisation
    if declared.beside and declared.method == "modelopt" and declared.algorithm.upper() not in MODELOPT_BESIDE:
        yield Found(f"Unknown ModelOpt quant algo: {declared.algorithm} (hf_quant_config.json)")


def quantization_without_checkpoint(case: Case) -> Iterable[Found]:
    method = _asked(case)
    if case.geometry is None or case.quantized or method not in case.engine.quantization_methods:
        return
    if method in FROM_CHECKPOINT:
        yield Found(
            f"Cannot find the config file for {method}: the checkpoint is not quantised",
            "--quantization",
            remedy="take --quantization out, or name a checkpoint of that method",
        )
    elif method == "online" and not case.line.get("quantization-config"):
        yield Found(
            "OnlineQuantizationConfig is missing its 'args': online quantisation needs a scheme",
            "--quantization",
            remedy="take a shorthand like fp8_per_block, or add --quantization-config",
        )


def quantization_config_refused(case: Case) -> Iterable[Found]:
    """The schemes of online quantisation under `linear`, `moe` and `targets`."""
    given = case.line.get("quantization-config")
    for fault in _scheme_faults(case, given) if isinstance(given, Mapping) else ():
        yield Found(f"1 validation error for QuantizationConfigArgs: {fault}", "--quantization-config")


def quantization_config_idle(case: Case) -> Iterable[Found]:
    given = case.line.get("quantization-config")
    if given and case.geometry is not None and not case.quantized and not _asked(case):
        yield Found(
            "--quantization-config is not read without --quantization: the model is served as it is stored",
            "--quantization-config",
        )


def _scheme_faults(case: Case, given: Mapping[str, object]) -> Iterable[str]:
    words, fields = case.engine.words, case.engine.configurations.get("QuantizationConfigArgs", {})
    keys, shorthands = words.get("OnlineKeys", ()), words.get("OnlineShorthands", ())
    for part in ("linear", "moe"):
        scheme = given.get(part)
        if isinstance(scheme, str) and scheme in shorthands:
            if scheme not in words.get(f"Online{part.title()}", ()):
                yield f"{part}: online shorthand {scheme!r} does not define a {part} spec"
        elif isinstance(scheme, str) and keys and scheme not in keys:
            yield f"{part}: unknown quantization name {scheme!r}; expected one of {', '.join((*shorthands, *keys))}"
        for side, key in scheme.items() if isinstance(scheme, Mapping) else ():
            if side not in ("weight", "activation"):
                yield f"{part}.{side}: Unexpected keyword argument"
            elif key is not None and keys and key not in keys:
                yield f"{part}.{side}: unknown quantization name {key!r}; expected one of {', '.join(keys)}"
    targets = given.get("targets")
    if targets is not None and "targets" in fields:
        yield from _target_faults(targets, shorthands)


def _target_faults(targets: object, shorthands: tuple[str, ...]) -> Iterable[str]:
    if not isinstance(targets, Mapping):
        yield f"targets must be a dict, got {targets!r}"
        return
    for pattern, scheme in targets.items():
        if scheme not in shorthands:
            yield (
                f"targets[{pattern}] = {scheme} is not a valid online shorthand name; "
                f"expected one of {', '.join(shorthands)}"
            )
        try:
            re.compile(pattern.removeprefix("re:") if pattern.startswith("re:") else "")
        except re.error as error:
            yield f"targets key {pattern} is not a valid regex: {error}"


def moe_backend_refused(case: Case) -> Iterable[Found]:
    backend, geometry = str(case.line.get("moe-backend") or "auto").lower().replace("-", "_"), case.geometry
    if backend in AUTOMATIC or geometry is None or not geometry.experts or case.line.get("quantization"):
        return
    if case.line.get("quantization-config"):
        return
    stored = "nvfp4" if case.nvfp4 else case.quantisation.formats.get("experts", "") if case.quantized else "16 bit"
    known = case.engine.words.get(MOE_WORDS.get(stored, ""), ())
    if known and backend not in known:
        yield Found(
            f"moe_backend={backend!r} is not supported for {stored} MoE. Expected one of {', '.join(known)}",
            "--moe-backend",
            remedy="take --moe-backend out: the engine finds one for the checkpoint",
        )


def dtype_of_quantization(case: Case) -> Iterable[Found]:
    resolved = case.engine.quantization.get(case.quantized, case.quantized)
    if case.effective.dtype in FLOAT32 and resolved in NOT_FLOAT32:
        supported = ACTIVATIONS.get(resolved, "[torch.bfloat16, torch.float16]")
        yield Found(
            f"torch.float32 is not supported for quantization method {resolved}. Supported dtypes: {supported}",
            "--dtype",
        )


def hybrid_checkpoint(case: Case) -> Iterable[Found]:
    stored = case.quantisation
    parts = [part for part, word in stored.formats.items() if word == "fp8"]
    if stored.method == "auto-round" and (parts or "hybrid" in stored.steps):
        fp8 = " and ".join(parts).replace("_", " ") or "layers"
        noted = ", as the build noted in its config.json" if "hybrid" in stored.steps else ""
        yield Found(
            f"the checkpoint has {fp8} in FP8 beside its {stored.bits} bits and is not repacked{noted}: the engine "
            "refuses it when it loads",
            severity="warning" if case.patched else None,
        )


def head_int8_unread(case: Case) -> Iterable[Found]:
    stored = case.quantisation
    quantised = stored.formats.get("head") == "int8" or "lm_head" in stored.steps
    if stored.method == "auto-round" and quantised and not case.patched:
        noted = ", as the build noted in its config.json" if "lm_head" in stored.steps else ""
        yield Found(f"the checkpoint has an INT8 head and is not repacked{noted}: the engine refuses it when it loads")


def nvfp4_moe_backend(case: Case) -> Iterable[Found]:
    backend = case.line.get("moe-backend") or "auto"
    if case.nvfp4 and case.geometry is not None and case.geometry.experts and backend != "marlin":
        takes = "the engine may take a CUTLASS kernel" if backend == "auto" else f"{backend} was asked for"
        yield Found(
            f"NVFP4 experts with --moe-backend {backend}: {takes}. The vendor's recipe of July 2026 serves such models "
            "without Marlin; reports of August 2026 have wrong answers and stops on a GB10",
            "--moe-backend",
        )


def marlin_columns(case: Case) -> Iterable[Found]:
    geometry, ranks = case.geometry, case.effective.tensor_parallel
    resolved = case.engine.quantization.get(case.quantized, case.quantized)
    if geometry is None or not geometry.linear_key_dim or ranks < 2 or resolved not in MARLIN:
        return
    columns = 2 * geometry.linear_value_heads // ranks
    if columns < MARLIN_COLUMNS:
        yield Found(
            f"in_proj_ba has {columns} output columns on each of {ranks} ranks and Marlin takes {MARLIN_COLUMNS} or "
            "more; the load fails where the checkpoint quantises it",
            "--tensor-parallel-size",
        )


def kv_dtype_unknown(case: Case) -> Iterable[Found]:
    dtype, known = case.effective.kv_cache_dtype, case.engine.kv_cache_dtypes
    if dtype not in known:
        yield Found(
            f"Invalid kv_cache_dtype: {dtype!r}. Valid values are: {list(known)}",
            "--kv-cache-dtype",
            remedy=did_you_mean(dtype, known),
        )


def kv_dtype_on_hybrid(case: Case) -> Iterable[Found]:
    turbo = case.effective.kv_cache_dtype.startswith("turboquant")
    if turbo and case.hybrid:
        yield Found("TurboQuant KV cache is not supported for hybrid (attention + Mamba) models", "--kv-cache-dtype")


def no_attention_backend(case: Case) -> Iterable[Found]:
    now = case.effective
    if (
        now.attention_backend is not None
        or now.kv_cache_dtype not in case.engine.kv_cache_dtypes
        or not _ordinary(case)
    ):
        return
    if any(now.kv_cache_dtype in takes for takes in case.engine.attention.values()) or _served_elsewhere(case):
        return
    yield Found(
        f"No valid attention backend found for cuda with kv_cache_dtype={now.kv_cache_dtype}: none takes it on a GB10 "
        f"in {case.engine.version}",
        "--kv-cache-dtype",
        remedy="take fp8, or leave it at 16 bit",
    )


def attention_backend_refused(case: Case) -> Iterable[Found]:
    name, now, engine = case.effective.attention_backend, case.effective, case.engine
    given = case.line.get("attention-backend") or case.line.mapping("attention-config").get("backend")
    if name is None or given is None:
        return
    if name not in engine.attention_backends:
        others = unless_known(case, "attention_backends", name)
        yield Found(
            f"Unknown attention backend: '{given}'. Valid options are: {', '.join(engine.attention_backends)}{others}",
            "--attention-backend",
            remedy="" if others else did_you_mean(name, engine.attention_backends),
        )
        return
    takes = engine.attention.get(name)
    if takes is not None and case.latent:
        reason = "MLA not supported"
    elif not _ordinary(case):
        return
    elif takes is not None and not serves(name, takes, now.kv_cache_dtype, now.dtype):
        reason = "kv_cache_dtype not supported" if now.kv_cache_dtype not in takes else "dtype not supported"
    else:
        reason = engine.attention_refused.get(name, "")
    if reason:
        yield Found(
            f"Selected backend AttentionBackendEnum.{name} is not valid for this configuration. Reason: [{reason!r}]"
            + (f" (kv_cache_dtype {now.kv_cache_dtype})" if "kv_cache" in reason else ""),
            "--attention-backend",
            remedy="take --attention-backend out: the engine finds one that serves",
        )


def _asked(case: Case) -> str:
    return str(case.line.get("quantization") or "").lower()


def _detected(case: Case) -> bool:
    """Whether the engine takes the checkpoint's own method and ignores the flag (override_quantization_method of vLLM
    0.19.1 to 0.32.0 quantization/inc, modelopt, deepseek_v4_fp8)."""
    stored, listed = case.quantisation, case.engine.quantization_methods
    if stored.method.startswith("modelopt"):
        algorithm = stored.algorithm.upper()
        return algorithm in ("FP8", "MIXED_PRECISION") or "FP4" in algorithm or "MXFP8" in algorithm
    packed = stored.method == "fp8" and any(each.startswith("DeepseekV4") for each in case.architectures)
    return case.quantized == "auto-round" or (packed and "deepseek_v4_fp8" in listed)


def _ordinary(case: Case) -> bool:
    """Whether attention is that of keys and values by head, for which the engine's table of backends holds."""
    return case.geometry is not None and not case.geometry.gaps and case.geometry.plain


def _served_elsewhere(case: Case) -> bool:
    """Whether a type belongs to a backend that the table does not list, so that nothing certain is known."""
    return (
        not case.effective.kv_cache_dtype.startswith(("fp8", "nvfp4"))
        or case.effective.kv_cache_dtype == "nvfp4_4over6"
    )
