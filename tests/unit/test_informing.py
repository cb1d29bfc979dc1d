"""Resources whose texts wait for facts: which wait, what is asked, what they become; on a worker of this machine."""

from __future__ import annotations

import hashlib

from sparkops.core import fact_text
from sparkops.core.fact_text import FactOf
from sparkops.core.secrets import Content
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import informed, waiting
from sparkops.resources.file import File
from sparkops.resources.unit import Unit

KERNEL = FactOf("here", ("os", "kernel"))


def fleet() -> Fleet:
    target = Target(name="here", type="local")
    connections = Connections(Passwords())
    return Fleet({"here": target}, cluster="", connections=connections, program=bundle.kinds_bundle(["facts"]))


def test_texts_are_filled_and_the_digest_is_that_of_the_filled_text() -> None:
    text = f"kernel {KERNEL}"
    declared = (
        File(node="here", name="/etc/a", content=text),
        Unit(node="here", name="a.service", content=f"x={fact_text.digest(text)}", inputs=fact_text.digest(text)),
        File(node="here", name="/etc/b", content="plain"),
    )
    with fleet() as opened:
        (file, unit, plain), unknown = informed(opened, declared)

    assert unknown == {} and plain is declared[2]
    assert isinstance(file, File) and isinstance(file.content, Content) and isinstance(unit, Unit)
    digest = hashlib.sha256(file.content.encode()).hexdigest()
    assert (unit.inputs, unit.content) == (digest, f"x={digest}")


def test_nobody_is_asked_where_no_text_waits() -> None:
    declared = (File(node="here", name="/etc/b", content="plain"),)
    with fleet() as opened:
        assert informed(opened, declared) == (declared, {})
        assert opened.targets and not opened.failed and not opened._sessions


def test_a_fact_that_nobody_has_makes_the_resource_unknown_and_leaves_it_as_it_is() -> None:
    declared = (
        File(node="here", name="/etc/a", content=f"{FactOf('here', ('os', 'no_such_fact'))}"),
        File(node="here", name="/etc/b", content=f"{FactOf('elsewhere', ('os', 'kernel'))}"),
    )
    with fleet() as opened:
        found, unknown = informed(opened, declared)
    assert found == declared
    assert {id: why.id for id, why in unknown.items()} == {
        declared[0].id: "fact-empty",
        declared[1].id: "node-not-in-run",
    }


def test_what_is_to_go_waits_for_nothing() -> None:
    gone = File(node="here", name="/etc/a", content=f"{KERNEL}", state="absent")
    assert list(waiting(gone)) == []
