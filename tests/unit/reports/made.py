"""Reports of a small cluster for tests, and hostile texts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sparkops.core.digests import digest
from sparkops.core.plan import Between, Declared, Orphan, Plan, Step, Violation
from sparkops.core.report import Report, Result
from sparkops.core.states import Unknown
from sparkops.core.wording import Message

HOSTILE = '<script>alert(1)</script> ]]> \x1b[2J \x00 \ud800 \ufffe | ` ``` @everyone \n::error::x % " \\ {{ 7*7 }} é'
texts = st.text(max_size=40) | st.sampled_from([HOSTILE, "a" * 10_000, "", "`", "|", "--></style>", "%0A::error::"])


def said(text: str, fix: str = "") -> Message:
    """Words of a test."""
    return Message.of("error", text=text, fix=fix)


def declared(*nodes: str, name: str = "/etc/motd", where: str = "inventory.yml:3:5", **more: Any) -> list[Declared]:
    return [
        Declared(
            id=f"file {name} @{each}",
            kind="file",
            name=name,
            node=each,
            where=where,
            keys={"content": digest("new")},
            found={"content": digest("new")},
            **more,
        )
        for each in nodes
    ]


def step(id: str, node: str, **more: Any) -> Step:
    about: dict[str, Any] = {
        "kind": id.partition(" ")[0],
        "action": "update",
        "before": {"content": "old"},
        "after": {"content": "new"},
        "changes": ("content",),
        "diff": "--- a\n+++ b\n-x\n+y\n",
    }
    return Step(id=id, node=node, **{**about, **more})


def report(command: Any = "drift", text: str = "words", **more: Any) -> Report:
    """One of each: as declared, drifted, violated, unknown, an orphan, and a node that is silent."""
    things = [
        *declared("a", "b", "c"),
        *declared("a", name=f"/{text}"),
        *declared("b", name="/v"),
        *declared("b", name="/u"),
    ]
    plan = Plan(
        steps=(step("file /etc/motd @a", "a", diff=text, after={"content": text}),),
        violations=(Violation(message=said(text, text), resource="file /v @b", node="b", severity="error"),),
        unknown={"file /u @b": Unknown.of("error", text=text, fix="")},
        unreachable={"c": said(text, text)},
        orphans=(Orphan(id=f"file {text} @a", node="a", kind="file", name=text),),
        nodes=("a", "b", "c"),
        total=len(things),
        declared=tuple(things),
        between=(Between(service=text, fact=text, values={"a": text, "b": None}),),
    )
    about: dict[str, Any] = {"cluster": text, "inventory": "inventory.yml", "plan": plan, "time": 1_764_000_000.0}
    return Report(command=command, **{**about, **more})


def applied(text: str = "words") -> Report:
    """The same after an apply in which the step failed."""
    failed = Result(id="file /etc/motd @a", node="a", outcome="failed", reason=said(text), detail=text, seconds=1.5)
    return report("apply", text, results=(failed,))
