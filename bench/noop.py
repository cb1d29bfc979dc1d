"""A no-op check of many nodes against the floor: connect to each and run `python3 -c pass`; and 10 to 200 resources.

The same as `peers` without the peers: quick, and with more rounds.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bench import peers_work, trials
from bench.fleet import fresh, hosts
from bench.peers_work import OTHERS
from bench.timing import ratio

ROUNDS = 9
RESOURCES = (10, 50, 200)
FLEETS = (1, 10, 50)


def measure() -> dict[str, Any]:
    """For each fleet: medians, the ratio to the floor (at most 1.5 is asked), and counts per node."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="b") as name, fresh(Path(name)) as nodes:
        folder = Path(name)

        def fleet(size: int, resources: int) -> dict[str, Any]:
            with hosts(nodes, size, 0, folder) as all_hosts:
                names = [host.name for host in all_hosts]
                ours = peers_work.sparkops(folder, names, resources - OTHERS)
                trials.apply(folder)(ours)
                both = [peers_work.floor(folder, names), ours]
                figures, failed = trials.interleaved(both, trials.check(folder), all_hosts, ROUNDS)
            if failed:
                raise trials.Failed(str(failed))
            return {
                "nodes": size,
                "resources": resources,
                "tools": figures,
                "to_floor": ratio(figures, "sparkops", "floor"),
            }

        return {
            "load_before": round(load, 1),
            "fleets": [fleet(size, RESOURCES[0]) for size in FLEETS],
            "resources": [fleet(1, count) for count in RESOURCES],
        }
