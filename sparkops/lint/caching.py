"""Rules about the hybrid cache, prefix caching, chunking and the batch.

It must not know another version than the case's: what differs between them is asked by name.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.lint.case import Case, Found
from sparkops.models.effective import KERNEL_BLOCK

BATCHED_TOKENS, CACHING = "--max-num-batched-tokens", "--enable-prefix-caching"
WIDE_BATCH, FREEZING_BATCH = 16384, 65536
"""Batched tokens from which activations take much memory, and from which they froze a Spark (MiaAI-Lab issue 4, AEON-7
issue 1)."""


def _align(case: Case) -> bool:
    return case.effective.mamba_cache_mode == "align"


def align_block_over_batched_tokens(case: Case) -> Iterable[Found]:
    now = case.effective
    if _align(case) and now.block_size is not None and now.block_size > now.max_num_batched_tokens:
        yield Found(
            f"In Mamba cache align mode, block_size ({now.block_size}) must be <= max_num_batched_tokens "
            f"({now.max_num_batched_tokens}); the engine checks it only after the weights are loaded",
            BATCHED_TOKENS,
            remedy=f"set {BATCHED_TOKENS} to {now.block_size} or more, or --no-enable-prefix-caching",
        )


def coarse_prefix_cache(case: Case) -> Iterable[Found]:
    now = case.effective
    if _align(case) and now.block_size is not None and now.block_size > now.max_num_batched_tokens:
        yield Found(
            f"a block holds {now.block_size} tokens and a step {now.max_num_batched_tokens}: the prefix cache gets an "
            f"entry every {now.block_size} tokens only, and shorter prompts never hit",
            BATCHED_TOKENS,
            remedy=f"set {BATCHED_TOKENS} to {now.block_size} or more, if prompts share prefixes of that length",
        )


def long_prefill_below_block(case: Case) -> Iterable[Found]:
    threshold, block = case.line.get("long-prefill-token-threshold") or 0, case.effective.block_size
    if _align(case) and block and 0 < threshold < block:
        yield Found(
            f"long_prefill_token_threshold ({threshold}) is below the block of {block} tokens: the engine stops at an "
            "assertion without words",
            "--long-prefill-token-threshold",
            remedy=f"set it to {block} or more, or leave it out",
        )


def long_prefill_over_length(case: Case) -> Iterable[Found]:
    threshold, length = case.line.get("long-prefill-token-threshold") or 0, case.effective.max_model_len
    if length and threshold > length:
        yield Found(
            f"long_prefill_token_threshold ({threshold}) cannot be greater than the max_model_len ({length})",
            "--long-prefill-token-threshold",
        )


def chunked_mm_input_in_align(case: Case) -> Iterable[Found]:
    if _align(case) and case.line.get("disable-chunked-mm-input"):
        yield Found(
            "Chunked MM input is required in align mode: a step may end in the middle of a multi-modal input",
            "--disable-chunked-mm-input",
        )


def hybrid_manager_off(case: Case) -> Iterable[Found]:
    if case.hybrid and case.line.get("disable-hybrid-kv-cache-manager"):
        yield Found(
            "Hybrid KV cache manager is disabled but failed to convert the KV cache specs to one unified type: "
            "recurrent and attention layers have none in common",
            "--disable-hybrid-kv-cache-manager",
        )


def prefix_caching_without_chunked_prefill(case: Case) -> Iterable[Found]:
    if _align(case) and not case.effective.chunked_prefill:
        yield Found(
            "Chunked prefill is required for mamba cache mode 'align', which prefix caching turns on",
            "--no-enable-chunked-prefill",
        )


def mamba_block_size_without_prefix_caching(case: Case) -> Iterable[Found]:
    if case.line.get("mamba-block-size") is not None and not case.effective.enable_prefix_caching:
        yield Found("--mamba-block-size can only be set with --enable-prefix-caching", "--mamba-block-size")


def mamba_block_size_without_effect(case: Case) -> Iterable[Found]:
    if case.line.get("mamba-block-size") is not None and _align(case):
        yield Found(
            f"--mamba-block-size {case.line.get('mamba-block-size')} is overwritten by the aligned block of "
            f"{case.effective.block_size} tokens",
            "--mamba-block-size",
        )


def mamba_cache_mode_lowered(case: Case) -> Iterable[Found]:
    given = case.line.get("mamba-cache-mode")
    if given == "all" and case.hybrid and case.effective.mamba_cache_mode != "all":
        yield Found(
            f"--mamba-cache-mode all is lowered to {case.effective.mamba_cache_mode} for this model",
            "--mamba-cache-mode",
        )


def block_size_without_backend(case: Case) -> Iterable[Found]:
    block = case.line.get("block-size")
    law = case.engine.law("odd_user_block")
    if not isinstance(block, int) or block < 1 or not block % KERNEL_BLOCK or law == "kept":
        return
    words = f"--block-size {block} is no multiple of {KERNEL_BLOCK}"
    if law == "refused":
        yield Found(f"No valid attention backend found for cuda with block_size={block}: {words}", "--block-size")
    else:
        yield Found(f"{words}: attention falls back to FLEX_ATTENTION, which is slow", "--block-size", "warning")


def prefix_caching_unsaid(case: Case) -> Iterable[Found]:
    if case.hybrid and case.line.get("enable-prefix-caching") is None:
        state = "on" if case.effective.enable_prefix_caching else "off"
        yield Found(
            f"prefix caching is not set explicitly: for this model it is {state} in {case.engine.version}, "
            "and the default has changed between versions",
        )


def mtp_with_prefix_caching(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.mamba_cache_mode in (None, "none") or now.speculative is None or now.speculative.method != "mtp":
        return
    reported = case.engine.law("hybrid_speculative_prefix_caching") == "wrong"
    yield Found(
        "MTP with prefix caching on a hybrid model: wrong answers, corrupt or never hit caches were reported"
        + ("" if reported else " for earlier versions, and it is not shown to be mended in this one"),
        CACHING if case.line.get("enable-prefix-caching") else "",
        None if reported else "warning",
    )


def batched_tokens_below_seqs(case: Case) -> Iterable[Found]:
    now = case.effective
    if 1 <= now.max_num_batched_tokens < now.max_num_seqs:
        yield Found(
            f"max_num_batched_tokens ({now.max_num_batched_tokens}) must be greater than or equal to max_num_seqs "
            f"({now.max_num_seqs})",
            BATCHED_TOKENS,
        )


def batched_tokens_below_length(case: Case) -> Iterable[Found]:
    now = case.effective
    if not now.chunked_prefill and now.max_model_len and now.max_num_batched_tokens < now.max_model_len:
        yield Found(
            f"max_num_batched_tokens ({now.max_num_batched_tokens}) is smaller than max_model_len "
            f"({now.max_model_len}), and without chunked prefill a prompt must fit into one step",
            BATCHED_TOKENS,
        )


def batch_limits_unset(case: Case) -> Iterable[Found]:
    missing = [flag for flag in ("max-num-batched-tokens", "max-num-seqs") if case.line.get(flag) is None]
    if missing:
        now = case.effective
        yield Found(
            f"{' and '.join(f'--{flag}' for flag in missing)} not set: a GB10 gets the tier of small cards, "
            f"{now.max_num_batched_tokens} tokens and {now.max_num_seqs} sequences a step",
        )


def wide_batch(case: Case) -> Iterable[Found]:
    tokens = case.effective.max_num_batched_tokens
    if tokens > WIDE_BATCH and case.effective.chunked_prefill:
        yield Found(
            f"{tokens} batched tokens: activations grow with them and come out of the same memory as everything else",
            BATCHED_TOKENS,
            None if tokens >= FREEZING_BATCH else "warning",
            remedy=f"set {BATCHED_TOKENS} to {WIDE_BATCH} or less",
        )
