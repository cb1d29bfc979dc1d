"""Thirty faults in a row, of every sort and at random moments: after each the old content or the new, then convergence.

`make chaos N=300` goes on where this ends; the seed and number of a failure are in its message.
"""

from __future__ import annotations

from pathlib import Path

from tests.chaos.__main__ import cluster
from tests.chaos.runner import Chaos
from tests.lab.lab import Lab

SEED = 3
FAULTS = 30


def test_after_each_of_thirty_faults_one_more_apply_brings_the_declared_state(lab: Lab, tmp_path: Path) -> None:
    with cluster(lab, tmp_path / "chaos", 1) as here:
        outcomes = list(Chaos(here, SEED, tmp_path / "logs").run(1, FAULTS))
    failed = [f"seed {SEED}: {each}" for each in outcomes if each.problem]
    assert not failed, failed[0]
    assert len(outcomes) == FAULTS
