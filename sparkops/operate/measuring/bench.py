"""A measurement of a service by streamed completions on its own node, kept, compared and judged.

It must not know how a completion is asked for: that is the worker's half.
"""

from __future__ import annotations

import datetime
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sparkops.core import atomic, data
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.request_messages import CellRequest
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.fit.fit import Fit, Question
from sparkops.fit.services import fit_inventory
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.served import places
from sparkops.lint.declared import lint_inventory
from sparkops.models.engine import Engine
from sparkops.nodes.session import CallFailed, Session
from sparkops.operate.connect import Context, reach
from sparkops.operate.follow import follow
from sparkops.operate.measuring.figures import acceptance, number
from sparkops.operate.services import Rank, chosen
from sparkops.resources.probe import Probe

SCHEMA = "sparkops.bench/1"
HEALTHY = 0.70
"""Of the ceiling of one stream, without speculation: albond README, Entrpi FINDINGS."""
LESS = 0.90
"""Of the last measurement, below which a cell counts as slower; a choice, as runs of one cell vary by a few percent."""
STUCK = 0.5
"""Of the GPU's highest clock under load; stuck ones were seen at 799 of about 3000 MHz."""
NOT_CAPTURED = ("capture-sizes", "speculative-batch-not-captured")
"""Rules of lint that say which steps have no CUDA graph."""
MARGIN = 60.0
NOT_ANSWERED = Unknown("not-answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measurement; speeds in tokens a second. None where it could not be had; `reason` says why of all of it.

    `first` is the median of the seconds to the first token, `decode` that of one request after its first token,
    `together` all tokens over all the time, prefill included. `ceiling` is `fit`'s for as many streams.
    """

    concurrency: int
    context: int
    prompt_tokens: int | None = None
    first: float | None = None
    decode: float | None = None
    together: float | None = None
    acceptance: float | Unknown = NOT_ANSWERED
    tokens_per_step: float | None = None
    ceiling: float | None = None
    speculative: bool = False
    hardware: Mapping[str, object] = field(default_factory=dict)
    others: tuple[str, ...] | None = None
    reason: Message | None = None

    @property
    def share(self) -> float | None:
        """Of the ceiling that decoding reached."""
        if self.decode is None or not self.ceiling:
            return None
        return self.concurrency * self.decode / self.ceiling


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The cells of one engine, at its head `node`. `reason` says why there is none; `told` is what a tool of others
    wrote."""

    node: str
    cells: tuple[Cell, ...] = ()
    findings: tuple[Message, ...] = ()
    causes: tuple[Message, ...] = ()
    reason: Message | None = None
    told: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All engines of a service, one after the other from `time` on (seconds since the epoch), by `tool`; "" is our own
    probe."""

    cluster: str
    service: str
    time: float
    tokens: int
    engines: tuple[Measured, ...]
    tool: str = ""

    @property
    def figures(self) -> bool:
        """Whether anything was measured: what was not is nothing to compare a later measurement with."""
        return any(each.told or any(not cell.reason for cell in each.cells) for each in self.engines)

    @property
    def exit_status(self) -> int:
        """3 where an engine or a cell could not be measured, else 2 where something was found, else 0."""
        if any(each.reason or any(cell.reason for cell in each.cells) for each in self.engines):
            return 3
        return 2 if any(each.findings for each in self.engines) else 0


def bench(
    context: Context,
    service: str,
    nodes: Sequence[str],
    *,
    concurrency: Sequence[int],
    contexts: Sequence[int],
    tokens: int,
    seconds: float,
) -> Bench:
    """Measure each combination at each engine of the service whose head is on these nodes, one after the other.

    Raises InventoryError where there is none.
    """
    inventory = context.inventory
    heads = [each for each in chosen(inventory, [service]) if each.probe is not None and each.node in nodes]
    if not heads:
        raise InventoryError.of("bench-without-head", service=service)
    engines = {each.node: each.engine for each in places(inventory) if each.service.name == service}
    began, found = time.time(), []
    with reach(context, [each.node for each in heads], ["bench"]) as fleet:
        for rank in heads:
            cells: list[Cell] = []
            try:
                for streams, length in itertools.product(concurrency, contexts):
                    assert rank.probe is not None
                    ask = _ask(rank.probe, streams, length, tokens, seconds)
                    cell = _measured(context, fleet.session(rank.node), rank, ask, engines[rank.node])
                    cells.append(with_ceiling(inventory, service, cell))
            except SparkopsError as error:  # the node is away: the other engines are measured all the same
                found.append(Measured(node=rank.node, cells=tuple(cells), reason=error.message))
            else:
                found.append(Measured(node=rank.node, cells=tuple(cells)))
    return Bench(cluster=inventory.cluster, service=service, time=began, tokens=tokens, engines=tuple(found))


def _ask(probe: Probe, streams: int, length: int, tokens: int, seconds: float) -> CellRequest:
    return {"ask": probe.ask(), "concurrency": streams, "context": length, "tokens": tokens, "seconds": seconds}


def _measured(context: Context, session: Session, rank: Rank, ask: CellRequest, engine: Engine | None) -> Cell:
    """One cell. What the engine refuses is a cell with a reason; a lost node raises ConnectionFailed."""
    empty = Cell(concurrency=ask["concurrency"], context=ask["context"])
    asking = session.stream("bench.cell", ask, timeout=5 * ask["seconds"] + MARGIN)
    try:
        told = follow(asking, rank.node, f"bench {rank.service}", context.listener)
    except CallFailed as error:
        return replace(empty, reason=error.message)
    return cell_of(told, empty, engine)


def cell_of(told: Fields, empty: Cell, engine: Engine | None) -> Cell:
    """What a node answered, as a cell; a value of another shape is not known."""
    given = told.get("samples")
    given = given if isinstance(given, list) else []
    rows = [[number(value) for value in row] if isinstance(row, list) else [] for row in given]
    samples = [[value for value in row if value is not None] for row in rows if len(row) == 4 and None not in row]
    seconds = number(told.get("seconds"))
    if not samples or not seconds or seconds < 0 or len(samples) != len(rows):
        return replace(empty, reason=Message.of("bench-answer-malformed"))
    speeds = [(tokens - 1) / decoding for _, decoding, tokens, _ in samples if decoding > 0 and tokens > 1]
    before, after = told.get("before"), told.get("after")
    counted = (before, after) if isinstance(before, Mapping) and isinstance(after, Mapping) else None
    hardware, others = told.get("hardware"), told.get("others")
    length = number(told.get("acceptance_length"))
    return replace(
        empty,
        prompt_tokens=round(statistics.median(each[3] for each in samples)),
        first=statistics.median(each[0] for each in samples),
        decode=statistics.median(speeds) if speeds else None,
        together=sum(each[2] for each in samples) / seconds,
        acceptance=acceptance(counted[1], engine, counted[0]) if counted else Unknown.of("metrics-refused"),
        tokens_per_step=length if length and length >= 1 else None,
        hardware=hardware if isinstance(hardware, Mapping) else {},
        others=tuple(map(str, others)) if isinstance(others, list) else None,
    )


def with_ceiling(inventory: Inventory, service: str, cell: Cell) -> Cell:
    """The cell with `fit`'s ceiling for as many streams, and for the tokens per step that were measured."""
    if cell.reason is not None:
        return cell
    question = Question(streams=cell.concurrency, context=cell.context, acceptance=cell.tokens_per_step)
    fit = fit_inventory(inventory, service, question).get(service)
    figures = fit.figures if isinstance(fit, Fit) else None
    step = None if figures is None else figures.single if cell.concurrency == 1 else figures.together
    if step is None:
        return cell
    return replace(cell, ceiling=step.tokens_per_second, speculative=step.tokens != 1)


def judged(found: Bench, inventory: Inventory, last: Mapping[str, object] | None) -> Bench:
    """The measurement with what is wrong with it, and with the causes that can be seen where something is."""
    recipe = inventory.services[found.service].recipe
    speeds = recipe.speeds if recipe is not None else ()
    told = (last or {}).get("engines")
    kept = {each.get("node"): each for each in told if isinstance(each, Mapping)} if isinstance(told, list) else {}
    engines = []
    for engine in found.engines:
        before = kept.get(engine.node, {})
        findings = [each for cell in engine.cells if not cell.reason for each in _findings(cell, speeds, before)]
        causes = list(dict.fromkeys(each for cell in engine.cells for each in _causes(cell))) if findings else []
        causes += _not_captured(inventory, found, engine.node) if findings else []
        engines.append(replace(engine, findings=tuple(findings), causes=tuple(causes)))
    return replace(found, engines=tuple(engines))


def _findings(cell: Cell, speeds: Sequence[Fields], last: Fields) -> Iterator[Message]:
    streams = cell.concurrency
    if streams == 1 and cell.share is not None and not cell.speculative and cell.share < HEALTHY:
        yield Message.of("bench-below-healthy", percent=round(100 * cell.share))
    if cell.decode is None:
        return
    speed = streams * cell.decode
    lows = []
    for each in speeds:
        if each.get("streams", 1) == streams and not each.get("other"):
            band = each["tokens_per_second"]
            lows.append(float(min(band) if isinstance(band, (list, tuple)) else band))
    if lows and speed < min(lows):
        yield Message.of("bench-below-published", speed=round(speed, 1), streams=streams, low=min(lows))
    for each in last.get("cells") or ():
        before = number(each.get("decode_tokens_per_second"))
        same = (each.get("concurrency"), each.get("context")) == (streams, cell.context)
        if same and before and cell.decode < LESS * before:
            args = {"speed": round(speed, 1), "before": round(streams * before, 1), "context": cell.context}
            yield Message.of("bench-slower-than-before", streams=streams, **args)


def _causes(cell: Cell) -> Iterator[Message]:
    clock, most = number(cell.hardware.get("sm_clock_mhz")), number(cell.hardware.get("sm_clock_max_mhz"))
    if clock and most and clock < STUCK * most:
        yield Message.of("bench-clock-low", clock=round(clock), most=round(most))
    if cell.others:
        yield Message.of("bench-gpu-shared", others=sorted(cell.others))


def _not_captured(inventory: Inventory, found: Bench, node: str) -> Iterator[Message]:
    """Steps that run without a CUDA graph, as the line says and as lint finds."""
    place = next(each for each in places(inventory) if (each.service.name, each.node) == (found.service, node))
    if "--enforce-eager" in (place.words or ()):
        yield Message.of("bench-eager")
    today = datetime.datetime.fromtimestamp(found.time, datetime.timezone.utc).date()
    for each in lint_inventory(inventory, today, [node]):
        if each.id in NOT_CAPTURED and each.subject == f"services.{found.service}":
            yield Message.of("bench-not-captured", rule=each.id, text=each.message)


def folder(cluster: str, service: str) -> Path:
    """Where the measurements of a service are kept on this machine."""
    return data.state_folder() / "bench" / cluster / service


def last_kept(cluster: str, service: str, tool: str = "") -> Mapping[str, object] | None:
    """The newest kept measurement by that tool that can be read; None for none."""
    place = folder(cluster, service)
    for path in sorted(place.glob("*.json"), reverse=True) if place.is_dir() else ():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and (found.get("schema"), found.get("tool")) == (SCHEMA, tool or None):
            return found
    return None


def keep(found: Bench, content: Mapping[str, object]) -> Path:
    """Write a measurement beside the earlier ones. Raises SparkopsError."""
    place = folder(found.cluster, found.service)
    path = place / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(found.time))}.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(content, indent=1).encode(), 0o600)
    except OSError as error:
        raise SparkopsError.of("report-not-written", where=str(path), reason=error.strerror or str(error)) from None
    return path
