"""`python -m bench [NAME …]`: run benchmarks, print their figures, leave them in `bench/results/NAME.json`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import import_module
from pathlib import Path

BENCHMARKS = ("startup", "inventory", "lint", "noop")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    names = parser.parse_args().names or BENCHMARKS
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        figures = {"benchmark": name, "python": platform.python_version(), **import_module(f"bench.{name}").measure()}
        text = json.dumps(figures, indent=1)
        print(text)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
