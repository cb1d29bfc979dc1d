"""Orphans from claims and declarations, with plain values: which there are, what goes and when, what is in the way."""

from __future__ import annotations

import datetime
from typing import Any

from sparkops.core.plan import FOR_GC, Orphan, Plan
from sparkops.core.states import Unknown
from sparkops.reconcile import orphans
from sparkops.reconcile.plan import Observations, compare
from sparkops.resources.directory import Directory
from sparkops.resources.file import File
from sparkops.resources.link import Link
from sparkops.resources.package import Package
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit

TEXT = "[Service]\nEnvironment=SPARKOPS_INPUTS=1\n"


def seen(strays: dict[str, dict[str, Any]] | None = None, **more: Any) -> Observations:
    claims = {"strays": strays or {}, "foreign": more.pop("foreign", {}), "claims": more.pop("claims", {})}
    return Observations(found=more.pop("found", {}), claims={"n": claims})


def find(declared: tuple[Resource, ...], strays: dict[str, dict[str, Any]], *retired: str) -> dict[str, Orphan]:
    found = orphans.find(declared, seen(strays), retired=lambda node, service: node in retired or service in retired)
    return {f"{each.kind} {each.name}": each for each in found}


def why(orphan: Orphan) -> str:
    return orphan.kept.id if orphan.kept else ""


OURS = {"now": "ours"}


def test_what_is_there_and_not_declared_is_an_orphan_and_what_is_gone_is_none() -> None:
    found = find((), {"file /a": OURS, "file /b": {"now": "gone"}, "unit x.service": {"now": "ours", "port": 8000}})
    assert list(found) == ["unit x.service", "file /a"]
    assert found["unit x.service"].occupied.port == 8000


def test_what_is_edited_replaced_shared_or_never_ours_is_kept_with_the_reason() -> None:
    for now, id in {**orphans.NOT_OURS, "shared": "orphan-shared"}.items():
        assert why(find((), {"file /a": {"now": now, "others": ["cellar"]}})["file /a"]) == id
    assert find((), {"file /a": OURS})["file /a"].kept is None


def test_packages_images_and_checkpoints_are_never_removed_and_the_way_by_hand_is_told() -> None:
    found = find(
        (), {f"{kind} x": {"now": ""} for kind in ("package", "image", "checkpoint", "user", "mount", "sysctl")}
    )
    assert all(each.kept and each.kept.fix for each in found.values())
    assert len(found) == 6


def test_a_directory_goes_when_all_in_it_goes() -> None:
    strays = {
        "directory /d": {"now": "ours", "entries": ["deep", "x"]},
        "directory /d/deep": {"now": "ours", "entries": ["y"]},
        "file /d/x": OURS,
        "link /d/deep/y": OURS,
    }
    assert all(not each.kept for each in find((), strays).values())
    found = find((), {**strays, "link /d/deep/y": {"now": "edited"}})
    assert why(found["directory /d/deep"]) == why(found["directory /d"]) == "orphan-not-empty"
    declared = File(node="n", name="/d/x", state="absent")
    del strays["file /d/x"]
    assert not find((declared,), strays)["directory /d"].kept


def test_a_directory_of_something_declared_is_none_nor_is_the_file_of_a_declared_unit() -> None:
    declared = (File(node="n", name="/d/x", content="x"), Unit(node="n", name="u.service", content=TEXT))
    strays = {"directory /d": {"now": "ours", "entries": []}, "file /etc/systemd/system/u.service": OURS}
    assert find(declared, strays) == {}


def test_units_go_before_files_and_files_before_their_directories() -> None:
    strays = {
        "directory /d": {"now": "ours", "entries": ["x"]},
        "file /d/x": OURS,
        "unit u.service": OURS,
    }
    found = tuple(find((), strays).values())
    gone = orphans.removed(found, (), prune=True)
    states = {each.id: {"type": "file"} for each in gone}
    plan = compare(gone, seen(found=states), today=datetime.date(2026, 1, 1))
    assert [step.kind for step in plan.steps] == ["unit", "file", "directory"]
    assert {step.action for step in plan.steps} == {"delete"}


def test_without_a_prune_only_what_is_retired_goes() -> None:
    strays = {"file /a": {**OURS, "service": "qwen"}, "file /b": OURS}
    found = tuple(find((), strays, "qwen").values())
    assert [each.name for each in orphans.removed(found, (), prune=False)] == ["/a"]
    assert [each.name for each in orphans.removed(found, (), prune=True)] == ["/a", "/b"]


def test_an_orphan_on_a_declared_port_goes_first_or_is_in_the_way() -> None:
    new = Unit(node="n", name="new.service", content=TEXT, running=True, port=8000)
    found = tuple(find((new,), {"unit old.service": {"now": "ours", "port": 8000}}).values())
    against, _ = orphans.judged((new,), seen(), found)
    (violation,) = against[new.id]
    assert violation.id == "orphan-on-port"
    assert violation.message.args == {"kind": "unit", "name": "old.service", "port": 8000}
    plan = compare((new,), seen(found={new.id: None}), today=datetime.date(2026, 1, 1), violations=against)
    assert plan.blocked.keys() == {new.id}

    gone = orphans.removed(found, (new,), prune=True)
    assert orphans.edges((new,), gone, found) == {new.id: ("unit old.service @n",)}
    running = {new.id: {"running": True}}
    assert orphans.judged((new,), seen(found=running), found)[0] == {}, "it holds the port itself"


def test_another_port_or_another_node_is_in_nobodys_way() -> None:
    found = tuple(find((), {"unit old.service": {"now": "ours", "port": 8000}}).values())
    others = (Unit(node="n", name="a.service", port=8001), Unit(node="m", name="b.service", port=8000))
    assert orphans.judged(others, seen(), found)[0] == {}


def test_a_link_in_the_place_of_a_file_waits_for_it() -> None:
    link = Link(node="n", name="/a", target="b")
    found = tuple(find((link,), {"file /a": OURS}).values())
    after = orphans.edges((link,), orphans.removed(found, (link,), prune=True), found)
    assert after == {link.id: ("file /a @n",)}
    assert orphans.judged((link,), seen(found={link.id: {"type": "file"}}), found)[0]
    assert find((link,), {"file /a": {"now": "other"}}) == {}, "the link stands there already"


def test_what_two_clusters_claim_is_told_unless_both_share_it() -> None:
    mine = File(node="n", name="/a", content="x")
    against, left = orphans.judged((mine,), seen(foreign={"file /a": {"cellar": True}}), ())
    message = against[mine.id][0].message
    assert (message.id, message.args["cluster"]) == ("claim-of-other-cluster", "cellar")
    shared = File(node="n", name="/a", content="x", shared=True)
    assert orphans.judged((shared,), seen(foreign={"file /a": {"cellar": True}}), ()) == ({}, frozenset())
    assert orphans.judged((shared,), seen(foreign={"file /a": {"cellar": False}}), ())[0]
    leaving = File(node="n", name="/a", state="absent", shared=True)
    against, left = orphans.judged((leaving,), seen(foreign={"file /a": {"cellar": True}}), ())
    assert (against, left) == ({}, {leaving.id})


def noted(declared: tuple[Resource, ...], plan: Plan | None = None, prune: bool = False, **more: Any) -> dict[str, Any]:
    return orphans.notes(declared, seen(**more), plan or Plan(), prune=prune).get("n", {})


def test_what_is_right_and_unclaimed_is_claimed_once() -> None:
    declared = File(node="n", name="/a", content="x", role="r")
    entry = noted((declared,))["claims"]["file /a"]
    assert entry["role"] == "r"
    assert entry["content"][0].startswith("sha256:")
    assert noted((declared,), claims={"file /a": {**entry, "phase": "ours", "since": 1.0}}) == {}
    assert noted((declared,), claims={"file /a": {**entry, "phase": "acting"}}), "a crash between act and proof"


def test_what_is_unknown_or_about_to_change_is_not_claimed() -> None:
    declared = File(node="n", name="/a", content="x")
    assert noted((declared,), Plan(unknown={declared.id: Unknown("hung")})) == {}


def test_what_is_gone_or_left_at_a_prune_is_let_go_but_for_what_holds_data() -> None:
    strays = {"file /a": {"now": "gone"}, "package p": {"now": ""}, "image i": {"now": ""}}
    plan = Plan(orphans=tuple(find((), strays).values()))
    assert noted((), plan, strays=strays)["drop"] == ["file /a"]
    assert noted((), plan, prune=True, strays=strays)["drop"] == ["file /a", "package p"]
    assert plan.exit_status == 0


def test_an_orphan_that_could_go_is_a_difference() -> None:
    assert Plan(orphans=tuple(find((), {"file /a": OURS}).values())).exit_status == 2


def test_claims_that_can_not_be_read_make_no_orphans() -> None:
    dark = Observations(found={}, claims={"n": Unknown("no record")})
    assert orphans.find((), dark, retired=lambda *_: False) == ()
    assert orphans.notes((Package(node="n", name="pp"), Directory(node="n", name="/d")), dark, Plan(), prune=True) == {}


def test_an_image_that_was_there_before_is_left_without_an_advice_that_gc_would_refuse() -> None:
    strays = {f"image {name}": {"now": "", "action": action} for name, action in (("a:1", "found"), ("b:1", "create"))}
    found = {each.name: each for each in find((), strays).values()}
    assert (why(found["a:1"]), why(found["b:1"])) == ("orphan-there-before", FOR_GC)
    assert found["a:1"].kept and not found["a:1"].kept.fix


def test_a_run_that_works_on_a_node_meanwhile_is_told_with_its_reason() -> None:
    locked = {"id": "node-locked", "args": {"who": "ann", "machine": "desk", "seconds": 5, "command": "sparkops apply"}}
    answers: dict[str, Any] = {"a": {"strays": {}, "locked": locked}, "b": {"strays": {}, "locked": None}}
    (told,) = orphans.at_work(Observations(found={}, claims={**answers, "c": {"strays": {}, "locked": "odd"}}))[:1]
    assert (told.id, told.args["node"]) == ("node-at-work", "a")
    assert "locked by ann from desk" in told.text


def test_a_rename_is_told_until_it_is_done_and_then_that_it_is_done() -> None:
    def told(**nodes: Any) -> list[str]:
        answers = {name: each if each is None else {**each, "strays": {}} for name, each in nodes.items()}
        return [each.id for each in orphans.renamed(Observations(found={}, claims=answers), "rack", "attic")]

    assert told(a={"renamed": True}, b={"renamed": False}) == ["cluster-renamed"]
    assert told(a={"renamed": False}, b={"renamed": False}) == ["cluster-rename-done"]
    assert told(a={"renamed": False}, b=None) == [], "not every node has told"
    assert orphans.renamed(seen(), "rack", "") == ()
    note = orphans.notes((), Observations(found={}, claims={"n": {"renamed": True, "strays": {}}}), Plan(), prune=False)
    assert note == {"n": {"claims": {}, "drop": []}}, "though nothing else is to be written"
