"""`fit`: the laws that its figures keep, the published points that they meet, and how it answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.published import Point, points
from sparkops.cli.app import run
from sparkops.fit.fit import Fit, Question, Solve, fit_invocation
from sparkops.fit.services import fit_services, refuse
from sparkops.fit.verdict import verdict
from sparkops.inventory.load import load
from sparkops.models.invocation import of_text
from sparkops.reports.fit import as_json
from tests.errors import fails

MODELS = ("Intel/Qwen3.5-122B-A10B-int4-AutoRound", "Qwen/Qwen3.5-35B-A3B-FP8", "Qwen/Qwen3.5-122B-A10B-GPTQ-Int4")
EXACT = ("parameters", "block size", "page, bytes", "keys and values, KiB a token", "recurrent state, MiB a request")
WITHIN = {"weights, GB": 5.5, "pool, tokens": 7.5, "ceiling, tok/s at 273 GB/s": 1.0}
"""Percent by which a computed figure may miss a published one; docs/fit.md says why."""

contexts = st.integers(1, 262144)
tokens = st.integers(0, 3)
caches = st.sampled_from(["auto", "fp8", "nvfp4", "turboquant_k8v4"])
versions = st.sampled_from(["0.19.1", "0.26.0", "0.33.0"])


def fit(flags: str = "", *, model: str = MODELS[0], version: str = "0.26.0", **asked: object) -> Fit:
    return fit_invocation(of_text(f"vllm serve {model} {flags}", version), Question(**asked))  # type: ignore[arg-type]


def speculating(count: int) -> str:
    return f'--speculative-config \'{{"method":"mtp","num_speculative_tokens":{count}}}\'' if count else ""


@pytest.mark.parametrize("point", points(), ids=lambda point: f"{point.group}: {point.what}")
def test_a_published_point_is_met_within_what_the_page_says(point: Point) -> None:
    limit = 0.05 if point.group in EXACT else WITHIN[point.group]
    assert abs(point.deviation) <= limit, f"{point.computed} for {point.published}"


@given(st.sampled_from(MODELS), caches, tokens, versions, st.floats(0.3, 0.99), st.floats(0.0, 0.3))
@settings(max_examples=60, deadline=None)
def test_more_memory_for_the_engine_never_makes_the_pool_smaller(
    model: str, cache: str, drafted: int, version: str, share: float, more: float
) -> None:
    flags = f"--kv-cache-dtype {cache} {speculating(drafted)} --gpu-memory-utilization"
    less = fit(f"{flags} {share}", model=model, version=version)
    wide = fit(f"{flags} {min(1.0, share + more)}", model=model, version=version)
    assert less.pool_tokens is not None and wide.pool_tokens is not None
    assert wide.pool_tokens >= less.pool_tokens


@given(st.sampled_from(MODELS), caches, tokens, contexts, contexts)
@settings(max_examples=60, deadline=None)
def test_a_longer_context_never_makes_room_for_more_streams(
    model: str, cache: str, drafted: int, one: int, other: int
) -> None:
    pool = fit(f"--kv-cache-dtype {cache} {speculating(drafted)}", model=model).figures.pool
    assert pool is not None
    assert pool.streams(max(one, other)) <= pool.streams(min(one, other))


@given(st.sampled_from(MODELS), caches, tokens, contexts, st.integers(1, 40), st.floats(0.62, 0.95))
@settings(max_examples=60, deadline=None)
def test_what_is_solved_fits_and_one_more_does_not(
    model: str, cache: str, drafted: int, context: int, streams: int, share: float
) -> None:
    flags = f"--kv-cache-dtype {cache} {speculating(drafted)} --gpu-memory-utilization {share}"
    many = fit(flags, model=model, solve="streams", context=context).solved
    assert many is not None
    if many["streams"]:
        assert fit(flags, model=model, streams=many["streams"], context=context).fits
    assert not fit(flags, model=model, streams=many["streams"] + 1, context=context).fits
    longest = fit(flags, model=model, solve="context", streams=streams).solved
    assert longest is not None
    if longest["context"]:
        assert fit(flags, model=model, streams=streams, context=longest["context"]).fits
    if longest["context"] < 262144:
        assert not fit(flags, model=model, streams=streams, context=longest["context"] + 1).fits


@given(st.sampled_from(MODELS), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_the_verdict_s_ways_out_are_ways_out(model: str, streams: int) -> None:
    found = fit("--gpu-memory-utilization 0.75", model=model, streams=streams)
    text = verdict(found)
    if found.fits:
        assert ": yes: " in text
        return
    assert ": no: " in text
    lower = int(text.partition("lower to ")[2].partition(" ")[0].strip(",;").replace(",", "") or 0)
    if lower:
        assert fit("--gpu-memory-utilization 0.75", model=model, streams=streams, context=lower).fits


def test_the_thread_s_wish_is_answered_in_one_sentence() -> None:
    text = verdict(fit("--max-num-seqs 4 --max-model-len 131072 --kv-cache-memory-bytes 11000000000"))
    assert text == "4 streams of 131,072 tokens: no: 0.53 M of 0.42 M tokens; lower to 104,000, or 3 streams"


def test_blocks_are_counted_by_groups_as_the_engine_does() -> None:
    drafter = '{"method":"dflash","model":"z-lab/Qwen3.5-122B-A10B-DFlash","num_speculative_tokens":12}'
    flags = f"--max-num-batched-tokens 8192 --max-num-seqs 3 --speculative-config '{drafter}'"
    pool = fit(flags, version="0.23.0").figures.pool
    assert pool is not None
    assert (pool.request_blocks(262144), pool.block_bytes) == (314, 6 * 2 * 4587520)
    plain = fit("--no-enable-prefix-caching").figures.pool
    assert plain is not None
    assert plain.request_blocks(131072) == 63 + 3  # 63 of 2096 tokens, and one state of each of three groups
    aligned = fit("--enable-prefix-caching").figures.pool
    assert aligned is not None
    assert aligned.request_blocks(131072) == 63 + 6


def test_delta_nets_keep_one_state_more_where_flashinfer_takes_checkpoints() -> None:
    counted = {}
    for version, flag in (("0.32.0", ""), ("0.33.0", ""), ("0.33.0", "--gdn-prefill-backend triton")):
        pool = fit(f"--enable-prefix-caching {flag}", version=version).figures.pool
        assert pool is not None
        counted[version, flag] = {group.fixed for group in pool.groups if group.kind == "state"}
    assert counted == {
        ("0.32.0", ""): {2},
        ("0.33.0", ""): {3},
        ("0.33.0", "--gdn-prefill-backend triton"): {2},
    }


def test_unlike_pages_make_the_blocks_that_two_sparks_logged() -> None:
    """Five starts of sfxnz/Qwen3.8-Flash-Next-NVFP4-vLLM-2x-DGX-Spark share 185 blocks a request; one logged the memory
    of its smaller rank (evidence/u2-v030-default/a2-default: 24.21 GiB and 1,626,709 tokens)."""
    line = (
        "--tensor-parallel-size 2 --nnodes 2 --max-model-len 262144 --max-num-seqs 8 --max-num-batched-tokens 8192 "
        f"--enable-prefix-caching --speculative-config {speculating(3)} --kv-cache-memory-bytes {int(24.21 * 2**30)}"
    )
    found = fit(line, model="nvidia/Qwen3.8-Flash-Next-NVFP4", version="0.30.0").figures
    assert found.pool is not None
    assert (found.pool.request_blocks(262144), found.pool.blocks) == (185, 1148)
    assert found.pool.tokens(262144) == 1_626_709


def test_kv_heads_are_replicated_where_there_are_more_ranks() -> None:
    of = {
        ranks: fit(f"-tp {ranks} --nnodes {ranks}", model="Qwen/Qwen3.5-122B-A10B").figures.cache for ranks in (1, 2, 4)
    }
    assert [cache.kv_bytes_per_token for cache in of.values() if cache] == [24576, 12288, 12288]


def test_more_ranks_take_fewer_bytes_each_and_together_no_fewer() -> None:
    for flag in ("-tp", "-pp"):
        sizes = [fit(f"{flag} {ranks}", model="Intel/Qwen3.5-397B-A17B-int4-AutoRound") for ranks in (1, 2, 4)]
        each = [found.figures.weights.rank_bytes for found in sizes if found.figures.weights]
        assert each == sorted(each, reverse=True)
        assert all(each[0] <= ranks * size for ranks, size in zip((1, 2, 4), each, strict=True))


def test_more_sequences_than_blocks_are_told() -> None:
    assert any("max-num-seqs 256" in note for note in fit("--kv-cache-memory-bytes 5000000000").notes)
    assert not any("max-num-seqs" in note for note in fit("--kv-cache-memory-bytes 5000000000 --max-num-seqs 8").notes)


def test_a_length_that_the_engine_chooses_is_lowered_and_one_that_is_given_refused() -> None:
    small = "--kv-cache-memory-bytes 5000000000"
    assert any("does not start" in note for note in fit(f"{small} --max-model-len 262144").notes)
    auto = fit(f"{small} --max-model-len auto")
    assert auto.figures.pool is not None
    longest = auto.figures.pool.context(1, 262144)
    assert any(f"lowers it to what fits, about {longest:,} tokens" in note for note in auto.notes)
    assert not any("does not start" in note for note in auto.notes)
    assert not any("lowers it" in note for note in fit("--max-model-len auto").notes)


def test_what_is_offloaded_comes_out_of_the_memory_that_a_spark_s_host_has() -> None:
    line = "--max-model-len 32768 --max-num-seqs 1 --gpu-memory-utilization 0.8"
    plain, more = fit(line).notes, fit(f"{line} --kv-offloading-size 20").notes
    assert not any("for the host" in note for note in plain)
    assert any("21.5 GB more of the same memory" in note for note in more)
    assert any("are left for the host, less than" in note for note in more)
    assert fit(line).fits and not fit(f"{line} --kv-offloading-size 60").fits


@pytest.mark.parametrize(
    "flags", ["--config flags.yml", "--hf-config-path birds/wren", "--runner pooling", "--convert embed"]
)
def test_what_makes_another_model_of_it_leaves_every_figure_unknown(flags: str) -> None:
    found = fit(flags)
    assert found.figures.pool is None and flags.partition(" ")[0] in found.unknown["pool_tokens"]


def test_a_scheme_that_the_engine_does_not_read_makes_no_weight_smaller() -> None:
    scheme = """--quantization-config '{"linear": "fp8_per_tensor", "moe": "fp8_per_tensor"}'"""
    sizes = {}
    for flags in ("", scheme, f"--quantization online {scheme}"):
        found = fit(flags, model="Qwen/Qwen3.5-35B-A3B").figures.weights
        assert found is not None
        sizes[flags] = found.rank_bytes
    assert sizes[""] == sizes[scheme] > 1.5 * sizes[f"--quantization online {scheme}"]
    unread = """--quantization online --quantization-config '{"linear": "int4_per_group_32"}'"""
    assert "int4_per_group_32" in fit(unread, model="Qwen/Qwen3.5-35B-A3B").unknown["weight_bytes_per_rank"]


def test_a_ceiling_is_bandwidth_over_bytes_and_grows_with_acceptance() -> None:
    plain = fit().figures.plain
    assert plain is not None
    assert plain.tokens_per_second == pytest.approx(273e9 / plain.bytes)
    slow, fast = (fit(speculating(2), acceptance=each).figures.single for each in (1.5, 2.5))
    assert slow is not None and fast is not None
    assert slow.bytes == fast.bytes and slow.tokens_per_second < fast.tokens_per_second


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        ("vllm serve nobody/knows", "pool_tokens", "nothing is known of the model"),
        ("vllm serve", "block_size", "names no model"),
        (f"vllm serve {MODELS[0]} --kv-cache-dtype octave_4bit", "block_size", "octave_4bit"),
        (f"vllm serve {MODELS[0]} {speculating(3)}", "ceiling_tokens_per_second", "--acceptance"),
        (
            f"vllm serve {MODELS[0]} --speculative-config "
            '\'{"method":"dflash","model":"x/y","num_speculative_tokens":4}\'',
            "streams",
            "drafter 'x/y'",
        ),
        (f"vllm serve {MODELS[0]} -tp 0", "weight_bytes_per_rank", "below 1"),
    ],
)
def test_what_can_t_be_known_is_null_with_its_reason(line: str, field: str, reason: str) -> None:
    content = as_json(fit_invocation(of_text(line, "0.33.0")))
    assert content[field] is None
    assert reason in content["unknown"][field]
    assert all(content[name] is None for name in content["unknown"])


PARTLY: dict[str, dict[str, Any]] = {
    "latent": {"kv_lora_rank": 512, "q_lora_rank": 1536, "n_routed_experts": 8, "moe_intermediate_size": 32},
    "convolutions": {"layer_types": ["conv", "full_attention"]},
}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9}


@pytest.mark.parametrize("line", ["nobody/knows", "", f"{MODELS[0]} -tp 3", f"{MODELS[0]} -tp 0", *PARTLY, "drafter"])
@pytest.mark.parametrize("solve", [None, "streams", "context"])
def test_every_null_has_its_reason_and_text_has_no_less(
    line: str, solve: Solve | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**SMALL, **PARTLY.get(line, {}), **({} if line == "latent" else {"max_position_embeddings": 4096})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    drafting = '{"method":"dflash","model":"x/y","num_speculative_tokens":4}'
    given = f"{MODELS[0]} --speculative-config '{drafting}'" if line == "drafter" else line
    given = str(tmp_path) if line in PARTLY else given
    found = fit_invocation(of_text(f"vllm serve {given}", "0.26.0"), Question(solve=solve))
    content = as_json(found)
    unknown = content["unknown"]
    assert {name for name, value in content.items() if value is None} == set(unknown)
    assert all(unknown.values())
    assert ("not asked" in unknown.get("solved", "")) == (solve is None)
    if content["weight_bytes_per_rank"] is None:
        assert content["memory"] is None
    asked = ["--solve", solve] if solve else []
    assert run(["fit", "--serve", f"vllm serve {given}", "--engine", "0.26.0", "--offline", *asked]) == 0
    assert verdict(found)[:40] in capsys.readouterr().out


def test_layers_with_types_of_their_own_leave_the_pool_unknown() -> None:
    skipped = "--kv-cache-dtype-skip-layers sliding_window"
    for model, flags in (
        ("openai/gpt-oss-20b", f"--kv-cache-dtype fp8 {skipped}"),
        ("Qwen/Qwen3-30B-A3B", "--kv-cache-dtype turboquant_k8v4"),
    ):
        content = as_json(fit(flags, model=model, version="0.33.0"))
        assert content["kv_bytes_per_token"] is content["pool_tokens"] is None
        assert "packs" in content["unknown"]["pool_tokens"]
    assert as_json(fit(skipped, model="openai/gpt-oss-20b", version="0.33.0"))["pool_tokens"]
    assert as_json(fit("--kv-cache-dtype turboquant_k8v4", version="0.33.0"))["pool_tokens"]


@pytest.mark.parametrize(
    ("flags", "unknown", "known"),
    [
        ('--hf-overrides \'{"text_config": {"num_hidden_layers": 4}}\'', ("kv_bytes_per_token", "pool_tokens"), ()),
        ("--max-model-len 4096 --hf-overrides '{\"rope_parameters\": {}}'", (), ("kv_bytes_per_token", "pool_tokens")),
        ("--use-replayssm", ("state_bytes_per_request", "pool_tokens"), ()),
        ("--cpu-offload-gb 8", ("weight_bytes_per_rank", "pool_tokens"), ("kv_bytes_per_token",)),
        ("--dtype float32", ("pool_tokens",), ("weight_bytes_per_rank",)),
        ("--model-impl transformers", ("weight_bytes_per_rank", "pool_tokens"), ("kv_bytes_per_token",)),
        ("--enable-lora", ("pool_tokens", "streams"), ("weight_bytes_per_rank", "kv_bytes_per_token")),
        ("--disable-hybrid-kv-cache-manager", ("pool_tokens", "blocks_per_request"), ("weight_bytes_per_rank",)),
    ],
)
def test_a_flag_that_is_not_counted_leaves_what_it_changes_unknown(
    flags: str, unknown: tuple[str, ...], known: tuple[str, ...]
) -> None:
    content = as_json(fit(flags, model="openai/gpt-oss-20b", version="0.33.0"))
    for name in unknown:
        assert content[name] is None and "--" in content["unknown"][name], name
    assert all(content[name] for name in known)


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "experts_int8"])
def test_what_an_unknown_quantisation_makes_of_16_bits_is_unknown(method: str) -> None:
    content = as_json(fit(f"--quantization {method}", model="Qwen/Qwen3-30B-A3B", version="0.33.0"))
    assert content["weight_bytes_per_rank"] is None and method in content["unknown"]["weight_bytes_per_rank"]


def test_the_blocks_that_a_line_fixes_are_the_pool() -> None:
    content = as_json(fit("--num-gpu-blocks-override 4097 --max-model-len 4096", model="Qwen/Qwen3-30B-A3B"))
    assert content["blocks"] == 4097
    assert content["pool_tokens"] == content["pool_tokens_after_restart"] == 4097 * 16


@pytest.mark.parametrize("kind", PARTLY)
def test_layers_that_are_not_described_have_no_state_of_zero_bytes(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, **PARTLY[kind], "max_position_embeddings": 4096}))
    content = as_json(fit_invocation(of_text(f"vllm serve {tmp_path}", "0.26.0")))
    for name in ("block_size", "page_bytes", "mamba_page_bytes", "state_bytes_per_request", "parameters", "memory"):
        assert content[name] is None


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("-tp 3 --nnodes 3", "32 attention heads can't be split evenly over 3"),
        ("-tp 2", "2 ranks need 2 GPUs, and one node of 1 has 1"),
        ("-tp 4 --nnodes 2", "2 nodes of 1 have 2"),
        ("-dp 2", "2 ranks need 2 GPUs"),
        ("--max-num-seqs 0", "max-num-seqs 0 is below 1"),
        ("--max-num-seqs -1", "max-num-seqs -1 is below 1"),
        ("--max-num-batched-tokens 0", "max-num-batched-tokens 0 is below 1"),
        ("--max-model-len -5", "max-model-len -5 is below 1"),
        ("--max-model-len foo", "--max-model-len: Value foo"),
        ("-tp two", "-tp: Value two"),
        ("--block-size 0", "block-size 0"),
        ("--gpu-memory-utilization 3", "gpu-memory-utilization 3"),
        ("--frobnicate", "--frobnicate"),
    ],
)
def test_nothing_fits_where_nothing_runs(flags: str, reason: str) -> None:
    found = fit(flags, solve="streams")
    content = as_json(found)
    for name in ("fits", "solved"):
        assert content[name] is None
        assert "the engine refuses the line" in content["unknown"][name]
        assert reason in content["unknown"][name]
    assert reason in verdict(found)
    assert ": yes: " not in verdict(found)


def test_ranks_on_enough_nodes_or_placed_elsewhere_are_judged() -> None:
    for flags in ("-tp 2 --nnodes 2", "-tp 2 --distributed-executor-backend ray", "-dp 2 --data-parallel-size-local 1"):
        assert fit(flags).fits is True, flags


def test_a_context_over_the_model_s_length_is_told() -> None:
    found = fit("--max-model-len 4096", context=300_000, solve="streams")
    assert found.fits is None and found.solved is None
    assert verdict(found).endswith("300,000 tokens are over the model's length of 262,144")


def test_weights_beyond_the_machine_are_told_by_what_is_lacking(capsys: pytest.CaptureFixture[str]) -> None:
    line = "vllm serve Qwen/Qwen3.5-397B-A17B"
    assert run(["fit", "--serve", line, "--engine", "0.26.0", "--no-color"]) == 0
    text = capsys.readouterr().out
    assert "the weights need 6" in text.splitlines()[-1] and " GB more than the " in text
    assert " -" not in text
    memory = as_json(fit_invocation(of_text(line, "0.26.0")))["memory"]
    assert memory["pool"] == memory["host"] == 0


def test_a_pasted_line_knows_the_models_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "knowledge" / "models").mkdir(parents=True)
    file = {"name": "wren", "source": "its card", "geometry": {**SMALL, "max_position_embeddings": 4096}}
    (tmp_path / "knowledge" / "models" / "wren.yml").write_text(json.dumps(file))
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "--serve", "vllm serve wren", "--engine", "0.26.0", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["geometry"] == "wren"


def test_a_model_that_is_not_described_has_no_wrong_figures(tmp_path: Path) -> None:
    latent: dict[str, object] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 9}
    latent |= {"kv_lora_rank": 8}
    latent |= {"architectures": ["LlamaForCausalLM"], "intermediate_size": 64}
    (tmp_path / "config.json").write_text(json.dumps({**latent, "max_position_embeddings": 4096}))
    content = as_json(fit_invocation(of_text(f"vllm serve {tmp_path}", "0.33.0")))
    for name in (
        "block_size",
        "kv_bytes_per_token",
        "weight_bytes_per_rank",
        "pool_tokens",
        "ceiling_tokens_per_second",
    ):
        assert content[name] is None
        assert "kv_lora_rank" in content["unknown"][name]


def test_the_json_has_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"vllm serve {MODELS[0]} --kv-cache-dtype fp8"
    assert run(["fit", "--serve", line, "--engine", "0.26.0", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == "sparkops.fit/1"
    assert (content["block_size"], content["mamba_page_bytes"], content["kv_bytes_per_token"]) == (4176, 4268032, 12288)
    assert content["state_bytes_per_request"] == 36 * 4268032
    assert set(content["unknown"]) == {"solved"}
    for key in ("weight_bytes_per_rank", "pool_tokens", "streams", "ceiling_tokens_per_second"):
        assert content[key] > 0


def test_the_text_has_bars_figures_and_the_verdict_last(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--serve", f"vllm serve {MODELS[0]} --max-num-seqs 4", "--engine", "0.26.0", "--no-color"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("█" in line and "weights" in line for line in lines)
    assert lines[-1].startswith("4 streams of 262,144 tokens: ")
    assert "\x1b" not in "".join(lines)


def test_a_line_can_t_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--serve", "vllm serve '\x1b[31mred'", "--engine", "0.26.0"]) == 0
    assert "\x1b" not in capsys.readouterr().out


INVENTORY = """\
version: 1
cluster: attic
nodes: {{spark-01: {{host: 192.0.2.1}}}}
services:
  qwen:
    nodes: [spark-01]
    image: {{pull: "vllm/vllm-openai:v0.26.0"}}
    checkpoint: {{repository: {repository}}}
    serve: {{max-model-len: 131072, max-num-seqs: 4}}
"""


def test_a_service_has_the_figures_of_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(INVENTORY.format(repository=MODELS[0]))
    declared = fit_services(load(path))["qwen"]
    assert isinstance(declared, Fit)
    pasted = fit("--max-model-len 131072 --max-num-seqs 4")
    assert declared.pool_tokens == pasted.pool_tokens
    assert run(["fit", str(path), "qwen"]) == 0
    assert "qwen: " in capsys.readouterr().out
    assert run(["fit", str(path), "nope"]) == 1


def test_a_service_of_an_unknown_engine_is_shown_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "inventory.yml"
    second = (
        '  other:\n    nodes: [spark-01]\n    image: {pull: "ghcr.io/me/serving:mine"}\n    serve: {max-num-seqs: 4}\n'
    )
    second += f"    checkpoint: {{repository: {MODELS[0]}}}\n"
    path.write_text(INVENTORY.format(repository=MODELS[0]) + second)
    assert run(["fit", str(path), "--format", "json"]) == 0
    services = json.loads(capsys.readouterr().out)["services"]
    assert set(services["other"]) == set(services["qwen"])
    assert services["qwen"]["fits"] is True
    assert services["other"]["fits"] is None
    assert "the engine's version of other" in services["other"]["unknown"]["fits"]
    assert run(["fit", str(path)]) == 0
    assert "other: not known: neither the image's tag" in capsys.readouterr().out
    assert run(["fit", str(path), "other"]) == 1


def test_weights_that_do_not_fit_stop_a_plan_unless_accepted(tmp_path: Path) -> None:
    from datetime import date

    path = tmp_path / "inventory.yml"
    text = INVENTORY.format(repository="Intel/Qwen3.5-397B-A17B-int4-AutoRound")
    path.write_text(text)
    with fails("lint-rule-violated"):
        refuse(load(path), date(2026, 3, 1))
    assert run(["plan", str(path)]) == 1  # before any node is asked
    path.write_text(text + "accept: [{id: weights-do-not-fit, reason: another machine}]\n")
    refuse(load(path), date(2026, 3, 1))
    for fitting in (MODELS[0], "someone/Qwen3.5-397B-A17B-heretic-AutoRound"):  # the second is known by its name alone
        path.write_text(INVENTORY.format(repository=fitting))
        refuse(load(path), date(2026, 3, 1))


def test_a_model_of_the_page_works_by_geometry_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "own-models.md").read_text()
    for block in page.split("```yaml\n# ")[1:]:
        name, _, text = block.partition("\n")
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.partition("```")[0])
    assert run(["fit", str(tmp_path / "inventory.yml"), "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)["services"]["sparrow"]
    assert set(content["unknown"]) == {"solved"}
    assert content["block_size"] == 2112  # the page of 32 value heads, at FP8, in steps of 64 on 0.33
    assert content["fits"] is True
    assert content["geometry"] == "Sparrow-12B"
