"""A damaged file of a checkpoint is mended by its damaged spans alone, and never where services read it."""

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.core.plan import Step
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.fetch.partial_file import Content, make_store
from sparkops.resources.checkpoint import Checkpoint
from sparkops.worker.calls import Call
from sparkops.worker.kinds import checkpoint
from sparkops.worker.system import jobs
from tests.lab.hub import Fault, Hub
from tests.worker.nodes import apply
from tests.worker.test_checkpoint_parts import working_in_a_fresh_folder

REPO = "org/tiny"
SPAN = hashes.SPAN
SIZE = 2 * SPAN + 777
SHARD = "model-1.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Checkpoint, Hub]]:
    """A checkpoint of one shard of two spans and a bit, and a config; each test damages it and has it mended."""
    folder = tmp_path_factory.mktemp("repair")
    (folder / "model").mkdir()
    (folder / "model" / SHARD).write_bytes(random.Random(1).randbytes(SIZE))
    (folder / "model" / "config.json").write_text("{}")
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "RUN", str(folder / "run"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        hub.add_repo(REPO, folder / "model")
        made = Checkpoint(
            node="n1", name=str(folder / "models" / "tiny"), state_dir=str(folder / "state"), repository=REPO,
            endpoint=hub.endpoint, adopt=(), stall=2.0,
        ).prepare()  # fmt: skip
        apply(made)
        yield made, hub


@pytest.fixture
def hub(fetched: tuple[Checkpoint, Hub]) -> Iterator[Hub]:
    fetched[1].forget()
    yield fetched[1]
    fetched[1].heal()


@pytest.fixture
def one(fetched: tuple[Checkpoint, Hub], monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(jobs, "RUN", str(Path(fetched[0].state_dir).parent / "run"))
    return fetched[0]


def shard(one: Checkpoint) -> Path:
    return Path(one.name) / SHARD


def rot(*spans: int) -> Damage:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            for number in spans:
                file.seek(number * SPAN + 100)
                file.write(b"rot")

    return damage


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"tail")


def cut_and_fill(path: Path) -> None:
    os.truncate(path, SPAN + 5)
    os.truncate(path, SIZE)


@pytest.mark.parametrize(
    ("damage", "least"),
    [
        (rot(1), SPAN),
        (rot(0, 2), SPAN + 777),
        (lambda path: os.truncate(path, SPAN + 10), SIZE - SPAN - 10),
        (lambda path: (rot(0)(path), os.truncate(path, 2 * SPAN)), SPAN + 777),
        (lengthen, 0),
        (cut_and_fill, SIZE - SPAN),
    ],
    ids=["one span", "first and last", "cut off", "cut off and rotten", "too long", "a hole"],
)
def test_of_a_damaged_file_only_the_damaged_spans_are_fetched(
    one: Checkpoint, hub: Hub, damage: Damage, least: int
) -> None:
    whole = shard(one).read_bytes()
    damage(shard(one))
    apply(one)
    assert shard(one).read_bytes() == whole
    assert hub.bytes_sent() == least
    assert apply(one) == []


def test_the_damaged_file_itself_stays_as_it_is_for_those_who_read_it(one: Checkpoint) -> None:
    rot(1)(shard(one))
    with shard(one).open("rb") as service:
        damaged = shard(one).read_bytes()
        apply(one)
        assert service.read() == damaged


def prefixes(one: Checkpoint) -> Path:
    (path,) = (Path(one.state_dir) / "verified").glob("*.prefixes.json")
    return path


def test_verifying_alone_is_enough_to_know_the_spans(one: Checkpoint, hub: Hub) -> None:
    prefixes(one).unlink()
    checkpoint.verify(_call(), {"folder": one.name, "state_dir": one.state_dir, "again": True})
    rot(1)(shard(one))
    apply(one)
    assert hub.bytes_sent() == SPAN


@pytest.mark.parametrize("text", [None, "", '{"span": 67108864, "of": []}', '{"span": 5, "of": {}}'])
def test_without_usable_prefix_digests_the_whole_file_is_fetched(one: Checkpoint, hub: Hub, text: str | None) -> None:
    prefixes(one).unlink() if text is None else prefixes(one).write_text(text)
    whole = shard(one).read_bytes()
    rot(1)(shard(one))
    apply(one)
    assert shard(one).read_bytes() == whole
    assert hub.bytes_sent() == SIZE


def test_prefix_digests_that_lie_cost_bytes_and_never_correctness(one: Checkpoint, hub: Hub) -> None:
    index = Index(one.state_dir, one.name)
    ((oid, digests),) = index.prefixes().items()
    index.note_prefixes(oid, [digests[1], *digests[1:]])
    whole = shard(one).read_bytes()
    rot(1)(shard(one))
    apply(one)
    assert shard(one).read_bytes() == whole
    assert hub.bytes_sent() == SIZE + 2 * SPAN, "the first span was believed to be damaged, twice"


def test_a_hub_that_damages_a_span_once_is_asked_again(one: Checkpoint, hub: Hub) -> None:
    hub.fail(SHARD, Fault(corrupt_at=SPAN + 1), times=1)
    rot(1)(shard(one))
    apply(one)
    assert hub.bytes_sent() == 2 * SPAN


def test_a_hub_that_ignores_ranges_repairs_by_the_whole(one: Checkpoint, hub: Hub) -> None:
    hub.fail(SHARD, Fault(ignore_range=True))
    whole = shard(one).read_bytes()
    rot(0, 1)(shard(one))
    apply(one)
    assert shard(one).read_bytes() == whole


def test_what_was_mended_is_said(one: Checkpoint) -> None:
    rot(1)(shard(one))
    said: list[dict[str, Any]] = []
    step = Step(id=one.id, kind=one.kind, node=one.node, action="update", before=None, after=one.desired(), changes=())
    found = checkpoint.observe(one.ask())
    checkpoint.converge(Call(1, said.append, threading.Event()), one.ask(), found, one.desired(), one.act(step))
    notices = [message["progress"]["notice"] for message in said if "notice" in message["progress"]]
    args = {"folder": one.name, "file": SHARD, "fetched": SPAN, "size": SIZE}
    assert notices == [{"id": "file-repaired", "args": args}]


def _call() -> Call:
    return Call(1, lambda message: None, threading.Event())


@settings(max_examples=30)
@given(st.sets(st.integers(0, 4)), st.integers(200, 1000), st.integers(0, 5000))
def test_exactly_the_spans_that_differ_are_found(rotten: set[int], step: int, cut: int) -> None:
    before, hashes.SPAN = hashes.SPAN, 1000
    try:
        _mend(rotten, step, cut)
    finally:
        hashes.SPAN = before


def _mend(rotten: set[int], step: int, cut: int) -> None:
    data = random.Random(step).randbytes(4321)
    made = hashes.Hasher("sha256:", len(data))
    made.update(data)
    oid = made.oid
    damaged = bytearray(data)
    for number in rotten:
        damaged[number * 1000 + 7] ^= 0xFF
    with working_in_a_fresh_folder():
        make_store()
        Path("old").write_bytes(damaged[:cut])
        content = Content(oid, len(data), made.prefixes)
        handle = os.open("old", os.O_RDONLY)
        content.copy_from(handle, lambda _: None)
        os.close(handle)
        content.open()
        missing = [(content.arrived, len(data))] if content.arrived < len(data) else []
        fetched: list[tuple[int, int]] = []
        missing += content.follow(wait=True)
        while missing:
            start, end = missing.pop()
            for at in range(start, end, step):
                piece = data[at : min(at + step, end)]
                content.write(at, piece)
                content.mark(at, at + len(piece))
            fetched.append((start, end))
            missing += content.follow(wait=True)
        assert content.whole() and not content.whole()
        assert content.prove() == oid
        assert Path(content.place).read_bytes() == data
    wrong = {(n * 1000, min(n * 1000 + 1000, len(data))) for n in rotten if n * 1000 + 7 < cut}
    lost = {(cut, len(data))} if cut < len(data) else set()
    assert set(fetched) == wrong | lost
