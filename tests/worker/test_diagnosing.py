"""What a node collects for a bug report: bounded, redacted before it is cut, and no part costs another."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs.redaction import MASK, Redaction
from sparkops.worker.calls import Call, Unknown
from sparkops.worker.requests import diagnose


def gather(**looks: Any) -> dict[str, Any]:
    """The parts of these looks, by name, on a node that has the secret `planted-in-env`."""
    call = Call(1, lambda message: None, threading.Event())
    return {each["name"]: each for each in diagnose.gather(call, looks, Redaction(["planted-in-env"]))}


def test_what_fails_is_told_and_costs_no_other_part() -> None:
    def fails(error: Exception) -> Any:
        raise error

    parts = gather(
        good=lambda: "fine\n",
        none=lambda: None,
        unknown=lambda: fails(Unknown.of("program-missing", program="x")),
        system=lambda: fails(FileNotFoundError(2, "No such file", "/x")),
        defect=lambda: fails(ValueError("oh")),
    )
    assert parts["good"]["text"] == b"fine\n"
    reasons = {name: each["why"]["id"] for name, each in parts.items() if each["why"]}
    assert reasons == {
        "none": "diagnose-absent",
        "unknown": "program-missing",
        "system": "system-call-failed",
        "defect": "defect",
    }


def test_a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "WHOLE", 0.2)
    over = threading.Event()
    parts = gather(good=lambda: "fine\n", hangs=over.wait)
    over.set()
    assert parts["good"]["text"] == b"fine\n"
    assert parts["hangs"]["why"]["id"] == "diagnose-late"


def test_secrets_go_before_a_part_is_cut_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "PART", 2000)
    text = "".join(f"line {number} planted-in-env A_TOKEN=q1w2e3\n" for number in range(500))
    part = gather(log=lambda: text)["log"]
    assert part["cut"]
    assert len(part["text"]) <= 2000
    assert part["text"].startswith(b"line ")
    assert part["text"].endswith(f"line 499 {MASK} A_TOKEN={MASK}\n".encode())
    assert b"planted" not in part["text"]


def test_all_parts_together_fit_into_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "TOTAL", 10_000)
    looks = {f"part{number}": lambda: "a line\n" * 1000 for number in range(10)}
    parts = gather(**looks)
    assert sum(len(each["text"]) for each in parts.values()) <= 10_000
    assert all(each["cut"] and each["text"] for each in parts.values())


def test_a_file_is_read_from_its_end_and_begins_with_a_whole_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(diagnose, "READ", 30)
    (tmp_path / "log").write_text("A_TOKEN=q1w2e3r4t5\nsecond line\nthird line\n")
    assert diagnose._read(str(tmp_path / "log")) == "second line\nthird line\n"
    assert "MemTotal" in diagnose._read("/proc/meminfo")[:40]


def test_the_values_of_services_environments_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(diagnose, "SPECS", str(tmp_path))
    (tmp_path / "qwen.env").write_text('{"ANY": "planted"}')
    (tmp_path / "torn.env").write_text('{"ANY')
    (tmp_path / "qwen.json").write_text('{"no": "secret"}')
    assert list(diagnose._secrets()) == ["planted"]
