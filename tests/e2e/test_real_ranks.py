"""One engine of the real vLLM over two nodes: its ranks start together, answer, and start again together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkops.models import engine_errors
from tests.e2e.conftest import Shell, until
from tests.e2e.test_ranks import UNIT, Cluster, inventory
from tests.lab import model
from tests.lab.images import Image
from tests.lab.lab import Lab
from tests.lab.node import Node

pytestmark = pytest.mark.slow

START = 280
"""Seconds that a start of both ranks may take: 60 with both cores to themselves, 130 beside other tests."""


class RealRanks(Cluster):
    """The service of test_ranks.py with the real engine and a model that it can serve."""

    def __init__(self, lab: Lab, shell: Shell, nodes: list[Node], image: Image, folder: Path) -> None:
        super().__init__(lab, shell, nodes)
        self.image = image.reference
        for path in model.write(folder, geometry=model.SERVABLE).iterdir():
            for node in nodes:
                node.write(f"/srv/tiny/{path.name}", path.read_bytes())

    def serve(self, **flags: object) -> None:
        whole = inventory(self.image, self.nodes, watchdog=60)
        service = whole["services"]["qwen"]
        service["serve"] = {**flags, "enforce-eager": True, "max-model-len": 2048}
        service["limits"]["shm_size_gib"] = 1
        service["environment"] = {}
        service["health"] = {"limit_seconds": 20}
        service["group"]["heartbeat_seconds"] = 20
        seconds = {"first_boot_seconds": START, "cold_start_seconds": START, "probe_seconds": 20, "stop_seconds": 10}
        service["timeouts"] |= seconds
        self.shell.write("inventory.yml", json.dumps(whole))


@pytest.fixture
def ranks(lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]], real_engine: Image, tmp_path: Path) -> RealRanks:
    return RealRanks(lab, shell, nodes(2), real_engine, tmp_path / "model")


def test_two_ranks_serve_and_start_again_together(ranks: RealRanks) -> None:
    ranks.serve(**{"tensor-parallel-size": 2})
    began = time.monotonic()
    ranks.apply()
    until(ranks.serves, seconds=30)
    print(f"served {time.monotonic() - began:.0f} s after the apply began")
    assert ranks.apply()["steps"] == [], "a second apply changes nothing"
    with ranks.starts_again("a rank's engine killed", within=START):
        ranks.nodes[1].exec("docker", "kill", ranks.containers()[1])


def test_stages_that_the_engine_refuses_are_not_tried_again(ranks: RealRanks) -> None:
    """The first of the two stages has no attention layer."""
    ranks.serve(**{"pipeline-parallel-size": 2})
    report = ranks.apply(status=4)
    assert [each["outcome"] for each in report["results"] if each["id"].startswith("probe")] == ["failed"]
    head = ranks.nodes[0]
    assert head.text("systemctl", "show", "-P", "ActiveState", UNIT).strip() == "failed"
    assert head.text("systemctl", "show", "-P", "NRestarts", UNIT).strip() == "0"
    found = engine_errors.likely(ranks.journal(head))
    assert found is not None and found[0].id == "ranks-of-unlike-layers"
