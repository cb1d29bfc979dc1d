"""What is known of the versions that a rank stands on, over plain values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.messages import UNKNOWN
from sparkops.core.states import Unknown
from sparkops.resources.rank import Rank

RANK = Rank(node="spark-01", name="big", container="sparkops-big")


@pytest.mark.parametrize(
    ("found", "ids"),
    [
        ({"nccl": "/usr/lib/aarch64-linux-gnu/libnccl.so.2.30.4 build 01ab"}, ["fact-denied-version"]),
        ({"nccl": "/usr/lib/libnccl.so.2.30.3 build 1, /opt/libnccl.so.2.30.4 build 2"}, ["fact-denied-version"]),
        ({"nccl": "/usr/lib/libnccl.so.2.31.2 build 1"}, []),
        ({"nccl": "/usr/lib/libnccl.so.2.99.1 build 1"}, []),
        ({"nccl": "/site-packages/nvidia/nccl/lib/libnccl.so.2 build 1"}, []),
        ({"nccl": None}, []),
        ({"nccl": {UNKNOWN: {"id": "docker-not-running", "args": {}}}}, []),
        ({"connectx_firmware": "28.45.4028 (NVD0000000087), 28.46.1000 (NVD0000000087)"}, ["fact-doubtful-version"]),
        (Unknown.of("not-asked"), []),
        (None, []),
    ],
)
def test_a_version_is_judged_where_it_is_told_and_known(found: Any, ids: list[str]) -> None:
    told = RANK.violations(found, lambda id: None)
    assert [each.id for each in told] == ids
    assert all(each.severity == "warning" and each.source for each in told)


def device(address: str = "192.168.100.1", index: int = 3, **counters: int | None) -> dict[str, Any]:
    gids = [{"index": 0, "gid": "fe80::1", "type": "IB/RoCE v1", "address": None}]
    return {"gids": [*gids, {"index": index, "gid": "x", "type": "RoCE v2", "address": address}], "counters": counters}


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        (device(packet_seq_err=3), device(packet_seq_err=3), {}),
        (device(packet_seq_err=3), device(packet_seq_err=8), {"rank-packets-lost": ["r packet_seq_err by 5"]}),
        (device(packet_seq_err=900), device(packet_seq_err=0), {}),  # a reboot or a reloaded driver
        (device(packet_seq_err=None), device(packet_seq_err=7), {}),
        (device(), device(index=5), {"rank-gid-moved": ["r 3: 192.168.100.1"]}),
        (device(), device("10.0.0.9"), {"rank-gid-moved": ["r 3: 192.168.100.1"]}),
        (device(), None, {"rank-gid-moved": ["r 3: 192.168.100.1"]}),
        ({"gids": [], "counters": {}}, device(out_of_sequence=9), {}),
    ],
)
def test_what_moved_below_a_running_engine_is_told(then: Any, now: Any, told: dict[str, list[str]]) -> None:
    rdma = {"at": 1_700_000_000, "then": {"r": then}, "now": {} if now is None else {"r": now}}
    found = RANK.violations({"rdma": rdma}, lambda id: None)
    assert {each.id: each.message.args["what"] for each in found} == told
    assert all(each.severity == "warning" and "2023-11-14 22:13 UTC" in each.message.text for each in found)


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["r", "gids", "counters", "index", "type", "address"]), inner, max_size=4),
    ),
)


@given(st.dictionaries(st.sampled_from(["at", "then", "now"]), PLAIN))
def test_a_node_may_tell_anything_of_its_devices(rdma: dict[str, Any]) -> None:
    for each in RANK.violations({"rdma": rdma}, lambda id: None):
        assert each.message.text
