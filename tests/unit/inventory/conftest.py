"""The fixture of these tests: a project in an empty folder."""

from pathlib import Path

import pytest

from tests.unit.inventory.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
