"""The node half of `built_checkpoint` on a temporary folder, donors on a hub here: identity, repair, resumption."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkops.checkpoints.authority import Authority
from sparkops.core.plan import Step
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.transfers.source import Upstream
from sparkops.worker import dispatch
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import built_checkpoint, checkpoint
from sparkops.worker.reclaiming.checkpoints import folder_items
from sparkops.worker.record import uses
from sparkops.worker.system import jobs
from tests.errors import fails
from tests.lab.hub import Fault, Hub
from tests.worker import checkpoints_made as made
from tests.worker.nodes import apply, call, differing

BASE, DONOR = "org/int4", "org/fp8"
STEPS = ({"hybrid": {"donor": DONOR}},)
Declare = Callable[..., BuiltCheckpoint]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base and its donors, written once."""
    root = tmp_path_factory.mktemp("models")
    shape = made.SMALL
    made.save(root / "int4", made.autoround(shape), made.autoround_config(shape))
    made.save(root / "fp8", made.fp8(shape), made.config(shape))
    made.save(root / "other", made.fp8(shape, seed=1), made.config(shape))
    return root


@pytest.fixture
def hub(models: Path) -> Iterator[Hub]:
    with Hub() as running:
        running.add_repo(BASE, models / "int4")
        running.add_repo(DONOR, models / "fp8")
        running.add_repo("org/other", models / "other")
        yield running


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "RUN", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def base(hub: Hub, tmp_path: Path) -> Checkpoint:
    """The base, on the node."""
    one = Checkpoint(
        node="n1",
        name=str(tmp_path / "models" / "base"),
        repository=BASE,
        endpoint=hub.endpoint,
        adopt=(),
        state_dir=str(tmp_path / "state"),
    ).prepare()
    apply(one)
    return one


@pytest.fixture
def declare(hub: Hub, base: Checkpoint, tmp_path: Path) -> Declare:
    def make(**more: Any) -> BuiltCheckpoint:
        given: dict[str, Any] = {"steps": STEPS, "stall": 2.0, "name": str(tmp_path / "models" / "built"), **more}
        return BuiltCheckpoint(
            node="n1",
            base=base.name,
            repository=BASE,
            endpoint=hub.endpoint,
            state_dir=str(tmp_path / "state"),
            **given,
        ).prepare()

    return make


def found(one: BuiltCheckpoint) -> dict[str, Any]:
    state = built_checkpoint.observe(one.ask())
    assert state is not None
    return state


def inodes(one: BuiltCheckpoint) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in Path(one.name).iterdir() if path.is_file()}


def beside(one: BuiltCheckpoint) -> list[str]:
    return sorted(os.listdir(Path(one.name).parent))


def shards(one: BuiltCheckpoint) -> list[Path]:
    return sorted(Path(one.name).glob("*.safetensors"))


def test_it_is_built_once_and_neither_it_nor_its_base_is_touched_or_hashed_again(
    declare: Declare, base: Checkpoint, hub: Hub
) -> None:
    one = declare()
    assert apply(one) == ["existence"]
    assert beside(one) == ["base", "built"]
    tensors = made.load(Path(one.name))
    assert sum(dtype == "F8_E4M3" for dtype, _, _ in tensors.values()) == 12
    hub.forget()
    assert apply(one) == []
    assert apply(base) == []
    assert hub.bytes_sent() == 0


def test_another_checkpoint_in_its_place_stays_beside(declare: Declare, models: Path) -> None:
    one = declare()
    shutil.copytree(models / "fp8", one.name)
    apply(one)
    assert apply(one) == []
    kept = Path(f"{one.name}.before-sparkops")
    assert made.load(kept) == made.load(models / "fp8")
    assert beside(one) == ["base", "built", "built.before-sparkops"]


def test_links_do_not_hide_that_it_would_be_built_into_its_base(declare: Declare, base: Checkpoint) -> None:
    link = Path(base.name).parent / "elsewhere"
    link.symlink_to(base.name)
    before = sorted(os.listdir(base.name))
    with fails("build-base-overlaps", Refused):
        apply(declare(name=str(link / "built")))
    assert sorted(os.listdir(base.name)) == before


def test_a_damaged_file_is_built_again_alone(declare: Declare) -> None:
    one = declare()
    apply(one)
    before, content = inodes(one), shards(one)[0].read_bytes()
    with shards(one)[0].open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"rot!")
    assert found(one)["unverified"] == [shards(one)[0].name]
    assert apply(one) == ["unverified"]
    assert shards(one)[0].read_bytes() == content
    after = inodes(one)
    assert [each.name for each in shards(one) if after[each.name] != before[each.name]] == [shards(one)[0].name]
    assert beside(one) == ["base", "built"]


def test_a_touched_file_is_hashed_and_stays(declare: Declare) -> None:
    one = declare()
    apply(one)
    before = inodes(one)
    shards(one)[1].touch()
    assert apply(one) == ["unverified"]
    assert inodes(one) == before


def test_a_record_that_somebody_edited_counts_for_nothing(declare: Declare) -> None:
    one = declare()
    apply(one)
    record = Path(one.name) / ".sparkops" / "manifest.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "files": told["files"][:1]}))
    assert (found(one)["identity"], found(one)["steps"]) == ("", [])
    args = {"folder": one.name, "state_dir": one.state_dir, "again": False}
    assert checkpoint.verify(call(), args)["wrong"] == [".sparkops/manifest.json"]
    assert "identity" in apply(one)
    assert json.loads(record.read_text()) == told


def test_a_donor_s_other_commit_is_another_build_and_replaces_the_first_by_one_rename(
    declare: Declare, hub: Hub, tmp_path: Path
) -> None:
    one = declare()
    apply(one)
    (Path(one.name) / "notes.txt").write_text("mine")
    source = tmp_path / "fp8"
    made.save(source, made.fp8(made.SMALL), made.config(made.SMALL))
    (source / "README.md").write_text("a new word")
    hub.add_repo(DONOR, source)
    other = declare()
    assert {"identity", "donors"} <= set(differing(other, found(one)))
    held = os.open(one.name, os.O_RDONLY)
    apply(other)
    assert os.stat(held).st_ino != Path(one.name).stat().st_ino
    assert (Path(one.name) / "notes.txt").read_text() == "mine"
    os.close(held)


def test_numbers_of_another_model_are_refused_and_nothing_is_published(declare: Declare) -> None:
    one = declare(steps=({"hybrid": {"donor": "org/other"}},))
    with fails("hybrid-sample-differs", Refused):
        apply(one)
    assert not Path(one.name).exists()


def test_a_base_that_is_not_there_and_one_that_rotted_are_named(declare: Declare, base: Checkpoint) -> None:
    one = declare()
    path = shards(BuiltCheckpoint(node="n1", name=base.name, base="/x", repository=BASE, steps=STEPS))[0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with fails("checkpoint-file-damaged", Refused):
        apply(one)
    os.rename(base.name, base.name + "-away")
    with fails("build-base-missing", Refused):
        apply(one)
    assert not Path(one.name).exists()


def start(one: BuiltCheckpoint) -> tuple[threading.Thread, list[Any]]:
    """The build in a thread; the list gets what it raised."""
    raised: list[Any] = []

    def run() -> None:
        try:
            apply(one)
        except Refused as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return value


def running(one: BuiltCheckpoint) -> int:
    folder = Path(jobs.folder_of(f"checkpoint {one.name}"))
    path = folder / "job.json"
    return json.loads(path.read_text())["pid"] if path.exists() and jobs.alive(str(folder)) else 0


def test_a_killed_build_goes_on_and_asks_for_no_byte_twice(declare: Declare, hub: Hub) -> None:
    one = declare()
    hub.forget()
    hub.fail("*.safetensors", Fault(rate=40_000))
    thread, raised = start(one)
    wait_for(lambda: hub.bytes_sent("*.safetensors") > 8000)
    os.kill(wait_for(lambda: running(one)), signal.SIGKILL)
    thread.join(60)
    assert raised[0].id == "job-killed"
    assert beside(one) == [".built.sparkops-partial", "base"]
    hub.heal()
    assert apply(one) == ["existence"]
    assert apply(one) == []
    assert beside(one) == ["base", "built"]


def test_a_second_builder_of_the_same_attaches_and_one_of_other_inputs_is_told(declare: Declare, hub: Hub) -> None:
    one, other = declare(), declare(steps=({"hybrid": {"donor": DONOR, "layers": "shared_expert.*"}},))
    hub.fail("*.safetensors", Fault(delay=1.5))
    first, one_raised = start(one)
    wait_for(lambda: running(one))
    second, two_raised = start(one)
    with fails("job-busy", Refused) as caught:
        apply(other)
    assert caught.value.type == "busy"
    hub.heal()
    first.join(60)
    second.join(60)
    assert one_raised == []
    assert two_raised == [] or two_raised[0].type == "stale"
    assert found(one)["identity"] == one.desired()["identity"]


def test_a_donor_s_fault_is_told_with_its_file_and_nothing_is_published(declare: Declare, hub: Hub) -> None:
    one = declare()
    hub.fail("model-00001*", Fault(size_delta=5))
    with fails("hub-size-wrong", Refused):
        apply(one)
    assert not Path(one.name).exists()
    hub.heal()
    assert apply(one) == ["existence"]


def test_verification_and_removal_know_built_folders(declare: Declare, base: Checkpoint, tmp_path: Path) -> None:
    one = declare()
    apply(one)
    args = {"folder": one.name, "state_dir": one.state_dir, "again": True}
    told = checkpoint.verify(call(), args)
    assert (told["wrong"], told["missing"], told["repository"]) == ([], [], BASE)
    assert told["steps"] == found(one)["steps"] == [next(iter(step)) for step in STEPS]
    assert told["donors"] == found(one)["donors"] != []
    assert checkpoint.verify(call(), {**args, "again": False})["steps"] == told["steps"]
    nobody = uses.Uses([], {}, {}, {}, [])
    (item,) = folder_items(one.name, [base.name], nobody, claims=["built_checkpoint"])
    assert item["kept"] is None
    assert all(each["kept"] for each in folder_items(one.name, [one.name], nobody, claims=["built_checkpoint"]))
    built_checkpoint.converge(call(), one.ask(), found(one), None, {})
    assert beside(one) == ["base"]
    assert apply(base) == []


def passed_on(source: BuiltCheckpoint, receiver: BuiltCheckpoint) -> dict[str, Any]:
    """What `converge` of the receiver gets, and with that the source's relay running."""
    way = Upstream(
        source=source,
        receiver=receiver,
        addresses=("127.0.0.1",),
        fabric=True,
        receivers=("n2",),
        authority=(run := Authority()),
    )
    said = built_checkpoint.relay(call(), way._order("127.0.0.1"))
    peer = {**said, "node": "n1", "address": "127.0.0.1", "credentials": run.receiver("n2")}
    step = Step(
        id=receiver.id,
        kind=receiver.kind,
        node="n2",
        action="create",
        before=None,
        after=receiver.desired(),
        changes=(),
    )
    return {
        "kind": receiver.kind,
        "id": receiver.id,
        "ask": receiver.ask(),
        "before": built_checkpoint.observe(receiver.ask()),
        "want": receiver.desired(),
        "action": "create",
        "act": receiver.received(receiver.act(step), peer),
    }


def test_it_is_received_from_the_node_that_built_it_and_is_as_declared(
    declare: Declare, hub: Hub, tmp_path: Path
) -> None:
    source, receiver = declare(), declare(name=str(tmp_path / "models" / "received"))
    apply(source)
    hub.forget()
    assert differing(receiver, dispatch.converge(call(), passed_on(source, receiver))["found"]) == []
    assert hub.bytes_sent() == 0
    records = [(Path(each.name) / ".sparkops" / "manifest.json").read_text() for each in (source, receiver)]
    assert records[0] == records[1]
    assert made.load(Path(receiver.name)) == made.load(Path(source.name))
    base = {path.name: path.stat().st_ino for path in Path(source.base).iterdir()}
    assert set(inodes(receiver).items()) & set(base.items()), "what the base has came over the network"
    assert beside(receiver) == ["base", "built", "received"]


def test_what_a_source_tells_of_its_files_is_not_believed_where_it_leads_outside(declare: Declare) -> None:
    one = declare()
    for lie, id in (
        ([["../x", 1, "sha256:" + "0" * 64]], "manifest-file-invalid"),
        ([["x", "much", "sha256:" + "0" * 64]], "build-files-invalid"),
        ([1], "build-files-invalid"),
        (None, "build-files-invalid"),
    ):
        with fails(id):
            one.received({"donors": [], "manner": {}}, {"node": "n1", "files": lie})


def test_a_folder_whose_record_was_edited_is_not_passed_on(declare: Declare, tmp_path: Path) -> None:
    source = declare()
    apply(source)
    record = Path(source.name) / ".sparkops" / "manifest.json"
    record.write_text(record.read_text() + " ")
    with fails("build-of-other-inputs", Refused):
        passed_on(source, declare(name=str(tmp_path / "models" / "received")))
