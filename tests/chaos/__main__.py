"""`python -m tests.chaos`: N faults on lab nodes, told one by one, with a figure at the end; 0 where all converged."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.faults import FAULTS, MORE
from tests.chaos.runner import Chaos, figures
from tests.e2e.conftest import Shell
from tests.lab.hub import Hub
from tests.lab.lab import Lab


@contextmanager
def cluster(lab: Lab, folder: Path, nodes: int, *, serving: bool = False) -> Iterator[Cluster]:
    """Fresh nodes, a hub and an inventory in `folder`, gone at the end but for the folder."""
    (folder / "cluster").mkdir(parents=True)
    environment = {
        "SPARKOPS_SSH_CONFIG": str(lab.ssh_config),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "NO_COLOR": "1",
    }
    made = [lab.add_node() for _ in range(nodes)]
    try:
        with Hub(lab.address) as hub:
            here = Cluster(lab, Shell(folder / "cluster", environment), hub, made, serving)
            here.publish()
            yield here
    finally:
        for node in made:
            lab.remove_node(node)


def summary(found: dict[str, Any], seconds: float) -> str:
    """The figures for a person."""
    lines = [f"\n{found['faults']} faults, seed {found['seed']}: converged {found['converged']}/{found['faults']}"]
    lines += [f"  {name:24}{good}/{all_}" for name, (good, all_) in found["by_fault"].items() if all_]
    lines += ["when:", *(f"  {name:28}{count}" for name, count in found["by_phase"].items())]
    lines += [
        f"time to converge: median {found['median_seconds']} s, slowest {found['slowest_seconds']} s;"
        f" with one apply {found['one_apply']}/{found['converged']}; {seconds:.0f} s in all"
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("-n", type=int, default=30, help="how many faults")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--first", type=int, default=1, help="begin with this iteration of the seed")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="also faults of which some take over a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    given = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="sparkops-chaos-"))
    began = time.monotonic()
    outcomes = []
    with Lab.session() as lab, cluster(lab, folder, given.nodes, serving=given.more) as here:
        print(f"seed {given.seed}, {given.n} faults, {given.nodes} nodes", flush=True)
        chaos = Chaos(here, given.seed, folder / "logs", (*FAULTS, *MORE) if given.more else FAULTS)
        for outcome in chaos.run(given.first, given.first + given.n - 1):
            outcomes.append(outcome)
            print(outcome, flush=True)
    found = figures(given.seed, given.n, outcomes)
    print(summary(found, time.monotonic() - began))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["converged"] < given.n:
        more = f"--seed {given.seed}{' --more' * given.more} --first {outcomes[-1].number} -n 1"
        print(f"\nlogs: {folder}\nagain: python -m tests.chaos {more}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
