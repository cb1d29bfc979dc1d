"""Who gets content from whom: laws of the chains, what is passed on when it is whole, and what a plan says of it."""

import datetime
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparkops.checkpoints.manifest import Manifest, ManifestFile
from sparkops.core.plan import Plan
from sparkops.core.states import Observed, Unknown
from sparkops.core.wording import Message
from sparkops.reconcile.plan import Observations, compare
from sparkops.reconcile.targets import Address
from sparkops.reconcile.transfers import arrange
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.image import Image
from sparkops.resources.transfers.source import Upstream
from sparkops.resources.transfers.transferable import Transferable

CONTENT = Manifest("org/tiny", "a" * 40, (ManifestFile("model.safetensors", 10, "sha256:" + "1" * 64),))
OTHER = Manifest("org/tiny", "b" * 40, (ManifestFile("model.safetensors", 10, "sha256:" + "2" * 64),))
STATES = ("holds", "lacks", "damaged", "unverified", "unknown", "silent")


def address(node: str) -> Address:
    return Address(fabric=f"192.168.100.{node[1:]}", management=f"10.0.0.{node[1:]}")


def declared(number: int, manifest: Manifest = CONTENT, **more: Any) -> Checkpoint:
    one = Checkpoint(node=f"n{number}", name="/models/tiny", repository="org/tiny", **more)
    object.__setattr__(one, "manifest", manifest)
    return one


def found(one: Checkpoint, state: str) -> Observed:
    if state == "lacks":
        return None
    if state in ("unknown", "silent"):
        return Unknown("it was not asked")
    wanted = one.desired()
    assert wanted is not None
    lists = {"damaged": {"wrong": ["model.safetensors"]}, "unverified": {"unverified": ["model.safetensors"]}}
    return {**wanted, "owner": "spark", "hashed": "", **lists.get(state, {})}


def arranged(
    states: list[str], resources: list[Checkpoint] | None = None, where: Any = address
) -> tuple[Plan, dict[str, Upstream], tuple[Message, ...]]:
    """The plan, each receiving node's upstream, and what is said, for nodes in these states."""
    given = resources or [declared(number) for number in range(1, len(states) + 1)]
    seen = Observations(
        found={one.id: found(one, state) for one, state in zip(given, states, strict=True)},
        unreachable={
            one.node: Message.of("not-answered") for one, state in zip(given, states, strict=True) if state == "silent"
        },
    )
    plan = compare(given, seen, today=datetime.date(2026, 1, 1))
    upstreams, notices = arrange(plan, given, seen, where)
    return plan, {each.receiver.node: each for each in upstreams.values()}, notices


def upstreams(by_node: Mapping[str, Upstream]) -> dict[str, str]:
    return {node: each.source.node for node, each in by_node.items()}


@given(st.lists(st.sampled_from(STATES), min_size=1, max_size=9))
def test_each_that_lacks_it_gets_it_once_from_one_that_will_have_it_and_at_most_one_from_outside(
    states: list[str],
) -> None:
    _, by_node, _ = arranged(states)
    state = {f"n{number}": each for number, each in enumerate(states, 1)}
    found_at = upstreams(by_node)
    lacking = {node for node in state if state[node] in ("lacks", "damaged")}
    assert set(found_at) <= lacking
    outside = lacking - set(found_at)
    assert len(outside) <= 1
    if any(each in ("holds", "unverified") for each in states):
        assert not outside
    assert len(set(found_at.values())) == len(found_at), "a node passes it on to one other"
    for node in found_at:
        chain = [node]
        while chain[-1] in found_at:
            chain.append(found_at[chain[-1]])
            assert len(chain) <= len(states), "a circle"
        assert state[chain[-1]] in ("holds", "unverified") or {chain[-1]} == outside
        assert not {state[each] for each in chain} & {"unknown", "silent"}


def test_the_chain_goes_along_the_plan_and_is_told() -> None:
    plan, by_node, notices = arranged(["lacks"] * 4)
    order = [step.node for step in plan.steps]
    assert upstreams(by_node) == dict(zip(order[1:], order, strict=False))
    assert notices[0].text == f"checkpoint /models/tiny @{order[1]}: from {order[0]} over 192.168.100.{order[0][1:]}"
    assert by_node[order[1]].source.id == f"checkpoint /models/tiny @{order[0]}"


def test_several_that_hold_it_each_have_a_chain_of_their_own() -> None:
    _, by_node, _ = arranged(["holds", "lacks", "lacks", "lacks", "holds"])
    ways = upstreams(by_node)
    assert sorted(ways) == ["n2", "n3", "n4"]
    assert {"n1", "n5"} <= set(ways.values())


def test_other_contents_and_those_that_are_not_to_be_spread_stay_out() -> None:
    resources = [declared(1), declared(2, OTHER), declared(3, spread=False), declared(4)]
    _, by_node, _ = arranged(["holds", "lacks", "lacks", "lacks"], resources)
    assert upstreams(by_node) == {"n4": "n1"}


def test_a_checkpoint_whose_hub_was_not_reached_is_left_alone() -> None:
    resources = [Checkpoint(node=f"n{n}", name="/models/tiny", repository="org/tiny") for n in (1, 2)]
    _, by_node, notices = arranged(["lacks", "lacks"], resources)
    assert (upstreams(by_node), notices) == ({}, ())


def test_without_an_address_on_the_fabric_the_slower_way_is_told_and_without_any_it_comes_from_outside() -> None:
    _, by_node, notices = arranged(["holds", "lacks"], where=lambda node: Address(management="10.0.0.1"))
    assert upstreams(by_node) == {"n2": "n1"}
    assert notices[0].id == "transfer-from-management-address"
    _, by_node, notices = arranged(["holds", "lacks"], where=lambda node: Address())
    assert upstreams(by_node) == {}
    assert notices[0].id == "transfer-source-without-address"


def whole(
    given: list[Transferable], holders: set[str], where: Any = address
) -> tuple[dict[str, Upstream], tuple[Message, ...]]:
    """Each receiving node's upstream, and what is said; the nodes of `holders` are as declared."""
    seen = Observations(found={one.id: one.desired() if one.node in holders else None for one in given})
    plan = compare(given, seen, today=datetime.date(2026, 1, 1))
    upstreams, notices = arrange(plan, given, seen, where)
    return {each.receiver.node: each for each in upstreams.values()}, notices


def built(number: int, step: str = "int8", **more: Any) -> BuiltCheckpoint:
    one = BuiltCheckpoint(
        node=f"n{number}", name="/m/built", base="/m/base", repository="org/tiny", steps=({"lm_head": step},), **more
    )
    object.__setattr__(one, "manifest", CONTENT)
    return one


def test_what_is_built_goes_from_the_first_to_all_others_at_once() -> None:
    by_node, notices = whole([built(number) for number in range(1, 5)], set())
    ways = upstreams(by_node)
    (first,) = {f"n{number}" for number in range(1, 5)} - set(ways)
    assert set(ways.values()) == {first}
    assert [set(each) for each in {each.receivers for each in by_node.values()}] == [set(ways)]
    assert len(notices) == 3


def test_nodes_that_have_built_it_share_the_others() -> None:
    by_node, _ = whole([built(number) for number in range(1, 6)], {"n2", "n4"})
    ways = upstreams(by_node)
    assert sorted(ways) == ["n1", "n3", "n5"]
    assert set(ways.values()) == {"n2", "n4"}


def test_other_builds_and_those_that_are_not_to_be_spread_are_built_by_each() -> None:
    moved = built(2)
    object.__setattr__(moved, "manifest", OTHER)
    assert upstreams(whole([built(1), moved, built(3, spread=False)], {"n1"})[0]) == {}


def test_without_any_address_it_is_said_that_it_is_built_there_too() -> None:
    _, notices = whole([built(1), built(2)], {"n1"}, lambda node: Address())
    assert notices[0].id == "transfer-source-without-address"


def image(number: int, **more: Any) -> Image:
    return Image(node=f"n{number}", **{"name": "local/tiny:1", **more})


def test_an_image_that_is_built_goes_to_all_others_and_one_with_a_digest_is_pulled_by_each() -> None:
    built = [image(number, content="FROM scratch\n") for number in range(1, 4)]
    assert upstreams(whole([*built], {"n2"})[0]) == {"n1": "n2", "n3": "n2"}
    pinned = [image(number, digest="sha256:" + "1" * 64) for number in range(1, 4)]
    assert upstreams(whole([*pinned], {"n2"})[0]) == {}
    assert upstreams(whole([image(1), image(2), image(3, spread=False)], {"n1"})[0]) == {"n2": "n1"}


def test_an_image_of_another_build_is_another_one_and_an_archive_is_sent_to_each() -> None:
    assert (
        upstreams(whole([image(1, content="FROM scratch\n"), image(2, content="FROM scratch\nENV A=1\n")], {"n1"})[0])
        == {}
    )
    assert [image(1, archive="x.tar").transfer_key, image(1, state="absent").transfer_key] == ["", ""]
