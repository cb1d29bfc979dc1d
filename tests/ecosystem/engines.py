"""The lab's small engine as a process of this machine, and other programs on ports of their own."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.lab import engine


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextlib.contextmanager
def program(
    argv: Sequence[str | Path],
    ready: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs from its first answer at the URL `ready` to the end of the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(argv, env={**os.environ, **(environment or {})}, stdout=file, stderr=file)
    deadline = time.monotonic() + seconds
    try:
        while not answers(ready):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def lab_engine(folder: Path, name: str, port: int, key: str = "") -> Iterator[Path]:
    """An engine that serves a model by this name on a port; its log."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text("{}")
    header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    log = folder / f"engine-{port}.log"
    words = ["serve", str(model), "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    environment = {"VLLM_API_KEY": key, "LAB_ENGINE": ""}
    with program([sys.executable, engine.__file__, *words], f"http://127.0.0.1:{port}/health", log, environment):
        yield log
