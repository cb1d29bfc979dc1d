"""The node half of `checkpoint` on a temporary folder, against a hub on this machine: fetch, proof, adoption."""

import contextlib
import errno
import json
import os
import pwd
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints.hub import HubUnreachable
from sparkops.core.plan import Action, Step
from sparkops.core.secrets import Secret
from sparkops.programs.checkpoints.folder import CheckpointFolder
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.checkpoints.proof import identity
from sparkops.resources.checkpoint import Checkpoint
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds import checkpoint
from sparkops.worker.reclaiming.checkpoints import folder_items
from sparkops.worker.record import uses
from sparkops.worker.system import jobs
from tests.errors import fails
from tests.lab.hub import Fault, Hub
from tests.worker.nodes import apply, call, differing

REPO = "org/tiny"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
Declare = Callable[..., Checkpoint]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", 1)


@pytest.fixture
def declare(hub: Hub, tmp_path: Path, model: Path) -> Declare:
    """A checkpoint of the hub's repository in `models/tiny`, prepared; keywords as the kind has them."""
    hub.add_repo(REPO, model)

    def make(**more: Any) -> Checkpoint:
        given = {"repository": REPO, "endpoint": hub.endpoint, "adopt": (), "segment": 64 << 10, "stall": 2.0, **more}
        given.setdefault("name", str(tmp_path / "models" / "tiny"))
        return Checkpoint(node="n1", state_dir=str(tmp_path / "state"), **given).prepare()

    return make


def write_model(folder: Path, seed: int) -> Path:
    """Two shards, a config and a file in a sub-folder; the same for the same seed."""
    chance = random.Random(seed)
    (folder / "extra").mkdir(parents=True, exist_ok=True)
    (folder / "model-1.safetensors").write_bytes(chance.randbytes(700_001))
    (folder / "model-2.safetensors").write_bytes(chance.randbytes(300_000))
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "extra" / "empty.txt").write_bytes(b"")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without sparkops' own."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".sparkops" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def step(one: Checkpoint, action: Action) -> Step:
    """A step for it, as far as its material depends on one."""
    return Step(id=one.id, kind=one.kind, node=one.node, action=action, before=None, after=one.desired(), changes=())


def found(one: Checkpoint) -> dict[str, Any]:
    state = checkpoint.observe(one.ask())
    assert state is not None
    return state


def beside(one: Checkpoint) -> list[str]:
    return sorted(os.listdir(Path(one.name).parent))


def test_a_checkpoint_is_fetched_whole_and_then_left_alone(declare: Declare, hub: Hub, model: Path) -> None:
    one = declare()
    assert apply(one) == ["existence"]
    assert content(Path(one.name)) == content(model)
    assert beside(one) == ["tiny"]
    assert hub.bytes_sent() == sum(map(len, content(model).values()))
    hub.forget()
    assert apply(one) == []
    assert hub.bytes_sent() == 0


def test_a_changed_shard_of_the_same_size_is_seen_and_it_alone_is_fetched_again(
    declare: Declare, hub: Hub, model: Path
) -> None:
    one = declare()
    apply(one)
    with (Path(one.name) / "model-2.safetensors").open("r+b") as shard:
        shard.seek(1000)
        shard.write(b"rot")
    hub.forget()
    assert found(one)["unverified"] == ["model-2.safetensors"]
    assert apply(one) == ["unverified"]
    assert content(Path(one.name)) == content(model)
    assert hub.bytes_sent("model-1*") == hub.bytes_sent("config*") == 0
    assert hub.bytes_sent("model-2*") == 300_000
    assert beside(one) == ["tiny"]
    assert apply(one) == []


def test_a_touched_file_with_the_right_content_is_hashed_and_not_fetched(declare: Declare, hub: Hub) -> None:
    one = declare()
    apply(one)
    (Path(one.name) / "model-1.safetensors").touch()
    hub.forget()
    assert apply(one) == ["unverified"]
    assert hub.bytes_sent() == 0


def test_missing_and_cut_files_are_named_and_brought_back(declare: Declare, model: Path) -> None:
    one = declare()
    apply(one)
    (Path(one.name) / "config.json").unlink()
    os.truncate(Path(one.name) / "model-1.safetensors", 10)
    state = found(one)
    assert (state["missing"], state["wrong"]) == (["config.json"], ["model-1.safetensors"])
    apply(one)
    assert content(Path(one.name)) == content(model)


def test_a_folder_with_the_right_files_and_no_record_is_proven_instead_of_fetched(
    declare: Declare, hub: Hub, model: Path
) -> None:
    one = declare()
    shutil.copytree(model, one.name)
    inode = (Path(one.name) / "model-1.safetensors").stat().st_ino
    hub.forget()
    assert "manifest" in apply(one)
    assert hub.bytes_sent() == 0
    assert (Path(one.name) / "model-1.safetensors").stat().st_ino == inode
    assert apply(one) == []


def test_a_folder_of_somebody_else_stays_beside_whole_and_what_is_not_in_the_way_comes_along(
    declare: Declare, model: Path
) -> None:
    one = declare()
    folder = write_model(Path(one.name), 2)
    shutil.copy(model / "model-2.safetensors", folder)
    (folder / "README.md").write_text("mine")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    folder.chmod(0o750)
    before = content(folder)
    assert one.notices(found(one))[0].id == "checkpoint-folder-foreign"
    said: list[dict[str, Any]] = []
    checkpoint.converge(
        Call(1, said.append, threading.Event()), one.ask(), found(one), one.desired(), one.act(step(one, "update"))
    )
    kept = Path(f"{one.name}.before-sparkops")
    assert content(kept) == before
    assert content(folder) == {**content(model), "README.md": b"mine"}
    assert (folder / "empty").is_dir() and (folder / "pipe").is_fifo()
    assert folder.stat().st_mode & 0o777 == 0o750
    (notice,) = [message["progress"]["notice"] for message in said if "notice" in message["progress"]]
    assert notice == {
        "id": "folder-set-aside",
        "args": {"folder": one.name, "aside": str(kept), "files": ["config.json", "model-1.safetensors"]},
    }
    assert apply(one) == [] and one.notices(found(one)) == ()


def test_what_was_set_aside_is_listed_by_gc_and_kept(declare: Declare) -> None:
    one = declare()
    write_model(Path(one.name), 2)
    apply(one)
    kept = f"{one.name}.before-sparkops"
    listed = folder_items(one.name, [], uses.Uses([], {}, {}, {}, []), claims=[])
    assert [(each["name"], (each["kept"] or {}).get("id")) for each in listed] == [
        (kept, "gc-set-aside"),
        (one.name, None),
    ]


def test_a_second_folder_of_somebody_else_does_not_take_the_place_of_the_first(declare: Declare) -> None:
    one = declare()
    for seed in (2, 3):
        write_model(Path(one.name), seed)
        apply(one)
        shutil.rmtree(Path(one.name))
    assert beside(one) == ["tiny.before-sparkops", "tiny.before-sparkops-2"]
    assert json.loads((Path(one.name).parent / "tiny.before-sparkops-2" / "config.json").read_text()) == {"seed": 3}


def test_a_partial_folder_with_nothing_to_lose_leaves_nothing_beside(declare: Declare, model: Path) -> None:
    one = declare()
    Path(one.name).mkdir(parents=True)
    shutil.copy(model / "model-1.safetensors", one.name)
    apply(one)
    assert content(Path(one.name)) == content(model)
    assert beside(one) == ["tiny"]


def test_a_file_of_somebody_else_that_a_new_commit_has_too_is_not_lost(declare: Declare, hub: Hub, model: Path) -> None:
    apply(declare())
    (Path(declare().name) / "notes.txt").write_text("somebody's own")
    (model / "notes.txt").write_text("the publisher's")
    hub.add_repo(REPO, model)
    one = declare()
    apply(one)
    assert content(Path(one.name)) == content(model)
    assert (Path(f"{one.name}.before-sparkops") / "notes.txt").read_text() == "somebody's own"


def test_a_moved_branch_brings_the_new_files_and_keeps_what_is_equal(declare: Declare, hub: Hub, model: Path) -> None:
    apply(declare())
    (Path(declare().name) / "mine.jinja").write_text("somebody's own")
    (model / "config.json").write_text("{}")
    (model / "extra" / "empty.txt").unlink()
    hub.add_repo(REPO, model)
    hub.forget()
    one = declare()
    assert {"commit", "manifest"} <= set(apply(one))
    assert content(Path(one.name)) == {**content(model), "mine.jinja": b"somebody's own"}
    assert hub.bytes_sent("*.safetensors") == 0


def test_a_folder_that_the_file_system_does_not_move_is_told_and_nothing_is_left_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P22: a folder of an overlay's lower layer; the file system says that it is on another device."""
    place = CheckpointFolder(str(tmp_path / "m"))
    staging = place.stage(pwd.getpwuid(os.getuid()))

    def refuse(one: str, other: str) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), one)

    monkeypatch.setattr(os, "rename", refuse)
    with fails("folder-cannot-be-moved", Refused):
        place.publish(staging)
    os.close(staging)
    assert os.listdir(tmp_path) == []


def test_another_folder_of_the_same_commit_is_linked_unread_and_not_fetched(
    declare: Declare, hub: Hub, tmp_path: Path, model: Path
) -> None:
    """A branch that is pinned by hand has another folder; a content that was changed since it was read is fetched."""
    one = declare()
    apply(one)
    (Path(one.name) / "config.json").write_text("rotten")
    hub.forget()
    pinned = declare(revision=one.manifest.commit, name=str(tmp_path / "models" / "pinned"))  # type: ignore[union-attr]
    assert apply(pinned) == ["existence"]
    assert content(Path(pinned.name)) == content(model)
    assert hub.bytes_sent() == hub.bytes_sent("config*") > 0
    shards = [Path(each.name) / "model-1.safetensors" for each in (one, pinned)]
    assert shards[0].samefile(shards[1])
    assert (found(one)["unverified"], found(one)["wrong"]) == ([], ["config.json"]), (
        "what is linked stays verified there"
    )
    assert apply(pinned) == []
    assert (
        checkpoint.verify(call(), {"folder": pinned.name, "state_dir": pinned.state_dir, "again": True})["wrong"] == []
    )


def test_what_is_linked_from_stays_verified_while_the_rest_is_fetched(
    declare: Declare, hub: Hub, tmp_path: Path
) -> None:
    """A link changes a file's ctime: for hours a drift said of the other folder that its files were unverified."""
    one = declare()
    apply(one)
    (Path(one.name) / "config.json").write_text("rotten")
    hub.fail("config*", Fault(delay=2.0))
    pinned = declare(commit=one.manifest.commit, name=str(tmp_path / "models" / "pinned"), stall=20.0)  # type: ignore[union-attr]
    running = threading.Thread(target=apply, args=[pinned], daemon=True)
    running.start()
    folder = jobs.folder_of(f"checkpoint {pinned.name}")
    while not str(jobs.last_progress(folder).get("text")).startswith("fetching"):
        time.sleep(0.01)
    assert Path(pinned.name).exists() is False
    assert (found(one)["unverified"], found(one)["wrong"]) == ([], ["config.json"])
    running.join(20)
    assert (found(one)["unverified"], found(pinned)["unverified"]) == ([], [])


def test_a_pinned_commit_with_a_known_manifest_needs_no_hub(declare: Declare, hub: Hub) -> None:
    one = declare()
    apply(one)
    assert one.manifest is not None
    commit = one.manifest.commit
    hub.fail("*", Fault(stage="info", status=429))
    hub.fail("*", Fault(stage="tree", status=429))
    hub.forget()
    assert apply(declare(revision=commit)) == []
    assert apply(declare(commit=commit)) == []
    assert hub.requests == ()
    with pytest.raises(HubUnreachable) as caught:
        declare()
    assert caught.value.id == "hub-rate-limited"


def test_files_can_be_chosen_by_patterns(declare: Declare) -> None:
    one = declare(include=("*.json", "extra/"))
    apply(one)
    assert set(content(Path(one.name))) == {"config.json", "extra/empty.txt"}


def test_other_weights_than_the_indexed_go_and_come_by_links_alone(declare: Declare, hub: Hub, model: Path) -> None:
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (model / "pytorch_model.bin").write_bytes(b"x" * 5000)
    hub.add_repo(REPO, model)
    one = declare()
    apply(one)
    inode = (Path(one.name) / "model-1.safetensors").stat().st_ino
    hub.forget()
    only = declare(only="indexed")
    assert apply(only) == ["manifest", "size"]
    assert content(Path(one.name)).keys() == content(model).keys() - {"pytorch_model.bin"}
    assert (Path(one.name) / "model-1.safetensors").stat().st_ino == inode
    assert [each for each in hub.requests if each.file] == [hub.requests_for("model.safetensors.index.json")[0]]
    apply(declare())
    assert content(Path(one.name)) == content(model)
    assert hub.bytes_sent("*.safetensors") == 0


@as_root
def test_the_files_belong_to_the_owner_who_needs_no_way_through_the_state_folder(
    declare: Declare, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    one = declare(name=str(tmp_path / "closed" / "tiny"), owner="nobody")
    apply(one)
    assert found(one)["owner"] == "nobody"
    assert (Path(one.name) / "model-1.safetensors").owner() == "nobody"
    assert apply(declare(name=one.name, owner="daemon")) == ["owner"]
    assert (Path(one.name) / "model-1.safetensors").owner() == "daemon"


def test_leftovers_of_a_given_up_upgrade_are_seen_and_removed(declare: Declare) -> None:
    one = declare()
    apply(one)
    (Path(one.name).parent / ".tiny.sparkops-partial").mkdir()
    assert apply(one) == ["leftover"]
    assert beside(one) == ["tiny"]


def test_a_link_in_the_folders_place_is_unknown_and_never_followed(declare: Declare, tmp_path: Path) -> None:
    one = declare()
    Path(one.name).parent.mkdir()
    os.symlink(tmp_path, one.name)
    with pytest.raises(AssertionError, match="checkpoint-not-a-folder"):
        apply(one)


def test_deep_verification_hashes_again_what_was_hashed_long_ago(declare: Declare, tmp_path: Path) -> None:
    one = declare(verify="deep")
    apply(one)
    assert apply(one) == []
    (index,) = (tmp_path / "state" / "verified").iterdir()
    record = json.loads(index.read_text())
    record["files"] = {mark: [oid, at - 90_000] for mark, (oid, at) in record["files"].items()}
    index.write_text(json.dumps(record))
    assert found(declare())["unverified"] == []
    assert len(found(one)["unverified"]) == 4
    assert apply(one) == ["unverified"]
    assert apply(one) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop_after=20_000),
        Fault(status=503),
        Fault(stage="resolve", status=429, retry_after=1),
        Fault(status=403),
        Fault(stall_after=1000, stall=10),
        Fault(corrupt_at=5),
        Fault(stage="resolve", status=500),
    ],
    ids=["dropped", "503", "429", "expired", "stalled", "corrupt", "500"],
)
def test_a_passing_fault_is_survived(declare: Declare, hub: Hub, model: Path, fault: Fault) -> None:
    hub.fail("*.safetensors", fault, times=1)
    one = declare()
    apply(one)
    assert content(Path(one.name)) == content(model)


def test_a_server_that_ignores_ranges_is_read_from_the_start(declare: Declare, hub: Hub, model: Path) -> None:
    hub.fail("*.safetensors", Fault(ignore_range=True))
    one = declare()
    apply(one)
    assert content(Path(one.name)) == content(model)


@pytest.mark.parametrize(
    ("path", "fault", "id", "args"),
    [
        ("model-1*", Fault(corrupt_at=5), "hub-content-wrong", {}),
        ("model-1*", Fault(size_delta=-1), "hub-size-wrong", {"served": "700000 bytes", "expected": 700_001}),
        ("config*", Fault(size_delta=3), "hub-size-wrong", {}),
        ("model-1*", Fault(stage="resolve", status=401), "hub-access-denied-without-token", {"status": 401}),
        ("model-1*", Fault(stage="resolve", status=404), "hub-file-not-served", {"status": 404}),
    ],
    ids=["corrupt", "short", "long", "401", "404"],
)
def test_a_lasting_fault_is_told_and_leaves_nothing_half_published(
    declare: Declare, hub: Hub, model: Path, path: str, fault: Fault, id: str, args: dict[str, Any]
) -> None:
    hub.fail(path, fault)
    one = declare(token=None)
    with pytest.raises(Refused) as caught:
        apply(one)
    assert caught.value.id == id
    assert caught.value.values.items() >= args.items()
    assert "of org/tiny@" in caught.value.values["file"]
    assert not os.path.exists(one.name)
    hub.heal()
    apply(one)
    assert content(Path(one.name)) == content(model)


def test_the_token_goes_to_the_hub_and_never_to_the_store(declare: Declare, hub: Hub) -> None:
    hub.grant("hf_secret", REPO)
    one = declare(token=Secret("hf_secret"))
    apply(one)
    seen = {(each.origin, each.authorization) for each in hub.requests if each.file}
    assert seen == {("hub", "Bearer hf_secret"), ("store", None)}


def test_too_small_a_disk_is_told_before_anything_is_fetched(declare: Declare, hub: Hub) -> None:
    one = declare()
    hub.forget()
    act = one.act(step(one, "create"))
    manifest = json.loads(act["manifest"])
    manifest["files"] = [[path, size + (1 << 50), oid] for path, size, oid in manifest["files"]]
    act["manifest"] = json.dumps(manifest)
    with pytest.raises(Refused) as caught:
        checkpoint.converge(call(), one.ask(), None, one.desired(), act)  # type: ignore[arg-type]
    assert caught.value.id == "disk-space-too-small"
    assert caught.value.values["folder"] == one.name and caught.value.values["needed"] > 1 << 50
    assert hub.bytes_sent() == 0


def test_a_killed_fetch_goes_on_where_it_was(declare: Declare, hub: Hub, model: Path) -> None:
    (model / "model-1.safetensors").write_bytes(random.Random(2).randbytes(4_000_000))
    hub.add_repo(REPO, model)
    hub.fail("model-1*", Fault(rate=250_000))
    one = declare(connections=2, segment=1 << 20, include=("model-1*",))
    ended: list[Refused] = []

    def run() -> None:
        try:
            apply(one)
        except Refused as error:
            ended.append(error)

    running = threading.Thread(target=run, daemon=True)
    running.start()
    folder = jobs.folder_of(f"checkpoint {one.name}")
    journal = Path(one.name).parent / ".tiny.sparkops-partial" / ".sparkops" / "content"

    def arrived() -> int:
        done = [json.loads(each.read_text()).get("done", []) for each in journal.glob("*.json")]
        return sum(end - start for start, end in done[0]) if done else 0

    wait_for(lambda: arrived() > 1_500_000)
    os.kill(json.loads(Path(folder, "job.json").read_text())["pid"], signal.SIGKILL)
    running.join(60)
    assert not jobs.alive(folder)
    assert isinstance(ended[0], Refused) and ended[0].id == "job-killed"
    hub.heal()
    wait_for(lambda: not hub.answering)
    hub.forget()
    apply(one)
    assert content(Path(one.name)) == {"model-1.safetensors": (model / "model-1.safetensors").read_bytes()}
    assert hub.bytes_sent("model-1*") <= 4_000_000 - 1_500_000


def hf_cache(home: Path, model: Path, commit: str) -> Path:
    """The model as the hub's client leaves it: blobs, and a snapshot of links to them."""
    repo = home / "hub" / "models--org--tiny"
    (repo / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in model.rglob("*") if path.is_file())):
        blob = repo / "blobs" / f"etag{number}"
        shutil.copy(path, blob)
        link = repo / "snapshots" / commit / path.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return repo


def test_a_cache_of_the_hubs_client_is_adopted_by_hard_links(
    declare: Declare, hub: Hub, model: Path, tmp_path: Path
) -> None:
    repo = hf_cache(tmp_path / "hf", model, "0" * 40)
    before = {path: path.read_bytes() for path in (repo / "blobs").iterdir()}
    one = declare(adopt=(str(tmp_path / "hf"),))
    hub.forget()
    apply(one)
    assert hub.bytes_sent("*.safetensors") == 0
    assert content(Path(one.name)) == content(model)
    assert (Path(one.name) / "model-1.safetensors").stat().st_nlink == 2
    assert {path: path.read_bytes() for path in (repo / "blobs").iterdir()} == before


def test_a_rotten_or_dangling_cache_is_not_believed(declare: Declare, hub: Hub, model: Path, tmp_path: Path) -> None:
    repo = hf_cache(tmp_path / "hf", model, "0" * 40)
    blobs = {path.stat().st_size: path for path in (repo / "blobs").iterdir()}
    blobs[700_001].write_bytes(b"x" * 700_001)
    blobs[300_000].unlink()
    one = declare(adopt=(str(tmp_path / "hf"),))
    apply(one)
    assert content(Path(one.name)) == content(model)
    assert blobs[700_001].read_bytes() == b"x" * 700_001


def test_an_unknown_owner_is_told(declare: Declare) -> None:
    with pytest.raises(Refused) as caught:
        apply(declare(owner="nobody-here"))
    assert caught.value.id == "user-missing"


def test_a_retired_checkpoint_goes_only_with_our_record(declare: Declare) -> None:
    one = declare()
    Path(one.name).mkdir(parents=True)
    with pytest.raises(Refused) as caught:
        checkpoint.converge(call(), one.ask(), found(one), None, {})
    assert caught.value.id == "checkpoint-without-record"
    apply(one)
    checkpoint.converge(call(), one.ask(), found(one), None, {})
    assert beside(one) == []
    assert differing(one, None) == ["existence"]


def test_a_replaced_checkpoint_is_read_and_hashed_again_though_it_was_proven(declare: Declare, hub: Hub) -> None:
    one = declare()
    apply(one)
    hub.forget()
    said: list[dict[str, Any]] = []
    before, want = found(one), one.desired()
    time.sleep(1.1)
    checkpoint.converge(Call(1, said.append, threading.Event()), one.ask(), before, want, one.act(step(one, "replace")))
    after = found(one)
    assert after["hashed"] > before["hashed"]
    assert {**after, "hashed": ""} == {**before, "hashed": ""}
    assert hub.bytes_sent() == 0


def test_what_was_read_where_it_lies_is_linked_unread_until_it_is_touched(
    declare: Declare, model: Path, tmp_path: Path
) -> None:
    one = declare(adopt=(str(model),))
    shard = model / "model-1.safetensors"
    assert one.manifest is not None
    (oid,) = [oid for path, _, oid in json.loads(one.manifest.canonical)["files"] if path == shard.name]
    shard.write_bytes(b"x" * 700_001)
    index = Index(one.state_dir, one.name)
    index.note(identity(shard.stat()), oid)
    index.save()
    order = {"ask": one.ask(), "act": one.act(step(one, "create"))}
    missing = [path for path, *_ in checkpoint.missing(call(), order)]
    assert shard.name not in missing, "the index says what it holds"

    shutil.rmtree(Path(one.name).parent)
    os.utime(shard)
    missing = [path for path, *_ in checkpoint.missing(call(), order)]
    assert shard.name in missing, "it was touched since: it is read, and found to be another"


def test_a_new_apply_goes_on_from_another_source_where_that_changed(
    declare: Declare, hub: Hub, model: Path, tmp_path: Path
) -> None:
    one = declare(connections=1)
    hub.fail("model-1*", Fault(rate=12_000))
    slow = threading.Thread(target=_quiet, args=(one,), daemon=True)
    slow.start()
    wait_for(lambda: hub.bytes_sent() > 100_000)
    with Hub() as other:
        other.add_repo(REPO, model)
        moved = declare(connections=1, endpoint=other.endpoint)
        began = time.monotonic()
        apply(moved)
        assert time.monotonic() - began < 40, "a minute, where all comes from the slow one"
        assert content(Path(one.name)) == content(model)
        assert other.bytes_sent() < sum(map(len, content(model).values())), "what had arrived was kept"
    slow.join(60)


def _quiet(one: Checkpoint) -> None:
    with contextlib.suppress(Refused, AssertionError):
        apply(one)


def wait_for(true: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
