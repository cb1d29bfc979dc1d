"""Places in the page's two drawings: nodes with lines between them, and the bars of earlier runs. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sparkops.core.report import KeptRun

Mark = TypeVar("Mark")

WIDTH, HEIGHT, GAP = 150, 52, 34
FEW, BESIDE, MANY = 12, 3, 8
"""Up to FEW nodes stand BESIDE each other, more MANY."""
BARS = 120
WIDEST = 24
TALL = 96
SHOWN = {"violation": "v", "unknown": "u", "drifted": "d"}
LISTED = 20


@dataclass(frozen=True, slots=True)
class Box(Generic[Mark]):
    name: str
    state: Mark
    x: int
    y: int
    width: int = WIDTH


@dataclass(frozen=True, slots=True)
class Map(Generic[Mark]):
    """Boxes of nodes, and a line through those of each service."""

    width: int
    height: int
    boxes: tuple[Box[Mark], ...]
    links: tuple[str, ...]


def cluster_map(nodes: Sequence[tuple[str, Mark]], joined: Sequence[Sequence[int]]) -> Map[Mark]:
    """Nodes in rows; `joined` holds, for each line, the places of its nodes."""
    beside = BESIDE if len(nodes) <= FEW else MANY
    boxes = tuple(
        Box(name, state, 2 + index % beside * (WIDTH + GAP), 2 + index // beside * (HEIGHT + GAP))
        for index, (name, state) in enumerate(nodes)
    )
    across, down = min(beside, max(1, len(nodes))), max(1, -(-len(nodes) // beside))
    lines = []
    for number, places in enumerate(joined):
        down_by = 8 + number * 9 % (HEIGHT - 12)
        points = [(boxes[each].x + WIDTH // 2, boxes[each].y + down_by) for each in places]
        lines.append(" ".join(f"{x},{y}" for x, y in points))
    return Map(across * (WIDTH + GAP) - GAP + 4, down * (HEIGHT + GAP) - GAP + 4, boxes, tuple(lines))


@dataclass(frozen=True, slots=True)
class Bar:
    css: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Plot:
    """What was not as declared in each run, the latest at the right; `words` say what it shows."""

    width: int
    bars: tuple[Bar, ...]
    words: str
    runs: tuple[str, ...]


def plot(runs: Sequence[KeptRun], moment: Callable[[float], str]) -> Plot:
    """The bars of the latest runs, as high as the resources that were not as declared; a mark on the axis for none."""
    shown = runs[-BARS:]
    most = max([_differing(each) for each in shown] + [1])
    wide = min(WIDEST, 600 / len(shown))
    bars = []
    for index, run in enumerate(shown):
        y = 100.0
        for state, css in SHOWN.items():
            height = TALL * run.counts.get(state, 0) / most
            if height:
                y -= height
                bars.append(Bar(css, round(index * wide, 1), round(y, 1), round(wide * 0.8, 1), round(height, 1)))
        if y == 100.0 and run.exit_status is not None:
            bars.append(Bar("o", round(index * wide, 1), 98.0, round(wide * 0.8, 1), 2.0))
    clean = sum(not _differing(each) for each in shown)
    words = (
        f"{len(shown)} runs from {moment(shown[0].time)} to {moment(shown[-1].time)}; in {clean} of them all was as "
        f"declared, at most {most if clean < len(shown) else 0} resources were not"
    )
    return Plot(600, tuple(bars), words, tuple(_line(each, moment) for each in reversed(shown[-LISTED:])))


def _differing(run: KeptRun) -> int:
    return sum(run.counts.get(state, 0) for state in SHOWN)


def _line(run: KeptRun, moment: Callable[[float], str]) -> str:
    told = ", ".join(f"{number} {state.replace('-', ' ')}" for state, number in run.counts.items() if number)
    status = "did not end" if run.exit_status is None else f"exit status {run.exit_status}"
    named = f"; run {run.run}" if run.run else ""
    return f"{moment(run.time)} {run.command}: {told or 'nothing declared'}; {status}{named}"
