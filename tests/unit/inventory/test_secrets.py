"""Secrets are read at use, once, and never told."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from sparkops.core.errors import SecretError
from sparkops.core.secrets import SecretRef
from sparkops.inventory.secrets import Masked, Secrets
from tests.errors import fails
from tests.lab.machine import wait_until


def python(code: str) -> SecretRef:
    return SecretRef("command", (sys.executable, "-c", code), "i.yml:1:1")


def test_a_secret_comes_from_the_environment() -> None:
    assert Secrets({"TOKEN": "t"}).resolve(SecretRef("env", "TOKEN")).reveal() == "t"


def test_a_secret_comes_from_a_file_beside_the_inventory_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k\n\n")
    assert Secrets().resolve(SecretRef("file", "key", base=str(tmp_path))).reveal() == "k\n"


def test_a_secret_comes_from_a_command_without_a_shell(tmp_path: Path) -> None:
    ref = SecretRef("command", (sys.executable, "-c", "import sys; print(sys.argv[1])", "$HOME;*"), base=str(tmp_path))
    assert Secrets().resolve(ref).reveal() == "$HOME;*"


def test_a_command_runs_once(tmp_path: Path) -> None:
    ref = python(f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); print('s')")
    secrets = Secrets()
    assert secrets.resolve(ref) == secrets.resolve(ref)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_command_that_hangs_is_ended() -> None:
    started = time.perf_counter()
    with fails("secret-command-not-ended", SecretError):
        Secrets(timeout=0.5).resolve(python("import time; time.sleep(60)"))
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "ref",
    [
        SecretRef("env", "NOPE", "i.yml:1:1"),
        SecretRef("file", "/nonexistent/key", "i.yml:1:1"),
        SecretRef("command", ("/nonexistent/program",), "i.yml:1:1"),
        SecretRef("env", "EMPTY", "i.yml:1:1"),
        python("print('hunter2'); raise SystemExit(3)"),
        python("import sys; sys.stdout.buffer.write(b'hunter2\\xff')"),
    ],
)
def test_an_error_names_the_reference_and_its_place_and_never_the_value(ref: SecretRef) -> None:
    with pytest.raises(SecretError) as caught:
        Secrets({"EMPTY": ""}).resolve(ref)
    told = str(caught.value)
    assert f"!{ref.source}" in told
    assert told.startswith("i.yml:1:1")
    assert "hunter2" not in told.replace(str(ref), "")


def test_the_masked_resolver_reads_nothing() -> None:
    assert Masked().resolve(SecretRef("env", "NOPE")).reveal() == "***"


def test_what_a_command_started_ends_with_it_when_its_time_is_over(tmp_path: Path) -> None:
    script = (
        "import subprocess, time; run = ['sh', '-c', \"trap '' TERM; while :; do sleep 600; done\"]; "
        "print(subprocess.Popen(run).pid, flush=True); time.sleep(600)"
    )
    ref = python(f"import os; os.dup2(os.open({str(tmp_path / 'pid')!r}, os.O_WRONLY | os.O_CREAT), 1); {script}")
    with fails("secret-command-not-ended", SecretError):
        Secrets({}, timeout=1.0).resolve(ref)
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    assert wait_until(lambda: not stat.exists() or stat.read_text().split()[2] == "Z", 5)


def test_a_command_that_prints_without_end_is_cut_at_the_limit() -> None:
    with fails("secret-too-long"):
        Secrets({}, timeout=30.0).resolve(SecretRef("command", ("yes",), "i.yml:1:1"))
