"""`sparkops diagnose`: the archive has what a bug report needs, and none of the secrets planted in every place."""

from __future__ import annotations

import base64
import json
import stat
import tarfile
import urllib.parse
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell
from tests.e2e.test_service import Service
from tests.e2e.test_service import service as service  # the fixture
from tests.lab.node import Node

ENVIRONMENT = "pl4nted/environment+value=="
UNKNOWN = "Qz81unknownToSparkops77"
LOGGED = "logged-by-the-engine-9917"


def files(archive: Path) -> dict[str, str]:
    """The files of an archive by their names, without its top folder."""
    with tarfile.open(archive) as opened:
        return {
            each.name.partition("/")[2]: opened.extractfile(each).read().decode()  # type: ignore[union-attr]
            for each in opened.getmembers()
        }


def index(shell: Shell, *words: str, status: int = 0) -> tuple[dict[str, Any], dict[str, str]]:
    found = shell.json("diagnose", *words, status=status)
    return found, files(shell.folder / str(found["archive"]))


def plant(service: Service) -> None:
    """Secrets in the inventory, the service's environment, a drop-in of its unit, and its journal in many forms."""
    node, shell = service.node, service.shell
    text = (shell.folder / "inventory.yml").read_text().replace('"ENV"', "!env PLANTED").replace('"LOG"', "!file log")
    shell.write("inventory.yml", f"# old password: {UNKNOWN}\n{text}")
    shell.write("log", LOGGED)
    shell.environment["PLANTED"] = ENVIRONMENT
    said = [
        f"Authorization: Bearer {UNKNOWN}",
        f"url https://user:{UNKNOWN}@host/x?token={UNKNOWN}",
        urllib.parse.quote(ENVIRONMENT, safe=""),
        base64.b64encode(f"user:{ENVIRONMENT}".encode()).decode(),
        LOGGED.encode().hex(),
        f"hf_{UNKNOWN}",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "plantedKeyBody",
        "-----END OPENSSH PRIVATE KEY-----",
        "and then it was ready",
    ]
    node.write("/srv/said", "\n".join(said).encode() + b"\n")
    node.exec("mkdir", "-p", "/etc/systemd/system/qwen.service.d")
    drop_in = f'[Service]\nEnvironment="MY_API_KEY={UNKNOWN}"\nExecStartPre=/usr/bin/cat /srv/said\n'
    node.write("/etc/systemd/system/qwen.service.d/mine.conf", drop_in.encode())
    image = service.lab.engine_image.reference
    node.exec("docker", "pull", image)
    node.exec("docker", "create", "--name", "somebodys", "-e", f"DB_PASSWORD={UNKNOWN}", image, "--api-key", UNKNOWN)


def test_an_archive_has_what_a_report_needs_and_no_secret(service: Service) -> None:
    service.declare(environment={"HF_TOKEN": "ENV", "OTHER": "LOG"})
    plant(service)
    service.apply()
    service.run("apply", "-m", f"token={UNKNOWN}", "--replace", f"unit qwen.service @{service.node.name}", "--yes")
    found, archive = index(service.shell)
    told = {**archive, "the index that is printed": json.dumps(found)}
    for secret in (ENVIRONMENT, UNKNOWN, LOGGED, "plantedKeyBody"):
        data = secret.encode()
        forms = (secret, urllib.parse.quote(secret, safe=""), data.hex(), base64.b64encode(data).decode()[:16])
        assert [name for name, each in told.items() for form in forms if form in each] == []

    node = f"nodes/{service.node.name}"
    unit = archive[f"{node}/services/qwen/unit.txt"]
    assert "MY_API_KEY=<removed>" in unit
    assert "launcher.py" in unit
    journal = archive[f"{node}/services/qwen/journal-this-boot.txt"]
    assert "Authorization: <removed>" in journal
    assert "and then it was ready" in journal
    assert json.loads(archive[f"{node}/services/qwen/container.json"])["State"]["Running"] is True
    assert archive[f"{node}/services/qwen/container-log.txt"]
    assert json.loads(archive[f"{node}/services/qwen/spec.json"])["name"] == "qwen"
    assert "unit qwen.service" in archive[f"{node}/sparkops/history.jsonl"]
    assert "unit qwen.service" in json.loads(archive[f"{node}/sparkops/claims.json"])["tests"]
    assert json.loads(archive[f"{node}/facts.json"])["gpu"]["driver_version"]
    assert "MemTotal" in archive[f"{node}/memory/meminfo.txt"]
    assert json.loads(archive["plan.json"])["command"] == "plan"
    assert "!env PLANTED" in archive["inventory/inventory.yml"]
    assert "sparkops " in archive["controller/versions.txt"]
    assert [name for name in archive if name.startswith("runs/")]
    told_index = json.loads(archive["index.json"])
    assert told_index["removed"] > 10
    assert all(each["why"] for each in told_index["missing"])
    assert stat.S_IMODE((service.shell.folder / found["archive"]).stat().st_mode) == 0o600
    service.node.exec("docker", "rm", "somebodys")


def test_what_could_not_be_had_is_told(shell: Shell, node: Node) -> None:
    inventory = {
        "version": 1,
        "cluster": "attic",
        "connection": {"user": "root"},
        "nodes": {node.name: {}, "gone": {"host": "127.0.0.1", "connection": {"port": 1}}},
        "services": {
            "qwen": {
                "nodes": [node.name],
                "image": {"pull": "example.org/engine:1"},
                "model": "/srv/tiny",
                "environment": {"A_TOKEN": "SECRET"},
            }
        },
    }
    shell.write("inventory.yml", json.dumps(inventory, indent=1).replace('"SECRET"', "!env NOWHERE"))
    node.exec("systemctl", "stop", "docker.socket", "docker.service")
    found, archive = index(shell, "-o", "report.tar.gz", status=3)
    assert found["archive"] == "report.tar.gz"
    assert list(found["unreachable"]) == ["gone"]
    assert found["unread_secrets"] == ["!env NOWHERE"]
    missing = {each["file"]: each["why"]["id"] for each in found["missing"]}
    assert missing["plan.json"]
    assert missing[f"nodes/{node.name}/docker/info.json"] == "docker-stopped"
    assert f"nodes/{node.name}/facts.json" in archive
    words = shell.run("diagnose", "nobody", status=1).stderr
    assert "nobody" in words
    assert [each.name for each in shell.folder.iterdir() if "diagnose" in each.name] == []
