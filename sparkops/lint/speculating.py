"""Rules about speculative decoding, and what the engine's validators want of its fields.

It must not know another version than the case's.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.lint.case import Case, Found
from sparkops.lint.spelling import did_you_mean, known_to, unless_known
from sparkops.models.effective import Speculative, whole

CONFIG = "--speculative-config"
WITHOUT_MODEL = ("ngram", "ngram_gpu", "suffix", "mtp", "dspark", "extract_hidden_states")
"""Methods that need no checkpoint to be named: they draft from the text, or with the model's own weights."""

LOOKUP = ("ngram", "ngram_gpu")
SLOTS_FEW = 8192
"""Tokens a step below which the engine 0.26 calls speculation suboptimal."""


def _about(case: Case) -> str:
    return CONFIG if case.line.get("speculative-config") is not None else "--spec-method"


def speculative_method_unknown(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    method = given.given.get("method") if given else None
    known = case.engine.speculative_methods
    if method is None or method in known or method == "[ngram]":
        return
    if case.line.get("speculative-config") is None and case.line.problems:
        return  # the parser has refused the word already
    others = known_to(case, "speculative_methods", str(method))
    since = f"; {case.engine.version} does not know it, {others} do" if others else ""
    yield Found(
        f"('method',): Input should be one of {', '.join(known)}, not {method!r}{since}",
        _about(case),
        remedy="" if others else did_you_mean(str(method), known),
    )


def speculative_field_unknown(case: Case) -> Iterable[Found]:
    known = case.engine.speculative_fields
    for name in case.line.mapping("speculative-config"):
        if known and name not in known:
            others = unless_known(case, "speculative_fields", name)
            yield Found(
                f"('{name}',): Unexpected keyword argument{others}",
                CONFIG,
                remedy=("" if others else did_you_mean(name, known)) or f"take {name} out",
            )


def speculative_tokens_missing(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.given.get("num_speculative_tokens") is not None or given.method == "suffix":
        return
    if given.model is not None and case.drafter is None:
        return  # an unknown drafter may have a number of its own
    yield Found(
        "num_speculative_tokens must be provided with speculative model unless the draft model config contains an "
        "n_predict parameter",
        _about(case),
    )


def speculative_tokens_out_of_range(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    value = given.given.get("num_speculative_tokens") if given else None
    if value is None:
        return
    count = whole(value)
    if count is None:
        yield Found(f"('num_speculative_tokens',): Input should be a valid integer, not {value!r}", _about(case))
    elif count < 1:
        yield Found(f"('num_speculative_tokens',): Input should be greater than 0, not {count}", _about(case))


def speculative_model_missing(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.model is not None or given.method in WITHOUT_MODEL:
        return
    if given.method and given.given.get("method") not in case.engine.speculative_methods:
        return
    yield Found(
        "num_speculative_tokens was provided but without speculative model"
        + (f": {given.method} drafts with a checkpoint of its own" if given.method else ": neither method nor model"),
        _about(case),
    )


def drafter_vocabulary_differs(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.method != "draft_model" or case.drafter is None or case.geometry is None:
        return
    if given.given.get("use_heterogeneous_vocab") and "use_heterogeneous_vocab" in case.engine.speculative_fields:
        return
    ours, theirs = case.geometry.vocabulary, case.drafter.vocabulary
    if ours != theirs:
        yield Found(
            f"Target and draft model should have the same vocabulary size. Target model vocab_size={ours}. Draft model "
            f"vocab_size={theirs}",
            _about(case),
        )


def drafter_for_another_model(case: Case) -> Iterable[Found]:
    given, drafter, target = case.effective.speculative, case.drafter, case.geometry
    if given is None or given.method not in ("dflash", "eagle", "eagle3") or drafter is None or target is None:
        return
    if drafter.hidden != target.hidden:
        yield Found(
            f"the drafter reads hidden states of {drafter.hidden} values and the model has {target.hidden}: it was "
            "trained for another model, and the load fails or it drafts nonsense",
            _about(case),
        )
    elif drafter.target_layers and drafter.target_layers != len(target.layers):
        yield Found(
            f"the drafter was trained on a model of {drafter.target_layers} layers and this one has "
            f"{len(target.layers)}",
            _about(case),
        )


def _slots(given: Speculative) -> int:
    """Further tokens that each running sequence takes in a step for drafting."""
    tokens = given.tokens or 0
    parallel = given.method == "dflash" or given.given.get("parallel_drafting") is True
    return (tokens - 1 if parallel else 0) + (1 if given.method == "draft_model" else 0)


def no_tokens_left_to_schedule(case: Case) -> Iterable[Found]:
    now, given = case.effective, case.effective.speculative
    if given is None or not given.tokens:
        return
    left = now.max_num_batched_tokens - now.max_num_seqs * _slots(given)
    if left <= 0:
        needed = now.max_num_seqs * _slots(given) + 1
        yield Found(
            f"max_num_scheduled_tokens is set to {left} based on the speculative decoding settings "
            f"({now.max_num_batched_tokens} - {now.max_num_seqs} x {_slots(given)}), which does not allow any "
            "tokens to be scheduled",
            "--max-num-batched-tokens",
            remedy=f"set --max-num-batched-tokens to {needed} or more, or lower --max-num-seqs",
        )


def mtp_with_pipeline(case: Case) -> Iterable[Found]:
    now = case.effective
    drafts = now.speculative is not None and now.speculative.method == "mtp"
    if drafts and now.pipeline_parallel > 1 and not (case.geometry and case.geometry.pipelined_head):
        yield Found(
            "Pipeline parallelism is not supported for this model: MTP over pipeline_parallel_size="
            f"{now.pipeline_parallel}",
            "--pipeline-parallel-size",
        )


def mtp_unsupported(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.method != "mtp" or given.model is not None or case.geometry is None:
        return
    if not case.geometry.drafts:
        name = case.geometry.architectures[0]
        yield Found(f"Unsupported speculative method: 'mtp': the engine has no MTP layer for {name}", _about(case))


def mtp_weights_missing(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.method != "mtp" or given.model is not None or case.geometry is None:
        return
    if not case.geometry.drafts:
        return  # mtp-unsupported
    if not case.geometry.mtp_layers:
        yield Found("the model's configuration has no MTP layer: there is nothing to draft with", _about(case))
    elif case.mtp_weights is False:
        yield Found(
            "the checkpoint leaves out the weights of the MTP layer: there is nothing to draft with", _about(case)
        )


def lookup_window(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None:
        return
    low, high = (whole(given.given.get(name)) for name in ("prompt_lookup_min", "prompt_lookup_max"))
    if given.method in LOOKUP and low is not None and high is not None and low > high:
        yield Found(f"prompt_lookup_min={low} must be <= prompt_lookup_max={high}", _about(case))


def suffix_package_missing(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given and given.method == "suffix":
        yield Found(
            "Arctic Inference is required for suffix decoding, and no released image has it",
            _about(case),
            remedy="take `method: mtp`, or build an image with the package arctic-inference",
        )


def async_scheduling_method(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or not case.line.get("async-scheduling"):
        return
    if given.method in case.engine.law("async_without"):
        yield Found(
            "async scheduling is only supported with EAGLE/MTP/Draft Model/NGram GPU kind of speculative decoding, not "
            f"with {given.method}",
            "--async-scheduling",
        )
    elif case.engine.law("padded_batch_for_async") and given.given.get("disable_padded_drafter_batch") is True:
        yield Found("async scheduling is not compatible with disable_padded_drafter_batch", "--async-scheduling")


def draft_parallel_size(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None:
        return
    ranks, ours = whole(given.given.get("draft_tensor_parallel_size")), case.effective.tensor_parallel
    if given.given.get("tensor_parallel_size") is not None:
        yield Found("'tensor_parallel_size' is not a valid argument in the speculative_config", _about(case))
    elif ranks is not None and ranks not in (1, ours) and (given.needs_drafter or given.method == "mtp"):
        yield Found(
            f"draft_tensor_parallel_size={ranks} cannot be other value than 1 or target model tensor_parallel_size "
            f"({ours})",
            _about(case),
        )


def speculative_length_over_model(case: Case) -> Iterable[Found]:
    given, ours = case.effective.speculative, case.effective.max_model_len
    length = whole(given.given.get("max_model_len")) if given else None
    if length is not None and ours and length > ours and given and (given.needs_drafter or given.method == "mtp"):
        yield Found(
            f"speculative_max_model_len={length} cannot be larger than target_max_model_len={ours}", _about(case)
        )


def draft_head_on_runner_v1(case: Case) -> Iterable[Found]:
    given, name = case.effective.speculative, "draft_lm_head_quantization"
    asked = given is not None and given.given.get(name) and name in case.engine.speculative_fields
    if asked and case.effective.model_runner_v2 is False:
        yield Found("Model Runner V1 does not support: draft lm_head quantization", _about(case))


def lookup_on_hybrid(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given and given.method in (*LOOKUP, "suffix") and case.hybrid:
        yield Found(
            f"{given.method} speculation on a model with a recurrent state was seen to corrupt its output", _about(case)
        )


def drafter_backend_causal(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    if given is None or given.method != "dflash":
        return
    own = str(given.given.get("attention_backend") or "").upper()
    cache = str(given.given.get("kv_cache_dtype") or case.effective.kv_cache_dtype)
    if own == "FLASHINFER" and not case.engine.law("flashinfer_non_causal"):
        yield Found("FLASHINFER has no non-causal attention in this version, which DFlash drafts with", _about(case))
    elif own and cache not in case.engine.attention.get(own, (cache,)):
        yield Found(f"the drafter's {own} does not take its cache of type {cache}", _about(case))


def repeated_mtp_layer(case: Case) -> Iterable[Found]:
    given = case.effective.speculative
    layers = case.geometry.mtp_layers if case.geometry else 0
    if given and given.method == "mtp" and given.tokens and layers and given.tokens > layers:
        yield Found(
            f"{given.tokens} tokens are drafted with {layers} MTP layer{'s' if layers > 1 else ''}, run again and "
            "again: acceptance falls with each",
            _about(case),
        )


def narrow_steps_with_speculation(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.speculative and now.speculative_tokens and 1 <= now.max_num_batched_tokens < SLOTS_FEW:
        yield Found(
            f"{now.max_num_batched_tokens} tokens a step: the engine calls fewer than {SLOTS_FEW} suboptimal "
            "with speculation",
            "--max-num-batched-tokens",
        )


def compile_cache_of_speculation(case: Case) -> Iterable[Found]:
    if case.effective.speculative_tokens and "VLLM_CACHE_ROOT" not in case.variables:
        yield Found(
            "compiled graphs depend on the number of speculative tokens, the image and the ranks; another value in the "
            "same cache folder was seen to load wrong graphs",
            _about(case),
        )


def speculative_batch_not_captured(case: Case) -> Iterable[Found]:
    now = case.effective
    width, largest = now.speculative_tokens + 1, now.max_capture_size
    full = now.max_num_seqs * width
    if width < 2 or "FULL" not in now.cudagraph_mode or not 0 < full <= largest:
        return
    given = case.line.get("cudagraph-capture-sizes") or case.line.mapping("compilation-config").get(
        "cudagraph_capture_sizes"
    )
    if now.decode_captured:
        return
    sizes = given if isinstance(given, (list, tuple)) else [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
    rounded = {-(-size // width) * width for size in sizes if isinstance(size, int)}
    if full not in {size for size in rounded if size <= largest}:
        wanted = " ".join(str(each) for each in range(width, full + 1, width))
        yield Found(
            f"{now.max_num_seqs} sequences with {width - 1} speculative tokens are {full} tokens a step, and no "
            "full CUDA graph is captured for them: the full load runs piecewise",
            _about(case),
            remedy=f"add --cudagraph-capture-sizes {wanted}",
        )
