"""What the real vLLM 0.32.0 said when it failed, and what is made of it: the cause, and whether another start may help.

Each file of tests/data/engine-logs is the end of a log, made by `vllm serve` (the build for CPUs) with a wrong line or
a broken checkpoint; stacks are cut to their last frames and lists within a line in the middle.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparkops.models import engine_errors
from sparkops.programs.launch.node import permanent_errors

LOGS = Path(__file__).parents[2] / "data" / "engine-logs"
MEANT = {
    "refused-configuration": """
        architecture batched-below-seqs batched-tokens executor kv-connector-role kv-connector max-model-len
        model-type quantization-config quantization-none quantization-word speculative-no-model
        tensor-parallel-heads
    """,
    "unknown-attention-backend": """attention-backend""",
    "wrong-choice": """
        bad-json chat-template-kwargs cudagraph-sizes dtype-choice kv-cache-dtype-choice log-level lora-rank
        mamba-cache-mode max-model-len-words mm-limit not-a-number port-word prefix-hash
    """,
    "refused-value": """
        block-size-negative compilation-key compilation-mode hf-overrides max-num-seqs-zero speculative-key
        speculative-method speculative-zero stream-interval structured-outputs utilization
    """,
    "chat-template-missing": """chat-template""",
    "model-unreadable": """config-broken config-missing model-missing tokenizer-missing""",
    "config-file-missing": """config-file""",
    "unknown-argument": """flag-typo long-prefills positional swap-space unknown-flag""",
    "name-not-resolved": """host-name""",
    "address-not-here": """host""",
    "memory-for-cache": """kv-space""",
    "unknown-load-format": """load-format""",
    "ranks-do-not-fit": """nnodes""",
    "ranks-of-unlike-layers": """pipeline-stages""",
    "weights-of-another-shape": """parameter-shape""",
    "foreign-weights": """parameter-unknown""",
    "wrong-port": """port-high""",
    "port-in-use": """port-in-use""",
    "unknown-parser": """reasoning-parser tool-parser""",
    "missing-shard": """shard-missing""",
    "broken-shard": """shard-short""",
    "no-prediction-head": """speculative-without-layer""",
    "tool-parser": """tool-choice-without-parser""",
}
"""Entry of knowledge/engine-errors.yml → the logs that it explains."""
CASES = [(name, id) for id, names in MEANT.items() for name in names.split()]


def test_every_log_has_its_meaning() -> None:
    assert sorted(name for name, _ in CASES) == sorted(path.stem for path in LOGS.glob("*.txt"))


@pytest.mark.parametrize(("name", "id"), CASES)
def test_what_the_engine_said_is_explained_without_a_gap(name: str, id: str) -> None:
    found = engine_errors.likely((LOGS / f"{name}.txt").read_text())
    assert found is not None
    error, cause, remedy = found
    assert error.id == id
    assert not re.search(r"[{}]|None", cause.partition(":")[0]), "the words of the source line, not of the message"
    assert remedy


@pytest.mark.parametrize(("name", "id"), CASES)
def test_the_launcher_gives_up_exactly_where_the_cause_is_permanent(tmp_path: Path, name: str, id: str) -> None:
    """The launcher reads line by line, and knows only the permanent entries."""
    (tmp_path / "errors.json").write_text(engine_errors.permanent())
    pattern = permanent_errors(str(tmp_path / "errors.json"))
    assert pattern is not None
    given_up = any(pattern.search(line) for line in (LOGS / f"{name}.txt").read_text().splitlines())
    assert given_up == next(each.permanent for each in engine_errors.known() if each.id == id)


STARTS = {
    'would not start: could not select device driver "" with capabilities: [[gpu]]': "no-gpu-runtime",
    "[FATAL tini (7)] exec vlm failed: No such file or directory": "command-missing",
    'runc create failed: exec: "vlm": executable file not found in $PATH': "command-missing",
}
"""What Docker and its init say where the engine's first line is never reached, and the entry."""


@pytest.mark.parametrize("line", STARTS)
def test_what_docker_will_always_refuse_ends_at_the_first_start(line: str) -> None:
    found = engine_errors.likely(line)
    assert found is not None
    error, cause, remedy = found
    assert (error.id, error.permanent) == (STARTS[line], True)
    assert "None" not in cause + remedy


MAY_PASS = (
    "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
    'error gathering device information while adding custom device "/dev/infiniband": no such file or directory',
    "failed to discover GPU vendor from CDI: no known GPU vendor found",
    "driver failed programming external connectivity: Bind for 0.0.0.0:8000 failed: port is already allocated",
    "Error response from daemon: Conflict. The container name is already in use by container",
    "  Value error, World size (2) is larger than the number of available GPUs (0) in this node. [type=value_error,",
    "  Value error, Invalid repository ID or local directory specified: 'org/model'.",
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cache",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
    'INFO 01-01 00:00:00 [api_utils.py:325] non-default args: {"port": 8000, "enforce_eager": True}',
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries exceeded",
    "socket.gaierror: [Errno -3] Temporary failure in name resolution",
)


@pytest.mark.parametrize("line", MAY_PASS)
def test_what_the_machine_may_heal_is_tried_again(tmp_path: Path, line: str) -> None:
    (tmp_path / "errors.json").write_text(engine_errors.permanent())
    pattern = permanent_errors(str(tmp_path / "errors.json"))
    assert pattern is not None
    assert not pattern.search(line)
