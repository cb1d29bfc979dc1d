"""What can be given back: who uses a thing, on plain values; and folders on a temporary root."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from sparkops.operate.gc import Item, Reclaimable
from sparkops.programs import docker
from sparkops.worker.calls import Call
from sparkops.worker.reclaiming.checkpoints import folder_items, folders
from sparkops.worker.reclaiming.items import DECLARED
from sparkops.worker.record import claim_records, claims, uses
from sparkops.worker.record.uses import Uses
from sparkops.worker.requests import gc
from sparkops.worker.system import jobs


def unused(**more: Any) -> Uses:
    return Uses(**{"containers": [], "texts": {}, "programs": {}, "others": {}, "working": [], **more})


def container(source: str) -> Uses:
    return unused(containers=[{"Names": ["/vllm"], "State": "exited", "Mounts": [{"Source": source}]}])


@pytest.mark.parametrize("source", ["/srv/m", "/srv/m/", "/srv/m/sub", "/srv"])
def test_a_container_uses_a_folder_what_is_in_it_and_what_is_around_it(source: str) -> None:
    used = {"id": "gc-used-by-container", "args": {"container": "vllm", "state": "exited"}}
    assert container(source).folder("/srv/m") == used


@pytest.mark.parametrize("source", ["/srv/m2", "/srv/other", "/", ""])
def test_a_neighbour_and_a_monitor_that_mounts_the_root_use_nothing(source: str) -> None:
    assert container(source).folder("/srv/m") is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ExecStart=vllm serve /srv/m --port 1", True),
        ('{"mounts": [{"source": "/srv/m"}]}', True),
        ("ExecStart=docker run -v /srv:/srv image", True),
        ("ExecStart=docker run --mount type=bind,source=/srv,target=/x image", True),
        ("ExecStart=vllm serve /srv/m2", False),
        ("ExecStart=vllm serve /data/srv/m", False),
        ("ReadWritePaths=/srv", False),
    ],
)
def test_a_unit_uses_a_folder_that_it_names_or_mounts(text: str, named: bool) -> None:
    assert bool(unused(texts={"u": text}).folder("/srv/m")) is named


def test_an_image_is_used_by_its_id_and_its_whole_name() -> None:
    by_id = unused(containers=[{"Names": ["/a"], "ImageID": "sha256:1", "Image": "other:1", "State": "created"}])
    assert by_id.image(["x:1"], "sha256:1")
    spec = unused(texts={"spec": '{"image": "reg:5000/x:10"}'})
    assert spec.image(["reg:5000/x:10"], "")
    assert not spec.image(["reg:5000/x:1"], "")
    assert not spec.image(["x:10"], "")


def test_a_generation_keeps_its_image_by_id_until_it_goes_itself() -> None:
    record = "/var/lib/sparkops/generations/q/1.json"
    found = unused(texts={record: '{"image": ["reg:5000/x:1", "sha256:1"]}'})
    assert found.image([], "sha256:1") and found.image(["reg:5000/x:1"], "sha256:2")
    assert not found.without({"/var/lib/sparkops/generations/q"}).image([], "sha256:1")
    assert found.without({"/var/lib/sparkops/generations/other"}).image([], "sha256:1")


def claimed(state_dir: Path, cluster: str, *keys: str) -> None:
    for key in keys:
        kept = {"path": key.partition(" ")[2], "type": "directory"}
        claims.note(str(state_dir), cluster, {key: kept}, [])


@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_what_the_clusters_former_name_claims_is_its_own_before_the_first_apply_under_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    """Nothing of it is another cluster's, and nothing of another cluster is its own; claims are filed as it acts."""
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    state = tmp_path / "state"
    mine, theirs = (published(state / "models/o--n" / name) for name in ("mine", "theirs"))
    claimed(state, "attic", f"checkpoint {mine}")
    claimed(state, "cellar", f"checkpoint {theirs}")
    about = {"state_dir": str(state), "cluster": "rack", "former": "attic", "kinds": ["checkpoint"], "foreign": False}
    args = {**about, "declared": {}}
    if applied:
        claims.take_over(str(state), "rack", "attic")
    kept = {each["name"]: each["kept"] and each["kept"]["id"] for each in gc.look(None, args)}  # type: ignore[arg-type]
    assert kept == {str(mine): None, str(theirs): "gc-used-by-cluster"}
    needed = {**args, "declared": {"folders": [str(mine)]}}
    assert all(each["kept"] for each in gc.look(None, needed)), "what the inventory needs stays"  # type: ignore[arg-type]
    strange = {**args, "former": ""}
    assert all(each["kept"] for each in gc.look(None, strange)) is not applied  # type: ignore[arg-type]

    items = [["checkpoint", str(each)] for each in (mine, theirs)]
    answers = gc.remove(Call(1, lambda _: None, threading.Event()), {**args, "items": items})
    assert [bool(each["left"]) for each in answers] == [False, True]
    assert not mine.exists() and theirs.exists()
    records = claim_records.records(str(state))
    assert records == {"rack": {}, "cellar": records["cellar"]} and records["cellar"]


def test_what_is_used_since_the_removal_of_another_thing_began_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large folder is removed for minutes, in which somebody may begin to use the next one."""
    monkeypatch.setattr(docker, "SOCKET", str(tmp_path / "docker.sock"))
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "jobs"))
    monkeypatch.setattr(gc, "FRESH", -1.0)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    state = tmp_path / "state"
    one, two = (published(state / "models/o--n" / name) for name in ("one", "two"))
    claimed(state, "rack", f"checkpoint {one}", f"checkpoint {two}")
    about = {"state_dir": str(state), "cluster": "rack", "former": "rack", "kinds": ["checkpoint"], "foreign": False}
    handles: list[int] = []

    def begin(message: dict[str, Any]) -> None:
        if message["progress"]["done"] == 1:
            folder = Path(jobs.folder_of(f"checkpoint {two}"))
            folder.mkdir(parents=True)
            (folder / "job.json").write_text(json.dumps({"key": f"checkpoint {two}"}))
            handles.append(os.open(folder / "lock", os.O_RDWR | os.O_CREAT))
            fcntl.flock(handles[0], fcntl.LOCK_EX)

    items = [["checkpoint", str(one)], ["checkpoint", str(two)]]
    answers = gc.remove(Call(1, begin, threading.Event()), {**about, "declared": {}, "items": items})  # type: ignore[typeddict-item]
    os.close(handles[0])
    assert [each["left"] and each["left"]["id"] for each in answers] == [None, "gc-job-working"]  # type: ignore[index]
    assert not one.exists() and two.exists()


def published(folder: Path, *extra: str) -> Path:
    (folder / ".sparkops").mkdir(parents=True)
    record = {"repository": "o/n", "commit": "0" * 40, "files": [["a", 5000, "sha256:0"]]}
    (folder / ".sparkops/manifest.json").write_text(json.dumps(record))
    for name in ("a", *extra):
        (folder / name).write_bytes(b"x" * 5000)
    return folder


def kept(folder: Path, found: Uses | None = None, declared: tuple[str, ...] = (), claim: bool = True) -> dict[str, str]:
    """The ids of the reasons by what they keep, "" for what can go."""
    items = folder_items(str(folder), list(declared), found or unused(), claims=["checkpoint"] if claim else [])
    return {
        f"{item['kind']} {os.path.basename(item['name'])}": item["kept"]["id"] if item["kept"] else "" for item in items
    }


def test_only_a_folder_that_holds_what_its_record_says_can_go(tmp_path: Path) -> None:
    assert kept(published(tmp_path / "m")) == {"checkpoint m": ""}
    assert kept(published(tmp_path / "n", "b")) == {"checkpoint n": "gc-foreign-files"}
    (tmp_path / "bare").mkdir()
    assert kept(tmp_path / "bare") == {"checkpoint bare": "gc-without-record"}
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert kept(tmp_path / "link") == {"checkpoint link": "checkpoint-not-a-folder"}
    assert kept(tmp_path / "nothing") == {"checkpoint nothing": ""}, "the claim goes"
    assert kept(tmp_path / "nothing", claim=False) == {}


def test_a_fetch_that_is_declared_or_running_is_resumed_and_a_dead_one_goes(tmp_path: Path) -> None:
    (tmp_path / ".m.sparkops-partial").mkdir()
    (tmp_path / ".m.sparkops-old").mkdir()
    folder = tmp_path / "m"
    partial, old = "leftover .m.sparkops-partial", "leftover .m.sparkops-old"
    assert kept(folder, claim=False) == {partial: "", old: ""}
    assert kept(folder, declared=(str(folder),)) == {partial: "gc-resumable", old: ""}
    running = unused(working=[f"checkpoint {folder}"])
    assert set(kept(folder, running).values()) == {"gc-job-working"}


def test_folders_are_known_by_claims_by_indexes_and_by_where_they_stand(tmp_path: Path) -> None:
    for path in ("models/o--n/main", "models/o--x/.dev.sparkops-partial", "verified"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "verified/1.json").write_text(json.dumps({"folder": "/srv/indexed", "files": {}}))
    (tmp_path / "verified/2.json").write_text("torn")
    found = folders(str(tmp_path), {"checkpoint /srv/claimed": {}, "file /etc/x": {}})
    inside = {f"{tmp_path}/models/o--n/main", f"{tmp_path}/models/o--x/dev"}
    assert found == {"/srv/claimed", "/srv/indexed", *inside}


def test_a_file_with_another_name_elsewhere_frees_nothing(tmp_path: Path) -> None:
    folder = published(tmp_path / "m")
    (folder / "same").hardlink_to(folder / "a")
    whole = folder_items(str(folder), [], unused(), claims=["checkpoint"])[0]["bytes"]
    (tmp_path / "cache").hardlink_to(folder / "a")
    assert folder_items(str(folder), [], unused(), claims=["checkpoint"])[0]["bytes"] <= whole - 5000


def test_a_folder_stays_where_docker_is_there_and_does_not_tell_who_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = published(tmp_path / "m")
    root, socket = tmp_path / "root", tmp_path / "root" / docker.SOCKET[1:]
    (root / "proc").mkdir(parents=True)
    socket.parent.mkdir(parents=True)
    socket.touch()
    found = uses.look(str(tmp_path / "state"), {}, root=str(root))
    (item,) = folder_items(str(folder), [], found, claims=["checkpoint"])
    assert item["unknown"]
    assert (item["kept"]["id"], item["kept"]["args"]["reason"]["id"]) == ("gc-use-unknown", "docker-not-running")
    declared = folder_items(str(folder), [str(folder)], found, claims=["checkpoint"])[0]
    assert (declared["kept"], declared["unknown"]) == (DECLARED, False)
    socket.unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    found = uses.look(str(tmp_path / "state"), {}, root=str(root))
    (item,) = folder_items(str(folder), [], found, claims=["checkpoint"])
    assert (item["kept"], item["unknown"]) == (None, False)


def test_what_is_not_known_has_its_own_exit_status() -> None:
    item = Item(node="n1", kind="checkpoint", name="/m", bytes=9, kept="it is not known", unknown=True)
    assert Reclaimable(cluster="c", items=(item,)).exit_status == 3


def test_the_node_is_looked_at_for_units_and_drop_ins(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    (units / "a.service.d").mkdir(parents=True)
    (units / "a.service.d/x.conf").write_text("drop-in")
    (units / "b.service").write_text("unit")
    (units / "c.service").symlink_to("/dev/null")
    assert set(dict(uses.texts(str(tmp_path))).values()) == {"drop-in", "unit", ""}


def test_what_only_goes_with_it_does_not_use_it() -> None:
    spec = json.dumps({"container": "sparkops-qwen", "image": "x:1", "mounts": [{"source": "/srv/m"}]})
    texts = {"/etc/sparkops/services/qwen.json": spec, "/etc/systemd/system/other.service": "ExecStart=vllm /srv/o"}
    own = {"Names": ["/sparkops-qwen"], "State": "running", "Mounts": [{"Source": "/srv/m"}], "Image": "x:1"}
    found = unused(texts=texts, containers=[own], programs={7: ["vllm", "/srv/m"]})
    assert found.folder("/srv/m")
    left = found.without({"/etc/sparkops/services/qwen.json"})
    assert left.folder("/srv/m") is None
    assert left.image(["x:1"], "") is None
    assert left.folder("/srv/o"), "another unit uses it still"
    somebodys = {**own, "Names": ["/somebodys"]}
    assert unused(texts=texts, containers=[own, somebodys]).without({*texts}).folder("/srv/m")
    blind = unused(blind={"id": "docker-not-running", "args": {}}).without(set())
    assert blind.folder("/srv/m") == blind.unknown
