"""What is measured, by the inventory; what a figure means; how it is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkops.core.wording import Message
from sparkops.inventory.load import load
from sparkops.models.fabric.figures import expected, moved, others, shared, verdict
from sparkops.models.fabric.plan import Line, measured_cables
from sparkops.operate.fabric.check import Checked, cables
from sparkops.reports.fabric_check import as_json, lines
from sparkops.resources.measuring.cable import Figure
from tests.errors import fails


def found(tmp_path: Path, fabric: str, nodes: str = "a: {}, b: {}, c: {}", chosen: str = "abc") -> list[str]:
    path = tmp_path / "inventory.yml"
    path.write_text(f"version: 1\ncluster: rack\nvars: {{fabric: {{{fabric}}}}}\nnodes: {{{nodes}}}\n")
    loaded = load(path)
    return [
        f"{each.sender}{each.receiver} " + " ".join(f"{line.address}>{line.peer}" for line in each.lines)
        for each in cables(loaded, [name for name in loaded.nodes if name in chosen])
    ]


def test_each_cable_of_a_ring_is_measured_once(tmp_path: Path) -> None:
    assert found(tmp_path, "topology: ring, subnet: 192.168.0.0/24") == [
        "ab 192.168.0.1>192.168.0.2 192.168.1.1>192.168.1.2",
        "ac 192.168.4.2>192.168.4.1 192.168.5.2>192.168.5.1",
        "bc 192.168.2.1>192.168.2.2 192.168.3.1>192.168.3.2",
    ]


def test_at_a_switch_each_node_is_measured_with_the_next(tmp_path: Path) -> None:
    pairs = [each.partition(" ")[0] for each in found(tmp_path, "topology: switch, subnet: 192.168.0.0/24")]
    assert pairs == ["ab", "bc", "ca"]


def test_nodes_of_two_switches_are_measured_with_those_of_their_own_whatever_their_order(tmp_path: Path) -> None:
    nodes = ", ".join(
        f"{name}: {{fabric: {{topology: switch, subnet: 192.168.{subnet}.0/24, members: [{members}]}}}}"
        for name, subnet, members in (("a", 0, "a, c"), ("b", 8, "b, d"), ("c", 0, "a, c"), ("d", 8, "b, d"))
    )
    assert [each.partition(" ")[0] for each in found(tmp_path, "mtu: null", f"{nodes}, e: {{}}", "abcde")] == [
        "ac",
        "bd",
    ]


def test_a_node_without_an_address_leaves_out_no_link_of_the_others(tmp_path: Path) -> None:
    nodes = ", ".join(f"{name}: {{fabric: {{address: 10.1.1.{number}}}}}" for number, name in enumerate("abc", 1))
    assert [each.partition(" ")[0] for each in found(tmp_path, "topology: null", f"x: {{}}, {nodes}", "axbc")] == [
        *("ab", "bc", "ca")
    ]


def test_a_node_of_which_no_link_is_declared_is_told(tmp_path: Path) -> None:
    checked = Checked(unlinked=("x",))
    assert (checked.exit_status, as_json(checked)["unlinked"]) == (0, ["x"])
    assert list(lines(checked)) == ["i x: no link of it to the others is declared, so none was measured"]


def test_only_the_chosen_nodes_take_part(tmp_path: Path) -> None:
    ring = "topology: ring, subnet: 192.168.0.0/24"
    assert [each.partition(" ")[0] for each in found(tmp_path, ring, chosen="bc")] == ["bc"]


def test_in_an_apply_the_later_end_of_each_cable_measures_it(tmp_path: Path) -> None:
    """Where nodes are changed in turns, both ends have their addresses only then."""

    def own(fabric: str, nodes: tuple[str, ...] = ("a", "b", "c")) -> list[str]:
        declared = {"subnet": "192.168.0.0/24", "measure": True, "topology": fabric}
        variables = {each: {"name": each, "fabric": declared} for each in nodes}
        return [
            f"{each.sender}{each.receiver} {each.lines[0].address}>{each.lines[0].peer}"
            for each in measured_cables(variables)
        ]

    assert own("pair", ("a", "b")) == ["ba 192.168.0.11>192.168.0.10"]
    assert own("ring") == ["ba 192.168.0.2>192.168.0.1", "ca 192.168.4.1>192.168.4.2", "cb 192.168.2.2>192.168.2.1"]
    assert [each[:2] for each in own("switch")] == ["ba", "cb", "ca"]
    assert measured_cables({"a": {"fabric": {"topology": "pair", "subnet": "192.168.0.0/24"}}}) == ()


def test_declared_addresses_are_one_line(tmp_path: Path) -> None:
    nodes = "a: {fabric: {address: 10.1.1.1}}, b: {fabric: {address: 10.1.1.2}}"
    assert found(tmp_path, "topology: null", nodes) == ["ab 10.1.1.1>10.1.1.2"]


def test_nothing_declared_is_said(tmp_path: Path) -> None:
    with fails("fabric-not-declared"):
        found(tmp_path, "topology: null")


@pytest.mark.parametrize(
    ("gbits", "links", "method", "word"),
    [
        (97.3, 1, "rdma", "good"),
        (196.0, 2, "rdma", "good"),
        (13.0, 1, "rdma", "degraded"),
        (13.0, 1, "tcp", "degraded"),
        (60.0, 1, "rdma", "low"),
        (60.0, 1, "tcp", "good"),
        (98.0, 2, "rdma", "low"),
    ],
)
def test_a_figure_is_judged_by_what_such_links_carry(gbits: float, links: int, method: str, word: str) -> None:
    assert verdict(gbits, expected(200_000, links), method) == word


def test_so_little_by_tcp_that_processors_may_bound_it_is_not_known() -> None:
    assert verdict(8.0, expected(200_000, 1), "tcp", busy=0.95) is None
    assert verdict(8.0, expected(200_000, 1), "tcp", busy=0.3) == "degraded"
    assert verdict(60.0, expected(200_000, 1), "tcp", busy=0.95) == "good"


def test_what_others_sent_over_the_link_leaves_a_low_figure_unknown() -> None:
    assert verdict(8.0, 100.0, "rdma", foreign=60.0) is None
    assert verdict(60.0, 100.0, "rdma", foreign=30.0) is None
    assert verdict(8.0, 100.0, "tcp", foreign=60.0) is None
    assert verdict(8.0, 100.0, "rdma", foreign=2.0) == "degraded", "so little does not explain it"
    assert verdict(97.0, 100.0, "rdma", foreign=60.0) == "good"
    assert not shared(60.0, None)


GB = 10**9


@pytest.mark.parametrize(
    ("passed", "gbits", "foreign"),
    [
        ([([0, 0], [3 * GB, 0])], 8.0, 0.0),  # 24 Gb in 3 s are the measurement's own
        ([([7, 0], [3 * GB + 7, 3 * GB])], 8.0, 0.0),  # and so they are where both drivers count them
        ([([0, 0], [9 * GB, 0])], 8.0, 24 - 8 * 1.15),
        ([([0, 0], [9 * GB, 0]), ([0, 0], [9 * GB, 0])], 16.0, 48 - 16 * 1.15),  # of both twins
        ([([0, 0], [0, 9 * GB])], 8.0, 24 - 8 * 1.15),  # by RDMA
        ([([5 * GB, 0], [0, 0])], 8.0, 0.0),  # set back by its driver: says nothing
    ],
)
def test_what_others_sent_is_what_the_interfaces_counted_beyond_the_measurement(
    passed: list[tuple[list[int], list[int]]], gbits: float, foreign: float
) -> None:
    assert others(passed, gbits, seconds=3.0) == pytest.approx(foreign)


def test_a_link_of_100_gigabits_is_not_expected_to_carry_more() -> None:
    assert expected(100_000, 2) == 100.0
    assert verdict(95.0, expected(100_000, 2), "rdma") == "good"
    assert expected(None, 1) is None and verdict(1.0, None, "rdma") == "good"


@pytest.mark.parametrize(
    ("before", "after", "up"),
    [
        ({"packet_seq_err": 3}, {"packet_seq_err": 3}, {}),
        (
            {"packet_seq_err": 3, "out_of_sequence": 1},
            {"packet_seq_err": 8, "out_of_sequence": 1},
            {"packet_seq_err": 5},
        ),
        ({"packet_seq_err": 9}, {"packet_seq_err": 0}, {}),
        ({}, {"new_counter": 7}, {}),
    ],
)
def test_only_counters_that_went_up_tell_of_loss(
    before: dict[str, int], after: dict[str, int], up: dict[str, int]
) -> None:
    assert moved(before, after) == up


GOOD = Figure(
    sender="a", receiver="b", line=Line(0, "10.0.0.1", "10.0.0.2"), gbits=97.3, method="rdma", mtu=9000, verdict="good"
)


def figure(id: str, *, unknown: bool = False, **args: object) -> Figure:
    return Figure(sender="a", receiver="b", line=None, reason=Message.of(id, **args), unknown=unknown)


def test_wrong_goes_before_unknown_and_unknown_before_good() -> None:
    wrong, unsure = figure("fabric-link-low", gbits=1, expected=2), figure("measure-broken-off", unknown=True, text="x")
    assert Checked([GOOD]).exit_status == 0
    assert Checked([GOOD, unsure]).exit_status == 3
    assert Checked([unsure, wrong]).exit_status == 2
    assert Checked([], {"a": Message.of("node-silent", seconds=45)}).exit_status == 3


def test_a_report_names_the_remedy_of_a_degraded_link() -> None:
    text = "\n".join(lines(Checked([GOOD, figure("fabric-link-degraded", gbits=13.0, expected=100.0)])))
    assert "97.3 Gb/s by RDMA" in text and "MTU 9000 both ways" in text
    assert "13.0 Gb/s of 100.0" in text and "mains" in text


def test_what_was_not_measured_is_null_in_json() -> None:
    (each,) = as_json(Checked([figure("fabric-peer-silent", address="x", peer="y")]))["figures"]
    assert (each["gbits"], each["mtu"], each["verdict"], each["twin"]) == (None, None, None, None)
    assert each["reason"]["id"] == "fabric-peer-silent"
