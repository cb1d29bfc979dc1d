"""A requirement judges facts, in words, and never yields a step."""

from typing import Any

import pytest

from sparkops.core.errors import InventoryError
from sparkops.core.messages import UNKNOWN, reason
from sparkops.core.plan import Violation
from sparkops.core.states import Observed, Unknown, lookup
from sparkops.resources.require import Require

GIB = 1 << 30


def nobody(identity: str) -> Observed:
    return Unknown("not asked")


SILENT = Unknown.of("not-answered")


def judged(found: Observed, name: str = "gpu", **fields: Any) -> list[Violation]:
    return list(Require(node="spark-01", name=name, **fields).violations(found, nobody))


def one(found: Observed, name: str = "gpu", **fields: Any) -> Violation:
    (violation,) = judged(found, name, **fields)
    return violation


def test_a_denied_driver_is_an_error_with_reason_remedy_and_source() -> None:
    violation = one(
        {"driver_version": "590.48.01"}, expect={"driver_version": {"verdicts": "driver", "id": "driver.version"}}
    )
    assert violation.id == "driver.version-denied"
    assert violation.blocks
    assert "CUDA graph capture deadlocks" in violation.message.text
    assert "(contradictory)" in violation.message.text
    assert "580" in violation.message.fix
    assert "eugr" in violation.source


def test_a_driver_without_a_first_hand_report_is_a_warning() -> None:
    violation = one({"driver_version": "595.1"}, expect={"driver_version": {"verdicts": "driver"}})
    assert (violation.id, violation.severity) == ("gpu.driver-version-doubtful", "warning")
    assert not violation.blocks


def test_a_known_good_driver_is_no_word() -> None:
    assert judged({"driver_version": "580.142"}, expect={"driver_version": {"verdicts": "driver"}}) == []


def test_an_accept_list_leaves_out_what_it_does_not_name() -> None:
    expect = {"driver_version": {"verdicts": "driver", "accept": ["580.142"]}}
    violation = one({"driver_version": "580.95.05"}, expect=expect)
    assert (violation.id, violation.severity) == ("gpu.driver-version-unlisted", "error")


def test_globs_alone_judge_a_value_as_the_inventory_says() -> None:
    expect = {"driver_version": {"matches": ["580.*"], "deny": ["580.95.05"]}}
    assert judged({"driver_version": "580.142"}, expect=expect) == []
    assert one({"driver_version": "580.95.05"}, expect=expect).id == "gpu.driver-version-denied"
    assert one({"driver_version": "570.1"}, expect=expect).id == "gpu.driver-version-unlisted"


def test_a_plain_value_means_equality() -> None:
    violation = one({"compute_capability": "9.0"}, expect={"compute_capability": "12.1"})
    assert violation.id == "gpu.compute-capability-differs"
    assert "9.0 instead of 12.1" in violation.message.text


def test_bytes_are_shown_in_gib() -> None:
    violation = one({"total_bytes": 60 * GIB}, "memory", expect={"total_bytes": {"at_least": 110 * GIB}})
    assert violation.id == "memory.total-bytes-low"
    assert "64.4 GB (60.0 GiB), at least 118.1 GB (110.0 GiB) is needed" in violation.message.text


def test_a_list_must_hold_one_of_the_wanted_words() -> None:
    expect = {"gpu_access": {"includes": ["runtime", "cdi"]}}
    assert judged({"gpu_access": ["cdi"]}, "docker", expect=expect) == []
    assert one({"gpu_access": []}, "docker", expect=expect).id == "docker.gpu-access-lacks"


def test_a_list_that_must_be_empty_is_shown() -> None:
    expect = {"reasons": {"empty": True, "severity": "warning"}}
    assert judged({"reasons": []}, "reboot", expect=expect) == []
    assert "kernel a runs" in one({"reasons": ["kernel a runs"]}, "reboot", expect=expect).message.text


def test_a_node_without_a_gpu_is_told_once_however_much_is_expected() -> None:
    found = {"present": False, "error": "nvidia-smi is not installed", "name": None, "driver_version": None}
    violation = one(found, expect={"name": "NVIDIA GB10", "driver_version": {"verdicts": "driver"}})
    assert violation.id == "gpu.absent"
    assert "nvidia-smi is not installed" in violation.message.text


def test_a_fact_that_the_node_does_not_have_is_missing_unless_it_is_optional() -> None:
    assert (
        one({"bios_version": None}, "firmware", expect={"bios_version": "5.36"}).id == "firmware.bios-version-missing"
    )
    expect = {"bios_version": {"equals": "5.36", "optional": True}}
    assert judged({"bios_version": None}, "firmware", expect=expect) == []


def test_what_is_unknown_is_not_judged() -> None:
    assert judged(Unknown.of("not-answered"), expect={"name": "NVIDIA GB10"}) == []


def pair(values: dict[str, Any], key: str = "driver_version", **words: Any) -> dict[str, list[Violation]]:
    """The violations of each node of a service whose nodes have these values."""
    made = {
        node: Require(
            node=node,
            name="gpu",
            service="qwen",
            peer_nodes=tuple(values),
            expect={key: {"equal_on_service": True, **words}},
        )
        for node in values
    }
    answers = {made[node].id: {key: value} for node, value in values.items() if value is not None}
    return {
        node: list(each.violations(answers.get(each.id), lambda wanted: answers.get(wanted, SILENT)))
        for node, each in made.items()
    }


def test_two_drivers_in_one_service_violate_both_nodes_in_the_same_words() -> None:
    found = pair({"spark-01": "580.95.05", "spark-02": "580.142"})
    (first,), (second,) = found["spark-01"], found["spark-02"]
    assert first.id == second.id == "gpu.driver-version-uneven"
    assert first.message == second.message
    assert "spark-01 580.95.05, spark-02 580.142" in first.message.text
    assert first.resource != second.resource


def test_equal_nodes_and_silent_peers_are_no_violation() -> None:
    assert pair({"spark-01": "580.142", "spark-02": "580.142"}) == {"spark-01": [], "spark-02": []}
    assert pair({"spark-01": "580.142", "spark-02": None})["spark-01"] == []


def test_memory_may_differ_a_little_between_makers_but_not_by_half() -> None:
    near = pair({"a": 121 * GIB, "b": 119 * GIB}, "total_bytes", tolerance=0.05)
    far = pair({"a": 121 * GIB, "b": 59 * GIB}, "total_bytes", tolerance=0.05)
    assert near == {"a": [], "b": []}
    assert far["a"][0].id == "gpu.total-bytes-uneven"


def test_a_label_tells_requirements_on_the_same_group_apart() -> None:
    bare = Require(node="n", name="gpu", expect={})
    named = Require(node="n", name="gpu", label="clock", expect={})
    served = Require(node="n", name="gpu", service="qwen", expect={})
    assert [bare.id, named.id, served.id] == ["require gpu @n", "require clock @n", "require gpu of qwen @n"]


def test_a_wrong_word_in_an_expectation_is_found_when_it_is_declared() -> None:
    with pytest.raises(InventoryError) as error:
        Require(node="n", name="gpu", where="role.yml:3:5", expect={"name": {"at_lest": 3}})
    assert error.value.where == "role.yml:3:5"
    assert "at_least" in error.value.hint


def test_it_asks_for_its_keys_and_is_never_converged() -> None:
    require = Require(node="n", name="disk", args={"path": "/models"}, expect={"free_bytes": {"at_least": 1}})
    assert require.ask() == {"group": "disk", "args": {"path": "/models"}, "keys": ["free_bytes"]}
    assert require.desired() == {}, "it never yields a step"


def test_a_fact_that_the_worker_marked_as_unknown_is_unknown_with_its_reason() -> None:
    late = reason("observation-late", seconds=1)
    facts = {"gpu": {UNKNOWN: late}, "os": {"kernel": {UNKNOWN: late}}}
    assert lookup(facts, "gpu.driver_version") == Unknown.of("fact-unknown", fact="gpu.driver_version", reason=late)
    assert lookup(facts, "os.kernel") == Unknown.of("fact-unknown", fact="os.kernel", reason=late)
