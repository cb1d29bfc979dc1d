"""The node half of `sysctl` on folders that stand for /proc/sys and sysctl.d."""

from pathlib import Path
from typing import Any

import pytest

from sparkops.core.states import FromFact
from sparkops.resources.sysctl import Sysctl
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.kinds import sysctl
from tests.errors import fails
from tests.worker.nodes import apply_below as apply

KEY = "net.ipv4.tcp_rmem"
ETC, USR = "etc/sysctl.d", "usr/lib/sysctl.d"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("proc/sys/net/ipv4", ETC, USR):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/sys/net/ipv4/tcp_rmem").write_text("4096\t131072\t6291456\n")
    return tmp_path


def declared(**given: Any) -> Sysctl:
    return Sysctl(node="n1", name=KEY, **given)


def look(root: Path, one: Sysctl) -> Any:
    return sysctl.observe_many({one.id: one.ask()}, root=str(root))[one.id]


def test_a_value_is_set_and_kept_for_the_next_start(root: Path) -> None:
    one = declared(value="1 2 3")
    assert apply(root, one) == ["persisted", "value"]
    assert (root / "proc/sys/net/ipv4/tcp_rmem").read_text() == "1 2 3\n"
    assert "net.ipv4.tcp_rmem = 1 2 3\n" in (root / ETC / "60-sparkops-net.ipv4.tcp_rmem.conf").read_text()
    assert apply(root, one) == []


def test_white_space_does_not_matter(root: Path) -> None:
    assert apply(root, declared(value="4096  131072 6291456")) == ["persisted"]


def test_a_value_that_is_right_now_but_not_kept_is_a_difference(root: Path) -> None:
    one = declared(value="1 2 3")
    apply(root, one)
    (root / ETC / "60-sparkops-net.ipv4.tcp_rmem.conf").unlink()
    assert apply(root, one) == ["persisted"]


def test_a_later_file_that_sets_something_else_is_said_and_not_touched(root: Path) -> None:
    (root / USR / "99-vendor.conf").write_text("net/ipv4/tcp_rmem=7 8 9\n")
    one = declared(value="1 2 3")
    apply(root, one)
    (warning,) = one.violations(look(root, one), lambda identity: None)
    assert warning.severity == "warning"
    assert warning.id == "sysctl-overridden:net.ipv4.tcp_rmem"
    assert "99-vendor.conf" in warning.message.text
    assert "7 8 9" in warning.message.text
    assert (root / USR / "99-vendor.conf").read_text() == "net/ipv4/tcp_rmem=7 8 9\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("50-early.conf", f"{KEY}=7 8 9"), ("99-same.conf", f"-{KEY} = 1 2\t3"), ("99-off.conf", f"# {KEY}=7\n;{KEY}=8")],
)
def test_files_that_do_not_undo_ours_are_not_mentioned(root: Path, name: str, text: str) -> None:
    (root / USR / name).write_text(text)
    one = declared(value="1 2 3")
    apply(root, one)
    assert one.violations(look(root, one), lambda identity: None) == ()


def test_a_file_of_the_same_name_in_etc_masks_the_vendors(root: Path) -> None:
    (root / USR / "99-vendor.conf").write_text(f"{KEY}=7 8 9\n")
    (root / ETC / "99-vendor.conf").write_text("")
    assert look(root, declared(value="1 2 3"))["overridden_by"] is None


def test_absence_takes_our_file_away_and_leaves_the_running_value(root: Path) -> None:
    apply(root, declared(value="1 2 3"))
    gone = declared(state="absent")
    assert apply(root, gone) == ["existence"]
    assert list((root / ETC).iterdir()) == []
    assert (root / "proc/sys/net/ipv4/tcp_rmem").read_text() == "1 2 3\n"
    assert apply(root, gone) == []


def test_a_parameter_that_the_kernel_lacks_is_named_and_no_file_is_left(root: Path) -> None:
    with fails("sysctl-missing", Refused):
        apply(root, Sysctl(node="n1", name="net.ipv4.nonsense", value=1))
    assert list((root / ETC).iterdir()) == []


def test_a_value_from_a_fact_is_asked_without_it() -> None:
    one = declared(value=FromFact("memory.total"))
    assert one.desired() == {"value": FromFact("memory.total"), "persisted": FromFact("memory.total")}
    assert one.ask() == {"key": KEY, "file": "60-sparkops-net.ipv4.tcp_rmem.conf", "absent": False}


def test_a_parameter_that_cannot_be_read_leaves_the_others_known(root: Path) -> None:
    (root / "proc/sys/net/ipv4/flush").mkdir()
    one, other = declared(value=1), Sysctl(node="n1", name="net.ipv4.flush", value=1)
    answers = sysctl.observe_many({each.id: each.ask() for each in (one, other)}, root=str(root))
    assert answers[one.id]["value"] == "4096 131072 6291456"
    assert isinstance(answers[other.id], Unknown)


@pytest.mark.parametrize("value", [None, "", True, "1\n2", 1.5])
def test_a_value_that_is_no_number_or_text_is_refused(value: object) -> None:
    with fails("sysctl-value-invalid"):
        declared(value=value)


@pytest.mark.parametrize("name", ["swappiness", "../x.y", "vm..x", "a b.c", "/proc/sys/vm"])
def test_a_name_that_is_no_key_is_refused(name: str) -> None:
    with fails("sysctl-name-invalid"):
        Sysctl(node="n1", name=name, value=1)


@pytest.mark.parametrize(
    ("key", "path"),
    [("vm.swappiness", "vm/swappiness"), ("net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x"),
     ("net.ipv4.conf.eth0/1.x", "net/ipv4/conf/eth0.1/x")],
)  # fmt: skip
def test_both_spellings_of_a_key_name_one_path(key: str, path: str) -> None:
    assert sysctl.path_of(key) == path
