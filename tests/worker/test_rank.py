"""What a rank stands on, read out of a tree like /proc."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkops.programs import docker
from sparkops.programs.launch.rdma import rdma_devices
from sparkops.worker.kinds import rank
from tests.worker import sparks

NOTE = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0"
ELF = b"\x7fELF" + bytes(600)


def process(root: Path, pid: int, namespace: str, *libraries: str) -> None:
    """A process whose root folder is the container's."""
    folder = root / "proc" / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "ns/pid").symlink_to(namespace)
    (folder / "root").symlink_to(root / namespace)
    lines = [f"7f0{at}0000-7f0{at}1000 r-xp 00000000 08:01 99   {path}\n" for at, path in enumerate(libraries)]
    (folder / "maps").write_text("7ffe-7fff rw-p 00000000 00:00 0   [stack]\n" + "".join(lines))


def library(root: Path, namespace: str, path: str, content: bytes) -> None:
    file = root / namespace / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


WHEEL = "/usr/local/lib/python3.12/dist-packages/nvidia/nccl/lib/libnccl.so.2"


def test_the_nccl_of_the_workers_is_found_by_their_namespace(tmp_path: Path) -> None:
    library(tmp_path, "pid-1", WHEEL, ELF + NOTE + bytes(range(20)) + ELF)
    process(tmp_path, 10, "pid-1")
    process(tmp_path, 11, "pid-1", "/usr/lib/libc.so.6", WHEEL, WHEEL)
    process(tmp_path, 12, "pid-2", "/opt/other/libnccl.so.2")

    assert rank.loaded_nccl(str(tmp_path), 10) == f"{WHEEL} build {bytes(range(20)).hex()}"


def test_two_builds_of_one_path_are_told_apart(tmp_path: Path) -> None:
    found = []
    for number in (1, 2):
        root = tmp_path / str(number)
        library(root, "pid-1", WHEEL, ELF + NOTE + bytes([number]) * 20)
        process(root, 10, "pid-1", WHEEL)
        found.append(rank.loaded_nccl(str(root), 10))
    assert found[0] != found[1]


def test_without_a_build_id_the_size_stands_there(tmp_path: Path) -> None:
    library(tmp_path, "pid-1", "/lib/libnccl.so.2.29.7", ELF)
    process(tmp_path, 10, "pid-1", "/lib/libnccl.so.2.29.7")
    assert rank.loaded_nccl(str(tmp_path), 10) == f"/lib/libnccl.so.2.29.7 {len(ELF)} bytes"


def test_an_engine_that_has_loaded_none_says_so(tmp_path: Path) -> None:
    process(tmp_path, 10, "pid-1", "/usr/lib/libc.so.6")
    assert rank.loaded_nccl(str(tmp_path), 10) is None


def test_a_process_that_ends_while_it_is_looked_at_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that compiles starts and ends one after another, which made its NCCL unknown."""
    library(tmp_path, "pid-1", WHEEL, ELF)
    process(tmp_path, 10, "pid-1", WHEEL)
    monkeypatch.setattr(rank, "_processes", lambda *_: iter([str(tmp_path / "proc/9"), str(tmp_path / "proc/10")]))
    assert rank.loaded_nccl(str(tmp_path), 10) == f"{WHEEL} {len(ELF)} bytes"


def test_a_container_that_is_another_one_meanwhile_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its NCCL was unknown then, and it was said to have no nccl.conf."""
    monkeypatch.setattr(rank, "POLL", 0.0)
    sparks.spark(tmp_path)
    process(tmp_path, 10, "pid-1")
    library(tmp_path, "pid-1", "/etc/nccl.conf", b"A=1")
    there = iter({"Id": str(pid), "Image": "i", "State": {"Running": True, "Pid": pid}} for pid in (9, 10))
    monkeypatch.setattr(docker, "inspect_container", lambda name: next(there))
    monkeypatch.setattr(docker, "inspect_image", lambda name: None)
    found = rank.observe({"container": "c", "kept": "/kept"}, str(tmp_path))
    assert (found["nccl_conf"], found["nccl"]) == ("A=1", None)


@pytest.mark.parametrize(
    ("text", "told"), [("# mine\nNCCL_IB_USE_INLINE=1\n\n", "NCCL_IB_USE_INLINE=1"), ("", "empty"), (None, None)]
)
def test_the_image_s_nccl_conf_is_read(tmp_path: Path, text: str | None, told: str | None) -> None:
    process(tmp_path, 10, "pid-1")
    library(tmp_path, "pid-1", "/etc/hostname", b"x")
    if text is not None:
        library(tmp_path, "pid-1", "/etc/nccl.conf", text.encode())
    assert rank._nccl_conf(str(tmp_path), {"State": {"Pid": 10}}) == told


def test_rdma_now_is_told_beside_what_the_launcher_kept_of_this_container(tmp_path: Path) -> None:
    sparks.spark(tmp_path)
    kept = tmp_path / "var/lib/sparkops/services/q"
    kept.mkdir(parents=True)
    then = rdma_devices(str(tmp_path))
    (kept / "rdma-at-start.json").write_text(json.dumps({"container": "c1", "at": 7, "devices": then}))
    sparks.put(tmp_path, "sys/class/infiniband/rocep1s0f0/ports/1/hw_counters/out_of_sequence", "20")

    found: Any = rank._rdma(str(tmp_path), "/var/lib/sparkops/services/q", {"Id": "c1"})

    assert found["at"] == 7
    counters = [found[when]["rocep1s0f0"]["counters"]["out_of_sequence"] for when in ("then", "now")]
    assert counters == [17, 20]
    assert found["now"]["rocep1s0f0"]["gids"] == found["then"]["rocep1s0f0"]["gids"]


@pytest.mark.parametrize(
    ("text", "container"),
    [
        (None, {"Id": "c1"}),
        ('{"container": "c1", "at": 7, "devices": {}}', {"Id": "c1"}),  # no device when it started
        ('{"container": "other", "at": 7, "devices": {"r": {}}}', {"Id": "c1"}),  # of an earlier start
        ('{"container": "c1", "at": 7, "devices": {"r": {}}}', None),  # nothing runs
    ],
)
def test_without_what_was_at_start_nothing_is_told_of_rdma(
    tmp_path: Path, text: str | None, container: dict[str, object] | None
) -> None:
    if text is not None:
        (tmp_path / "rdma-at-start.json").write_text(text)
    assert rank._rdma(str(tmp_path), "/", container) is None
