"""The logs of a service on two nodes: in order, by rank, and over the loss of a connection."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Shell
from tests.e2e.test_ranks import inventory
from tests.lab.lab import Lab
from tests.lab.node import Node


def write(node: Node, text: str) -> None:
    """An entry of the service's unit."""
    node.exec("systemd-run", "--quiet", "--wait", "--collect", "--unit=qwen", "echo", text)


def lines(process: subprocess.Popen[str]) -> queue.Queue[dict[str, Any]]:
    found: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            found.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    return found


def said(found: queue.Queue[dict[str, Any]], text: str) -> dict[str, Any]:
    """The entry of that text; others (systemd's) may come before."""
    deadline = time.monotonic() + 180
    while (left := deadline - time.monotonic()) > 0:
        entry = found.get(timeout=left)
        if entry["text"] == text:
            return entry
    raise AssertionError(f"{text} did not come")


def test_two_ranks_are_merged_followed_and_taken_up_again(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    first, second = nodes(2)
    shell.write("inventory.yml", json.dumps(inventory(lab.engine_image.reference, [first, second])))
    mark = str(time.time())
    for number, node in enumerate((first, second, first, second)):
        write(node, f"{mark} {number}")
    done = shell.run("logs", "qwen", "inventory.yml", "--format", "json", "-n", "40")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["time"] for each in entries] == sorted(each["time"] for each in entries)
    mine = [(each["text"], each["node"]) for each in entries if each["text"].startswith(mark)]
    assert mine == [(f"{mark} {number}", node.name) for number, node in enumerate((first, second, first, second))]

    process = shell.start("logs", "qwen", "inventory.yml", "-f", "--format", "json", "-n", "40")
    try:
        found = lines(process)
        said(found, f"{mark} 3")
        write(second, f"{mark} live")
        assert said(found, f"{mark} live")["node"] == second.name
        second.exec("pkill", "-f", "sshd.*root", check=False)
        write(second, f"{mark} meanwhile")
        assert said(found, f"{mark} meanwhile")["node"] == second.name
        write(first, f"{mark} last")
        said(found, f"{mark} last")
        process.send_signal(2)
        process.wait(30)
        assert process.returncode == 130
        assert process.stderr is not None
        told = process.stderr.read()
        assert "it is tried again" in told and "listened to again" in told, told
    finally:
        process.kill()
