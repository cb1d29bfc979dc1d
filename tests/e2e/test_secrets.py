"""Secrets of every source, planted and then looked for: in outputs, reports, run folders, process lists and files, as
they are, encoded or hashed. They may stand where they are meant to be, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.lab import model as tiny
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.rootfs import WARDEN_PASSWORD

REPO = "org/secretive"
ROLES = ("vault", "image", "checkpoint", "service", "health")
SOURCES = ("env", "file", "command", "given", "template", "key", "plain")
ROLE = """\
    summary: A secret of every source, each in a file of its own
    scope: node
    variables:
      type: object
      properties:
        env: {type: string, secret: true, default: ""}
        file: {type: string, secret: true, default: ""}
        command: {type: string, secret: true, default: ""}
        given: {type: string, secret: true, default: ""}
        template: {type: string, secret: true, default: ""}
        later: {type: string, secret: true, default: ""}
        check: {type: [string, "null"], secret: true, default: null}
        nowhere: {type: boolean, default: false}
    resources:
      - directory: /srv/vault
      - file: /srv/vault/env
        content: "{{ vault.env }}"
      - file: /srv/vault/file
        content: "token={{ vault.file }}\\n"
      - file: /srv/vault/command
        content: "{{ {'token': vault.command} | json }}"
        mode: "0640"
        group: daemon
      - file: /srv/vault/given
        content: "{{ vault.given | sh }}"
      - file: /srv/vault/template
        template: token.j2
      - file: /srv/vault/later
        content: "{{ vault.later }}"
      - file: /srv/vault/checked
        when: vault.check
        content: "{{ vault.check }}"
        validate: [sh, -c, 'cat "$0"; cat "$0" >&2; exit 1', "{path}"]
      - file: /nowhere/at/all
        when: vault.nowhere
        content: "{{ vault.env }}"
    """
ENGINES = ("/var/lib/docker/", "/var/lib/containerd/", "/run/docker/", "/run/containerd/")
"""Where the container engine keeps the environment of its containers, for root alone."""
WATCH = """
import os, sys, time
words = [word.encode() for word in sys.stdin.readline().split()]
seen, own = set(), os.getpid()
while not os.path.exists("/run/lab-watched"):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                contained = "docker" in file.read().partition("sparkops-lab")[2].partition("\\n")[0]
            for name in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    data = file.read()
                if int(pid) != own and any(word in data for word in words):
                    with open(f"/proc/{pid}/comm") as file:
                        seen.add((name, file.read().strip(), b"LAB_ENGINE" in data))
        except OSError:
            continue
    time.sleep(0.02)
print(sorted(seen))
"""
"""Looks at every process of the node until it is told to stop; the engine's own environment carries LAB_ENGINE."""


def traces(text: str) -> Iterator[str]:
    """How a text may show though nobody prints it: as it is, encoded, hashed."""
    raw = text.encode()
    yield text
    yield raw.hex()
    for start in range(3):
        whole = base64.b64encode(b"\0" * start + raw).decode()
        yield whole[(0, 4, 4)[start] : len(whole) - 4]
    for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
        yield hashlib.new(name, raw).hexdigest()
        yield base64.b64encode(hashlib.new(name, raw).digest()).decode().rstrip("=")


@dataclass
class Vault:
    """One node with every sort of secret, and the nets to find them."""

    lab: Lab
    shell: Shell
    node: Node
    hub: Hub
    secrets: dict[str, str] = field(default_factory=dict)
    planted: list[str] = field(default_factory=list)

    def plant(self, turn: str) -> None:
        """New secrets of every source; the old ones are looked for as well from now on."""
        self.secrets = {name: f"planted-{turn}-{name}-{os.urandom(6).hex()}" for name in SOURCES}
        s = self.secrets
        self.planted += [
            *s.values(),
            f"token={s['file']}\n",
            json.dumps({"token": s["command"]}, separators=(",", ":")),
        ]
        self.planted += [f"# made\nkey = {s['template']}\n"]
        self.shell.write("token", s["file"] + "\n")
        self.shell.write("token-of-command", s["command"])
        self.shell.write("token-of-hub", "hf_" + s["key"])
        self.hub.grant("hf_" + s["key"], REPO)
        environment = {"A": s["env"], "G": s["given"], "T": s["template"], "K": s["key"], "P": s["plain"]}
        self.shell.environment.update({**environment, "SUDO": WARDEN_PASSWORD})

    def declare(self) -> None:
        """The role and the inventory."""
        self.shell.write("roles/vault/role.yml", ROLE)
        self.shell.write("roles/vault/templates/token.j2", "# made\nkey = {{ vault.template }}\n")
        service = {
            "nodes": [self.node.name],
            "port": 8000,
            "image": {"pull": self.lab.engine_image.reference},
            "command": ["serve"],
            "gpus": None,
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "timeouts": {"stop_seconds": 2, "restart_seconds": 1},
            "health": {"limit_seconds": 15},
        }
        self.shell.write(
            "inventory.yml",
            f"""\
            version: 1
            cluster: vault
            roles: [vault]
            connection: {{user: warden, become: true, become_password: !env SUDO}}
            vars:
              vault:
                env: !env A
                file: !file token
                command: !command [cat, token-of-command]
                template: !env T
                later: !env P
            nodes:
              {self.node.name}: {{}}
            services:
              qwen:
                <<: &all {json.dumps(service)}
                checkpoint:
                  {{repository: {REPO}, endpoint: "{self.hub.endpoint}", folder: /srv/m, token: !file token-of-hub}}
                environment: {{LAB_ENGINE: "", OTHER: !env A, VLLM_API_KEY: !env K}}
            """,
        )

    def run(self, command: str, *words: str, status: int | None) -> str:
        """A command of the road, with the secret of `-e`; swept."""
        roles = [word for role in ROLES for word in ("--role", role)]
        return self.other(command, "inventory.yml", *roles, "-e", "vault.given=!env G", *words, status=status)

    def other(self, *words: str, status: int | None = 0) -> str:
        """Any command; both its outputs are swept."""
        done = self.shell.run(*words, status=status)
        self.sweep(done.stdout + done.stderr, " ".join(words))
        return done.stdout + done.stderr

    def found(self, text: str) -> list[str]:
        return [word for word in [*self.planted, WARDEN_PASSWORD] for trace in traces(word) if trace in text]

    def sweep(self, text: str, where: str) -> None:
        assert self.found(text) == [], f"in {where}"

    def sweep_files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.sweep(path.read_bytes().decode(errors="replace"), str(path))

    def node_files(self) -> set[str]:
        """The files of the node in which one of the secrets stands in any form, the engine's own left out."""
        traced = {trace.strip("\n") for word in self.planted for trace in traces(word)}
        patterns = "\n".join(trace for trace in traced if "\n" not in trace)
        folders = ["/etc", "/var/lib", "/var/log", "/run", "/tmp", "/root", "/home", "/srv", "/usr/local", "/var/tmp"]
        script = 'cat > /dev/shm/patterns; grep -rlaFs -D skip -f /dev/shm/patterns "$@"; rm /dev/shm/patterns'
        said = self.node.exec("sh", "-c", script, "sh", *folders, input=patterns.encode(), check=False).stdout.decode()
        return {path for path in said.splitlines() if not path.startswith(ENGINES)}


@pytest.fixture
def vault(lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> Vault:
    tiny.write(tmp_path / "model")
    hub.add_repo(REPO, tmp_path / "model", gated=True)
    node.exec("mkdir", "-p", "/srv")
    made = Vault(lab, shell, node, hub)
    made.plant("first")
    made.declare()
    return made


class Watch:
    """All processes of the node and of this machine, looked at again and again while the block runs."""

    def __init__(self, node: Node, words: Iterable[str]) -> None:
        self.node, self.words = node, list(words)
        self.here: set[str] = set()
        self.there: list[Any] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look_here), threading.Thread(target=self._look_there)]

    def __enter__(self) -> Watch:
        self.node.exec("rm", "-f", "/run/lab-watched")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.node.exec("touch", "/run/lab-watched")
        for thread in self._threads:
            thread.join(30)

    def _look_there(self) -> None:
        given = (" ".join(self.words) + "\n").encode()
        said = self.node.exec("python3", "-c", WATCH, input=given, timeout=300).stdout.decode()
        self.there = eval(said)

    def _look_here(self) -> None:
        while not self._over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if any(word in line for word in self.words):
                    self.here.add(line.replace("\0", " "))


MEANT = {f"/srv/vault/{name}" for name in ("env", "file", "command", "given", "template", "later")}
ENVIRONMENT = "/etc/sparkops/services/qwen.env"


def test_a_secret_is_where_it_is_meant_to_be_and_nowhere_else(vault: Vault, tmp_path: Path) -> None:
    node, shell = vault.node, vault.shell
    vault.run("plan", "-v", "-o", "plan.json", status=2)
    vault.run("plan", "--format", "json", status=2)
    vault.sweep((shell.folder / "plan.json").read_text(), "the saved plan")
    with Watch(node, [*vault.secrets.values(), WARDEN_PASSWORD.split()[0]]) as watch:
        vault.run("apply", "--yes", "-v", "-v", status=0)
    assert watch.here == set()
    assert [each for each in watch.there if each[0] == "cmdline" or not each[2]] == []
    assert any(each[2] for each in watch.there), "the engine has its own key, so the net catches"

    node.exec("chmod", "600", "/srv/vault/command")
    vault.planted.append(node.read(ENVIRONMENT).decode())
    assert vault.node_files() == {*MEANT, ENVIRONMENT}
    assert node.read("/srv/vault/template").decode() == f"# made\nkey = {vault.secrets['template']}\n"
    modes = node.text("stat", "-c", "%a", *sorted(MEANT), ENVIRONMENT).split()
    assert set(modes) == {"600"}
    inspected = json.loads(node.text("docker", "inspect", "sparkops-qwen"))[0]
    inspected["Config"].pop("Env")
    vault.sweep(json.dumps(inspected), "the container beside its environment")
    assert node.text("sh", "-c", "stat -c %a /var/lib/docker/containers/*/config.v2.json") == "600"

    vault.run("drift", "-v", status=2)  # the mode
    for words in (
        ("render", node.name),
        ("inventory", "show", node.name, "--origin"),
        ("inventory", "show", node.name, "--format", "json"),
        ("status",),
        ("status", "--format", "json"),
        ("logs", "qwen"),
        ("history",),
        ("facts", node.name),
        ("exec", node.name, "--", "true"),
    ):
        vault.other(*words, status=None)
    for folder in ("state", "cache"):
        vault.sweep_files(tmp_path / folder)

    vault.plant("second")
    steps = json.loads(vault.run("drift", "--format", "json", status=2))["steps"]
    changed = {step["id"].split()[1]: step["changes"] for step in steps}
    assert changed.keys() >= {*MEANT, ENVIRONMENT, "qwen.service"}
    assert "secret_inputs" in changed["qwen.service"]
    with Watch(node, vault.secrets.values()) as watch:
        vault.run("apply", "--yes", "--format", "json", status=0)
    assert watch.here == set()
    assert [each for each in watch.there if each[0] == "cmdline" or not each[2]] == []
    vault.planted.append(node.read(ENVIRONMENT).decode())
    assert vault.node_files() == {*MEANT, ENVIRONMENT}
    vault.run("drift", status=0)
    for folder in ("state", "cache"):
        vault.sweep_files(tmp_path / folder)


def test_what_fails_tells_no_secret(vault: Vault, tmp_path: Path) -> None:
    only = ("inventory.yml", "--role", "vault", "-e", "vault.given=!env G")
    said = vault.other("apply", *only, "-e", "vault.check=!env A", "-v", status=4)
    assert "the new content is not valid, the old one was kept: sh does not accept it" in said
    assert not vault.node.exists("/srv/vault/checked")
    said = vault.other("apply", *only, "-e", "vault.nowhere=true", "--format", "json", status=4)
    assert "the folder /nowhere/at does not exist" in said

    vault.shell.write("loud", f"echo {vault.secrets['env']}; exit 3")
    said = vault.other("apply", *only, "-e", "vault.command=!command [sh, loud]", status=1)
    assert "error[secret-command-failed]" in said and "ended with exit status 3" in said
    said = vault.other("apply", *only, "-e", "vault.file=!file nowhere", status=1)
    assert "!file nowhere cannot be read" in said and "readable for you alone" in said

    vault.shell.environment["SUDO"] = vault.secrets["plain"]
    said = vault.other("apply", *only, "-v", "-v", status=3)
    assert "sudo password" in said or "refused the password" in said
    for folder in ("state", "cache"):
        vault.sweep_files(tmp_path / folder)


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("{command: x, check: [echo, '{{ vault.env }}'], run: [true]}", "takes no secret"),
        ("{command: x, creates: /x, run: [echo], env: {T: '{{ vault.env }}'}}", "takes no secret"),
        ("{file: '/srv/{{ vault.env }}', content: x}", "the name of this file is secret"),
        ("{file: /srv/x, content: '{{ vault.env }}', mode: '0644'}", "lets everyone at it"),
        ("{file: /srv/x, content: '{{ vault.env | sha256 }}'}", "a digest is made of a secret"),
        ("{unit: x.service, content: 'Environment={{ vault.env }}'}", "unit files can be read by all"),
        ("{unit: x.service, properties: {Nice: '{{ vault.env }}'}}", "takes no secret"),
        ("{image: 'x:1', content: 'FROM {{ vault.env }}'}", "a Dockerfile contains a secret"),
        ("{image: 'x:1', content: FROM x, args: {T: '{{ vault.env }}'}}", "takes no secret"),
        ("{require: gpu, expect: {name: {equal: '{{ vault.env }}'}}}", "takes no secret"),
        ("{link: /srv/x, target: '{{ vault.env }}'}", "takes no secret"),
        ("{probe: x, port: 1, prompt: '{{ vault.env }}'}", "takes no secret"),
        ("{file: /srv/x, content: '{{ vault.env[2:] }}'}", "cuts or alters a secret"),
    ],
)  # fmt: skip
def test_a_secret_where_it_would_be_seen_is_refused_before_anything_is_reached(
    tmp_path: Path, resource: str, words: str
) -> None:
    shell = Shell(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state"), "A": "planted-once"})
    shell.write("roles/vault/role.yml", ROLE[: ROLE.index("    resources:")] + f"    resources:\n      - {resource}\n")
    shell.write(
        "inventory.yml",
        "version: 1\ncluster: vault\nroles: [vault]\nvars: {vault: {env: !env A}}\nnodes: {gone: {host: 192.0.2.1}}\n",
    )
    done = shell.run("plan", "inventory.yml", "--role", "vault", status=1)
    assert words in done.stderr and "role.yml:" in done.stderr
    assert "planted" not in done.stdout + done.stderr


def test_what_was_secret_and_is_declared_plain_is_not_shown(vault: Vault, tmp_path: Path) -> None:
    only = ("inventory.yml", "--role", "vault", "-e", "vault.given=!env G")
    vault.other("apply", *only, "--yes")
    plain = ("-e", "vault.later=plain", "-e", "vault.command=the same for all")
    said = vault.other("plan", *only, *plain, "-v", "-o", "plan.json", status=2)
    assert "the present content is not shown" in said
    vault.other("drift", *only, *plain, "--format", "json", status=2)
    vault.sweep((vault.shell.folder / "plan.json").read_text(), "the saved plan")
    vault.other("apply", "inventory.yml", *only[3:], *plain, "--plan", "plan.json")
    assert vault.node.read("/srv/vault/later") == b"plain"
    assert json.loads(vault.node.read("/srv/vault/command")) == {"token": "the same for all"}
    for folder in ("state", "cache"):
        vault.sweep_files(tmp_path / folder)


def test_the_passphrase_of_a_key_is_typed_once_and_stands_nowhere(vault: Vault, tmp_path: Path) -> None:
    word = "planted-phrase-7c1e"
    vault.planted.append(word)
    key = tmp_path / "key"
    key.write_bytes(vault.lab.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", word, "-f", str(key)], check=True)
    config = vault.lab.ssh_config.read_text().replace(str(vault.lab.key), str(key))
    (tmp_path / "ssh_config").write_text(config)
    vault.shell.environment["SPARKOPS_SSH_CONFIG"] = str(tmp_path / "ssh_config")
    only = ("--role", "vault", "-e", "vault.given=!env G")
    with Watch(vault.node, [word]) as watch:
        status, said = typed(vault.shell, word, "apply", "inventory.yml", *only, "--yes", "-v")
    assert status == 0, said
    assert said.count("Passphrase for") == 1
    vault.sweep(said, "the terminal")
    assert (watch.here, watch.there) == (set(), [])
    assert vault.node.exists("/srv/vault/env")
    vault.sweep_files(tmp_path / "state")


def typed(shell: Shell, answer: str, *arguments: str) -> tuple[int, str]:
    """`sparkops` on a terminal where a person answers the one hidden question; its status and what was shown."""
    words = [sys.executable, "-m", "sparkops", *arguments]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(shell.folder)
        os.execve(words[0], words, {**os.environ, **shell.environment, "TERM": "dumb"})
    shown, deadline, answered = "", time.monotonic() + 300, False
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        shown += part.decode(errors="replace")
        if "Passphrase for" in shown and not answered:
            answered = True
            os.write(terminal, f"{answer}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown
