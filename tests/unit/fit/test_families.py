"""Models of every family, against what vLLM 0.32.0's own classes make of them (tests/data/families.json).

A figure equals the engine's or is null with a reason; none is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.fit.fit import Question, fit_invocation
from sparkops.lint.case import case_of
from sparkops.lint.check import check
from sparkops.models.architecture.descriptions import described, known
from sparkops.models.architecture.geometry import of_config
from sparkops.models.architecture.quantisation import bytes_per_parameter
from sparkops.models.architecture.quantisation import of_config as quantisation_of
from sparkops.models.architecture.quantisation_rules import Rules
from sparkops.models.invocation import of_text
from sparkops.reports.fit import as_json

FAMILIES = json.loads((Path(__file__).parents[2] / "data" / "families.json").read_text())["families"]
FLAT = {family: content["configs"]["bf16"]["config.json"] for family, content in FAMILIES.items()}
ENGINE = "0.32.0"
LINES = {
    "tp1": "",
    "tp1-fp8kv": "--kv-cache-dtype fp8",
    "tp2": "--tensor-parallel-size 2",
    "tp2-fp8kv": "--tensor-parallel-size 2 --kv-cache-dtype fp8",
    "tp1-noprefix": "--no-enable-prefix-caching",
    "tp1-prefix": "--enable-prefix-caching",
}
TEXT = "--language-model-only"
NOT_KNOWN = {
    "gemma-3-27b": {"parameters", "weights", "active"},  # its config.json has no vocab_size
    "gemma-4-26b-a4b": {"blocks_per_request"},  # by the default batch, which may be raised
}
"""The figures that may be null, by family."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family and variant, as published."""
    root = tmp_path_factory.mktemp("families")
    for family, content in FAMILIES.items():
        for variant, files in content["configs"].items():
            folder = root / family / variant
            folder.mkdir(parents=True)
            for name, value in files.items():
                (folder / name).write_text(json.dumps(value))
    return root


@cache
def figures(folder: Path, arguments: str, gpus: int = 1) -> dict[str, Any]:
    line = f"vllm serve {folder} {arguments}"
    return as_json(fit_invocation(of_text(line, ENGINE, gpus), Question()))


def compared(root: Path, family: str) -> Iterator[tuple[str, str, float | None, float | None, float]]:
    """Kind, name, our figure, the engine's, and how much they may differ."""
    engine, bf16 = FAMILIES[family]["engine"], root / family / "bf16"
    plain = figures(bf16, "")
    yield "parameters", "parameters", plain["parameters"], engine["parameters_without_vision"], 0.005
    yield "weights", "bf16", plain["weight_bytes_per_rank"], engine["bf16_bytes"], 0.005
    yield "weights", "tp2", figures(bf16, LINES["tp2"], 2)["weight_bytes_per_rank"], engine["tp2_rank_bytes"], 0.01
    for variant, published in engine["published"].items():
        folder = root / family / variant
        content = figures(folder, "")
        yield "weights", variant, content["weight_bytes_per_rank"], published["tp1"], 0.01
        wide = figures(folder, LINES["tp2"], 2)["weight_bytes_per_rank"]
        yield "weights", f"{variant} tp2", wide, published["tp2"], 0.01
        yield "block", f"{variant} block", content["block_size"], published["block"], 0
        yield "kv", f"{variant} kv", content["kv_bytes_per_token"], ceil(published["kv"]), 0
    for name, arguments in LINES.items():
        content, theirs = figures(bf16, arguments, 2 if "tp2" in name else 1), engine["cache"][name]
        yield "block", f"{name} block", content["block_size"], theirs["block"], 0
        yield "kv", f"{name} kv", content["kv_bytes_per_token"], theirs["kv"] and ceil(theirs["kv"]), 0
        yield "state", f"{name} state", content["state_bytes_per_request"], theirs["state"], 0
        asked = content["blocks_per_request"]
        yield "blocks_per_request", f"{name} blocks", asked, theirs["blocks_per_request"], 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_every_figure_is_the_engine_s_or_not_known(folders: Path, family: str) -> None:
    marks: Counter[str] = Counter()
    wrong, unexpected = [], []
    for kind, name, ours, theirs, share in compared(folders, family):
        if theirs is None:
            continue
        if ours is None:
            marks["null"] += 1
            unexpected += [] if kind in NOT_KNOWN.get(family, ()) or "weights" in NOT_KNOWN.get(family, ()) else [name]
        elif abs(ours - theirs) <= share * theirs:
            marks["equal"] += 1
        else:
            marks["wrong"] += 1
            wrong.append(f"{name}: {ours} where the engine has {theirs} ({ours / theirs if theirs else 0:.4f})")
    print(family, dict(marks))
    assert not wrong
    assert not unexpected


@pytest.mark.parametrize("family", [family for family in FAMILIES if "active" not in NOT_KNOWN.get(family, ())])
def test_a_token_reads_the_parameters_that_the_engine_s_parts_give(folders: Path, family: str) -> None:
    fit = fit_invocation(of_text(f"vllm serve {folders / family / 'bf16'}", ENGINE))
    step, active = fit.figures.plain, FAMILIES[family]["engine"]["active_parameters_read_per_token"]
    assert step is not None
    assert step.base + step.experts + step.head == pytest.approx(2 * active, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_lint_refuses_what_the_engine_refuses(folders: Path, family: str) -> None:
    engine = FAMILIES[family]["engine"]
    asked = {name: (each["args"], each["verdict"]) for name, each in engine["arguments"].items()}
    if engine["mtp_asked"]:
        asked["mtp"] = (f"--speculative-config '{json.dumps(engine['mtp_asked'])}'", engine["mtp"])
    for name, (words, verdict) in asked.items():
        line = f"vllm serve {folders / family / 'bf16'} {words}"
        errors = [each.id for each in check(case_of(of_text(line, ENGINE))) if each.severity == "error"]
        assert bool(errors) == (verdict == "refused"), (name, errors)


def refused(folder: Path, words: str, version: str = ENGINE, gpus: int = 8) -> list[str]:
    findings = check(case_of(of_text(f"vllm serve {folder} {words}", version, gpus)))
    return [each.id for each in findings if each.severity == "error"]


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (8, 128)])
def test_zero_points_of_compressed_tensors_are_bytes_where_a_group_is_not_symmetric(bits: int, group: int) -> None:
    """vLLM 0.24.0 to 0.32.0 compressed_tensors_wNa16 and compressed_tensors_moe_wna16: weight_zero_point."""
    sizes = {}
    for symmetric in (True, False):
        weights = {"num_bits": bits, "type": "int", "group_size": group, "strategy": "group", "symmetric": symmetric}
        content = {"config_groups": {"a": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
        stored = {"quant_method": "compressed-tensors", "format": "pack-quantized", **content}
        word = quantisation_of({**FLAT["qwen3-30b-a3b"], "quantization_config": stored}).formats["experts"]
        sizes[symmetric] = bytes_per_parameter(word)
    assert sizes[False] - sizes[True] == pytest.approx(bits / group / 8)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("version", ["0.19.1", "0.26.0", "0.33.0"])
def test_a_backend_is_refused_where_it_is_of_the_other_sort_of_attention(
    folders: Path, family: str, version: str
) -> None:
    """vLLM v1/attention/backend.py: a backend of latent attention serves no other, and no other serves that."""
    latent = of_config(FLAT[family]).latent
    other = not of_config(FLAT[family]).plain
    for words, of_latent in (("TRITON_MLA", True), ("FLASHMLA", True), ("TRITON_ATTN", False)):
        ids = refused(folders / family / "bf16", f"--attention-backend {words}", version)
        if latent or other:
            assert ("attention-backend-refused" in ids) == (latent and not of_latent), words
        else:
            assert ("attention-backend-refused" in ids) == of_latent, words


@pytest.mark.parametrize("family", FAMILIES)
def test_context_parallelism_asks_for_ranks_beyond_the_kv_heads_only_where_keys_are_kept_by_head(
    folders: Path, family: str
) -> None:
    """vLLM config/model.py: verify_with_parallel_config, which passes over latent attention."""
    found = of_config(FLAT[family])
    for tensor, ranks in ((2, 2), (4, 2), (8, 2), (8, 4)):
        fitting = tensor // max(1, found.kv_heads) >= ranks and found.heads // max(1, found.kv_heads) % ranks == 0
        ids = refused(folders / family / "bf16", f"-tp {tensor} -dcp {ranks}")
        assert ("context-parallel" in ids) == (found.plain and not fitting), (tensor, ranks)


@pytest.mark.parametrize("family", [family for family in FLAT if of_config(FLAT[family]).latent])
def test_latent_attention_that_a_variable_turns_off_is_neither_counted_nor_refused(folders: Path, family: str) -> None:
    folder = folders / family / "bf16"
    run = of_text(f"VLLM_MLA_DISABLE=1 vllm serve {folder} --attention-backend FLASHINFER", ENGINE)
    assert not [each for each in check(case_of(run)) if each.id == "attention-backend-refused"]
    content = as_json(fit_invocation(run))
    assert content["kv_bytes_per_token"] is None and "VLLM_MLA_DISABLE" in content["unknown"]["pool_tokens"]
    off = as_json(fit_invocation(of_text(f"VLLM_MLA_DISABLE=0 vllm serve {folder}", ENGINE)))
    assert off["kv_bytes_per_token"] == figures(folder, "")["kv_bytes_per_token"]


def test_a_method_that_is_named_makes_no_weight_of_a_quantised_checkpoint_smaller(folders: Path) -> None:
    for family, content in FAMILIES.items():
        for variant in content["engine"]["published"]:
            folder = folders / family / variant
            plain = figures(folder, "--max-model-len 4096")["weight_bytes_per_rank"]
            assert figures(folder, "--max-model-len 4096 --quantization fp8")["weight_bytes_per_rank"] == plain
            shorthand = figures(folder, "--max-model-len 4096 --quantization fp8_per_block")
            assert (
                shorthand["weight_bytes_per_rank"] is None
                and "quantised" in shorthand["unknown"]["weight_bytes_per_rank"]
            )


@pytest.mark.parametrize(
    "flag", ["--kv-cache-dtype fp8 --kv-cache-dtype-skip-layers 0", "--kv-cache-dtype turboquant_k8v4"]
)
def test_layers_that_keep_a_token_in_ways_of_their_own_have_no_block_that_is_known(folders: Path, flag: str) -> None:
    content = figures(folders / "phi-4" / "bf16", flag)
    assert content["block_size"] is None and content["kv_bytes_per_token"] is None


PIPELINED = ("glm-4.7-flash", "nemotron-3-nano-30b")
"""The families whose head for prediction has the interface for pipelines in the oldest version too."""


@pytest.mark.parametrize("family", [family for family in FLAT if of_config(FLAT[family]).drafts])
def test_a_head_for_prediction_runs_over_a_pipeline_where_its_class_can(folders: Path, family: str) -> None:
    """vLLM 0.19.1 to 0.29.0 model_executor/models: the classes of heads that have SupportsPP."""
    words = """-pp 2 --speculative-config '{"method":"mtp","num_speculative_tokens":1}'"""
    for version in ("0.19.1", "0.29.0"):
        ids = refused(folders / family / "bf16", words, version)
        assert ("mtp-with-pipeline" in ids) == (family not in PIPELINED)


DRAFTING = {
    '{"method":"ngram","num_speculative_tokens":2}': "",
    '{"method":"suffix"}': "",
    '{"method":"dspark","num_speculative_tokens":2}': "the method dspark",
    '{"method":"mtp","model":"birds/wren-assistant","num_speculative_tokens":2}': "birds/wren-assistant",
    '{"method":"custom_class","model":"wren.Drafter","num_speculative_tokens":2}': "the method custom_class",
    '{"method":"eagle3","model":"birds/wren-eagle","num_speculative_tokens":2}': "birds/wren-eagle",
}


@pytest.mark.parametrize("given", DRAFTING)
def test_what_drafts_and_is_not_described_leaves_the_pool_unknown(folders: Path, given: str) -> None:
    content = figures(folders / "phi-4" / "bf16", f"--max-model-len 4096 --speculative-config '{given}'")
    for figure in ("pool_tokens", "weight_bytes_per_rank"):
        assert (content[figure] is None) == bool(DRAFTING[given]), figure
        assert DRAFTING[given] in content["unknown"].get(figure, "")


STATEFUL = [family for family in FLAT if of_config(FLAT[family]).hybrid]


@pytest.mark.parametrize("family", STATEFUL)
def test_a_state_for_each_block_is_kept_where_version_and_architecture_can(folders: Path, family: str) -> None:
    """vLLM 0.19.1 to 0.32.0 model_executor/models/config.py (MambaModelConfig), platforms/interface.py (the block),
    v1/kv_cache_interface.py (MambaSpec.max_memory_usage_bytes)."""
    folder, every = folders / family / "bf16", of_config(FLAT[family]).state_chunk
    for version, flag, mode in (
        ("0.27.1", "", "all" if every else "align"),
        ("0.27.1", "--mamba-cache-mode align", "align"),
        ("0.28.0", "", "align"),
        ("0.28.0", "--mamba-cache-mode all", "all" if every else "align"),
        ("0.32.0", "", "align"),
    ):
        words = f"--enable-prefix-caching --max-model-len 32768 --max-num-batched-tokens 2048 {flag}"
        run = of_text(f"vllm serve {folder} {words}", version)
        assert run.effective.mamba_cache_mode == mode
        pool, block = fit_invocation(run).figures.pool, run.effective.block_size
        assert pool is not None and block is not None
        states = [group for group in pool.groups if group.kind in ("state", "states")]
        if mode == "all":
            assert block % every == 0
            assert all(group.blocks(10 * block) == 10 * group.count for group in states)
            assert "align-block-over-batched-tokens" not in refused(folder, words, version)
            assert not refused(folder, f"{words} --no-enable-chunked-prefill --max-num-batched-tokens 32768", version)
        else:
            assert all(group.blocks(10 * block) == group.blocks(1) for group in states)


def test_some_families_keep_a_state_for_each_block_and_some_do_not() -> None:
    assert {bool(of_config(FLAT[family]).state_chunk) for family in STATEFUL} == {True, False}


@pytest.mark.parametrize("method", ["bitsandbytes", "gguf", "a-method-of-2027"])
def test_a_method_whose_bytes_nobody_described_leaves_the_weights_unknown(tmp_path: Path, method: str) -> None:
    config = {**FLAT["llama-3.3-70b"], "quantization_config": {"quant_method": method, "load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = figures(tmp_path, "")
    assert content["weight_bytes_per_rank"] is None
    assert method in content["unknown"]["weight_bytes_per_rank"]
    assert content["kv_bytes_per_token"] == 327680


def test_each_group_of_a_mixed_checkpoint_keeps_its_own_format() -> None:
    groups = {
        "a": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float"}},
        "b": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}},
    }
    content = {
        "quant_method": "compressed-tensors",
        "config_groups": groups,
        "ignore": ["lm_head", "re:.*layers.0.mlp.*"],
    }
    rules = Rules(content)
    assert rules.format(["layers.3.self_attn.q_proj"], "attention") == "fp8"
    assert rules.format(["layers.3.mlp.up_proj"], "dense") == "int4-g128"
    assert rules.format(["layers.0.mlp.up_proj"], "dense") == ""
    assert rules.format(["lm_head"], "head") == ""


PUBLISHED = {
    f"{family} {variant}": files["config.json"]
    for family, content in FAMILIES.items()
    for variant, files in content["configs"].items()
    if "quantization_config" in files["config.json"]
}


def rules_of(config: dict[str, Any], **changes: Any) -> Rules:
    return Rules({**config["quantization_config"], **changes}, str(config.get("expert_dtype") or ""))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_quantisation_that_nobody_described_leaves_the_bytes_unknown(name: str) -> None:
    config = PUBLISHED[name]
    assert not rules_of(config).unknown
    assert "no quant_method" in rules_of(config, quant_method=None).unknown
    underscored = str(config["quantization_config"]["quant_method"]).replace("compressed-t", "compressed_t")
    assert rules_of(config, quant_method=underscored).method == rules_of(config).method
    assert "wren_rank" in rules_of(config, wren_rank=32).unknown
    assert "sparsity_config" in rules_of(config, sparsity_config={"format": "sparse-24"}).unknown
    assert not rules_of(config, sparsity_config={}, transform_config={}).unknown
    assert not rules_of(config, sparsity_config={"format": "dense", "global_sparsity": 0.1}).unknown
    older = {"compression_config" if key == "quantization_config" else key: value for key, value in config.items()}
    assert quantisation_of(older) == quantisation_of(config)
    groups = config["quantization_config"].get("config_groups", {})
    for group, content in groups.items() if rules_of(config).method == "compressed-tensors" else ():
        for weights in (
            {"num_bits": 6, "type": "float"},
            {"num_bits": 4, "type": "codebook"},
            {**content["weights"], "rank": 8},
        ):
            wrong = {**groups, group: {**content, "weights": weights}}
            assert f"config_groups.{group}.weights" in rules_of(config, config_groups=wrong).unknown
    if str(config["quantization_config"].get("quant_method")).startswith("modelopt"):
        assert "NVFP6" in rules_of(config, quant_algo="NVFP6").unknown
        layers = {"model.layers.0.mlp": {"quant_algo": "W2A16_LUT"}}
        assert "W2A16_LUT" in rules_of(config, quant_algo="MIXED_PRECISION", quantized_layers=layers).unknown


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"+:.*down_proj": {"bits": 8}}},
            "int8-g128",
        ),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*down_proj": {}}}, ""),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "int4-channel"),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64}, "int4-g64"),
        (
            {"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": {".*down_proj": {"bits": 16}}},
            "",
        ),
        (
            {
                "quant_method": "auto-round",
                "bits": 4,
                "group_size": 128,
                "extra_config": {"model.layers.3.mlp.down_proj": {"bits": 8, "group_size": 32}},
            },
            "int8-g32",
        ),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, "mxfp8"),
    ],
)
def test_an_exception_of_one_module_has_its_own_format(content: dict[str, Any], word: str) -> None:
    rules = Rules(content)
    assert not rules.unknown
    assert rules.format(["layers.3.mlp.down_proj"], "dense") == word


WORDS = ("future_heads", "latent_rank_2", "swa_extra", "ngram_tables", "moe_hidden", "per_layer_width")


@given(family=st.sampled_from(sorted(FLAT)), key=st.sampled_from(WORDS), value=st.integers(1, 10**6) | st.booleans())
def test_a_key_that_nobody_described_leaves_no_figure(family: str, key: str, value: int) -> None:
    config = FLAT[family]
    for changed in ({**config, key: value}, nested(config, "text_config", key, value)):
        assert any(key in each for each in of_config(changed).gaps)


@given(family=st.sampled_from(sorted(FLAT)), name=st.from_regex(r"[A-Z][a-z]{3,9}ForCausalLM", fullmatch=True))
def test_an_architecture_that_nobody_described_leaves_no_figure(family: str, name: str) -> None:
    if name not in known():
        found = of_config({**FLAT[family], "architectures": [name]})
        assert not found.described
        assert name in found.unsized()


@pytest.mark.parametrize("family", [family for family in FLAT if "vision_config" in FLAT[family]])
def test_a_key_of_an_encoder_that_nobody_described_leaves_the_cache_known(family: str) -> None:
    found = of_config(nested(FLAT[family], "vision_config", "future_width", 7))
    assert not found.gaps
    assert "future_width" in found.part_gaps["vision"]


@pytest.mark.parametrize("family", FLAT)
def test_the_keys_of_a_published_configuration_are_all_described(family: str) -> None:
    config = FLAT[family]
    flat = {**config, **config.get("text_config", {})}
    description = described(config["architectures"][0])
    assert description is not None
    assert {"hidden_size", "num_hidden_layers", "vocab_size"} <= description.reads
    assert not description.unread(flat)


def nested(config: dict[str, Any], part: str, key: str, value: Any) -> dict[str, Any]:
    return {**config, part: {**config.get(part, {}), key: value}}


@pytest.mark.parametrize(
    ("arguments", "blocks"),
    [("", None), ("--max-num-batched-tokens 2496", 10077), ("--max-num-batched-tokens 2048", 9797), (TEXT, 9797)],
)
def test_a_default_batch_that_must_hold_one_video_is_not_guessed(
    folders: Path, arguments: str, blocks: int | None
) -> None:
    """vLLM 0.32 raises it to 2,496 for Gemma 4 where the processor can be read, and keeps 2,048 where not."""
    content = figures(folders / "gemma-4-26b-a4b" / "bf16", f"--kv-cache-memory-bytes 60000000000 {arguments}")
    assert content["blocks_per_request"] == blocks
