"""`python -m bench [NAME …]`: run benchmarks, leave their figures in `bench/results/NAME.json` and write the pages.

`python -m bench report` writes `bench/README.md` and `docs/performance.md` from the results that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib import import_module
from typing import Any

from bench import report

BENCHMARKS = (
    "startup",
    "inventory",
    "lint",
    "verifying",
    "building",
    "noop",
    "simulated",
    "peers",
    "spreading",
    "fetching",
    "output",
    "reports",
    "watching",
    "watch",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = (*BENCHMARKS, "report")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all without one")
    parser.add_argument("--nodes", type=int, action="append", default=[], help="peers: only fleets of so many")
    parser.add_argument("--delay", type=int, action="append", default=[], help="peers: only with so many ms more")
    parser.add_argument("--without", action="append", default=[], help="peers: without this tool")
    options = parser.parse_args()
    for name in options.names or BENCHMARKS:
        if name != "report":
            chosen = (options.nodes, options.delay, options.without, report.results().get(name, {}))
            _run(name, chosen if name == "peers" else ())
    report.write()
    return 0


def _run(name: str, arguments: tuple[Any, ...]) -> None:
    figures = {
        "benchmark": name,
        "when": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)),
        },
        **import_module(f"bench.{name}").measure(*arguments),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    report.RESULTS.mkdir(exist_ok=True)
    (report.RESULTS / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
