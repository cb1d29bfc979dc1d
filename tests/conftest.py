"""Fixtures that all tests may ask for. On a shared machine no example of a law is judged by its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.docker_config import DockerConfig

pytest_plugins = ["tests.lab.fixtures"]

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerConfig:
    """An empty configuration of Docker on the controller."""
    return DockerConfig(tmp_path, monkeypatch)
