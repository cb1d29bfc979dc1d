"""Defaults of configuration classes are read out of a wheel without importing it: a small wheel of transformers."""

import json
import zipfile
from pathlib import Path

import pytest

from sparkops.core.data import bundled
from sparkops.models.architecture.descriptions import described, known
from tools.wheel_defaults import defaults, main
from tools.wheel_source import Wheel

LISTED = bundled("knowledge") / "architectures" / "_defaults.json"
AUTO = "transformers/models/auto"
FILES = {
    "transformers-99.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: transformers\nVersion: 99.0\n\n",
    "transformers/__init__.py": "raise RuntimeError('this is never imported')",
    f"{AUTO}/auto_mappings.py": """
CONFIG_MAPPING_NAMES = OrderedDict([("qwen3_moe", "Qwen3MoeConfig"), ("gemma3", "Gemma3Config")])
""",
    f"{AUTO}/modeling_auto.py": """
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict([("qwen3_moe", "Qwen3MoeForCausalLM")])
MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES = OrderedDict([("gemma3", "Gemma3ForConditionalGeneration")])
""",
    "transformers/models/qwen3_moe/configuration_qwen3_moe.py": """
class Base(PreTrainedConfig):
    vocab_size: int = 1000
    hidden_size: int = 64
    decoder_sparse_step: int = 1

class Qwen3MoeConfig(Base):
    model_type = "qwen3_moe"
    attribute_map = {"num_local_experts": "num_experts"}
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int | None = 2
    head_dim: int | None = 32
    attention_bias: bool = False
    intermediate_size: int = 128
    moe_intermediate_size: int = 32
    num_experts: int = 8
    num_experts_per_tok: int = 2
    shared_expert_intermediate_size: int = 16
    rope_theta: float = 10000.0

    def __post_init__(self, **kwargs):
        self.head_dim = self.head_dim if self.head_dim is not None else 16
        self.shared_expert_intermediate_size = self.shared_expert_intermediate_size // 2
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
""",
    "transformers/models/gemma3/configuration_gemma3.py": """
class Gemma3TextConfig(PreTrainedConfig):
    model_type = "gemma3_text"
    vocab_size: int = 262208
    hidden_size: int = 64
    head_dim: int = 16

    def __post_init__(self, **kwargs):
        kwargs.setdefault("num_key_value_heads", 4)

class Gemma3Config(PreTrainedConfig):
    model_type = "gemma3"
    sub_configs = {"text_config": Gemma3TextConfig, "vision_config": SiglipVisionConfig}
""",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    path = tmp_path / "transformers-99.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return Wheel(path)


def test_what_a_description_would_silently_read_as_nothing_is_listed(wheel: Wheel) -> None:
    found = defaults(wheel, "Qwen3MoeForCausalLM")
    assert found["head_dim"] == 32 and found["num_key_value_heads"] == 2 and found["decoder_sparse_step"] == 1
    assert "hidden_size" not in found, "a gap says that it is lacking"
    assert "shared_expert_intermediate_size" not in found, "the class makes another value of it"
    assert "num_experts" not in found, "a file may give it by its other name"
    assert "attention_bias" not in found, "nothing is what it reads as anyway"


def test_what_files_leave_out_of_their_text_part_is_listed(wheel: Wheel) -> None:
    found = defaults(wheel, "Gemma3ForConditionalGeneration")
    assert found == {"head_dim": 16, "hidden_size": 64, "num_key_value_heads": 4, "vocab_size": 262208}


def test_the_file_is_what_the_command_prints(wheel: Wheel, capsys: pytest.CaptureFixture[str]) -> None:
    main(str(wheel.path))
    printed = json.loads(capsys.readouterr().out)
    assert printed["source"].startswith("transformers 99.0")
    assert set(printed["defaults"]) == {"Gemma3ForConditionalGeneration", "Qwen3MoeForCausalLM"}
    text = LISTED.read_text()
    listed = json.loads(text)
    assert text == json.dumps(listed, indent=1, sort_keys=True) + "\n"
    assert (set(listed), listed["about"]) == (set(printed), printed["about"])
    assert set(listed["defaults"]) <= set(known())


def test_every_default_that_is_listed_is_a_key_that_its_description_reads() -> None:
    for name, found in json.loads(LISTED.read_text())["defaults"].items():
        description = described(name)
        assert description is not None
        assert set(found) <= description.reads, name
