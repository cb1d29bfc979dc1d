"""The program that is sent to nodes: complete, and with the kinds that are needed only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sparkops.core import frames
from sparkops.nodes import boot, bundle


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
    rooms = [bundle.PACKAGE / "worker" / room for room in bundle.ROOMS]
    kinds = [path.stem for room in rooms for path in room.glob("*.py") if path.stem != "__init__"]
    assert len(bundle.kinds_bundle(kinds)) > len(bundle.kinds_bundle(["file"]))
