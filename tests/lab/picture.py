"""`make picture`: the terminal picture of the README, taken from a real run on the lab.

A bare node and a service declared on it: `apply` sets the service up and prints its endpoint, which is then asked for a
completion; `drift` finds nothing. What the programs printed is what is drawn, without the texts of new files: `⋮` is in
their place.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.console import Console
from rich.text import Text

from .lab import Lab
from .node import Node

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "terminal.svg"
WIDTH = 104
NODE = "spark"
DETAIL = 6
"""Columns by which sparkops indents what belongs to a step."""


def main() -> int:
    with Lab.session() as lab, bare_node(lab) as node, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inventory.yml").write_text(inventory(lab.engine_image.reference.partition("/")[2]))
        environment = {
            **os.environ,
            "SPARKOPS_SSH_CONFIG": str(lab.ssh_config),
            "XDG_STATE_HOME": "/tmp/state",
            "FORCE_COLOR": "1",
            "COLUMNS": str(WIDTH),
        }

        def sparkops(words: str) -> tuple[str, str]:
            done = subprocess.run(
                [sys.executable, "-m", "sparkops", *shlex.split(words)],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            return f"sparkops {words}", done.stdout

        draw([sparkops("apply --yes"), completion(f"http://{node.address}:8000/v1"), sparkops("drift")])
    return 0


@contextlib.contextmanager
def bare_node(lab: Lab) -> Iterator[Node]:
    """A node that nothing was applied to, gone afterwards."""
    node = lab.add_node(NODE)
    try:
        yield node
    finally:
        lab.remove_node(node)


def inventory(image: str) -> str:
    """The lab's inventory with one node and the engine `image` as the only service."""
    declared = yaml.safe_load((ROOT / "inventories" / "lab.yml").read_text())
    declared["nodes"] = {NODE: None}
    declared["vars"]["image"]["pull"] = f"{declared['vars']['image']['pull'].partition('/')[0]}/{image}"
    declared["services"] = {"chat": {"nodes": [NODE], "port": 8000}}
    return yaml.safe_dump(declared, sort_keys=False)


def completion(base: str) -> tuple[str, str]:
    """A chat completion of the endpoint as curl would ask for it, and the text of its answer."""
    body = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        message = json.load(answer)["choices"][0]["message"]
    line = f"curl -s {base}/chat/completions --json @hello.json | jq -c '.choices[0].message'"
    return line, json.dumps(message) + "\n"


def draw(commands: list[tuple[str, str]]) -> None:
    """Write the picture: each command after a prompt, and what it printed."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line, printed in commands:
        console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
        console.print(Text("\n").join(shortened(printed)))
        console.print()
    console.save_svg(str(PICTURE), title="sparkops")


def shortened(printed: str) -> Iterator[Text]:
    """The lines of an output, with a mark behind each step in place of the text that it would write."""
    line = None
    for each in map(Text.from_ansi, printed.splitlines()):
        if line is not None and each.plain.startswith(" " * DETAIL) and " → " not in each.plain:
            if not line.plain.endswith("⋮"):
                line.append("  ⋮", "dim")
            continue
        if line is not None:
            yield line
        line = each
    if line is not None:
        yield line


if __name__ == "__main__":
    sys.exit(main())
