"""The least that a node of the lab has to give; test_lab.py has the whole."""

from __future__ import annotations

from tests.lab.node import Node


def test_a_fresh_node_runs_systemd_without_a_failed_unit_and_lets_every_user_in(node: Node) -> None:
    assert node.text("systemctl", "is-system-running") == "running"
    assert node.text("systemctl", "is-active", "docker", "ssh").split() == ["active", "active"]
    for user in ("root", "spark", "warden"):
        assert node.ssh("id", "-un", user=user).stdout.decode().strip() == user
