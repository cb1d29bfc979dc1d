"""The program that is sent to nodes: complete, and with the kinds that are needed only."""

from __future__ import annotations

import ast
import binascii
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from sparkops.core import frames
from sparkops.nodes import boot, bundle

ROOMS = [bundle.PACKAGE / "worker" / room for room in bundle.ROOMS]
NAMED = re.compile(r"\"(sparkops\.(?:worker|programs)\.[\w.]+)\"")


def test_the_program_answers_with_the_sources_that_it_carries(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    program = bundle.kinds_bundle(["file", "directory"])
    ask = ["a", "file", {"path": str(tmp_path / "a"), "sha256": "0", "size": 1}]
    request = frames.encode({"id": 1, "call": "observe", "args": {"asks": [ask, ["d", "directory", ask[2]]]}})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", boot.BOOT, "mark"],
        input=b"mark" + len(program).to_bytes(8, "big") + program + request,
        capture_output=True,
        check=True,
    )
    answer = frames.decode(done.stdout.removeprefix(b"kram+")[4:])
    assert answer["result"]["answers"]["a"]["found"]["content"].startswith("sha256:2d711642b726")


def test_every_kind_of_ours_can_be_sent() -> None:
    kinds = [path.stem for room in ROOMS for path in room.glob("*.py") if path.stem != "__init__"]
    assert len(bundle.kinds_bundle(kinds)) > len(bundle.kinds_bundle(["file"]))


@pytest.mark.parametrize("kind", [path.stem for room in ROOMS for path in room.glob("[a-z]*.py")])
def test_what_a_job_runs_is_sent_with_the_kind_that_starts_it(kind: str) -> None:
    """A job's module is named in a string, and imported by nobody on the node before it runs."""
    sent = sources(bundle.kinds_bundle([kind]))
    named = {name for text in sent.values() for name in NAMED.findall(text)}
    assert {name for name in named if name in bundle._modules()} <= sent.keys()
    rooms = {name.split(".")[1] for name in sent if "." in name}
    assert rooms <= {"core", "programs", "safetensors", "worker"}, "nothing of the controller is sent"


def sources(program: bytes) -> dict[str, str]:
    line = program.decode().partition("\n")[0]
    packed: bytes = ast.literal_eval(line.removeprefix("P = "))
    found: dict[str, str] = json.loads(zlib.decompress(binascii.a2b_base64(packed)))
    return found
