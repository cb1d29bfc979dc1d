"""Rules about memory, lengths, graphs, parsers, loading and the environment.

It must not know another version than the case's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from sparkops.lint.case import Case, Found
from sparkops.lint.spelling import did_you_mean, unless_known
from sparkops.models.architecture import expressions
from sparkops.models.effective import truthy
from sparkops.models.engine import Engine, spans
from sparkops.models.engine_pages import version_key
from sparkops.models.parsers import family_of, usual

UTILISATION, LENGTH = "--gpu-memory-utilization", "--max-model-len"
FRACTION, FRACTION_OF_SEVERAL, FREEZING_FRACTION = 0.85, 0.80, 0.90
"""Memory fractions that leave a Spark little air, alone and in a group, and above which it froze."""

REPLACED_VARIABLES = {
    "VLLM_USE_FLASHINFER_MOE_": "--moe-backend says it now",
    "VLLM_FLASHINFER_MOE_BACKEND": "--moe-backend says it now",
    "VLLM_MXFP4_USE_MARLIN": "--moe-backend says it now",
    "VLLM_NVFP4_GEMM_BACKEND": "--linear-backend says it now",
    "VLLM_ATTENTION_BACKEND": "--attention-backend says it now",
    "VLLM_FLASH_ATTN_VERSION": "--attention-config.flash_attn_version says it now",
    "VLLM_USE_V1": "there is one engine now",
}
"""What became of variables that were taken out, by the beginning of their names (vLLM 0.19.1 to 0.33.0)."""


def memory_fraction(case: Case) -> Iterable[Found]:
    now = case.effective
    used, several = now.gpu_memory_utilization, now.nnodes > 1
    limit = FRACTION_OF_SEVERAL if several else FRACTION
    if not limit < used <= 1:
        return
    origin = "" if case.line.get("gpu-memory-utilization") is not None else f" ({case.engine.version}'s default)"
    yield Found(
        f"gpu_memory_utilization {used:g}{origin}: GPU and system share one memory, and a Spark that runs out "
        "of it freezes",
        UTILISATION,
        None if used > FREEZING_FRACTION else "warning",
        remedy=f"set {UTILISATION} to {limit:g} or less",
    )


def kv_cache_bytes(case: Case) -> Iterable[Found]:
    size = case.line.get("kv-cache-memory-bytes")
    if isinstance(size, int) and size <= 0:
        yield Found(
            f"kv_cache_memory_bytes is {size}: the engine takes it, and fails when it makes the cache",
            "--kv-cache-memory-bytes",
        )


def kv_cache_bytes_unbounded(case: Case) -> Iterable[Found]:
    size = case.line.get("kv-cache-memory-bytes")
    if isinstance(size, int) and size > 0:
        yield Found(
            f"--kv-cache-memory-bytes {size} replaces what {UTILISATION} and profiling would have left: nothing else "
            "bounds it",
            "--kv-cache-memory-bytes",
        )


def length_over_native(case: Case) -> Iterable[Found]:
    given, geometry = case.line.get("max-model-len"), case.geometry
    if not isinstance(given, int) or geometry is None or not geometry.max_positions:
        return
    if truthy(case.variables.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN")):
        return
    native = _native(case, geometry.longest(case.engine.law("yarn_raises_length")))
    if native is not None and given > native:
        yield Found(
            f"User-specified max_model_len ({given}) is greater than the derived max_model_len "
            f"(max_position_embeddings={native})",
            LENGTH,
            remedy=f"lower it to {native}, or stretch positions by --hf-overrides and set "
            "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
        )


def _native(case: Case, positions: int) -> int | None:
    """The length that the engine derives; None where overrides make it something that is not known here."""
    overrides = case.line.get("hf-overrides")
    if not overrides:
        return positions
    text = overrides.get("text_config") if isinstance(overrides, Mapping) else None
    if not isinstance(text, Mapping) or set(overrides) != {"text_config"}:
        if set(overrides) == {"max_position_embeddings"} and case.geometry is not None and case.geometry.nested:
            return positions  # the length is read from text_config, which such an override does not reach
        return None if "rope" in str(overrides) or "position" in str(overrides) or not text else positions
    longer = text.get("max_position_embeddings")
    if isinstance(longer, int):
        return longer
    rope: object = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, Mapping):
        return positions
    if "rope_scaling" in text:
        return None
    factor, first = rope.get("factor"), rope.get("original_max_position_embeddings") or positions
    if not isinstance(factor, (int, float)) or not isinstance(first, int):
        return None
    return int(first * factor) if case.engine.law("yarn_raises_length") else positions


def capture_sizes(case: Case) -> Iterable[Found]:
    config = case.line.mapping("compilation-config")
    sizes = case.line.get("cudagraph-capture-sizes") or config.get("cudagraph_capture_sizes")
    largest = case.line.get("max-cudagraph-capture-size") or config.get("max_cudagraph_capture_size")
    if not isinstance(sizes, (list, tuple)) or not sizes or not all(isinstance(each, int) for each in sizes):
        return
    if isinstance(largest, int) and largest != max(sizes):
        yield Found(
            f"customized max_cudagraph_capture_size(={largest}) should be consistent with the max value of "
            f"cudagraph_capture_sizes(={max(sizes)})",
            "--max-cudagraph-capture-size",
        )


def architecture_absent(case: Case) -> Iterable[Found]:
    """A model that generates text and of which the engine's registry has no class."""
    named = [each for each in case.architectures if each.endswith(("ForCausalLM", "ForConditionalGeneration"))]
    known = case.engine.architectures
    if not named or not case.engine.exact or case.line.get("model-impl") in ("transformers", "terratorch"):
        return
    if any(each in known for each in case.architectures):
        return
    held = spans("architectures", named[0])
    where = "no listed version has one" if held is None else f"{held[0]} to {held[1]} have one"
    yield Found(
        f"vLLM {case.engine.version} has no class for {named[0]} ({where}): it tries the code of transformers, and "
        "refuses the model where that does not serve it",
        "--model",
        remedy=f"take an image of vLLM {held[1]}" if held else "",
    )


def architecture_refuses(case: Case) -> Iterable[Found]:
    """What the engine's class of the model raises at the start, as its description says."""
    refused = case.geometry.refuses if case.geometry is not None else ()
    known = _of_line(case) if refused else {}
    for each in refused:
        line = each.get("line", "1")
        if expressions.value(line, {**dict.fromkeys(expressions.names(line)), **known}):
            yield Found(each["says"], each.get("about", ""))


def _of_line(case: Case) -> Mapping[str, object]:
    """The names of a refusal's expression: flags, what the engine makes of the line, the formats of the weights."""
    geometry, run = case.geometry, case.effective
    tensors = geometry.tensors if geometry is not None else ()
    kept = {each.kind for each in geometry.cached} if geometry is not None else set()
    return {
        **{flag.replace("-", "_"): value for flag, value in case.line.arguments.items()},
        **{each.name: getattr(run, each.name) for each in fields(run)},
        "flags": case.line.arguments,
        "method": run.speculative.method if run.speculative else "",
        "stored": case.quantisation.method,
        "known": geometry is not None and not geometry.gaps,
        "experts": geometry.experts if geometry is not None else 0,
        "latent": bool(kept & {"latent", "sparse", "packed"}),
        "sparse": "sparse" in kept,
        "ordinary_latent": "latent" in kept,
        "engine": version_key(case.engine.version),
        "formats": {each.part: case.quantisation.format(each) for each in tensors},
    }


def tool_parser_missing(case: Case) -> Iterable[Found]:
    if case.line.get("enable-auto-tool-choice") and not case.line.get("tool-call-parser"):
        yield Found("Error: --enable-auto-tool-choice requires --tool-call-parser", "--enable-auto-tool-choice")


def tool_parser_unknown(case: Case) -> Iterable[Found]:
    name, known = case.line.get("tool-call-parser"), case.engine.tool_parsers
    if not name or name in known or case.line.get("tool-parser-plugin"):
        return
    others = unless_known(case, "tool_parsers", name)
    yield Found(
        f"invalid tool call parser: {name} (chose from {{ {','.join(known)} }}){others}",
        "--tool-call-parser",
        None if case.line.get("enable-auto-tool-choice") else "warning",
        remedy=did_you_mean(name, known),
    )


def tool_choice_off(case: Case) -> Iterable[Found]:
    if case.line.get("tool-call-parser") and not case.line.get("enable-auto-tool-choice"):
        yield Found(
            "a tool parser without --enable-auto-tool-choice: no tool call is ever parsed", "--tool-call-parser"
        )


def tool_parser_of_family(case: Case) -> Iterable[Found]:
    yield from _of_family(case, "tool-call-parser", "tool_call", case.engine.tool_parsers)


def reasoning_parser_of_family(case: Case) -> Iterable[Found]:
    yield from _of_family(case, "reasoning-parser", "reasoning", case.engine.reasoning_parsers)


def _of_family(case: Case, flag: str, part: str, known: Sequence[str]) -> Iterable[Found]:
    """A parser that is not one of the model's family, where the engine has one of these and the given one itself."""
    name = case.line.get(flag)
    family = family_of(case.name or case.line.model, case.architectures) if name in known else None
    right: Sequence[str] = getattr(family, part) if family else ()
    usually = usual(right, known)
    if family and usually and name not in right:
        others = " or ".join(each for each in right if each in known)
        yield Found(f"{family.family} is read by {others}, not by {name}", f"--{flag}", remedy=f"take {usually}")


def reasoning_parser_unknown(case: Case) -> Iterable[Found]:
    flags = ("structured-outputs-config", "reasoning-config")
    name, known = case.line.get("reasoning-parser"), case.engine.reasoning_parsers
    if case.line.get("reasoning-parser-plugin"):
        return
    for flag, nested in ((flag, case.line.mapping(flag).get("reasoning_parser")) for flag in flags):
        if nested and nested not in known:
            yield Found(
                f"invalid reasoning parser: {nested} (chose from {{ {','.join(known)} }})",
                f"--{flag}",
                remedy=did_you_mean(str(nested), known),
            )
    if name and name not in known:
        late = "" if case.engine.law("reasoning_parser_checked") else "; the engine fails only after the whole load"
        yield Found(
            f"Reasoning parser '{name}' not found. Available parsers: {', '.join(known)}{late}",
            "--reasoning-parser",
            ("error" if case.spark else "warning") if late else None,
            remedy=did_you_mean(name, known),
        )


def load_format(case: Case) -> Iterable[Found]:
    name = case.line.get("load-format")
    if not name or (name in case.engine.load_formats and name not in case.engine.load_formats_missing):
        return
    packaged = name in case.engine.load_formats
    if packaged:
        words = f"--load-format {name} needs a package that the released {case.engine.version} does not include"
    else:
        words = f"--load-format {name} is none of {', '.join(case.engine.load_formats)}"
    yield Found(
        f"{words}; the engine fails when it begins to load",
        "--load-format",
        "warning" if packaged and not case.spark else None,
        remedy=did_you_mean(name, case.engine.load_formats),
    )


def variable_unknown(case: Case) -> Iterable[Found]:
    strict = bool(case.line.get("fail-on-environ-validation"))
    for name in case.variables:
        if name.startswith("VLLM_") and name not in case.engine.environment:
            yield Found(
                f"Unknown vLLM environment variable detected: {name}{unless_known(case, 'environment', name)}",
                name,
                "error" if strict else "warning",
                remedy=_meant_variable(name, case.engine),
            )


def runner_v2_without_align(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.mamba_cache_mode == "align" and now.model_runner_v2:
        yield Found(
            "Model Runner V2 has not yet supported mamba_cache_mode='align'",
            "VLLM_USE_V2_MODEL_RUNNER",
            remedy="leave VLLM_USE_V2_MODEL_RUNNER out, or --no-enable-prefix-caching",
        )


def _meant_variable(name: str, engine: Engine) -> str:
    """What a removed variable became, a variable that differs in a few letters, or the flag of its name."""
    for begin, said in REPLACED_VARIABLES.items():
        if name.startswith(begin):
            return f"take it out; {said}"
    flag = name.removeprefix("VLLM_").lower().replace("_", "-")
    if flag in engine.flags:
        return f"give --{flag} instead"
    near = difflib.get_close_matches(name, engine.environment, n=1, cutoff=0.88)
    return f"did you mean {near[0]}?" if near else ""
