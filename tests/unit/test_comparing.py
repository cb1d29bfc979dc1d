"""What differs between what runs and what is declared, on plain values: `docker inspect` against a spec."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.operate import adopt_diff
from sparkops.operate.adopt_diff import arguments, flags

SPEC: dict[str, Any] = {
    "image": "vllm/vllm-openai:v0.26.0",
    "entrypoint": None,
    "argv": ["vllm", "serve", "/model", "--max-model-len", "8192"],
    "environment": {"HF_HUB_OFFLINE": "1"},
    "mounts": [{"source": "/srv/m", "target": "/model", "read_only": True}],
    "network": "host",
    "host": "0.0.0.0",
    "port": 8000,
    "ipc": None,
    "gpus": "all",
    "cap_add": [],
    "devices": [],
    "limits": {"shm_size_bytes": 0, "memory_bytes": 0, "ulimits": {"memlock": -1}},
}


def inspected(**more: Any) -> dict[str, Any]:
    """The container that a launcher would make of SPEC, with these parts otherwise."""
    config = {
        "Image": SPEC["image"],
        "Entrypoint": None,
        "Cmd": SPEC["argv"],
        "Env": ["PATH=/bin", "HF_HUB_OFFLINE=1"],
        **more.pop("config", {}),
    }
    host = {
        "NetworkMode": "host",
        "RestartPolicy": {"Name": "no"},
        "IpcMode": "private",
        "ShmSize": 64 << 20,
        "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
        "Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}],
        **more.pop("host", {}),
    }
    mounts = [{"Type": "bind", "Source": "/srv/m", "Destination": "/model", "RW": False}]
    made = {"same_image": True, "config": config, "host": host, "mounts": mounts}
    return {**made, "image_config": {"Env": ["PATH=/bin"]}, **more}


def told(**more: Any) -> dict[str, tuple[str, str]]:
    found = adopt_diff.container(inspected(**more), SPEC, more.pop("secret", ()))
    return {each.what: (each.found, each.declared) for each in found}


def test_the_container_that_the_launcher_would_make_does_not_differ() -> None:
    assert told() == {}


@pytest.mark.parametrize(
    ("more", "what", "words"),
    [
        ({"host": {"RestartPolicy": {"Name": "always"}}}, "restart policy", ("always", "no")),
        ({"host": {"NetworkMode": "default"}}, "service.container.network", ("bridge", "host")),
        ({"host": {"IpcMode": "host"}}, "service.container.ipc", ("host", "(none)")),
        ({"host": {"ShmSize": 1 << 30}}, "shm bytes (service.limits.shm_size_gib)", ("1073741824", "67108864")),
        ({"host": {"DeviceRequests": None}}, "service.gpus", ("(none)", "all")),
        ({"host": {"Ulimits": []}}, "service.limits.ulimits.memlock", ("(none)", "-1")),
        ({"host": {"Privileged": True}}, "privileged", ("yes", "no")),
        ({"config": {"Env": ["HF_HUB_OFFLINE=0"]}}, "service.environment.HF_HUB_OFFLINE", ("0", "1")),
        ({"mounts": []}, "service.container.mounts /model", ("(none)", "/srv/m (read-only)")),
        ({"same_image": False, "config": {"Image": "other:1"}}, "image", ("other:1", SPEC["image"])),
    ],
)
def test_each_part_is_told_by_where_it_is_declared(more: dict[str, Any], what: str, words: tuple[str, str]) -> None:
    assert told(**more) == {what: words}


def test_no_secret_of_what_runs_is_shown() -> None:
    words = ["sh", "-c", "VLLM_API_KEY=planted exec vllm serve x", "--api-key", "planted", "--hf-token=planted"]
    found = told(config={"Cmd": words, "Env": ["HF_TOKEN=planted", "HF_HUB_OFFLINE=1"]})
    assert {"service.serve.api-key", "service.serve.hf-token", "service.environment.HF_TOKEN"} <= found.keys()
    assert "planted" not in str(found)
    assert "planted" not in adopt_diff.masked('Environment="HF_TOKEN=planted"\nExecStart=vllm --api-key planted')


def test_a_batch_of_tokens_is_no_secret() -> None:
    found = {each.what: each.found for each in arguments(["--max-num-batched-tokens", "8192"], [])}
    assert found == {"service.serve.max-num-batched-tokens": "8192"}


def test_a_declared_secret_is_told_by_name_where_it_is_lacking_and_else_not_compared() -> None:
    lacking = adopt_diff.container(inspected(), SPEC, ("VLLM_API_KEY",))
    assert [(each.what, each.found, each.declared) for each in lacking] == [
        ("service.environment.VLLM_API_KEY", "(none)", "***")
    ]
    there = inspected(config={"Env": ["VLLM_API_KEY=planted", "HF_HUB_OFFLINE=1"]})
    assert adopt_diff.container(there, SPEC, ("VLLM_API_KEY",)) == ()


def test_flags_are_read_as_vllm_reads_them() -> None:
    words = ["serve", "m", "--a_b=1", "--no-x", "--y", "--j", '{"k": 2}', "--many", "1", "2", "-tp", "-1"]
    head, found = flags(words)
    assert head == ["serve", "m"]
    assert found == {
        "a-b": "1",
        "x": False,
        "y": True,
        "j": {"k": 2},
        "many": ["1", "2"],
        "tp": "-1",
    }


names = st.from_regex(r"[a-z]{2,8}(-[a-z]{1,5})?", fullmatch=True).filter(lambda name: not name.startswith("no-"))


@given(st.dictionaries(names, st.from_regex(r"[0-9a-z]{1,6}", fullmatch=True), max_size=6), st.randoms())
def test_the_order_and_the_spelling_of_flags_mean_nothing(values: dict[str, str], random: Any) -> None:
    one = [word for name, value in values.items() for word in (f"--{name}", value)]
    items = list(values.items())
    random.shuffle(items)
    other = [f"--{name.replace('-', '_')}={value}" for name, value in items]
    assert list(arguments(one, other)) == []


def test_an_engine_in_a_unit_is_compared_by_its_arguments() -> None:
    text = "[Service]\nExecStart=-/opt/venv/bin/vllm serve /model \\\n  --max-model-len 4096\n"
    (difference,) = adopt_diff.unit(text, SPEC)
    assert (difference.what, difference.found, difference.declared) == (
        "service.serve.max-model-len",
        "4096",
        "8192",
    )
    assert adopt_diff.unit("[Service]\nExecStart=/usr/bin/docker run vllm serve x\n", SPEC) == ()


@pytest.mark.parametrize(
    ("words", "mount", "source"),
    [
        (["vllm", "serve", "/models/q"], ("/srv/models", "/models"), "/srv/models/q"),
        (["vllm", "serve", "/model"], ("/srv/q", "/model"), "/srv/q"),
        (["--model", "/model/q", "--port", "1"], ("/srv", "/model"), "/srv/q"),
        (["vllm", "serve", "org/q"], ("/home/n/.cache/huggingface", "/root/.cache/huggingface"), None),
        (["vllm", "serve", "org/q"], ("/srv", "/data"), ""),
    ],
)
def test_the_model_of_a_container_is_found_in_its_mounts(
    words: list[str], mount: tuple[str, str], source: str | None
) -> None:
    mounts = [{"Type": "bind", "Source": mount[0], "Destination": mount[1]}]
    found = adopt_diff.model_source(inspected(config={"Cmd": words}, mounts=mounts))
    assert found == (mount[0] if source is None else source)
