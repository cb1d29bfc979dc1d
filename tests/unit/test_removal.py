"""What `remove` takes back, on plain values: which claims go, in which order, what stays and why."""

from __future__ import annotations

from typing import Any

from sparkops.cli.remove import HELP
from sparkops.core.plan import Orphan, Plan
from sparkops.core.wording import Message
from sparkops.reconcile import orphans
from sparkops.reconcile.plan import Observations
from sparkops.reconcile.removal import OwnState, Reclaimed, Removal, kinds_of, stays_claimed
from sparkops.resources import kind, names
from sparkops.resources.package import Package

CREATED = {"now": "ours", "action": "create"}
WITHOUT_FILE = {"now": "", "action": "create"}


def removal(**more: Any) -> Removal:
    return Removal(cluster="attic", state_dirs={"n": "/var/lib/sparkops"}, **more)


def orphaned(of: Removal, strays: dict[str, dict[str, Any]]) -> tuple[Orphan, ...]:
    seen = Observations(found={}, claims={"n": {"strays": strays, "foreign": {}, "claims": {}}})
    return of.taken(orphans.find(of.staying, seen, retired=lambda node, service: False, asked=of.kinds))


def kept(of: Removal, strays: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {f"{each.kind} {each.name}": each.kept.id if each.kept else "" for each in orphaned(of, strays)}


OPTIONS = {name: kind(name).removed_with for name in names() if kind(name).removed_with}
NODE = removal(nodes=frozenset({"n"}))


def test_of_a_service_only_what_its_claims_name_is_taken() -> None:
    strays = {"file /a": {**CREATED, "service": "qwen"}, "file /b": {**CREATED, "service": "coder"}, "file /c": CREATED}
    assert set(kept(removal(services=frozenset({"qwen"})), strays)) == {"file /a"}
    assert set(kept(NODE, strays)) == {"file /a", "file /b", "file /c"}


def test_what_was_there_before_stays_but_for_what_bears_our_name() -> None:
    before = {"now": "ours", "action": "update"}
    assert kept(NODE, {"file /etc/x": before, "file /etc/y": {**before, "action": "found"}}) == {
        "file /etc/x": "orphan-there-before",
        "file /etc/y": "orphan-there-before",
    }
    assert kept(NODE, {"file /etc/sparkops/services/q.json": before}) == {"file /etc/sparkops/services/q.json": ""}
    assert kept(NODE, {"unit q.service": before}) == {"unit q.service": ""}
    (found,) = orphaned(NODE, {"package nvidia-*": {"now": "", "action": "update"}})
    assert found.kept and found.kept.id == "orphan-there-before"
    assert "unhold 'nvidia-*'" in found.kept.fix


def test_what_is_put_back_leaves_its_directory_in_place() -> None:
    strays = {
        "directory /d": {**CREATED, "entries": ["x"]},
        "file /d/x": {"now": "ours", "action": "update", "original": {"file": "1"}},
    }
    found = orphaned(NODE, strays)
    assert {each.name: each.restores for each in found} == {"/d": False, "/d/x": True}
    assert {each.name for each in found if each.kept} == {"/d"}


def test_a_unit_that_sparkops_did_not_bring_is_not_told_to_be_removed() -> None:
    (found,) = orphaned(NODE, {"unit ssh.service": {"now": "unrecorded", "action": "update"}})
    assert found.kept and not found.kept.fix


def test_what_a_prune_leaves_goes_only_where_it_is_asked_for() -> None:
    called = {"mount": "/x", "sysctl": "vm.x"}
    strays = {f"{name} {called.get(name, 'name')}": WITHOUT_FILE for name in OPTIONS}
    for each in orphaned(NODE, strays):
        assert each.kept and each.kept.id == "orphan-kind-unasked" and each.kept.args["option"] == OPTIONS[each.kind]
    asked = removal(nodes=frozenset({"n"}), kinds=frozenset(OPTIONS))
    assert all(not each.kept for each in orphaned(asked, strays))
    gone = {each.id: each for each in asked.gone(orphaned(asked, strays))}
    assert all(each.desired() is None for each in gone.values())
    package = gone["package name @n"]
    assert isinstance(package, Package)
    assert package.hold, "also where it is held"
    assert isinstance(gone["image name @n"], Reclaimed)


def test_every_kind_that_stays_unless_asked_for_has_its_option() -> None:
    staying = {name for name in names() if kind(name).claimed and kind(name).prune != "remove"}
    assert staying - set(OPTIONS) <= {"command", "fabric"}, "what a command did is not known; the way in is not touched"
    assert kinds_of(HELP) == OPTIONS.keys()


def test_sparkops_own_folder_goes_last_and_only_of_whole_nodes() -> None:
    strays = {"unit q.service": {**CREATED, "service": "qwen"}, "file /a": {**CREATED, "service": "qwen"}}
    *others, last = NODE.gone(orphaned(NODE, strays))
    assert isinstance(last, OwnState)
    assert set(last.after) == {each.id for each in others}
    service = removal(services=frozenset({"qwen"}))
    assert not [each for each in service.gone(orphaned(service, strays)) if isinstance(each, OwnState)]


def test_the_folder_stays_while_something_has_its_record_there() -> None:
    strays = {"image x": WITHOUT_FILE}
    found = orphaned(NODE, strays)
    gone = NODE.gone(found)
    states = {each.id: {"folder": "x", "stays": None} for each in gone}
    (left,) = NODE.left(gone, states, found).values()
    assert left == Message.of("own-state-records", thing="image x")
    assert NODE.left(gone, states, ()) == {}

    asked = removal(nodes=frozenset({"n"}), kinds=frozenset({"image"}))
    gone = asked.gone(orphaned(asked, strays))
    states["image x @n"] = {"bytes": 1, "stays": {"id": "gc-there-before", "args": {}}}
    assert [each.id for each in asked.left(gone, states, ()).values()] == ["gc-there-before", "own-state-records"]


def test_what_an_option_can_ask_for_later_stays_claimed_and_the_rest_is_let_go() -> None:
    strays = {
        "package name": WITHOUT_FILE,
        "image x": WITHOUT_FILE,
        "package other": {"now": "", "action": "update"},
        "command ran": WITHOUT_FILE,
        "file /edited": {**CREATED, "now": "edited"},
    }
    found = orphaned(NODE, strays)
    assert {each.name for each in found if stays_claimed(each)} == {"name", "x"}
    seen = Observations(found={}, claims={"n": {"strays": strays, "foreign": {}, "claims": {}}})
    noted = orphans.notes((), seen, Plan(orphans=found), prune=True, claimed=stays_claimed)
    assert set(noted["n"]["drop"]) == {"package other", "file /edited", "command ran"}
