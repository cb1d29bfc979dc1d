"""Docker's own configuration on the controller, as `docker login` leaves it."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest


class DockerConfig:
    """A folder for `DOCKER_CONFIG`: config.json, and credential helpers as programs on PATH."""

    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.folder = folder
        environment.setenv("DOCKER_CONFIG", str(folder))
        environment.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(self, config: dict[str, Any], **helpers: dict[str, tuple[str, str]]) -> None:
        """config.json; each helper answers with a name and a secret for some servers."""
        (self.folder / "config.json").write_text(json.dumps(config))
        for name, known in helpers.items():
            program = self.folder / f"docker-credential-{name}"
            program.write_text(
                f"#!{sys.executable}\nimport json, sys\nserver = sys.stdin.read().strip()\nknown = {known!r}\n"
                "if server not in known:\n    print('credentials not found in native keychain')\n    sys.exit(1)\n"
                "print(json.dumps({'ServerURL': server, 'Username': known[server][0], 'Secret': known[server][1]}))\n"
            )
            program.chmod(0o755)


def entry(username: str, password: str) -> dict[str, str]:
    """What `docker login` writes for a registry."""
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
