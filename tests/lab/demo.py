"""`make demo`: three lab nodes from bare to serving, a provoked drift, its repair. Every command is shown as it is run.

All three serve with the lab's small engine, which has vLLM's surface and no model; a stranger's machine must not pull
gigabytes for it. The real vLLM is in tests/e2e/test_real_engine.py.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from .lab import Lab
from .machine import LabError

INVENTORY = Path(__file__).parents[2] / "inventories" / "lab.yml"


def main() -> int:
    say("bringing up three nodes (the first time this builds them: some minutes)")
    try:
        with Lab.session(3) as lab, tempfile.TemporaryDirectory(prefix="sparkops-demo-") as folder:
            return Demo(lab, Path(folder)).run()
    except LabError as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return 1


class Demo:
    """One demonstration in a folder of its own."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.environment = {
            **os.environ,
            "SPARKOPS_SSH_CONFIG": str(lab.ssh_config),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def run(self) -> int:
        print(f"engine image: {self.lab.engine_image.reference}")
        (self.folder / "lab.yml").write_text(INVENTORY.read_text())
        self.sparkops("apply lab.yml --yes", 0)
        self._ask()
        say("a second apply changes nothing")
        self.sparkops("apply lab.yml", 0)
        say("now somebody stops a service by hand and edits a file")
        node = self.lab.node("spark-02")
        self._show_on(node.name, "systemctl stop small.service")
        node.exec("systemctl", "stop", "small.service")
        self._show_on(node.name, "echo '# by hand' >> /etc/systemd/system/small.service")
        node.exec("sh", "-c", "echo '# by hand' >> /etc/systemd/system/small.service")
        self.sparkops("drift lab.yml", 2)
        say("apply repairs it")
        self.sparkops("apply lab.yml --yes", 0)
        self.sparkops("drift lab.yml", 0)
        self._ask()
        say("done; `python -m tests.lab status` shows the lab, `make lab-down` ends it")
        self.lab.keep()
        return 0

    def sparkops(self, words: str, status: int) -> None:
        """Run and show one command; it must end with `status`."""
        print(f"\n\033[1m$ sparkops {words}\033[0m", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "sparkops", *shlex.split(words)], cwd=self.folder, env=self.environment, check=False
        )
        if done.returncode != status:
            raise SystemExit(f"demo: exit status {done.returncode} where {status} was due")

    def _ask(self) -> None:
        """A completion from every node, from here."""
        for name, port in (("spark-01", 8000), ("spark-02", 8000), ("spark-03", 8100)):
            base = f"http://{self.lab.node(name).address}:{port}/v1"
            with urllib.request.urlopen(f"{base}/models", timeout=30) as answer:
                model = json.load(answer)["data"][0]["id"]
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8})
            request = urllib.request.Request(
                f"{base}/chat/completions", body.encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                usage = json.load(answer)["usage"]
            print(f"{name}: {base} answered {usage['completion_tokens']} tokens")

    @staticmethod
    def _show_on(node: str, words: str) -> None:
        print(f"\n\033[1m{node}$ {words}\033[0m", flush=True)


def say(words: str) -> None:
    print(f"\n\033[36m── {words}\033[0m", flush=True)


if __name__ == "__main__":
    sys.exit(main())
