"""What is known of the versions that a rank stands on, over plain values."""

from __future__ import annotations

from typing import Any

import pytest

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
