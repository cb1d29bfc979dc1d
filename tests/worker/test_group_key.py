"""The key of a group of ranks: one for all its nodes, made once, shown to nobody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.fact_text import FactOf
from sparkops.core.group_keys import fingerprint
from sparkops.core.plan import Step
from sparkops.core.secrets import Secret
from sparkops.resources.group_key import GroupKey
from sparkops.worker.facts.keys import of_groups
from sparkops.worker.kinds import group_key

NEW = Secret("n" * 64, "the group's key")
call: Any = None


def resource(path: Path, known: str) -> GroupKey:
    return GroupKey(node="spark-01", name=str(path), known=known, content=NEW)


def act(one: GroupKey) -> Any:
    step: Any = Step
    return one.act(step)


def settled(one: GroupKey) -> bool:
    return group_key.observe(one.ask()) == one.desired()


@pytest.mark.parametrize("known", ["none none", "none", ""])
def test_a_group_without_a_key_gets_the_new_one_which_is_the_declared_one_from_then_on(
    tmp_path: Path, known: str
) -> None:
    path = tmp_path / "qwen.group"
    one = resource(path, known)
    assert group_key.observe(one.ask()) is None
    group_key.converge(call, one.ask(), None, one.desired(), act(one))
    assert settled(one)
    assert path.read_text() == "n" * 64 and os.stat(path).st_mode & 0o777 == 0o600
    kept = fingerprint(path.read_bytes())
    assert settled(GroupKey(node="spark-01", name=str(path), known=f"{kept} {kept}", content=Secret("o" * 64)))


def test_nodes_that_differ_all_get_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "qwen.group"
    path.write_text("o" * 64)
    path.chmod(0o600)
    old = fingerprint(path.read_bytes())
    assert settled(resource(path, f"{old} {old}"))
    for known in (f"{old} none", f"{old} {'0' * 32}"):
        path.write_text("o" * 64)
        one = resource(path, known)
        found = group_key.observe(one.ask())
        assert found == {"type": "file", "mode": "0600", "shared": False}
        group_key.converge(call, one.ask(), found, one.desired(), act(one))
        assert settled(one)


def test_a_key_that_others_may_read_is_closed_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "qwen.group"
    path.write_text("o" * 64)
    path.chmod(0o644)
    one = resource(path, fingerprint(path.read_bytes()))
    group_key.converge(call, one.ask(), group_key.observe(one.ask()), one.desired(), act(one))
    assert settled(one) and path.read_text() == "o" * 64


def test_a_fact_tells_keys_apart_and_shows_none(tmp_path: Path) -> None:
    assert of_groups(str(tmp_path)) == {}
    folder = tmp_path / "etc/sparkops/services"
    folder.mkdir(parents=True)
    (folder / "qwen.group").write_text("k" * 64)
    (folder / "qwen.json").write_text("{}")
    found = of_groups(str(tmp_path))
    assert found == {"qwen": fingerprint(b"k" * 64)} and "k" * 8 not in str(found)
    there = FactOf("a", ("group_keys", "qwen"), missing="none")
    assert there.value({"group_keys": found}) == found["qwen"]
    assert there.value({"group_keys": {}}) == "none"
