"""The node half of `mount`: fstab's edits as a law, and what is mounted out of a mountinfo text."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.programs import mounts
from sparkops.resources.mount import Mount
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.kinds import mount
from sparkops.worker.system import fstab
from tests.errors import fails
from tests.worker.nodes import apply_below as apply
from tests.worker.nodes import call, differing

TABLE = b"""# <file system> <mount point>   <type>  <options>       <dump>  <pass>
UUID=aaaa-bbbb  /      ext4  errors=remount-ro 0\t1
/swap.img\tnone\tswap\tsw\t0\t0
"""
INFO = """22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
90 22 0:50 / /data rw,nosuid,noatime - tmpfs tmpfs rw,size=1024k
91 22 0:51 / /with\\040blank ro - nfs4 host:/export rw,vers=4.2
"""

fields = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
lines = st.one_of(
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
    st.sampled_from(TABLE.split(b"\n")),
    st.just(b"tmpfs /data tmpfs ro 0 0"),
)
tables = st.lists(lines, max_size=8).map(b"\n".join)
entries = st.builds(
    mounts.Entry,
    source=fields,
    point=st.just("/data"),
    fstype=st.just("tmpfs"),
    options=st.just(("ro", "size=1m")),
    passno=st.integers(0, 2),
    wide=st.just(()),
)


def others(table: bytes) -> list[bytes]:
    return [line for line in table.split(b"\n") if (found := fstab.entry(line)) is None or found.point != "/data"]


@given(tables, entries)
def test_an_edit_keeps_every_other_line_byte_for_byte(table: bytes, wanted: mounts.Entry) -> None:
    after = fstab.edited(table, "/data", wanted)
    assert fstab.entries(after, "/data") == [wanted]
    kept = others(after)
    assert kept == others(table) or kept == [*others(table), b""]


@given(tables, entries)
def test_taking_out_what_was_put_in_gives_the_table_back(table: bytes, wanted: mounts.Entry) -> None:
    bare = fstab.edited(table, "/data", None)
    again = fstab.edited(fstab.edited(bare, "/data", wanted), "/data", None)
    assert again in (bare, bare + b"\n")


@given(tables, entries)
def test_an_edit_twice_is_an_edit_once(table: bytes, wanted: mounts.Entry) -> None:
    once = fstab.edited(table, "/data", wanted)
    assert fstab.edited(once, "/data", wanted) == once


def test_the_entry_takes_the_place_of_the_old_one() -> None:
    table = b"a / ext4 defaults 0 1\nb /data ext4 defaults 0 2\nc /x ext4 defaults 0 2\n"
    after = fstab.edited(table, "/data", mounts.Entry("z", "/data", "xfs", ("ro",), 0))
    assert after == b"a / ext4 defaults 0 1\nz /data xfs ro 0 0\nc /x ext4 defaults 0 2\n"


def test_mounts_are_read_with_their_escapes() -> None:
    found = {each.point: each for each in mounts.mounts(INFO)}
    assert found["/with blank"].source == "host:/export"
    assert found["/data"].options == ("rw", "nosuid", "noatime")


@pytest.mark.parametrize(
    ("options", "missing"),
    [(["defaults"], []), (["noatime", "rw"], []), (["ro", "noexec"], ["ro", "noexec"]), (["suid"], ["suid"]),
     (["size=9m", "nofail"], [])],
)  # fmt: skip
def test_declared_options_that_are_not_in_effect_are_named(options: list[str], missing: list[str]) -> None:
    (present,) = [each for each in mounts.mounts(INFO) if each.point == "/data"]
    assert mount.lacking(options, present) == missing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "etc/fstab").write_bytes(TABLE)
    (tmp_path / "proc/self/mountinfo").write_text(INFO)
    return tmp_path


def declared(name: str = "/data", **given: Any) -> Mount:
    return Mount(node="n1", name=name, **{"source": "tmpfs", "fstype": "tmpfs", **given})


def test_what_is_mounted_without_an_entry_lacks_the_entry_only(root: Path) -> None:
    one = declared(options="noatime")
    found = mount.observe(one.ask(), root=str(root))
    assert found is not None
    assert found["mounted"] is True
    assert differing(one, found) == ["fstype", "options", "passno", "source"]


def test_another_thing_at_the_mount_point_is_said_and_not_unmounted(root: Path) -> None:
    one = declared(source="/dev/sdb1", fstype="ext4")
    found = mount.observe(one.ask(), root=str(root))
    assert found is not None
    assert found["mounted"] == "another: tmpfs (tmpfs)"
    with fails("mount-occupied", Refused):
        mount.converge(call(), one.ask(), found, dict(one.desired() or {}), {}, root=str(root))
    assert (root / "etc/fstab").read_bytes() == TABLE


def test_an_entry_that_is_not_to_be_mounted_is_written_changed_and_taken_out(root: Path) -> None:
    point = root / "point"
    one = declared(str(point), options=["ro", "nofail"], mounted=False)
    assert apply(root, one) == ["existence"]
    assert (root / "etc/fstab").read_bytes() == TABLE + f"tmpfs {point} tmpfs ro,nofail 0 0\n".encode()
    assert apply(root, one) == []
    assert apply(root, declared(str(point), options="nofail,ro", mounted=False)) == []
    assert apply(root, declared(str(point), passno=2, mounted=False)) == ["options", "passno"]
    assert apply(root, declared(str(point), state="absent")) == ["existence"]
    assert (root / "etc/fstab").read_bytes() == TABLE


def test_two_entries_for_one_point_are_unknown(root: Path) -> None:
    (root / "etc/fstab").write_bytes(b"a /x ext4\nb /x/ ext4\n")
    one = declared("/x")
    with fails("fstab-ambiguous", Unknown):
        mount.observe(one.ask(), root=str(root))


def test_a_missing_mount_point_is_named(root: Path) -> None:
    with fails("mount-point-missing", Refused):
        apply(root, declared(f"{root}/none"))
    assert (root / "etc/fstab").read_bytes() == TABLE


def test_only_a_mount_that_shall_go_interrupts_by_being_unmounted() -> None:
    assert "mounted" not in declared().interrupting
    assert "mounted" in declared(mounted=False).interrupting


@pytest.mark.parametrize(
    ("given", "id"),
    [
        ({"source": ""}, "mount-field-invalid"),
        ({"fstype": "a b"}, "mount-field-invalid"),
        ({"options": ["a b"]}, "mount-option-invalid"),
        ({"passno": True}, "mount-passno-invalid"),
    ],
)
def test_declarations_that_fstab_cannot_hold_are_refused(given: dict[str, Any], id: str) -> None:
    with fails(id):
        declared(**given)
