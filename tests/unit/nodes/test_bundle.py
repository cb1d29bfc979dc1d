"""The program that is sent to nodes: small, quick to start, true to its lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sparkops.core import frames
from sparkops.nodes import boot, bundle

SLOW = {"json", "hashlib", "_hashlib", "hmac", "subprocess", "importlib", "traceback"}
"""What takes a node longer to load than a look at many files; each was in the worker's start once."""


def test_a_look_at_files_loads_none_of_the_slow_modules(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    program = bundle.kinds_bundle(["file", "directory"])
    ask = ["a", "file", {"path": str(tmp_path / "a"), "sha256": "0", "size": 1}]
    request = frames.encode({"id": 1, "call": "observe", "args": {"asks": [ask, ["d", "directory", ask[2]]]}})
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-I", "-S", "-c", boot.BOOT, "mark"],
        input=b"mark" + len(program).to_bytes(8, "big") + program + request,
        capture_output=True,
        check=True,
    )
    answer = frames.decode(done.stdout.removeprefix(b"kram+")[4:])
    assert answer["result"]["answers"]["a"]["found"]["content"].startswith("sha256:2d711642b726")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "sparkops.worker.kinds.file" in loaded
    assert not loaded & SLOW


def test_names_for_type_checkers_become_object_on_their_own_line() -> None:
    text = "import os\nfrom typing import Any, Protocol\nx: Any = 1\n"
    assert bundle.lean(text) == "import os\nAny = Protocol = object\nx: Any = 1\n"


def test_names_that_do_something_stay() -> None:
    for line in ("from typing import Any, NamedTuple\n", "from typing import Any as A\n", "import typing\n"):
        assert bundle.lean(line) == line


def test_every_kind_of_ours_can_be_sent() -> None:
    rooms = [bundle.PACKAGE / "worker" / room for room in bundle.ROOMS]
    kinds = [path.stem for room in rooms for path in room.glob("*.py") if path.stem != "__init__"]
    assert len(bundle.kinds_bundle(kinds)) > len(bundle.kinds_bundle(["file"]))
