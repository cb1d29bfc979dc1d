"""`sparkops diagnose`: the archive has what a bug report needs, and none of the secrets planted in every place."""

from __future__ import annotations

import base64
import json
import stat
import tarfile
import urllib.parse
from pathlib import Path

from tests.e2e.conftest import Shell
from tests.e2e.test_service import Service
from tests.lab.lab import Lab
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


def index(shell: Shell, *words: str, status: int = 0) -> tuple[dict[str, object], dict[str, str]]:
    found = shell.json("diagnose", *words, status=status)
    return found, files(shell.folder / str(found["archive"]))


def plant(service: Service) -> None:
    """Secrets in the unit's drop-in, the journal, a container of a person, the spec's neighbourhood and the inventory."""
    node, shell = service.node, service.shell
    text = (shell.folder / "inventory.yml").read_text().replace('"ENV"', "!env PLANTED").replace('"LOG"', "!file log")
    shell.write("inventory.yml", f"# old password: {UNKNOWN}\n{text}")
    shell.write("log", LOGGED)
    shell.environment["PLANTED"] = ENVIRONMENT
    drop_in = f'[Service]\nEnvironment="MY_API_KEY={UNKNOWN}"\n'
    node.exec("mkdir", "-p", "/etc/systemd/system/qwen.service.d")
    node.write("/etc/systemd/system/qwen.service.d/mine.conf", drop_in.encode())
    node.exec("systemctl", "daemon-reload")


def say(node: Node, *lines: str) -> None:
    """Lines in the journal of the service's unit, as its engine would print them."""
    for line in lines:
        node.exec("systemd-run", "--wait", "--unit=qwen", "echo", line, check=False)


def test_an_archive_has_what_a_report_needs_and_no_secret(service: Service) -> None:
    service.declare(environment={"HF_TOKEN": "ENV", "OTHER": "LOG"})
    plant(service)
    service.apply()
    key = (
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAA\nplantedKeyBody\n-----END OPENSSH PRIVATE KEY-----"
    )
    said = [
        f"Authorization: Bearer {UNKNOWN}",
        f"url https://user:{UNKNOWN}@host/x?token={UNKNOWN}",
        urllib.parse.quote(ENVIRONMENT, safe=""),
        base64.b64encode(f"user:{ENVIRONMENT}".encode()).decode(),
        LOGGED.encode().hex(),
        f"hf_{UNKNOWN}",
        *key.splitlines(),
    ]
    service.node.exec("sh", "-c", "cat > /run/said", check=True) if False else None
    service.node.write("/run/said", "\n".join(said).encode())
    service.node.exec("sh", "-c", "systemd-cat -t qwen cat /run/said; logger -t qwen -u /dev/null x || true")
    service.node.exec("sh", "-c", "systemd-run --unit=said --wait cat /run/said")
    found, archive = index(service.shell)
    text = "\n".join(archive.values()) + json.dumps(found)
    for secret in (ENVIRONMENT, UNKNOWN, LOGGED):
        data = secret.encode()
        forms = (secret, urllib.parse.quote(secret, safe=""), data.hex(), base64.b64encode(data).decode()[:16])
        assert not [name for name, each in archive.items() for form in forms if form in each]
    assert "plantedKeyBody" not in text
    node = f"nodes/{service.node.name}"
    assert "qwen.service" in archive[f"{node}/services/qwen/unit.txt"]
    assert "MY_API_KEY=<removed>" in archive[f"{node}/services/qwen/unit.txt"]
    assert "READY" in archive[f"{node}/services/qwen/journal-this-boot.txt"] or "answers" in text
    assert json.loads(archive[f"{node}/services/qwen/container.json"])["State"]["Running"] is True
    assert json.loads(archive[f"{node}/services/qwen/spec.json"])["name"] == "qwen"
    assert json.loads(archive["plan.json"])["command"] == "plan"
    assert "!env PLANTED" in archive["inventory/inventory.yml"]
    assert "sparkops " in archive["controller/versions.txt"]
    assert "MemTotal" in archive[f"{node}/memory/meminfo.txt"]
    assert json.loads(archive[f"{node}/sparkops/claims.json"])
    missing = {each["file"]: each["why"] for each in json.loads(archive["index.json"])["missing"]}
    assert missing
    assert all(missing.values())
    assert stat.S_IMODE((service.shell.folder / str(found["archive"])).stat().st_mode) == 0o600
    assert json.loads(archive["index.json"])["removed"] > 0


def test_a_secret_that_cannot_be_read_and_a_silent_node_are_told(shell: Shell, node: Node, lab: Lab) -> None:
    inventory = {
        "version": 1,
        "cluster": "attic",
        "connection": {"user": "root"},
        "nodes": {node.name: {}, "gone": {"host": "127.0.0.1", "port": 1, "ssh_password": "SECRET"}},
    }
    shell.write("inventory.yml", json.dumps(inventory).replace('"SECRET"', "!env NOWHERE"))
    done = shell.run("diagnose", node.name, "-o", "one.tar.gz", status=None)
    assert done.returncode in (0, 1), done.stderr
