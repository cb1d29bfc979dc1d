"""`--report FORMAT=PATH`: which are refused before a node is asked, and how files are written."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from sparkops.cli.options import CommonOptions, ReportFile
from sparkops.cli.printing import write_reports
from tests.unit.reports.made import report


@pytest.mark.parametrize("words", ["html", "html=", "=a", "pdf=a.pdf", "html=-", "html=/nowhere/at/all.html", "html=."])
def test_what_can_not_be_written_is_refused_at_once(words: str) -> None:
    with pytest.raises(click.BadParameter):
        ReportFile().convert(words, None, None)


def test_several_reports_are_written_at_once_and_whole(tmp_path: Path) -> None:
    kept = tmp_path / "real.json"
    kept.write_text("old")
    kept.chmod(0o600)
    (tmp_path / "link.json").symlink_to(kept)
    wanted = [("json", tmp_path / "link.json"), ("junit", tmp_path / "a.xml"), ("markdown", tmp_path / "a=b.md")]
    assert write_reports(report(), CommonOptions(reports=tuple(wanted))) == 2
    assert (tmp_path / "link.json").is_symlink()
    assert kept.read_text().startswith("{")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.xml", "a=b.md", "link.json", "real.json"]


def test_a_report_that_can_not_be_written_costs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [("json", Path("/proc/sparkops.json")), ("junit", tmp_path / "a.xml")]
    assert write_reports(report(), CommonOptions(reports=tuple(wanted))) == 2, "the run's own status says more"
    assert (tmp_path / "a.xml").exists()
    assert "error[report-not-written]" in capsys.readouterr().err


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_reports(report(), CommonOptions(reports=(("github", path),)))
    assert os.read(reader, 10).startswith(b"::")
    assert path.is_fifo()
    os.close(reader)
