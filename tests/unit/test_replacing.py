"""`--replace`: what is done again though it is as declared, and how its words are understood."""

from __future__ import annotations

import datetime

from sparkops.core.plan import Step
from sparkops.core.states import Unknown
from sparkops.reconcile.diff import diff
from sparkops.reconcile.plan import Observations, compare, replaced
from sparkops.resources.directory import Directory
from sparkops.resources.file import File
from sparkops.resources.unit import Unit
from tests.errors import fails

FILE = File(node="n", name="/etc/x", content="x")
UNITS = tuple(Unit(node=node, name="q.service", running=True) for node in ("n", "m"))
FOLDER = Directory(node="n", name="/srv")
ALL = (FILE, *UNITS, FOLDER)
RUNS = {"running": True, "failed": False, "masked": False, "reload_needed": False}


def test_an_id_means_one_thing_and_one_without_its_node_those_of_all_nodes() -> None:
    assert replaced(ALL, ["unit q.service @n"]) == {"unit q.service @n"}
    assert replaced(ALL, ["unit q.service"]) == {"unit q.service @n", "unit q.service @m"}
    assert replaced(ALL, []) == frozenset()


def test_a_word_that_names_nothing_tells_the_nearest_id() -> None:
    with fails("replace-not-found"):
        replaced(ALL, ["unit q.servic @n"])


def test_what_can_not_be_done_again_is_refused() -> None:
    with fails("replace-not-possible"):
        replaced(ALL, ["directory /srv"])


def test_what_is_as_declared_is_planned_again_when_asked_and_interrupts() -> None:
    seen = Observations(found={each.id: RUNS for each in UNITS})
    today = datetime.date(2026, 1, 1)
    assert compare(UNITS, seen, today=today).steps == ()
    (step,) = compare(UNITS, seen, today=today, replace={UNITS[0].id}).steps
    assert (step.action, step.id, step.disruptive) == ("replace", UNITS[0].id, True)
    assert UNITS[0].act(step)["again"]


def test_what_is_missing_is_created_and_what_is_unknown_stays_so() -> None:
    made = diff(FILE, None, {}, replace=True)
    assert isinstance(made, Step)
    assert made.action == "create"
    assert diff(FILE, Unknown("?"), {}, replace=True) == Unknown("?")
