"""What `sparkops endpoints` says of a service on a real node is where it answers, and with which key."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Shell
from tests.e2e.test_service import CLEAR, Service
from tests.lab.lab import Lab
from tests.lab.node import Node

KEY = "sk-of-the-lab-51c7"


@pytest.fixture
def service(lab: Lab, shell: Shell, machine: Node) -> Iterator[Service]:
    """Not declared yet; what a test made of it is gone afterwards, but for the image."""
    yield Service(lab, shell, machine)
    machine.exec("sh", "-c", CLEAR, check=False)


def answer(url: str, key: str = "", body: object = None) -> str:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as found:
        return str(found.read().decode())


def test_a_service_answers_where_its_endpoint_is_said_to_be(service: Service) -> None:
    service.shell.write("key.txt", f"{KEY}\n")
    service.declare()
    text = (service.shell.folder / "inventory.yml").read_text()
    (service.shell.folder / "inventory.yml").write_text(
        text.replace('"LAB_ENGINE": ""', '"LAB_ENGINE": "", "VLLM_API_KEY": !file key.txt')
    )
    service.apply()
    (group,) = json.loads(service.shell.run("endpoints", "--format", "file_sd").stdout)
    assert "vllm:num_requests_running" in answer(f"http://{group['targets'][0]}/metrics")
    (told,) = service.shell.json("endpoints", "--show-keys")["endpoints"]
    assert told["models"] == [group["labels"]["model"]] == ["/srv/tiny"]
    question = {"model": told["models"][0], "prompt": "x", "max_tokens": 2}
    assert "The capital" in answer(f"{told['url']}/completions", told["api_key"], question)
    assert KEY not in service.shell.run("endpoints").stdout
