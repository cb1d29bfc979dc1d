"""The real vLLM, its build for CPUs, in two ranks: what the lab's own engine stands for in test_ranks.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_ranks import Cluster, inventory, last_end
from tests.e2e.test_real_engine import START
from tests.lab import model
from tests.lab.images import Image
from tests.lab.lab import Lab
from tests.lab.node import Node


@pytest.mark.slow
def test_two_ranks_of_the_real_engine_start_end_and_start_again_together(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]], real_engine: Image, tmp_path: Path
) -> None:
    cluster = Cluster(lab, shell, nodes(2))
    for path in model.write(tmp_path / "model", geometry=model.SERVABLE).iterdir():
        for node in cluster.nodes:
            node.write(f"/srv/tiny/{path.name}", path.read_bytes())
    declared = inventory(real_engine.reference, cluster.nodes, watchdog=120)
    service = declared["services"]["qwen"]
    service["serve"] = {"pipeline-parallel-size": 2, "enforce-eager": True, "max-model-len": 2048}
    service["limits"]["shm_size_gib"] = 1
    service["health"] = {"limit_seconds": 20}
    service["timeouts"] |= {"first_boot_seconds": START, "cold_start_seconds": START, "probe_seconds": 20}
    shell.write("inventory.yml", json.dumps(declared))

    cluster.apply()

    until(cluster.serves, seconds=START)
    with cluster.starts_again("a rank of the real engine killed", within=START):
        cluster.nodes[1].exec("docker", "kill", cluster.containers()[1])
    assert "the container ended with 137" in last_end(cluster, cluster.nodes[0])
