"""What was measured of the fabric, as text and as `sparkops.fabric-check/1`."""

from __future__ import annotations

from collections.abc import Iterator

from sparkops.operate.fabric.check import Checked
from sparkops.reports import schemas
from sparkops.resources.measuring.cable import Figure


def as_json(checked: Checked) -> dict[str, object]:
    """The figures, and the silent nodes with their reasons."""
    return {
        "schema": schemas.FABRIC_CHECK,
        "exit_status": checked.exit_status,
        "figures": [_figure(each) for each in checked.figures],
        "unlinked": list(checked.unlinked),
        "unreachable": {node: why.as_json() for node, why in checked.silent.items()},
    }


def _figure(figure: Figure) -> dict[str, object]:
    line = figure.line
    return {
        "sender": figure.sender,
        "receiver": figure.receiver,
        "twin": None if line is None else line.twin,
        "addresses": None if line is None else [line.address, line.peer],
        "gbits": None if figure.gbits is None else round(figure.gbits, 2),
        "expected_gbits": figure.wanted,
        "method": figure.method or None,
        "mtu": figure.mtu,
        "verdict": figure.verdict,
        "reason": figure.reason.as_json() if figure.reason else None,
    }


def lines(checked: Checked) -> Iterator[str]:
    """A line for each figure, with the way out where something is wrong."""
    for each in checked.figures:
        what = "both twins together" if each.line is None else f"{each.line.address} → {each.line.peer}"
        found = [f"{each.sender} → {each.receiver}", what]
        if each.gbits is not None:
            found.append(f"{each.gbits:.1f} Gb/s by {each.method.upper()}")
        if each.mtu:
            found.append(f"MTU {each.mtu} both ways")
        mark = "?" if each.unknown else "✓" if each.reason is None else "✗"
        yield f"{mark} {'  '.join(found)}"
        if each.reason is not None:
            yield f"    {each.reason.full}"
    for node in checked.unlinked:
        yield f"i {node}: no link of it to the others is declared, so none was measured"
