"""In what ranks differ from each other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.messages import UNKNOWN, reason
from sparkops.core.plan import Plan
from sparkops.core.states import Observed, Unknown
from sparkops.reconcile.plan import between_nodes
from sparkops.resources.rank import Rank


def differ(service: str = "qwen", **nodes: Observed) -> dict[str, dict[str, Any]]:
    ranks = [Rank(node=node, name=service, service=service, container="c") for node in nodes]
    found = {each.id: nodes[each.node] for each in ranks}
    return {each.fact: dict(each.values) for each in between_nodes(ranks, found)}


def test_what_is_another_on_one_node_is_told_with_every_value() -> None:
    found = differ(a={"nccl": "x build 1", "kernel": "6.17"}, b={"nccl": "x build 2", "kernel": "6.17"})
    assert found == {"nccl": {"a": "x build 1", "b": "x build 2"}}


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.none())))
def test_equal_ranks_do_not_differ(state: dict[str, Any]) -> None:
    assert differ(a=state, b=dict(state), c=dict(state)) == {}


def test_where_nothing_runs_nothing_is_compared() -> None:
    assert differ(a={"image": "one"}, b={"image": None}) == {}


def test_unknown_is_no_difference_and_is_told_beside_one() -> None:
    unknown = {UNKNOWN: reason("docker-not-there", text="x")}
    assert differ(a={"nccl": "1"}, b={"nccl": unknown}) == {}
    found = differ(a={"nccl": "1"}, b={"nccl": unknown}, c={"nccl": "2"})["nccl"]
    assert isinstance(found["b"], Unknown) and (found["a"], found["c"]) == ("1", "2")


def test_a_node_that_did_not_answer_is_left_out() -> None:
    assert differ(a={"kernel": "1"}, b=Unknown.of("not-answered"), c={"kernel": "1"}) == {}


def test_memory_of_one_size_may_differ_a_little() -> None:
    gib = 1 << 30
    assert differ(a={"memory_bytes": 119 * gib}, b={"memory_bytes": 121 * gib}) == {}
    assert "memory_bytes" in differ(a={"memory_bytes": 60 * gib}, b={"memory_bytes": 121 * gib})


def test_what_a_node_tells_in_another_form_breaks_nothing() -> None:
    assert "kernel" in differ(a={"kernel": ["x"]}, b={"kernel": {"y": 1}})


def test_services_are_compared_apart_and_no_exit_status_changes() -> None:
    ranks = [Rank(node="a", name=name, service=name, container="c") for name in ("one", "two")]
    found: dict[str, Observed] = {ranks[0].id: {"kernel": "1"}, ranks[1].id: {"kernel": "2"}}
    assert between_nodes(ranks, found) == ()
    both = [Rank(node=node, name="one", service="one", container="c") for node in "ab"]
    between = between_nodes(both, {both[0].id: {"kernel": "1"}, both[1].id: {"kernel": "2"}})
    assert Plan(between=between).exit_status == 0


def test_what_each_rank_is_judged_by_alone_is_not_compared() -> None:
    assert differ(a={"rdma": {"at": 1}}, b={"rdma": {"at": 2}}) == {}
