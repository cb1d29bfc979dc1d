"""Which engine file serves a version, and which version an image's tag names."""

import pytest

from sparkops.lint.case import Case
from sparkops.lint.check import check
from sparkops.models.engine import engine, version_of_image
from sparkops.models.serve_line import parse_text


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("vllm/vllm-openai:v0.26.0", "0.26.0"),
        ("docker.io/vllm/vllm-openai:v0.26.0@sha256:0", "0.26.0"),
        ("ghcr.io/x/vllm-sm121:cu130-0.19.1-aarch64", "0.19.1"),
        ("vllm/vllm-openai:v0.26.0rc1", "0.26.0"),
        ("x/vLLM:0.26", "0.26"),
        ("nvcr.io/nvidia/vllm:26.05-py3", ""),
        ("vllm/vllm-openai:latest", ""),
        ("registry:5000/vllm/vllm-openai", ""),
        ("x/other:0.26.0", ""),
        ("registry.example/team/spark-vllm-gx10:0.1.1", ""),
        ("registry.example/team/spark-vllm-gx10:0.26.0", ""),
        ("registry.example/team/spark-vllm-gx10:2-vllm0.26.0-cu130", "0.26.0"),
        ("x/vllm-spark:0.1.1", ""),
        ("x/vllm-spark:2026.3.1", ""),
        ("x/vllm-spark:cuda-13.0.1-v0.28.0", "0.28.0"),
        ("x/vllm-spark:torch-2.10.0-vllm-0.28.0", "0.28.0"),
        ("x/vllm-spark:0.28.0-vllm", "0.28.0"),
        ("nvcr.io/nvidia/vllm:26.01.1-py3", ""),
        ("", ""),
    ],
)
def test_the_tag_of_an_image_of_vllm_names_its_version(reference: str, version: str) -> None:
    assert version_of_image(reference) == version


def test_a_version_of_two_numbers_is_that_of_three() -> None:
    assert engine("0.26").version == engine("v0.26").version == "0.26.0"
    assert engine("0.26").exact


def test_a_version_before_all_that_are_listed_is_judged_without_errors() -> None:
    listed = engine("0.11.0")
    found = check(Case(line=parse_text("vllm serve M --swap-space 4", listed), engine=listed))
    assert {each.severity for each in found if each.id == "unknown-flag"} == {"warning"}
    assert any("older than all that are listed" in each.message for each in found)
    assert engine("0.20.0").version == "0.20.2" and not engine("0.20.0").later


def test_a_word_that_a_later_version_may_know_is_no_error_and_a_wrong_number_is() -> None:
    for asked, severity in (("0.33.0", "error"), ("0.33.4", "error"), ("0.99.0", "warning")):
        chosen = engine(asked)
        line = parse_text("vllm serve M --a-flag-of-2027 3 --kv-cache-dtype fp3 --max-num-seqs 0", chosen)
        found = {each.id: each.severity for each in check(Case(line=line, engine=chosen))}
        assert found["unknown-flag"] == found["kv-dtype-unknown"] == severity
        assert found["number-out-of-range"] == "error"
