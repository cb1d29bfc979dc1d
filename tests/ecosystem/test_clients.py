"""What `sparkops endpoints` writes, read by OpenAI's client and LiteLLM's proxy, which then ask the lab's engine."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sparkops.cli.app import cli
from tests.ecosystem.engines import free_port, lab_engine, program

pytestmark = pytest.mark.slow
KEY = "sk-of-the-engine-4f1d"
MASTER = "sk-of-the-proxy-9c1e7a2b5d"
NAME = "/model"
"""How a checkpoint is served without `served-model-name`: the name that is hardest to carry."""


class Served:
    """A service of two engines, both on this machine, behind one key."""

    def __init__(self, folder: Path, ports: tuple[int, int], logs: tuple[Path, Path]) -> None:
        self.folder, self.logs = folder, logs
        (folder / "inventory.yml").write_text(
            "version: 1\ncluster: rack\n"
            "nodes: {a: {connection: local}, b: {connection: local}}\n"
            "services:\n  qwen:\n    replicas: [[a], [b]]\n"
            f"    per_node: {{a: {{port: {ports[0]}}}, b: {{port: {ports[1]}}}}}\n"
            "    image: {pull: 'vllm/vllm-openai:v0.33.0'}\n    command: []\n"
            "    checkpoint: {repository: org/name}\n"
            "    environment: {VLLM_API_KEY: !env SPARKS_ENGINE_KEY}\n"
        )

    def told(self, *words: str) -> str:
        result = CliRunner().invoke(cli, ["endpoints", "-i", str(self.folder / "inventory.yml"), *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    def asked(self) -> list[int]:
        """How many requests each engine has taken."""
        return [log.read_text().count("POST /v1/") for log in self.logs]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    first, second = free_port(), free_port()
    with lab_engine(folder, NAME, first, KEY) as one, lab_engine(folder, NAME, second, KEY) as two:
        yield Served(folder, (first, second), (one, two))


def test_the_client_of_openai_reaches_each_engine(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    openai: Any = pytest.importorskip("openai")
    monkeypatch.setenv("SPARKS_ENGINE_KEY", KEY)
    module = types.ModuleType("sparks")
    exec(served.told("--format", "openai"), module.__dict__)
    assert list(module.clients) == ["qwen @a", "qwen @b"]
    before = served.asked()
    for name, client in module.clients.items():
        messages = [{"role": "user", "content": "The capital of France?"}]
        answer = client.chat.completions.create(model=module.models[name], messages=messages, max_tokens=3)
        assert answer.choices[0].message.content == "The capital of"
        assert [each.id for each in client.models.list()] == [module.models[name]]
    assert [after - first for after, first in zip(served.asked(), before, strict=True)] == [1, 1]
    monkeypatch.setenv("SPARKS_ENGINE_KEY", "sk-wrong")
    exec(served.told("--format", "openai"), module.__dict__)
    with pytest.raises(openai.AuthenticationError):
        module.clients["qwen @a"].completions.create(model=NAME, prompt="x")


def test_the_client_of_openai_takes_all_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    openai: Any = pytest.importorskip("openai")
    monkeypatch.setenv("SPARKS_ENGINE_KEY", KEY)
    for line in served.told("--format", "env", "--limit", "b", "--show-keys").splitlines():
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
    client = openai.OpenAI()
    assert client.completions.create(model=NAME, prompt="x", max_tokens=2).choices[0].text == "The capital"


def test_the_proxy_of_litellm_spreads_one_name_over_all_engines(served: Served) -> None:
    openai: Any = pytest.importorskip("openai")
    litellm = Path(sys.executable).with_name("litellm")
    if not litellm.exists():
        pytest.skip("LiteLLM's proxy is not installed")
    config = served.folder / "litellm.yaml"
    served.told("--format", "litellm", "-o", str(config))
    assert KEY not in config.read_text()
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    environment = {
        "SPARKS_ENGINE_KEY": KEY,
        "LITELLM_MASTER_KEY": MASTER,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # the proxy's own list of prices, which it would fetch
    }
    words = [litellm, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    before = served.asked()
    with program(words, f"{base}/health/liveliness", served.folder / "litellm.log", environment):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key=MASTER)
        assert [each.id for each in client.models.list()] == ["qwen"]
        messages = [{"role": "user", "content": "x"}]
        for _ in range(20):
            answer = client.chat.completions.create(model="qwen", messages=messages, max_tokens=3)
            assert answer.choices[0].message.content == "The capital of"
        assert client.completions.create(model="qwen", prompt="x", max_tokens=2).choices[0].text == "The capital"
    taken = [after - first for after, first in zip(served.asked(), before, strict=True)]
    assert sum(taken) == 21 and min(taken) > 0
