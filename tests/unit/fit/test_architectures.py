"""Architectures beside the families, against classes of vLLM 0.32.0 or transformers (tests/data/architectures.json)."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sparkops.models.architecture.descriptions import described, known, unwrapped
from sparkops.models.architecture.geometry import Geometry, of_config

DATA = Path(__file__).parents[2] / "data"
MODELS = json.loads((DATA / "architectures.json").read_text())["models"]


def ours(found: Geometry) -> Counter[Any]:
    """What the layers keep: heads, size, window of keys and values; the shapes of states."""
    kept: Counter[Any] = Counter()
    for each in found.cached:
        if each.kind == "state":
            shapes = [(each.kernel - 1, each.channels)]
            shapes = shapes if each.kernel > 1 else []
            matrix = tuple(size for size in (each.heads, *sorted((each.key, each.value))) if size > 1)
            kept[(*shapes, *([matrix] if matrix else []))] += 1
        else:
            kept[each.heads, each.key, each.window] += 1
    return kept


def engine(model: dict[str, Any]) -> Counter[Any]:
    kept: Counter[Any] = Counter()
    for each in model["kept"]:
        if "shapes" in each:
            kept[tuple((shape[0], *sorted(shape[1:])) for shape in each["shapes"])] += each["layers"]
        else:
            kept[each["heads"], each["size"], each.get("window", 0)] += each["layers"]
    return kept


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model["architecture"]))
def test_parameters_and_what_layers_keep_are_the_engine_s(model: dict[str, Any]) -> None:
    found = of_config(model["config"])
    assert not found.gaps
    assert found.text_parameters == pytest.approx(model["parameters"], rel=0.001)
    assert ours(found) == engine(model)
    if "vision" not in found.part_gaps:
        assert found.parameters.get("vision", 0) == pytest.approx(model["vision"], rel=0.001)


def test_a_model_behind_encoders_is_described_by_its_text_part() -> None:
    inner = {"model_type": "qwen3", "hidden_size": 64}
    wrapped = {"architectures": ["InternVLChatModel"], "llm_config": {**inner, "architectures": ["Qwen2ForCausalLM"]}}
    assert unwrapped(wrapped) == ("Qwen2ForCausalLM", {**inner, "architectures": ["Qwen2ForCausalLM"]})
    by_type = {"architectures": ["LlavaForConditionalGeneration"], "text_config": inner}
    assert unwrapped(by_type)[0] == "Qwen3ForCausalLM"
    unknown = {"architectures": ["LlavaForConditionalGeneration"], "text_config": {"model_type": "wren"}}
    assert of_config(unknown).gaps


def test_an_outer_part_s_own_architectures_do_not_hide_the_model_s() -> None:
    thinker = {"architectures": ["WrenThinker"], "text_config": {"model_type": "qwen2_5_omni_text", "hidden_size": 64}}
    assert unwrapped({"architectures": ["Qwen2_5OmniModel"], "thinker_config": thinker})[0] == "Qwen2ForCausalLM"


@pytest.mark.parametrize(("name", "ssm"), [("VL_V2", "float32"), ("Omni_Reasoning_V3", "bfloat16")])
def test_of_nemotron_s_wrappers_one_alone_has_the_states_in_the_text_part_s_type(name: str, ssm: str) -> None:
    text = json.loads((DATA / "cases/models/s01-nemotron-3-super/config.json").read_text())
    architecture = f"NemotronH_Nano_{name}"
    found = of_config({"architectures": [architecture], "llm_config": text, "sound_config": {"hidden_size": 8}})
    plain = of_config(text)
    assert not found.gaps and "audio" in found.part_gaps
    towered = of_config({"architectures": [architecture], "llm_config": text, "vision_config": {"args": {}}})
    assert towered.part_gaps["vision"] == "an encoder of images without a model_type is not described"
    assert (found.ssm_dtype, plain.ssm_dtype) == (ssm, "float32")
    assert found.text_parameters == plain.text_parameters


def test_the_indexers_of_glm_5_2_are_where_the_keys_say_that_the_engine_reads() -> None:
    model = next(each for each in MODELS if each["architecture"] == "GlmMoeDsaForCausalLM")
    keys = ("indexer_types", "index_topk_freq", "index_topk_pattern", "index_skip_topk_offset")
    bare = {key: value for key, value in model["config"].items() if key not in keys}
    layers = bare["num_hidden_layers"]

    def indexed(**given: object) -> list[bool]:
        return [len(each) == 2 for each in of_config({**bare, **given}).layers]

    assert indexed() == indexed(indexer_types=["shared"] * layers) == [True] * layers
    every = indexed(index_topk_freq=4, index_skip_topk_offset=3)
    assert every == [i < 3 or i % 4 == 2 for i in range(layers)]
    assert indexed(index_topk_pattern="".join("F" if each else "S" for each in every)) == every


def test_keys_that_tools_write_when_they_resave_a_model_are_no_gaps() -> None:
    resaved = {"unsloth_fixed": True, "unsloth_version": "2026.3.3", "model_name": "a/b", "use_mrope": False}
    for model in MODELS:
        assert not of_config({**model["config"], **resaved, "_attn_implementation_autoset": True}).gaps


def test_a_head_that_one_wrapper_alone_has_leaves_the_text_part_known() -> None:
    plain = next(each for each in MODELS if each["architecture"] == "Exaone4ForCausalLM")["config"]
    text = {**plain, "model_type": "exaone4", "num_nextn_predict_layers": 1}
    wrapped = of_config({"architectures": ["Exaone4_5_ForConditionalGeneration"], "text_config": text})
    assert not wrapped.gaps and wrapped.mtp_layers == 1 and "mtp" in wrapped.part_gaps
    assert wrapped.text_parameters == of_config(plain).text_parameters


def test_an_encoder_of_sound_leaves_the_cache_known_and_the_weights_unknown() -> None:
    config = next(
        each["config"]
        for each in MODELS
        if each["architecture"] == "Qwen2ForCausalLM" or "Qwen2" in each["architecture"]
    )
    found = of_config({**config, "audio_config": {"num_mel_bins": 128}})
    assert not found.gaps and "audio" in found.part_gaps
    assert found.unsized() and not found.unsized("audio", "vision")


def test_every_description_has_the_sizes_that_all_models_have() -> None:
    for name in known():
        description = described(name)
        assert description is not None
        assert "hidden_size" in description.reads and "vocab_size" in description.reads, name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model["architecture"]))
def test_no_part_of_a_configuration_takes_a_key_that_nobody_described_silently(model: dict[str, Any]) -> None:
    for path in mappings(model["config"]):
        found = of_config(changed(model["config"], path))
        told = any("wren_width" in each for each in (*found.gaps, *found.part_gaps.values()))
        undescribed = path[:1] == ["vision_config"] and "vision" in found.part_gaps
        assert told or undescribed or path[-1:] in (["auto_map"], ["id2label"], ["label2id"]), path


@pytest.mark.parametrize(
    "model", [each for each in MODELS if "layer_types" in each["config"]], ids=lambda model: str(model["architecture"])
)
def test_a_layer_of_a_type_that_nobody_described_or_that_is_not_listed_is_a_gap(model: dict[str, Any]) -> None:
    config = model["config"]
    types = config["layer_types"][: config["num_hidden_layers"]]
    assert any("wren" in each for each in of_config({**config, "layer_types": [*types[:-1], "wren_attention"]}).gaps)
    assert of_config({**config, "layer_types": types[:-1]}).gaps


def test_a_key_that_the_file_lacks_is_the_engine_s_own_default_and_null_is_nothing() -> None:
    config: dict[str, Any] = next(each["config"] for each in MODELS if each["architecture"] == "Ernie4_5ForCausalLM")
    without = {key: value for key, value in config.items() if key not in ("tie_word_embeddings", "head_dim")}
    assert of_config(without).parameters == of_config(config).parameters
    narrow = of_config({**config, "head_dim": None})
    assert narrow.head_dim == config["hidden_size"] // config["num_attention_heads"]


def mappings(content: Any, path: tuple[str, ...] = ()) -> list[list[str]]:
    """The path of a configuration and of each mapping in it."""
    if not isinstance(content, dict):
        return []
    return [list(path), *(each for key, value in content.items() for each in mappings(value, (*path, key)))]


def changed(content: dict[str, Any], path: list[str]) -> dict[str, Any]:
    if not path:
        return {**content, "wren_width": 7}
    return {**content, path[0]: changed(content[path[0]], path[1:])}
