"""`make picture`: the terminal picture of the README, taken from a real run on the lab.

Somebody stops a service and edits its unit; `drift` says so, `apply` mends it. What sparkops printed is what is drawn.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from .lab import Lab

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
WIDTH = 104


def main() -> int:
    with Lab.session(3) as lab, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (ROOT / "inventories" / "lab.yml").read_text()
        (folder / "lab.yml").write_text(
            text.replace("lab/transformers:1", lab.engine_image.reference.partition("/")[2])
        )
        environment = {
            **os.environ,
            "SPARKOPS_SSH_CONFIG": str(lab.ssh_config),
            "XDG_STATE_HOME": "/tmp/state",
            "FORCE_COLOR": "1",
            "COLUMNS": str(WIDTH),
        }

        def sparkops(words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "sparkops", *shlex.split(words)],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            return done.stdout

        sparkops("apply lab.yml --yes")
        node = lab.node("spark-02")
        node.exec("systemctl", "stop", "small.service")
        node.exec("sed", "-i", "s/WatchdogSec=60/WatchdogSec=0/", "/etc/systemd/system/small.service")
        draw([(words, sparkops(words)) for words in ("drift lab.yml", "apply lab.yml", "drift lab.yml")])
    return 0


def draw(commands: list[tuple[str, str]]) -> None:
    """Write the picture: each command after a prompt, and what it printed."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for words, printed in commands:
        console.print(Text.assemble(("$ ", "bold green"), (f"sparkops {words}", "bold")))
        console.print(Text.from_ansi(printed))
        console.print()
    console.save_svg(str(PICTURE), title="sparkops")


if __name__ == "__main__":
    sys.exit(main())
