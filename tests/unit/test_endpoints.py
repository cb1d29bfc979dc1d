"""Where services answer, as others' programs are told it: offline, and never with a key that nobody asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from sparkops.cli.app import cli
from tests.errors import fails

SECRET = "sk-from-the-environment"


class Cluster:
    """An inventory of three nodes in a folder, and `sparkops endpoints` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def declare(self, **services: str) -> None:
        """Services as YAML, each with image and model; secrets are tags."""
        lines = "".join(f"  {name}: {text}\n" for name, text in services.items())
        (self.folder / "inventory.yml").write_text(
            "version: 1\ncluster: rack\n"
            "nodes:\n  a: {host: 192.0.2.1}\n  b: {host: '2001:db8::2'}\n  here: {connection: local}\n"
            f"services:\n{lines}"
        )

    def run(self, *words: str, environment: dict[str, str] | None = None) -> Result:
        words = ("endpoints", "-i", str(self.folder / "inventory.yml"), *words)
        return CliRunner().invoke(cli, words, env={"SPARKOPS_SSH_CONFIG": "/dev/null", **(environment or {})})

    def told(self, form: str, *words: str, **more: Any) -> str:
        result = self.run("--format", form, *words, **more)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def service(place: str, more: str = "") -> str:
    """A service as YAML."""
    return f"{{image: {{pull: 'vllm/vllm-openai:v0.33.0'}}, command: [], model: org/name, {place}{more}}}"


def test_a_service_of_several_engines_is_one_model_of_litellm(cluster: Cluster) -> None:
    cluster.declare(qwen=service("replicas: [[a], [b]]", ", environment: {VLLM_API_KEY: !env K}"))
    models = yaml.safe_load(cluster.told("litellm"))["model_list"]
    assert {each["model_name"] for each in models} == {"qwen"}
    assert [each["litellm_params"] for each in models] == [
        {"model": "hosted_vllm/org/name", "api_base": f"http://{place}:8000/v1", "api_key": "os.environ/K"}
        for place in ("192.0.2.1", "[2001:db8::2]")
    ]


@pytest.mark.parametrize(
    ("serve", "names"),
    [
        ("{}", ["org/name"]),
        ("{served-model-name: x}", ["x"]),
        ("{served-model-name: [x, y]}", ["x", "y"]),
    ],
)
def test_the_model_is_named_as_the_engine_serves_it(cluster: Cluster, serve: str, names: list[str]) -> None:
    cluster.declare(qwen=service("nodes: [a]", f", serve: {serve}"))
    (told,) = json.loads(cluster.told("json"))["endpoints"]
    assert told["models"] == names


def test_a_checkpoint_is_served_by_the_path_that_it_is_mounted_at(cluster: Cluster) -> None:
    text = "{image: {pull: 'vllm/vllm-openai:v0.33.0'}, command: [], checkpoint: {repository: o/n}, nodes: [a]}"
    cluster.declare(qwen=text)
    (told,) = json.loads(cluster.told("json"))["endpoints"]
    assert told["models"] == ["/model"]


@pytest.mark.parametrize(
    ("host", "node", "url", "near"),
    [
        ("0.0.0.0", "a", "http://192.0.2.1:8000/v1", False),
        ("::", "b", "http://[2001:db8::2]:8000/v1", False),
        ("198.51.100.7", "a", "http://198.51.100.7:8000/v1", False),
        ("127.0.0.1", "a", "http://127.0.0.1:8000/v1", True),
        ("127.0.0.1", "here", "http://127.0.0.1:8000/v1", False),
        ("0.0.0.0", "here", "http://localhost:8000/v1", False),
    ],
)
def test_the_address_is_where_the_engine_listens(cluster: Cluster, host: str, node: str, url: str, near: bool) -> None:
    cluster.declare(qwen=service(f"nodes: [{node}]", f", vars: {{service: {{host: '{host}'}}}}"))
    (told,) = json.loads(cluster.told("json"))["endpoints"]
    assert (told["url"], told["from_node_only"]) == (url, near)


def test_what_only_its_node_reaches_is_left_out_and_said(cluster: Cluster) -> None:
    cluster.declare(far=service("nodes: [a]"), near=service("nodes: [b]", ", vars: {service: {host: 127.0.0.1}}"))
    result = cluster.run("--format", "file_sd")
    assert [each["labels"]["service"] for each in json.loads(result.stdout)] == ["far"]
    assert "near is left out" in result.stderr
    cluster.declare(near=service("nodes: [b]", ", vars: {service: {host: 127.0.0.1}}"))
    with fails("endpoints-none"):
        raise cluster.run("--format", "litellm").exception or AssertionError


def test_an_engine_of_another_command_has_no_known_model(cluster: Cluster) -> None:
    cluster.declare(other="{image: {pull: 'x/y:1'}, command: [llama-server], model: m.gguf, nodes: [a]}")
    assert json.loads(cluster.told("json"))["endpoints"][0]["models"] == []
    with fails("endpoints-none"):
        raise cluster.run("--format", "openai").exception or AssertionError


def test_prometheus_gets_each_engine_once_with_its_labels(cluster: Cluster) -> None:
    cluster.declare(qwen=service("nodes: [a, b]", ", serve: {tensor-parallel-size: 2}"), other=service("nodes: [here]"))
    groups = json.loads(cluster.told("file_sd"))
    assert [each["targets"] for each in groups] == [["192.0.2.1:8000"], ["localhost:8000"]]
    same = {"cluster": "rack", "rank": "0", "model": "org/name"}
    assert [each["labels"] for each in groups] == [
        {"service": "qwen", "node": "a", **same},
        {"service": "other", "node": "here", **same},
    ]


FORMS = ("text", "json", "litellm", "openai", "env")
KEYS = {
    "environment": "!env SPARKS_TEST_KEY",
    "file": "!file key.txt",
    "command": "!command [printf, '%s\\n', sk-made]",
    "plain": "sk-plain",
}
VALUES = {"environment": SECRET, "file": "sk in a file", "command": "sk-made", "plain": "sk-plain"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sort", KEYS)
def test_a_key_is_written_only_where_that_is_asked_for(cluster: Cluster, form: str, sort: str) -> None:
    (cluster.folder / "key.txt").write_text(VALUES["file"] + "\n")
    cluster.declare(qwen=service("nodes: [a]", f", environment: {{VLLM_API_KEY: {KEYS[sort]}}}"))
    environment = {"SPARKS_TEST_KEY": SECRET}
    kept = cluster.told(form, environment=environment).replace("printf '%s\\n' sk-made", "").replace("'sk-made']", "")
    kept = kept.replace("!command ['printf', '%s\\\\n', ", "").replace("!command ['printf', '%s\\n', ", "")
    assert VALUES[sort] not in kept
    assert VALUES[sort] in cluster.told(form, "--show-keys", environment=environment)


@pytest.mark.parametrize("sort", ["environment", "file", "command"])
def test_a_shell_and_python_find_the_key_by_its_reference(
    cluster: Cluster, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster.folder / "key.txt").write_text(VALUES["file"] + "\n")
    monkeypatch.setenv("SPARKS_TEST_KEY", SECRET)
    cluster.declare(qwen=service("nodes: [a]", f", environment: {{VLLM_API_KEY: {KEYS[sort]}}}"))
    script = cluster.told("env") + 'printf "%s %s" "$OPENAI_BASE_URL" "$OPENAI_API_KEY"'
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert said == f"http://192.0.2.1:8000/v1 {VALUES[sort]}"
    module = cluster.told("openai").replace("from openai import OpenAI", "OpenAI = dict")
    made: dict[str, Any] = {}
    exec(module, made)
    assert made["clients"]["qwen"]["api_key"] == VALUES[sort]
    assert made["models"] == {"qwen": "org/name"}
    for line in cluster.told("litellm").splitlines():
        if line.startswith("# before the start: "):
            script = line.removeprefix("# before the start: ") + '; printf "%s" "$SPARKOPS_QWEN_KEY"'
            said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
            assert said == VALUES[sort]


def test_services_of_one_spelling_have_variables_of_their_own(cluster: Cluster) -> None:
    keyed = [service("nodes: [a]", f", port: {8000 + n}, environment: {{VLLM_API_KEY: !file k{n}}}") for n in range(3)]
    cluster.declare(**{"q-1": keyed[0], "q.1": keyed[1], "Q_1": keyed[2]})
    keys = [each["litellm_params"]["api_key"] for each in yaml.safe_load(cluster.told("litellm"))["model_list"]]
    assert len(set(keys)) == 3


def test_a_key_of_the_arguments_wins_over_the_environment_as_in_vllm(cluster: Cluster) -> None:
    more = ", serve: {api-key: [sk-first, sk-second]}, environment: {VLLM_API_KEY: sk-other}"
    cluster.declare(qwen=service("nodes: [a]", more))
    assert json.loads(cluster.told("json", "--show-keys"))["endpoints"][0]["api_key"] == "sk-first"


def test_the_environment_holds_one_endpoint(cluster: Cluster) -> None:
    cluster.declare(qwen=service("replicas: [[a], [b]]"))
    with fails("endpoints-several"):
        raise cluster.run("--format", "env").exception or AssertionError
    assert "http://192.0.2.1:8000/v1" in cluster.told("env", "--limit", "a")
    with fails("service-not-found"):
        raise cluster.run("qwem").exception or AssertionError


def test_shards_share_the_endpoints_out(cluster: Cluster) -> None:
    cluster.declare(first=service("nodes: [a]"), second=service("nodes: [b]"), third=service("nodes: [here]"))
    shards = [json.loads(cluster.told("json", "--shard", f"{number}/3"))["endpoints"] for number in (1, 2, 3)]
    assert sorted(each["service"] for told in shards for each in told) == ["first", "second", "third"]
    assert all(shards)


def test_a_file_with_keys_is_for_its_owner_only(cluster: Cluster) -> None:
    cluster.declare(qwen=service("nodes: [a]"))
    for words, mode in (((), 0o644), (("--show-keys",), 0o600)):
        path = cluster.folder / f"made-{mode}"
        assert cluster.run("--format", "litellm", "-o", str(path), *words).exit_code == 0
        assert path.stat().st_mode & 0o777 == mode
