"""Geometry, formats and the catalogue of models: what a config.json or a name gives."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.fit.fit import fit_invocation
from sparkops.lint.case import case_of
from sparkops.lint.check import check as lint
from sparkops.models.architecture.descriptions import described, known
from sparkops.models.architecture.expressions import compiled
from sparkops.models.architecture.geometry import of_config
from sparkops.models.architecture.quantisation import bytes_per_parameter, part_bytes
from sparkops.models.architecture.quantisation import of_config as quantisation_of
from sparkops.models.catalogue import find, names
from sparkops.models.invocation import of_text
from sparkops.models.model_file import check
from sparkops.reports.fit import as_json
from tests.errors import fails

FILES = sorted((bundled("knowledge") / "models").glob("*.yml"))
CONFIGS = json.loads((Path(__file__).parents[1] / "lint" / "verdicts.json").read_text())["models"]
LATENT = json.loads((Path(__file__).parents[2] / "data" / "architectures.json").read_text())["models"]
DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_model_s_file_has_the_shape_of_its_schema_and_its_own_name(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    jsonschema.validate(content, json.loads((bundled("knowledge") / "model.schema.json").read_text()))
    assert content["name"].lower() == path.stem


def test_every_name_and_repository_that_is_told_is_found() -> None:
    for name in names():
        model = find(name)
        assert model is not None, name
        assert part_bytes(model.geometry, model.quantisation), name


@pytest.mark.parametrize(
    ("settings", "old", "new", "usual"),
    [
        ({}, 131072, 131072, 131072),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 524288, 524288, 524288),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 1.5}}, 196608, 196608, 196608),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 131072, 131072, 131072),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 65536}},
            262144,
            131072,
            131072,
        ),
        (
            {"rope_scaling": {"rope_type": "longrope"}, "original_max_position_embeddings": 4096},
            131072,
            131072,
            4096,
        ),
        ({"model_max_length": 8192}, 8192, 8192, 8192),
        ({"max_seq_len": 4096}, 4096, 4096, 4096),
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 131072, 131072, 131072),
    ],
)
def test_the_longest_context_is_what_each_engine_derives(
    tmp_path: Path, settings: dict[str, object], old: int, new: int, usual: int
) -> None:
    """vLLM 0.28.0 and 0.32.0 config/model.py: _get_and_verify_max_len."""
    (tmp_path / "config.json").write_text(json.dumps({**DENSE, **settings}))
    for version, longest in (("0.28.0", old), ("0.32.0", new)):
        for given, over in ((longest, False), (longest + 1, True)):
            run = of_text(f"vllm serve {tmp_path} --max-model-len {given}", version)
            assert ("length-over-native" in [each.id for each in lint(case_of(run))]) == over
    assert of_text(f"vllm serve {tmp_path}", "0.32.0").effective.max_model_len == usual


@pytest.mark.parametrize("name", ["~nobody-of-that-name/model", "m" * 300, "a/" * 3000, "nul\0", "/dev/null/x", "~"])
def test_a_name_that_no_folder_here_can_have_is_a_model_that_is_not_known(name: str) -> None:
    assert find(name) is None


def test_a_drafter_names_a_target_that_is_known() -> None:
    drafters = [model for name in names() if (model := find(name)) and model.drafter]
    assert drafters
    for model in drafters:
        target = find(model.drafts_for[0])
        assert target is not None
        assert target.geometry.hidden == model.geometry.hidden
        assert len(target.geometry.layers) == model.geometry.target_layers


@pytest.mark.parametrize("name", sorted(name for name in CONFIGS if not name.startswith("drafter")))
def test_the_catalogue_s_geometry_is_that_of_the_config_which_the_engine_read(name: str) -> None:
    base, _, _ = name.rpartition("-")
    known, read = find(base), of_config(CONFIGS[name])
    assert known is not None
    assert replace(known.geometry, vision=(), encoder={}, part_gaps={}) == replace(
        read, vision=(), encoder={}, part_gaps={}, nested=False
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("autoround", {"experts": "int4-g128", "attention": "int4-g128"}),
        ("gptq", {"experts": "int4-g128", "attention": "int4-g128"}),
        ("fp8", {"experts": "fp8", "mtp": "fp8", "shared_experts": "fp8"}),
        ("nvfp4", {"experts": "nvfp4", "attention": "nvfp4"}),
        ("bf16", {}),
    ],
)
def test_the_formats_of_a_config_are_read_with_its_exclusions(name: str, parts: dict[str, str]) -> None:
    formats = quantisation_of(CONFIGS[f"Qwen3.5-122B-A10B-{name}"]).formats
    assert {part: formats[part] for part in parts} == parts
    assert "head" not in formats
    assert bool(formats) == bool(parts)
    if name == "nvfp4":
        assert not {"linear_attention", "mtp", "mtp_experts"} & set(formats)
    if name in ("gptq", "autoround"):
        assert not {"mtp", "mtp_experts"} & set(formats)


def test_auto_round_s_exceptions_by_module_are_followed() -> None:
    config = json.loads(json.dumps(CONFIGS["Qwen3.5-122B-A10B-autoround"]))
    shared = "model.language_model.layers.0.mlp.shared_expert.gate_proj"
    config["quantization_config"]["extra_config"] = {shared: {"bits": 16}, "lm_head": {"bits": 8}}
    formats = quantisation_of(config).formats
    assert "shared_experts" not in formats
    assert formats["head"].startswith("int8")


def test_a_plain_dense_transformer_has_the_parameters_of_its_card() -> None:
    geometry = of_config(DENSE)
    assert (geometry.hybrid, geometry.head_dim) == (False, 128)
    assert geometry.text_parameters == pytest.approx(8.03e9, rel=0.001)  # Llama 3.1 8B


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_config_without_a_size_says_which(key: str) -> None:
    assert key in of_config({name: value for name, value in DENSE.items() if name != key}).unsized()
    with fails("model-size-invalid", InventoryError) as raised:
        of_config({**DENSE, key: "many"})
    assert isinstance(raised.value, InventoryError) and raised.value.args_by_name["key"] == key


@pytest.mark.parametrize(
    ("key", "value", "id"),
    [
        ("architectures", 5, "model-list-invalid"),
        ("layer_types", "full_attention", "model-list-invalid"),
        ("num_hidden_layers", 1_000_000_000, "model-layers-too-many"),
        ("num_hidden_layers", 10_001, "model-layers-too-many"),
        ("vocab_size", 10**400, "model-size-invalid"),
        ("hidden_size", 31, "model-heads-wider-than-hidden"),
    ],
)
def test_a_config_with_a_value_of_another_kind_says_where(key: str, value: object, id: str) -> None:
    with fails(id, InventoryError) as raised:
        of_config({**DENSE, key: value}, "here/config.json")
    assert isinstance(raised.value, InventoryError) and raised.value.where == "here/config.json"


def test_a_list_where_a_size_is_meant_is_not_understood_and_refuses_nothing() -> None:
    for key in ("intermediate_size", "num_key_value_heads"):
        found = of_config({**DENSE, key: [8, 8]})
        assert found.gaps or found.part_gaps


def own_file(folder: Path, **content: object) -> Path:
    path = folder / "knowledge" / "models" / "wren.yml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({"name": "wren", "geometry": DENSE, **content}))
    return path


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            {"geometry": {**DENSE, "num_exprts": 4}},
            "geometry.num_exprts is not a key of a model\n  → did you mean num_experts?",
        ),
        ({"geometry": {**DENSE, "vision_config": {"dept": 3}}}, "geometry.vision_config.dept"),
        ({"geometry": {**DENSE, "vocab_size": "many"}}, "vocab_size is 'many'"),
        ({"repository": []}, "repository is not a key of a model\n  → did you mean repositories?"),
        ({"repositories": {"id": "a/b"}}, "repositories: {'id': 'a/b'} is not of type"),
        ({"repositories": [{"method": "fp8"}]}, "repositories[0]: 'id' is a required property"),
        ({"repositories": [{"id": "a/b", "bits": "four"}]}, "repositories[0].bits: 'four' is not"),
        ({"repositories": [{"id": "a/b", "gigabytes": True}]}, "repositories[0].gigabytes: True is not"),
        (
            {"repositories": [{"id": "a/b", "formats": {"experts": "int4g128"}}]},
            "repositories[0].formats.experts: 'int4g128' does not match",
        ),
        ({"repositories": [{"id": "a/b", "formats": {"expert": "fp8"}}]}, "formats.expert is not a key"),
        ({"speeds": [{"setup": "TP 1"}]}, "speeds[0]: 'tokens_per_second' is a required"),
        (
            {"speeds": [{"tokens_per_second": [], "quantisation": "BF16", "setup": "x"}]},
            "tokens_per_second: [] is not valid",
        ),
    ],
)
def test_a_file_of_one_s_own_with_a_fault_names_file_and_key(
    tmp_path: Path, content: dict[str, object], what: str
) -> None:
    path = own_file(tmp_path, **content)
    with pytest.raises(InventoryError) as raised:
        find("wren", tmp_path)
    assert str(path) in str(raised.value)
    assert what in str(raised.value)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    own_file(tmp_path, geometry={**DENSE, "hiden_size": 1, "num_exprts": 4})
    with pytest.raises(InventoryError) as raised:
        find("wren", tmp_path)
    assert len(raised.value.others) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_check_accepts_the_bundled_files(path: Path) -> None:
    check(yaml.safe_load(path.read_text()), str(path))


def test_a_tensor_file_with_nonsense_in_its_header_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    words = json.dumps({"a": {"data_offsets": ["0", "9"]}, "b": {"data_offsets": [0, None]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(words).to_bytes(8, "little") + words)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": []}, "metadata": {"total_size": Infinity}}'
    )
    model = find(str(tmp_path))
    assert model is not None and model.weights is None


def test_attention_over_a_latent_is_a_gap_and_not_a_wrong_figure() -> None:
    assert "kv_lora_rank" in of_config({**DENSE, "kv_lora_rank": 512}).gaps[0]


def test_linear_layers_without_sizes_are_a_gap_and_not_a_state_of_zero_bytes() -> None:
    hybrid = {**DENSE, "architectures": ["Qwen3NextForCausalLM"]}
    gaps = of_config({**hybrid, "layer_types": ["linear_attention", "full_attention"] * 16}).gaps
    assert any("linear_num_key_heads" in each or "linear_num_value_heads" in each for each in gaps)


def test_a_name_with_a_known_base_is_taken_to_be_stored_like_its_siblings() -> None:
    like = find("someone/Qwen3.5-122B-A10B-heretic-NVFP4")
    assert like is not None
    assert not like.verified
    assert like.quantisation.formats == {"experts": "nvfp4"}
    assert like.guessed and not (find("Intel/Qwen3.5-122B-A10B-int4-AutoRound") or like).guessed
    assert find("someone/Qwen3.5-122B-A10B-heretic") is None
    for other in (
        "REAP-50",
        "REAP50",
        "60B",
        "A5B",
        "0.6B-Draft",
        "Eagle3",
        "GGUF",
        "Embedding",
        "pruned",
        "16-experts",
    ):
        assert find(f"someone/Qwen3.5-122B-A10B-{other}-NVFP4") is None, other
    assert find("someone/MiniMax-M2.7-REAP-139B-A10B-NVFP4") is None
    assert find("someone/GLM-4.7-Flash-NVFP4") is None  # no sibling of its architecture is known in that format
    assert find("nobody/knows-this") is None
    assert find("QWEN3.5-122b-a10b") is not None


def test_a_format_s_bytes_include_its_scales() -> None:
    assert [bytes_per_parameter(word) for word in ("int4-g128", "nvfp4", "int8", "bf16")] == [0.515625, 0.5625, 1, 2]
    with pytest.raises(ValueError, match="no format"):
        bytes_per_parameter("int4")


def safetensors(path: Path, tensors: dict[str, int]) -> None:
    header, offset = {}, 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    words = json.dumps({"__metadata__": {}, **header}).encode()
    path.write_bytes(len(words).to_bytes(8, "little") + words)


def test_a_folder_s_tensor_headers_give_exact_bytes_by_part(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    safetensors(tmp_path / "model-1.safetensors", {"lm_head.weight": 10, "model.layers.0.mlp.up_proj.weight": 7})
    safetensors(tmp_path / "model-2.safetensors", {"mtp.fc.weight": 5, "lm_head.weight": 10})
    model = find(str(tmp_path))
    assert model is not None and model.weights is not None
    assert (model.weights.parts, model.weights.names) == ({"head": 10, "dense": 7, "mtp": 5}, 3)
    assert model.mtp_weights is True


def test_without_the_files_the_index_s_total_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    index = {"metadata": {"total_size": 99}, "weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    model = find(str(tmp_path))
    assert model is not None and model.weights is not None
    assert (model.weights.total, model.mtp_weights) == (99, None)


def test_a_folder_with_a_broken_config_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with fails("model-config-unreadable"):
        find(str(tmp_path))


def test_of_two_layouts_of_the_same_weights_the_one_that_the_index_names_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    safetensors(tmp_path / "model-1.safetensors", {"lm_head.weight": 10})
    safetensors(tmp_path / "consolidated.safetensors", {"output.weight": 10})
    model = find(str(tmp_path))
    assert model is not None and model.weights is not None
    assert model.weights.total == 10
    index = {"metadata": {"total_size": 10}, "weight_map": {"output.weight": "consolidated.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    model = find(str(tmp_path))
    assert model is not None and model.weights is not None
    assert model.weights.parts == {"other": 10}


def test_headers_that_say_another_size_than_the_configuration_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DENSE))
    safetensors(tmp_path / "model.safetensors", {"lm_head.weight": 1000})
    fit = fit_invocation(of_text(f"vllm serve {tmp_path} --max-model-len 4096", "0.32.0"))
    assert any("the headers were taken" in each for each in fit.notes)


def test_a_model_stored_in_float32_is_loaded_in_16_bits_unless_the_line_asks_for_it(tmp_path: Path) -> None:
    def figures(dtype: str, flags: str = "") -> tuple[object, object]:
        (tmp_path / "config.json").write_text(json.dumps({**DENSE, "torch_dtype": dtype}))
        content = as_json(fit_invocation(of_text(f"vllm serve {tmp_path} --max-model-len 4096 {flags}", "0.33.0")))
        return content["weight_bytes_per_rank"], content["kv_bytes_per_token"]

    weights, token = figures("bfloat16")
    assert figures("float32") == figures("float32", "--dtype half") == (weights, token)
    wide = figures("bfloat16", "--dtype float32")
    assert wide == figures("float32", "--dtype float32")
    assert (wide[1], wide[0]) == (2 * int(str(token)), pytest.approx(2 * int(str(weights)), rel=0.001))
    safetensors(tmp_path / "model.safetensors", {"lm_head.weight": 1000})
    assert figures("float32")[0] == weights
    assert figures("bfloat16")[0] != weights


def test_a_cache_that_compressed_tensors_declares_is_taken_unless_the_line_says_another(tmp_path: Path) -> None:
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    stored = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }

    def token(scheme: object, flags: str = "") -> int:
        config = {**DENSE, "quantization_config": {**stored, "kv_cache_scheme": scheme}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        content = as_json(fit_invocation(of_text(f"vllm serve {tmp_path} --max-model-len 4096 {flags}", "0.33.0")))
        return int(str(content["kv_bytes_per_token"]))

    declared = {"num_bits": 8, "type": "float", "dynamic": False}
    assert token(None) == token(declared, "--kv-cache-dtype bfloat16") == 2 * token(declared)
    latent = next(each["config"] for each in LATENT if each["architecture"] == "DeepseekV3ForCausalLM")
    found = quantisation_of({**latent, "quantization_config": {**stored, "kv_cache_scheme": declared}})
    assert (found.kv_dtype, found.cache_dtype(of_config(latent))) == ("fp8", "auto")


@pytest.mark.parametrize("name", known())
def test_a_description_has_only_expressions_that_can_be_computed(name: str) -> None:
    found = described(name)
    assert found is not None
    assert {"hidden_size", "num_hidden_layers"} <= found.reads
    for size in found.sizes.values():
        if isinstance(size, str):
            compiled(size)


@pytest.mark.parametrize(
    "text", ["__import__('os')", "hidden.bit_length()", "[each for each in x]", "lambda: 1", "a **"]
)
def test_an_expression_is_arithmetic_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="expression|invalid"):
        compiled(text)
