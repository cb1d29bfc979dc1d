"""The record of claims on a temporary root: written around acts, and what is told of it later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.record import claim_records, claims
from sparkops.worker.requests import claimed, lock
from sparkops.worker.system import safe_path
from tests.errors import fails


@pytest.fixture
def state_dir(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def claim(state_dir: str, kind: str, name: str, cluster: str = "attic", **more: Any) -> dict[str, Any]:
    kept, pruned = {"path": name, "type": kind, **more.pop("kept", {})}, more.pop("pruned", False)
    return {"state_dir": state_dir, "cluster": cluster, "kind": kind, "name": name, "kept": kept, "pruned": pruned}


def record(state_dir: str, cluster: str = "attic") -> dict[str, Any]:
    return claim_records.load(os.path.join(state_dir, "claims", cluster + ".json"))


def look(
    state_dir: str, *declared: str, cluster: str = "attic", strays: bool = True, former: str = ""
) -> dict[str, Any]:
    return claimed.observe(
        {"state_dir": state_dir, "cluster": cluster, "former": former, "declared": declared, "strays": strays}
    )


def put(state_dir: str, path: Path, text: str, **kept: Any) -> None:
    with claims.acting(claim(state_dir, "file", str(path), kept=kept), "x", "create"):
        path.write_text(text)


def digest(text: str) -> list[str]:
    import hashlib

    return ["sha256:" + hashlib.sha256(text.encode()).hexdigest()]


def test_a_claim_says_acting_before_and_ours_after_and_is_gone_with_its_thing(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with claims.acting(claim(state_dir, "file", str(path), kept={"content": digest("x")}), "x", "create"):
        assert record(state_dir)[f"file {path}"]["phase"] == "acting"
    assert record(state_dir)[f"file {path}"]["phase"] == "ours"
    with claims.acting(claim(state_dir, "file", str(path)), "x", "delete"):
        pass
    assert record(state_dir) == {}


def test_a_failed_act_leaves_both_contents_as_ours(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(state_dir, path, "one", content=digest("one"))
    with (
        pytest.raises(OSError, match="full"),
        claims.acting(claim(state_dir, "file", str(path), kept={"content": digest("two")}), "x", "update"),
    ):
        raise OSError("full")
    entry = record(state_dir)[f"file {path}"]
    assert entry["content"] == [*digest("one"), *digest("two")]
    for text in ("one", "two"):
        path.write_text(text)
        assert look(state_dir)["strays"][f"file {path}"]["now"] == "ours"


def test_a_file_is_ours_edited_other_or_gone(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(state_dir, path, "x", content=digest("x"))

    def now() -> str:
        word = look(state_dir)["strays"][f"file {path}"]["now"]
        assert isinstance(word, str)
        return word

    assert now() == "ours"
    path.write_text("y")
    assert now() == "edited"
    path.unlink()
    assert now() == "gone"
    path.mkdir()
    assert now() == "other"


def test_a_secret_is_told_by_an_hmac_and_stands_nowhere_as_a_plain_hash(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(state_dir, path, "hunter2", secret=b"hunter2")
    (content,) = record(state_dir)[f"file {path}"]["content"]
    assert content.startswith("hmac:")
    assert digest("hunter2")[0].partition(":")[2] not in content
    assert look(state_dir)["strays"][f"file {path}"]["now"] == "ours"
    path.write_text("other")
    assert look(state_dir)["strays"][f"file {path}"]["now"] == "edited"


def test_a_file_whose_content_was_never_declared_is_not_ours(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "shadow"
    put(state_dir, path, "x")
    assert look(state_dir)["strays"][f"file {path}"]["now"] == "unrecorded"


def test_links_are_told_by_their_target_and_directories_with_what_is_in_them(state_dir: str, tmp_path: Path) -> None:
    link, folder = tmp_path / "l", tmp_path / "d"
    link.symlink_to("there")
    (folder / "x").mkdir(parents=True)
    put_there = {
        f"link {link}": {"path": str(link), "type": "link", "content": ["there"]},
        f"directory {folder}": {"path": str(folder), "type": "directory"},
    }
    claims.note(state_dir, "attic", put_there, [])
    strays = look(state_dir)["strays"]
    assert strays[f"link {link}"]["now"] == "ours"
    assert strays[f"directory {folder}"]["entries"] == ["x"]


def test_what_is_pruned_is_compared_once_more_before_the_act(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    put(state_dir, path, "x", content=digest("x"))
    path.write_text("edited just now")
    with (
        fails("claim-changed", Refused),
        claims.acting(claim(state_dir, "file", str(path), pruned=True), "x", "delete"),
    ):
        path.unlink()
    assert path.exists()


def test_another_clusters_thing_is_refused_by_its_name_and_a_shared_one_is_not(state_dir: str) -> None:
    claims.note(state_dir, "attic", {"file /a": {}, "file /b": {"shared": True}}, [])
    with fails("claim-of-other-cluster", Refused):
        claims.note(state_dir, "cellar", {"file /a": {"shared": True}}, [])
    claims.note(state_dir, "cellar", {"file /b": {"shared": True}}, [])
    with (
        fails("claim-of-other-cluster", Refused),
        claims.acting(claim(state_dir, "file", "/b", "cellar", kept={"shared": True}), "x", "delete"),
    ):
        pass
    assert look(state_dir, "file /a", "file /b", cluster="cellar")["foreign"] == {
        "file /a": {"attic": False},
        "file /b": {"attic": True},
    }
    assert look(state_dir, cluster="cellar")["strays"]["file /b"]["now"] == "shared"


def test_a_look_at_a_bare_node_finds_nothing_and_writes_nothing(state_dir: str) -> None:
    assert look(state_dir) == {"strays": {}, "foreign": {}, "claims": {}, "renamed": False, "locked": None}
    assert not os.path.exists(state_dir)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1} {}'])
def test_what_is_no_record_makes_it_unknown(state_dir: str, text: str) -> None:
    claims.note(state_dir, "attic", {"file /a": {}}, [])
    Path(state_dir, "claims", "attic.json").write_text(text)
    with fails("claims-unreadable", Unknown):
        look(state_dir)


def test_the_record_is_only_for_its_owner(state_dir: str) -> None:
    claims.note(state_dir, "attic", {"file /a": {}}, [])
    path = Path(state_dir, "claims", "attic.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(path.read_text())["file /a"]["phase"] == "ours"


@pytest.mark.parametrize("later", ["claimed", "dropped", "acted on"])
def test_what_an_act_that_was_cut_off_had_prepared_is_cleared_away(state_dir: str, tmp_path: Path, later: str) -> None:
    class PowerLoss(BaseException):
        pass

    path = tmp_path / "a"
    path.write_text("old")
    with safe_path.place(str(path)) as place:
        prepared = tmp_path / place.beside
    with pytest.raises(PowerLoss), claims.acting(claim(state_dir, "file", str(path)), "x", "update"):
        prepared.write_text("half of the n")
        raise PowerLoss
    assert prepared.exists()
    if later == "claimed":
        claims.note(state_dir, "attic", {f"file {path}": {}}, [])
    elif later == "dropped":
        claims.note(state_dir, "attic", {}, [f"file {path}"])
    else:
        with claims.acting(claim(state_dir, "file", str(path)), "x", "update"):
            pass
    assert not prepared.exists()
    assert path.read_text() == "old"


def test_a_claim_keeps_how_its_thing_came(state_dir: str, tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    key = f"file {path}"
    for action in ("create", "update", "replace"):
        with claims.acting(claim(state_dir, "file", str(path)), "x", action):
            assert record(state_dir)[key]["action"] == "create"
    assert record(state_dir)[key]["action"] == "create"
    claims.note(state_dir, "attic", {key: {"path": str(path)}, f"file {other}": {"path": str(other)}}, [])
    assert record(state_dir)[key]["action"] == "create"
    assert record(state_dir)[f"file {other}"]["action"] == "found"
    with claims.acting(claim(state_dir, "file", str(other)), "x", "update"):
        pass
    assert record(state_dir)[f"file {other}"]["action"] == "found"


def test_what_another_cluster_shares_came_as_that_one_says(state_dir: str, tmp_path: Path) -> None:
    shared = {"shared": True, "path": "/x"}
    with claims.acting(claim(state_dir, "file", "/x", kept=shared), "x", "create"):
        pass
    claims.note(state_dir, "cellar", {"file /x": shared}, [])
    assert record(state_dir, "cellar")["file /x"]["action"] == "create"


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("first", ["update", "found"])
def test_what_was_overwritten_is_kept_until_it_is_put_back(
    state_dir: str, tmp_path: Path, kind: str, first: str
) -> None:
    path = tmp_path / "a"
    key = f"{kind} {path}"

    def put(text: str) -> None:
        path.unlink(missing_ok=True)
        path.write_text(text) if kind == "file" else path.symlink_to(text)

    def held() -> str:
        return path.read_text() if kind == "file" else os.readlink(path)

    put("somebody's")
    if kind == "file":
        path.chmod(0o640)
    if first == "found":
        claims.note(state_dir, "attic", {key: {"path": str(path), "type": kind}}, [])
    for text in ("ours", "ours again"):
        content = digest(text) if kind == "file" else [text]
        with claims.acting(claim(state_dir, kind, str(path), kept={"content": content}), "x", "update") as put_back:
            assert put_back is None
            put(text)
    claims.note(state_dir, "attic", {key: {"path": str(path), "type": kind, "content": content}}, [])
    with claims.acting(claim(state_dir, kind, str(path), pruned=True), "x", "delete") as put_back:
        assert put_back is not None
        put_back()
    assert held() == "somebody's"
    assert record(state_dir) == {}
    if kind == "file":
        assert path.stat().st_mode & 0o777 == 0o640
        assert os.listdir(os.path.join(state_dir, "originals")) == []


def test_a_file_too_large_to_be_kept_is_never_taken_for_what_was_there_before(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * (2 << 20))
    for text in ("ours", "ours again"):
        with claims.acting(claim(state_dir, "file", str(path), kept={"content": digest(text)}), "x", "update"):
            path.write_text(text)
    assert record(state_dir)[f"file {path}"]["original"] == {}
    with claims.acting(claim(state_dir, "file", str(path), pruned=True), "x", "delete") as put_back:
        assert put_back is None


def test_a_run_of_another_process_is_told_and_the_own_one_is_not(state_dir: str) -> None:
    holder = {"who": "ann", "from": "desk", "command": "sparkops apply"}
    lock.acquire(None, {"state_dir": state_dir, "holder": holder})  # type: ignore[arg-type]
    try:
        assert look(state_dir)["locked"] is None
        handle = lock._held.pop(state_dir)  # as another process has it
        told = look(state_dir)["locked"]
        assert told["id"] == "node-locked"
        assert {**told["args"], "seconds": 0} == {**told["args"], "who": "ann", "machine": "desk", "seconds": 0}
        lock._held[state_dir] = handle
    finally:
        lock.release(None, {"state_dir": state_dir})  # type: ignore[arg-type]
    assert look(state_dir)["locked"] is None


def test_what_is_let_go_keeps_nothing_behind(state_dir: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("somebody's")
    with claims.acting(claim(state_dir, "file", str(path)), "x", "update"):
        path.write_text("ours")
    assert os.listdir(os.path.join(state_dir, "originals"))
    claims.note(state_dir, "attic", {}, [f"file {path}"])
    assert os.listdir(os.path.join(state_dir, "originals")) == []


def test_the_claims_of_the_former_name_are_the_clusters_own_before_and_after_they_are_taken_over(
    state_dir: str, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    put(state_dir, path, "one", content=digest("one"))
    key = f"file {path}"
    assert look(state_dir, key, cluster="rack")["foreign"] == {key: {"attic": False}}
    seen = look(state_dir, key, cluster="rack", former="attic")
    assert seen["foreign"] == {} and seen["renamed"]
    assert look(state_dir, cluster="rack", former="attic")["strays"][key]["now"] == "ours"

    before = record(state_dir)[key]
    for _ in range(2):  # a second time there is nothing to do
        note = {"state_dir": state_dir, "cluster": "rack", "former": "attic", "claims": {}, "drop": []}
        claimed.note(None, note)  # type: ignore[arg-type]
        assert record(state_dir, "rack") == {key: before}
        assert not os.path.exists(os.path.join(state_dir, "claims", "attic.json"))
    assert not look(state_dir, key, cluster="rack", former="attic")["renamed"]


def test_a_take_over_that_was_cut_off_between_its_two_acts_is_ended_and_loses_nothing(
    state_dir: str, tmp_path: Path
) -> None:
    put(state_dir, tmp_path / "a", "one", content=digest("one"))
    claims.note(state_dir, "rack", {f"file {tmp_path / 'b'}": {"path": str(tmp_path / "b"), "type": "file"}}, [])
    old = {**record(state_dir), **record(state_dir, "rack")}
    claims._write(state_dir, "rack", old)
    claims.take_over(state_dir, "rack", "attic")
    assert record(state_dir, "rack") == old and record(state_dir) == {}


@pytest.mark.parametrize("former", ["", "rack", "nobody"])
def test_a_name_that_nobody_had_takes_nothing_over(state_dir: str, tmp_path: Path, former: str) -> None:
    put(state_dir, tmp_path / "a", "one")
    claims.take_over(state_dir, "rack", former)
    assert not os.path.exists(os.path.join(state_dir, "claims", "rack.json"))
    assert not look(state_dir, cluster="rack", former=former)["renamed"]
