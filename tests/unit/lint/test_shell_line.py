"""Lines as people paste them: what the shell and docker mean is theirs, the rest is the engine's."""

import pytest

from sparkops.models import shell_line

WORDS = ["M", "--max-num-seqs", "4"]


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("vllm serve M --max-num-seqs 4", {}),
        ("vllm serve M --max-num-seqs 4 > log.txt 2>&1 &", {}),
        ("vllm serve M --max-num-seqs 4 2>/dev/null", {}),
        ("vllm serve M --max-num-seqs 4 | tee log && echo done; ls", {}),
        ("vllm serve M --max-num-seqs 4;", {}),
        ("cd /x && /opt/bin/vllm serve M \\ \n  # a comment\n  --max-num-seqs 4", {}),
        ("VLLM_X=1 VLLM_Y='a b' vllm serve M --max-num-seqs 4", {"VLLM_X": "1", "VLLM_Y": "a b"}),
        ("sudo VLLM_X=1 vllm serve M --max-num-seqs 4", {"VLLM_X": "1"}),
        ("export VLLM_X=1; vllm serve M --max-num-seqs 4", {"VLLM_X": "1"}),
        ("bash -lc 'VLLM_X=1 vllm serve M --max-num-seqs 4 > log'", {"VLLM_X": "1"}),
        ("docker exec -it box bash -c 'vllm serve M --max-num-seqs 4'", {}),
        (
            "docker run --gpus all -it --rm -p 8000:8000 -eVLLM_X=1 vllm/vllm-openai:v0.19.1 M --max-num-seqs 4",
            {"VLLM_X": "1"},
        ),
        ("docker run --env=VLLM_X=1 --env VLLM_Y=2 img vllm serve M --max-num-seqs 4", {"VLLM_X": "1", "VLLM_Y": "2"}),
        ("python3 -m vllm.entrypoints.openai.api_server M --max-num-seqs 4", {}),
        ("python3 -m vllm.entrypoints.cli.main serve M --max-num-seqs 4", {}),
        ("docker run -e VLLM_X=1 --entrypoint vllm vllm/vllm-openai:v0.28.0 serve M --max-num-seqs 4", {"VLLM_X": "1"}),
        ("docker run --entrypoint=bash img -lc 'VLLM_X=1 vllm serve M --max-num-seqs 4'", {"VLLM_X": "1"}),
        ("docker run --entrypoint python3 img -m vllm.entrypoints.cli.main serve M --max-num-seqs 4", {}),
    ],
)
def test_the_engine_gets_its_own_words_and_variables(text: str, environment: dict[str, str]) -> None:
    assert shell_line.split(text) == (environment, WORDS)


def test_a_value_in_quotes_keeps_what_would_end_a_command() -> None:
    assert shell_line.split("""vllm serve M --hf-overrides '{"a": "x; y | z > w"}'""")[1][2] == '{"a": "x; y | z > w"}'


@pytest.mark.parametrize("text", ["vllm serve A\nvllm serve B; vllm serve C", "vllm serve A && vllm serve B"])
def test_two_commands_that_serve_are_not_taken_for_one(text: str) -> None:
    with pytest.raises(ValueError, match="2 commands in it start vLLM"):
        shell_line.split(text)
