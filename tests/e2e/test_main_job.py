"""The main job on real input: `inventories/lab.yml` brings three bare nodes to serving, and they stay so."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell, until
from tests.lab.lab import Lab
from tests.lab.node import Node

INVENTORY = Path(__file__).parents[2] / "inventories" / "lab.yml"
PORTS = (8000, 8000, 8100)


def lab_inventory(*nodes: Node) -> str:
    """The lab's inventory with the names of fresh nodes in place of its own."""
    text = INVENTORY.read_text()
    for number, node in enumerate(nodes, 1):
        text = re.sub(rf"\bspark-0{number}\b", node.name, text)
    return text


def complete(node: Node, port: int, timeout: float = 60) -> dict[str, Any]:
    """The answer of a service to a chat completion, asked from outside of the node."""
    base = f"http://{node.address}:{port}/v1"
    with urllib.request.urlopen(f"{base}/models", timeout=timeout) as answer:
        model = json.load(answer)["data"][0]["id"]
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
    request = urllib.request.Request(f"{base}/chat/completions", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        found = json.load(answer)
    assert isinstance(found, dict)
    return found


def serves(node: Node, port: int) -> bool:
    """Whether a completion comes."""
    try:
        return bool(complete(node, port, 5)["choices"])
    except (OSError, http.client.HTTPException):
        return False


def test_three_bare_nodes_serve_and_one_comes_back_after_a_restart(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    assert lab.engine_image
    three = nodes(3)
    shell.write("lab.yml", lab_inventory(*three))

    report = shell.json("apply", "lab.yml", "--yes", timeout=900)
    assert {result["outcome"] for result in report["results"]} == {"done"}
    assert set(report["endpoints"]) == {"chat", "small", "other"}
    for node, port in zip(three, PORTS, strict=True):
        assert complete(node, port)["usage"]["completion_tokens"] > 0

    again = shell.json("apply", "lab.yml")
    assert again["steps"] == [], "a second apply changes nothing"

    three[1].restart()
    until(lambda: serves(three[1], 8000), seconds=240)
    shell.run("drift", "lab.yml")
