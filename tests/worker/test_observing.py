"""Looking at many things in one call: side by side, within the limit, whatever one of them does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sparkops.worker import dispatch
from sparkops.worker.calls import Call, Unknown


class Kind:
    """A kind whose looks do what they are asked to."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.together = 0
        self.most = 0
        self.lock = threading.Lock()
        self.full = threading.Event()

    def observe(self, ask: dict[str, Any]) -> dict[str, Any] | None:
        with self.lock:
            self.together += 1
            self.most = max(self.most, self.together)
        try:
            if ask.get("hang"):
                self.release.wait(30)
            if ask.get("fail"):
                raise Unknown.of("not-answered")
            if ask.get("gather"):
                if self.most == dispatch.THREADS:
                    self.full.set()
                self.full.wait(20)
        finally:
            with self.lock:
                self.together -= 1
        return {"seen": ask["name"]}


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    made = Kind()
    monkeypatch.setattr(dispatch, "kind", lambda name: made)
    yield made
    made.release.set()


def look(asks: dict[str, dict[str, Any]], limit: float = 20.0) -> dict[str, Any]:
    call = Call(1, lambda message: None, threading.Event())
    listed = [[name, "kind", {"name": name, **ask}] for name, ask in asks.items()]
    answers = dispatch.observe(call, {"asks": listed, "limit": limit})["answers"]
    assert isinstance(answers, dict)
    return answers


def test_nothing_asked_is_nothing_answered(kind: Kind) -> None:
    assert look({}) == {}


def test_slow_looks_run_side_by_side(kind: Kind) -> None:
    """Each of the first takes until as many are under way as may be."""
    answers = look({f"n{number}": {"gather": True} for number in range(40)})
    assert answers == {f"n{number}": {"found": {"seen": f"n{number}"}} for number in range(40)}
    assert kind.most == dispatch.THREADS


def test_a_look_that_hangs_is_unknown_and_holds_no_other(kind: Kind) -> None:
    answers = look({"hung": {"hang": True}, **{f"n{number}": {} for number in range(40)}}, limit=2.0)
    assert answers["hung"] == {"$unknown": {"id": "observation-late", "args": {"seconds": 2.0}}}
    assert answers["n39"] == {"found": {"seen": "n39"}}


def test_what_fails_is_unknown_by_itself(kind: Kind) -> None:
    answers = look({"bad": {"fail": True}, "good": {}})
    assert answers == {"bad": {"$unknown": {"id": "not-answered", "args": {}}}, "good": {"found": {"seen": "good"}}}
