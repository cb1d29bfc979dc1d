"""Families and their parsers: an engine knows each, and a model is of the family of its name or architecture."""

from __future__ import annotations

import re

import pytest

from sparkops.models.architecture.descriptions import known
from sparkops.models.engine import engine, versions
from sparkops.models.parsers import Family, families, family_of, usual

NEWEST = engine(versions()[-1])


@pytest.mark.parametrize("family", families(), ids=lambda each: each.family)
def test_a_family_has_parsers_that_the_newest_engine_knows(family: Family) -> None:
    assert family.tool_call or family.reasoning
    assert set(family.tool_call) <= set(NEWEST.tool_parsers)
    assert set(family.reasoning) <= set(NEWEST.reasoning_parsers)
    assert family.source and re.compile(family.names)


def test_most_of_what_is_described_has_a_family() -> None:
    named = {name for each in families() for name in each.architectures}
    assert len(named & set(known())) >= 25


@pytest.mark.parametrize(
    ("repository", "architecture", "family"),
    [
        ("openai/gpt-oss-120b", "GptOssForCausalLM", "gpt-oss"),
        ("me/my-own", "GptOssForCausalLM", "gpt-oss"),
        ("nvidia/Qwen3.6-27B-NVFP4", "Qwen3_5ForConditionalGeneration", "Qwen3.5, 3.6 and 3.8"),
        ("Qwen/Qwen3-Coder-Next-FP8", "Qwen3NextForCausalLM", "Qwen3-Coder"),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", "Qwen3NextForCausalLM", "Qwen3"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "Qwen3VLMoeForConditionalGeneration", "Qwen3"),
        ("zai-org/GLM-4.7-Flash", "Glm4MoeLiteForCausalLM", "GLM-4.7 and GLM-5"),
        ("zai-org/GLM-4.6", "Glm4MoeForCausalLM", "GLM-4.5 and GLM-4.6"),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", "NemotronHForCausalLM", "Nemotron-3"),
        ("cyankiwi/MiniMax-M2.7-AWQ-4bit", "MiniMaxM2ForCausalLM", "MiniMax-M2"),
        ("mistralai/Devstral-Small-2507", "MistralForCausalLM", "Mistral"),
        ("nvidia/Llama-3.3-70B-Instruct-NVFP4", "LlamaForCausalLM", "Llama 3.1 and 3.3"),
        ("deepseek-ai/DeepSeek-V4-Flash", "", "DeepSeek-V4"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "DeepseekV32ForCausalLM", "DeepSeek-V3.2"),
    ],
)
def test_a_model_is_of_its_family(repository: str, architecture: str, family: str) -> None:
    found = family_of(repository, (architecture,) if architecture else ())
    assert found is not None and found.family == family


@pytest.mark.parametrize(
    ("repository", "architecture"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "LlamaForCausalLM"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "DeciLMForCausalLM"),
        ("me/my-own", "Qwen3MoeForCausalLM"),
        ("me/qwen3-coder-distilled", "LlamaForCausalLM"),
        ("", ""),
    ],
)
def test_what_may_be_of_several_families_is_of_none(repository: str, architecture: str) -> None:
    assert family_of(repository, (architecture,) if architecture else ()) is None


def test_the_usual_parser_is_one_that_the_engine_has() -> None:
    assert usual(("a", "b"), ["b", "c"]) == "b"
    assert usual(("a",), ["b"]) == ""
