"""One fault after another: a random start, a real apply, a fault at a random moment, the invariants, the way back.

Everything random comes from `SEED:NUMBER`, so that one iteration can be repeated alone (`--first NUMBER`); what the
machine's own timing adds can't. An iteration fails when an invariant does not hold or when applies that nobody helped
don't bring the declared state.
"""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sparkops.runs.database import reading
from tests.chaos.cluster import GENERATIONS, HELPERS, MODEL, PARTS, Cluster, Seen
from tests.chaos.faults import FAULTS, FOREIGN, MORE, Fault, Scene
from tests.lab.machine import wait_until
from tests.lab.node import Node

STARTS = ("fresh", "partly applied", "changed declaration", "drifted")
KINDS = ("directory", "file", "unit", "checkpoint", "image")
END_LIMIT = 400.0
"""Seconds within which an apply has ended, the longest fault included."""
JOB_LIMIT = 90.0
UNPREPARED = frozenset({-signal.SIGTERM, -signal.SIGINT, 130})
"""How a signal may end an apply that is not yet there to hear it: before its first event, when nothing was changed."""


class Broken(AssertionError):
    """An invariant that did not hold."""


@dataclass(frozen=True)
class Outcome:
    """One iteration. `phase` is what the apply was at when the fault came, `seconds` what converging took after it."""

    number: int
    start: str
    fault: str
    phase: str
    status: int
    jobs: int
    applies: int
    seconds: float
    problem: str = ""

    def __str__(self) -> str:
        told = f"{self.number:4} {self.fault:22} during {self.phase:26} ({self.start}) → {self.status}"
        if self.problem:
            return f"{told}; {self.problem}"
        job = ", a job went on" if self.jobs else ""
        return f"{told}{job}; converged in {self.seconds:.1f} s" + (f", {self.applies} applies" * (self.applies > 1))


@dataclass
class Chaos:
    """A run of iterations over one cluster; `faults` are those that come."""

    cluster: Cluster
    seed: int
    logs: Path
    faults: tuple[Fault, ...] = FAULTS

    def run(self, first: int, last: int) -> Iterator[Outcome]:
        """The iterations `first` to `last`, each as it is done; ends after the first that fails."""
        self._generation = self._choice(first - 1).randrange(GENERATIONS)
        self.cluster.declare(self._generation)
        self._said("apply", "--yes", 0, self._folder(first, "start"))
        for number in range(first, last + 1):
            outcome = self._iteration(number)
            yield outcome
            if outcome.problem:
                return

    def _choice(self, number: int) -> random.Random:
        return random.Random(f"{self.seed}:{number}")

    def _folder(self, number: int, name: str) -> Path:
        folder = self.logs / f"{number:04}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def _iteration(self, number: int) -> Outcome:
        choice = self._choice(number)
        generation = choice.randrange(GENERATIONS)
        (fault,) = choice.choices(self.faults, [each.weight for each in self.faults])
        node = choice.choice(self.cluster.nodes)
        known: dict[str, Any] = {"number": number, "fault": fault.name, "phase": "", "status": 0, "start": ""}
        known |= {"jobs": 0, "applies": 0, "seconds": 0.0}
        try:
            known["start"] = self._prepare(choice, generation, fault, node)
            self._hit(choice, fault, node, known)
            self._converge(choice, number, known)
        except Exception as error:
            known["problem"] = f"{type(error).__name__}: {error}"
            fault.mend(self.cluster, node)
        finally:
            fault.after(self.cluster, node)
        return Outcome(**known)

    def _prepare(self, choice: random.Random, generation: int, fault: Fault, node: Node) -> str:
        """Bring the nodes into a random starting state; says which."""
        start = choice.choice(STARTS)
        if start == "fresh":
            for each in self.cluster.nodes:
                self.cluster.take_away(each, PARTS)
        elif start == "partly applied":
            parts = tuple(choice.sample(PARTS, choice.randint(1, len(PARTS) - 1)))
            for each in self.cluster.nodes:
                self.cluster.take_away(each, parts)
        elif start == "changed declaration" and generation == self._generation:
            generation = (generation + 1) % GENERATIONS
        else:
            start = f"drifted: {self.cluster.vandalise(node, choice)}" if start == "drifted" else start
        fault.before(self.cluster, node)
        self._generation = generation
        self.cluster.declare(generation)
        return start

    def _hit(self, choice: random.Random, fault: Fault, node: Node, known: dict[str, Any]) -> None:
        """Start an apply, let the fault happen, and hold what is there then against the invariants."""
        before = {each.name: self.cluster.look(each) for each in self.cluster.nodes}
        process = self.cluster.shell.start("apply", *self.cluster.words, "--yes")
        try:
            moment = Moment(choice, self.cluster, process, fault.during)
            moment.come()
            known["phase"] = moment.phase()
            fault.inject(Scene(self.cluster, node, process, choice))
            out, err = process.communicate(timeout=END_LIMIT)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        known["status"] = process.returncode
        self._folder(known["number"], "apply.out").write_text(out)
        self._folder(known["number"], "apply.err").write_text(err)
        if process.returncode == 0 and fault.name == FOREIGN and not self.cluster.serves(node, self._generation):
            raise Broken("the apply said yes, and the declared engine does not answer")
        fault.mend(self.cluster, node)
        self.cluster.heal()
        if process.returncode not in fault.statuses | (UNPREPARED if known["phase"] == "starting" else frozenset()):
            raise Broken(f"the apply ended with {process.returncode}: {_last(err)}")
        lost = fault.name == "power loss"
        for each in self.cluster.nodes:
            wait_until(lambda each=each: not self.cluster.look(each).locked, fault.lock_limit)
            seen = self.cluster.look(each)
            if seen.locked:
                raise Broken(f"the lock of {each.name} is still held after {fault.lock_limit:.0f} s")
            known["jobs"] += seen.jobs
            self._hold(before[each.name], seen, self._generation)
        assert not (lost and known["jobs"]), "a job outlived the node"

    def _hold(self, before: Seen, now: Seen, generation: int) -> None:
        """The invariants after a fault: the old content or the new one, nothing strange."""
        for path, digest in self.cluster.wanted(generation).items():
            if now.files[path] not in (before.files[path], digest):
                raise Broken(f"{path} holds neither the old content nor the new one ({now.files[path]})")
        self._hold_model(before, now, generation)
        strange = [path for path in now.strange if not _temporary(path)]
        if strange:
            raise Broken(f"left behind: {', '.join(strange)}")

    def _hold_model(self, before: Seen, now: Seen, generation: int) -> None:
        old, new = before.trees[MODEL], now.trees[MODEL]
        if new == old or new is None:
            if new is None and old is not None:
                raise Broken("the published checkpoint is gone")
            return
        plain = {path: digest for path, digest in new.items() if not path.startswith(".sparkops/")}
        if plain != self.cluster.trees[generation]:
            raise Broken(f"the published checkpoint is neither the old one nor the new one: {plain}")

    def _converge(self, choice: random.Random, number: int, known: dict[str, Any]) -> None:
        """Without any help: one apply brings the declared state, two where a job of before still ran."""
        if choice.random() < 0.2:
            self._generation = choice.randrange(GENERATIONS)
            self.cluster.declare(self._generation)
        began = time.monotonic()
        patience = 2 if known["jobs"] else 1
        while True:
            known["applies"] += 1
            status, words = self._run("apply", "--yes", self._folder(number, f"again-{known['applies']}"))
            if status == 0:
                break
            if known["applies"] >= patience:
                raise Broken(f"apply number {known['applies']} ended with {status}: {words}")
            if not wait_until(lambda: not any(self.cluster.look(each).jobs for each in self.cluster.nodes), JOB_LIMIT):
                raise Broken(f"a job still runs after {JOB_LIMIT:.0f} s")
        known["seconds"] = time.monotonic() - began
        self._said("drift", "", 0, self._folder(number, "drift"))
        for each in self.cluster.nodes:
            self._hold_end(self.cluster.look(each))
            if self.cluster.serving and not self.cluster.serves(each, self._generation):
                raise Broken("converged, but the declared engine does not answer")

    def _hold_end(self, seen: Seen) -> None:
        if seen.files != self.cluster.wanted(self._generation):
            raise Broken(f"converged, but the files are {seen.files}")
        tree = {path: each for path, each in (seen.trees[MODEL] or {}).items() if not path.startswith(".sparkops/")}
        if tree != self.cluster.trees[self._generation]:
            raise Broken(f"converged, but the checkpoint is {tree}")
        if seen.strange or seen.locked or seen.jobs:
            raise Broken(f"converged, but there is left: {seen.strange}, locked {seen.locked}, jobs {seen.jobs}")

    def _said(self, verb: str, more: str, status: int, log: Path) -> None:
        found, words = self._run(verb, more, log)
        if found != status:
            raise Broken(f"{verb} ended with {found}: {words}")

    def _run(self, verb: str, more: str, log: Path) -> tuple[int, str]:
        done = self.cluster.shell.run(verb, *self.cluster.words, *more.split(), status=None, timeout=END_LIMIT)
        log.with_suffix(".out").write_text(done.stdout)
        log.with_suffix(".err").write_text(done.stderr)
        return done.returncode, _reasons(done.stdout) or _last(done.stderr)


class Moment:
    """When the fault comes: some time after the start, or while a step of some kind runs."""

    def __init__(
        self, choice: random.Random, cluster: Cluster, process: subprocess.Popen[str], during: str = ""
    ) -> None:
        self._process = process
        home = Path(cluster.shell.environment["XDG_STATE_HOME"])
        self._runs = home / "sparkops" / "runs.sqlite"
        self._kind = during or choice.choice(["", *KINDS])
        self._delay = choice.uniform(0.2, 3.0) if not self._kind else choice.uniform(0, 0.5)

    def come(self) -> None:
        """Wait for it; an apply that ends before does not hold it up."""
        if self._kind:
            wait_until(lambda: self._kind in self._running() or self._process.poll() is not None, 8, interval=0.02)
        until = time.monotonic() + self._delay
        while time.monotonic() < until and self._process.poll() is None:
            time.sleep(0.01)

    def phase(self) -> str:
        """What the apply is at: the kinds of the running steps, or the part of the road."""
        if self._process.poll() is not None:
            return "(over already)"
        events = self._events()
        if kinds := self._running():
            return "+".join(kinds)
        if not events:
            return "starting"
        return "between steps" if any(each["event"] == "StepStarted" for each in events) else "looking"

    def _events(self) -> list[dict[str, Any]]:
        asked = "SELECT line FROM event JOIN run ON run = number WHERE name LIKE ? ORDER BY event.rowid"
        name = f"%-apply-{self._process.pid}"
        return [
            json.loads(line)
            for (line,) in reading(self._runs, lambda made: made.execute(asked, (name,)).fetchall(), [])
        ]

    def _running(self) -> list[str]:
        open_ids: dict[str, None] = {}
        for event in self._events():
            if event["event"] == "StepStarted":
                open_ids[event["id"]] = None
            elif event["event"] == "StepFinished":
                open_ids.pop(event["id"], None)
        return sorted({each.split()[0] for each in open_ids})


def figures(seed: int, asked: int, outcomes: list[Outcome]) -> dict[str, Any]:
    """What a run showed: converged of how many, by fault and by phase, and how long converging took."""
    good = [each for each in outcomes if not each.problem]
    faults = {fault.name: [each for each in outcomes if each.fault == fault.name] for fault in (*FAULTS, *MORE)}
    return {
        "seed": seed,
        "asked": asked,
        "faults": len(outcomes),
        "converged": len(good),
        "median_seconds": round(median([each.seconds for each in good]), 2) if good else None,
        "slowest_seconds": round(max((each.seconds for each in good), default=0), 2),
        "one_apply": sum(each.applies == 1 for each in good),
        "by_fault": {name: [sum(not each.problem for each in found), len(found)] for name, found in faults.items()},
        "by_phase": dict(Counter(each.phase for each in outcomes).most_common()),
        "outcomes": [dataclasses.asdict(each) for each in outcomes],
    }


def _temporary(path: str) -> bool:
    """A name under which sparkops prepares what takes another's place; the next apply finds and finishes it."""
    return Path(path).name in HELPERS or Path(path).name.startswith(".sparkops-")


def _reasons(report: str) -> str:
    try:
        found = json.loads(report)
    except ValueError:
        return ""
    told = [
        f"{each['id']}: {(each['reason'] or {}).get('message')}"
        for each in found.get("results") or ()
        if each["outcome"] != "done"
    ]
    told += [
        f"{name}: {why['message']}"
        for key in ("unreachable", "unknown")
        for name, why in (found.get(key) or {}).items()
    ]
    told += [f"{step['id']} {step['action']} {step['changes']}" for step in found.get("steps") or () if not told]
    return "; ".join(told)


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
