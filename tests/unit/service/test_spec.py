"""The spec of a service, and what engines' errors mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.data import bundled, parsed
from sparkops.models import engine_errors, service_variables
from sparkops.models.service_spec import ServiceSpec, functions, headless, spec_of
from sparkops.programs.launch.container_body import digest_of
from tests.errors import fails
from tests.lab.engine import ALIGN_CRASH

IMAGE: dict[str, Any] = {"pull": "repo:1", "digest": None, "manifest": None, "build": {"tag": None}}
CHECKPOINT: dict[str, Any] = {"repository": "org/name", "revision": "main", "commit": None, "folder": None}
NODE = {"state_dir": "/var/lib/sparkops"}


def service(**given: Any) -> dict[str, Any]:
    base = {
        "name": "qwen",
        "rank": 0,
        "model": None,
        "command": ["vllm", "serve"],
        "serve": {"max-model-len": 1024},
        "environment": {},
        "gpus": "all",
        "host": "0.0.0.0",
        "port": 8000,
        "prompt": "Hello",
        "container": {
            "name": None,
            "entrypoint": None,
            "network": "host",
            "ipc": None,
            "model_path": "/model",
            "cache": True,
            "mounts": [],
            "devices": [],
            "cap_add": [],
        },
        "limits": {
            "memory_free_gib": 2,
            "shm_size_gib": None,
            "memory_gib": None,
            "drop_caches": False,
            "ulimits": {"memlock": -1, "nofile": None},
        },
        "timeouts": {
            "docker_seconds": 1,
            "memory_seconds": 1,
            "first_boot_seconds": 1,
            "cold_start_seconds": 1,
            "stop_seconds": 1,
            "probe_seconds": 1,
        },
    }
    return {**base, **given}


def spec(image: dict[str, Any] = IMAGE, secret: frozenset[str] = frozenset(), **given: Any) -> ServiceSpec:
    return spec_of(service(**given), image, CHECKPOINT, NODE, set(secret))


def test_the_types_of_variables_are_what_the_roles_schemas_let_pass() -> None:
    def declared(role: str, *path: str) -> set[str]:
        found = parsed(bundled("roles") / role / "role.yml")["variables"]
        for name in path:
            found = found["properties"][name]
        return set(found["properties"])

    compiled = {"name", "rank", "ranks", "nodes", "addresses", "fabric"}
    assert service_variables.ServiceVariables.__annotations__.keys() - compiled <= declared("service")
    assert service_variables.ContainerVariables.__annotations__.keys() == declared("service", "container")
    assert service_variables.LimitVariables.__annotations__.keys() == declared("service", "limits")
    assert service_variables.ImageVariables.__annotations__.keys() <= declared("image")
    assert service_variables.CheckpointVariables.__annotations__.keys() <= declared("checkpoint")


def test_the_checkpoint_is_mounted_read_only_and_the_engine_kept_offline() -> None:
    found = spec()
    assert found.argv[:3] == ("vllm", "serve", "/model")
    (mount,) = found.mounts
    assert (mount.source, mount.read_only) == ("/var/lib/sparkops/models/org--name/main", True)
    assert found.environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(("network", "listens"), [("host", "127.0.0.1"), ("bridge", "0.0.0.0")])
@pytest.mark.parametrize("serve", [{}, {"host": "127.0.0.1"}])
def test_on_dockers_bridge_the_host_is_where_the_port_is_published(
    network: str, listens: str, serve: dict[str, Any]
) -> None:
    """The engine listened on its container's own loopback, where nobody but itself reached it."""
    found = spec(host="127.0.0.1", serve=serve, container={**service()["container"], "network": network})
    assert found.argv[found.argv.index("--host") + 1] == listens
    assert found.host == "127.0.0.1"


def test_numbers_are_bytes_and_null_is_nothing() -> None:
    limits = spec().limits
    assert (limits.memory_free_bytes, limits.shm_size_bytes, limits.ulimits) == (2 << 30, 0, {"memlock": -1})


@pytest.mark.parametrize(
    "change",
    [
        {"port": 8001},
        {"serve": {"max-model-len": 2048}},
        {"environment": {"A": "b"}},
        {"rank": 1},
        {"container": {**service()["container"], "mounts": [{"source": "/srv", "target": "/srv", "read_only": True}]}},
    ],
)
def test_each_input_is_in_the_digest(change: dict[str, Any]) -> None:
    assert spec(**change).digest != spec().digest


@given(
    digest=st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
    commit=st.none() | st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
)
def test_a_pin_is_no_change_of_what_runs(digest: str | None, commit: str | None) -> None:
    """Another content than that which runs is seen at the container: its image and its checkpoint."""
    by_hand = {**IMAGE, "pull": f"repo@{digest}"} if digest else IMAGE
    for image, checkpoint in (
        ({**IMAGE, "digest": digest}, {**CHECKPOINT, "commit": commit}),
        (by_hand, {**CHECKPOINT, "revision": commit or "main"}),
        (by_hand, {**CHECKPOINT, "folder": "/srv/model"}),
    ):
        pinned = spec_of(service(), image, checkpoint, NODE, set())
        assert pinned.digest == spec().digest == digest_of(json.loads(pinned.text)), "the launcher reads the same"


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers() | st.booleans() | st.text("ab")))
def test_the_order_of_declared_lines_restarts_nothing(serve: dict[str, Any]) -> None:
    turned = dict(reversed(list(serve.items())))
    assert spec(serve=serve).digest == spec(serve=turned).digest
    assert json.loads(spec(serve=serve).text)["port"] == 8000


def test_a_secret_is_no_part_of_the_spec_and_changes_no_digest() -> None:
    one = spec(environment={"TOKEN": "one"}, secret=frozenset({"TOKEN"}))
    two = spec(environment={"TOKEN": "two"}, secret=frozenset({"TOKEN"}))
    assert one.digest == two.digest
    assert "one" not in one.text
    assert one.secrets == "/etc/sparkops/services/qwen.env"


PAIR = {"nodes": ["a", "b"], "addresses": ["192.168.100.1", "192.168.100.2"], "serve": {"tensor-parallel-size": 2}}


def test_an_engine_over_several_nodes_has_a_rank_on_each_and_one_head() -> None:
    head, other = spec(**PAIR), spec(**PAIR, rank=1)
    shared = ["--master-addr", "192.168.100.1", "--nnodes", "2", "--node-rank"]
    assert " ".join([*shared, "0"]) in " ".join(head.argv)
    assert " ".join([*shared, "1"]) in " ".join(other.argv)
    assert "--headless" in other.argv and "--headless" not in head.argv
    assert (head.environment["VLLM_HOST_IP"], other.environment["VLLM_HOST_IP"]) == tuple(PAIR["addresses"])
    assert not headless(service(**PAIR)) and headless(service(**PAIR, rank=1))


@pytest.mark.parametrize(
    "change", [{"serve": {}}, {"nodes": ["a"]}, {"serve": {"tensor-parallel-size": 2, "nnodes": 2}}, {"nodes": []}]
)
def test_replicas_one_node_and_flags_of_a_users_own_get_no_ranks(change: dict[str, Any]) -> None:
    found = spec(**{**PAIR, **change, "rank": 1})
    assert "--node-rank" not in found.argv and "--headless" not in found.argv
    assert "VLLM_HOST_IP" not in found.environment


def test_ranks_that_nodes_cannot_share_are_refused() -> None:
    three = {"nodes": ["a", "b", "c"], "addresses": ["x", "y", "z"]}
    with fails("nodes-do-not-divide-ranks"):
        spec(**{**PAIR, **three})
    assert "--nnodes 3" in " ".join(spec(**{**PAIR, **three, "serve": {"pipeline-parallel-size": 3}}).argv)


def test_a_secret_in_the_arguments_is_refused() -> None:
    make = functions(lambda value: "SEALED" in str(value), lambda value: value)["service_spec"]
    with fails("serve-secret"):
        make(service(serve={"api-key": "SEALED"}), IMAGE, CHECKPOINT, NODE)


@pytest.mark.parametrize(("key", "value"), [("port", 8001), ("host", "127.0.0.1"), ("model", "org/other")])
def test_what_unit_and_probe_go_by_is_not_said_otherwise_to_the_engine(key: str, value: Any) -> None:
    with fails("serve-contradicts-service") as caught:
        spec(serve={key: value})
    assert f"serve.{key}" in str(caught.value)


def test_the_same_said_twice_is_no_matter() -> None:
    assert spec(serve={"port": 8000}).argv == spec(serve={}).argv


def test_a_service_without_a_model_or_image_is_refused_with_the_way_out() -> None:
    with fails("service-without-model"):
        spec_of(service(), IMAGE, {**CHECKPOINT, "repository": None}, NODE, set())
    with fails("service-without-image"):
        spec(image={**IMAGE, "pull": None})


@pytest.mark.parametrize(
    ("line", "id", "words"),
    [
        (ALIGN_CRASH, "align-block-size", "max-num-batched-tokens: 4176"),
        ("vllm: error: unrecognized arguments: --max-modle-len 5", "unknown-argument", "--max-modle-len 5"),
        ("OSError: [Errno 98] Address already in use", "port-in-use", "ss -ltnp"),
        ("safetensors_rust.SafetensorError: Error while deserializing header", "broken-shard", "verify"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "no-kernel", "sm_121"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "cuda-memory", "gpu-memory-utilization"),
        (
            "ValueError: Free memory on device cuda:0 (99.1/121.6 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 109.46 GiB).",
            "memory-at-start",
            "99.1 of 121.6 GiB",
        ),
    ],
)
def test_known_messages_are_told_with_their_cause(line: str, id: str, words: str) -> None:
    found = engine_errors.likely(f"INFO fine\n{line}\nRuntimeError: Engine core initialization failed.")
    assert found is not None
    error, cause, remedy = found
    assert error.id == id
    assert words in f"{cause} {remedy}"


def test_all_known_messages_have_a_source_and_texts_that_fill_in() -> None:
    import re

    for error in engine_errors.known():
        groups = dict.fromkeys(re.compile(error.pattern).groupindex, "x")
        assert error.cause.format(**groups)
        assert error.remedy.format(**groups)
        assert error.source


def test_an_unknown_message_has_no_cause() -> None:
    assert engine_errors.likely("all is well") is None
