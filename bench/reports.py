"""Reports: the page of 100 nodes with 200 resources each, and 30 days of kept runs, one in five minutes. No network."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sparkops.core.digests import digest
from sparkops.core.plan import Declared, Plan, Step, Violation
from sparkops.core.report import Report
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.reports.formats import FORMATS, rendered
from sparkops.reports.record import Record, shown_again
from sparkops.runs import store

NODES, THINGS, SHARE = 100, 200, 0.05
DAYS, EVERY, KEPT_NODES, KEPT_THINGS = 30, 300, 10, 40
LIMITS = {"html_seconds": 3, "html_mb": 5, "kept_mb": 200, "question_ms": 200}
ROUNDS = 5
DIFF = "--- found\n+++ declared\n@@ -1,3 +1,3 @@\n keep\n-old line\n+new line\n keep\n"


def made(nodes: int, things: int, share: float, seed: int, time: float = 1.7e9) -> Report:
    """A drift in which this share of the resources is not as declared, half of it drifted.

    Which ones changes with every 12th seed (an hour of runs), what was found of them with every one.
    """
    chance, places = random.Random(seed), random.Random(seed // 12)
    plan: dict[str, list[Any]] = {"steps": [], "violations": [], "declared": []}
    unknown: dict[str, Unknown] = {}
    names = [f"spark-{number:03}" for number in range(nodes)]
    for node in names:
        for number in range(things):
            kind = ("file", "unit", "package", "sysctl")[number % 4]
            id = f"{kind} /etc/sparkops/services/thing-{number}.conf @{node}"
            name = id.partition(" ")[2].removesuffix(f" @{node}")
            keys = {each: digest(f"{each}{number}") for each in ("content", "mode", "owner")}
            where = "inventory.yml:12:3"
            declared = Declared(id=id, kind=kind, name=name, node=node, where=where, keys=keys, found=keys)
            plan["declared"].append(declared)
            place = places.random() / share
            if place < 0.5:
                plan["steps"].append(_step(id, kind, node, chance))
            elif place < 0.75:
                plan["violations"].append(_violation(id, node, chance))
            elif place < 1:
                unknown[id] = Unknown.of("not-answered")
    whole = Plan(
        steps=tuple(plan["steps"]),
        violations=tuple(plan["violations"]),
        declared=tuple(plan["declared"]),
        unknown=unknown,
        nodes=tuple(names),
        total=nodes * things,
    )
    return Report(command="drift", cluster="bench", inventory="i.yml", plan=whole, time=time, seconds=2.0, whole=True)


def _step(id: str, kind: str, node: str, chance: random.Random) -> Step:
    before = {"content": f"sha256:{chance.getrandbits(256):064x}", "mode": "0644"}
    after = {"content": "sha256:" + "b" * 64, "mode": "0600"}
    changes = ("content", "mode")
    return Step(id=id, kind=kind, node=node, action="update", before=before, after=after, changes=changes, diff=DIFF)


def _violation(id: str, node: str, chance: random.Random) -> Violation:
    args = {"fact": "memory", "value": str(chance.getrandbits(30)), "reason": "", "remedy": "free some"}
    return Violation(message=Message("fact-present", args), resource=id, node=node, severity="error")


def measure() -> dict[str, Any]:
    """Processor seconds and sizes of each format; the file of kept runs, and processor ms of questions to it."""
    reports = {form: (form, made(NODES, THINGS, SHARE, seed=1)) for form in FORMATS}
    reports["html, nothing as declared"] = ("html", made(NODES, THINGS, 1.0, seed=1))
    formats = {}
    for name, (form, report) in reports.items():
        seconds = [_timed(partial(rendered, report, form), time.process_time) for _ in range(ROUNDS)]
        formats[name] = {
            "seconds": round(statistics.median(seconds), 2),
            "mb": round(len(rendered(report, form).encode()) / 1e6, 2),
        }
    return {
        "nodes": NODES,
        "things": THINGS,
        "share": SHARE,
        "formats": formats,
        "kept": _kept(),
        "limits": LIMITS,
        "rounds": ROUNDS,
    }


def _kept() -> dict[str, Any]:
    """30 days of runs: no two reports are the same, and what differs changes every hour."""
    runs = DAYS * 86400 // EVERY
    start = time.time() - DAYS * 86400 + EVERY
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        spent = []
        for number in range(runs):
            report = made(KEPT_NODES, KEPT_THINGS, SHARE, seed=number, time=start + number * EVERY)
            spent.append(_timed(partial(Record("bench", "drift").finish, report)))
        size = sum(path.stat().st_size for path in (Path(folder) / "sparkops").iterdir())
        oldest = store.latest("bench")[0].run
        questions: dict[str, Callable[[], object]] = {
            "report of the oldest run": lambda: shown_again(store.find(oldest)),
            "the newest 20 runs": lambda: store.latest("bench", last=20),
            "drift --since 7d": lambda: store.spans("bench", since=time.time() - 7 * 86400),
            "what a drift reads": lambda: store.memory("bench"),
        }
        asked = {
            name: [_timed(ask, time.process_time) * 1000 for _ in range(ROUNDS)] for name, ask in questions.items()
        }
    return {
        "runs": runs,
        "nodes": KEPT_NODES,
        "resources": KEPT_NODES * KEPT_THINGS,
        "mb": round(size / 1e6, 1),
        "keep_ms": round(statistics.median(spent) * 1000, 1),
        "questions_ms": {name: round(statistics.median(each), 1) for name, each in asked.items()},
    }


def _timed(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    before = clock()
    act()
    return clock() - before
