"""What a rank's environment holds, and what it never holds."""

from __future__ import annotations

from typing import Any

from sparkops.core import fact_text
from sparkops.models.rank_environment import SOCKETS, rank_environment
from tests.unit.service.test_spec import PAIR, service, spec

RDMA = {"devices": ["/dev/infiniband"]}
FACTS = {
    name: {
        "network": {
            "management": {"interface": management, "address": address},
            "owners": {"192.168.100.1": "enp1s0f0np0"},
        },
        "fabric": {"active": hcas, "active_on": {"p0": [], "p1": hcas}},
    }
    for name, management, address, hcas in (
        ("a", "enP7s7", "10.0.0.1", ["rocep1s0f0", "roceP2p1s0f0"]),
        ("b", "wlP9s9", "10.0.0.2", ["rocep1s0f1", "roceP2p1s0f1"]),
        ("c", "enP7s7", "10.0.0.3", []),
        ("d", "enP7s7", "10.0.0.4", []),
    )
}


def made(node: str, *, container: dict[str, Any] = RDMA, nodes: int = 2, **fabric: Any) -> dict[str, str]:
    """The environment of a rank with its facts filled in."""
    whole = service(nodes=list(FACTS)[:nodes])
    whole["container"] = {**whole["container"], **container}
    filled = {name: fact_text.filled(text, FACTS) for name, text in rank_environment(whole, fabric, node).items()}
    return {name: text for name, text in filled.items() if isinstance(text, str)}


def test_each_host_gets_its_own_interfaces_and_devices() -> None:
    one, other = made("a"), made("b")
    assert one["NCCL_IB_HCA"] == "rocep1s0f0,roceP2p1s0f0"
    assert other["NCCL_IB_HCA"] == "rocep1s0f1,roceP2p1s0f1"
    assert one["UCX_NET_DEVICES"] == "rocep1s0f0:1,roceP2p1s0f0:1"
    assert {one[name] for name in SOCKETS} == {"enP7s7"} and {other[name] for name in SOCKETS} == {"wlP9s9"}


def test_a_gid_index_is_never_set() -> None:
    for topology in ("pair", "ring", "switch", None):
        assert not [name for name in made("a", topology=topology) if "GID" in name]


def test_without_rdma_in_the_container_nothing_speaks_of_it() -> None:
    assert set(made("a", container={"devices": []})) == set(SOCKETS)


def test_the_declared_port_is_the_only_one_used() -> None:
    assert made("b", port="p1")["NCCL_IB_HCA"] == "rocep1s0f1,roceP2p1s0f1"
    assert "NCCL_IB_HCA" not in made("a", port="p0"), "no active device there: unknown, not another port's"


def test_bootstrap_goes_over_the_fabric_only_where_that_is_declared() -> None:
    assert made("a", bootstrap="fabric", address="192.168.100.1/24")["GLOO_SOCKET_IFNAME"] == "enp1s0f0np0"


def test_a_ring_has_its_settings_and_a_closed_one_of_four_its_algorithm() -> None:
    three, four = made("a", nodes=3, topology="ring"), made("a", nodes=4, topology="ring")
    assert three["NCCL_IB_SUBNET_AWARE_ROUTING"] == "1" and three["NCCL_NET_PLUGIN"] == "none"
    assert "NCCL_ALGO" not in three and four["NCCL_ALGO"] == "Ring"
    assert "NCCL_IB_SUBNET_AWARE_ROUTING" not in made("a", topology="switch")


def test_without_an_address_on_the_fabric_ranks_meet_on_management() -> None:
    facts = {**PAIR, "addresses": [None, None]}
    text = fact_text.filled(spec(**facts, rank=1).text, FACTS)
    assert isinstance(text, str)
    assert '"--master-addr","10.0.0.1"' in text and '"VLLM_HOST_IP":"10.0.0.2"' in text


def test_in_a_ring_no_address_of_a_link_is_the_head_s() -> None:
    text = fact_text.filled(spec(**PAIR, fabric={"topology": "ring"}).text, FACTS)
    assert isinstance(text, str) and '"--master-addr","10.0.0.1"' in text


def test_what_is_set_by_hand_goes_before() -> None:
    given = spec(**PAIR, environment={"GLOO_SOCKET_IFNAME": "eth7"})
    assert given.environment["GLOO_SOCKET_IFNAME"] == "eth7"
    secret = spec(**PAIR, environment={"MN_IF_NAME": "x"}, secret=frozenset({"MN_IF_NAME"}))
    assert "MN_IF_NAME" not in secret.environment
