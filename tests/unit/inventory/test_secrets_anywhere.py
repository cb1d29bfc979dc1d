"""A secret at every place of an inventory: taken, or refused with its place; never a defect, never shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkops.cli.app import run
from sparkops.inventory.declarations import BUILT_IN
from sparkops.inventory.schema import ACCEPT, CONNECTION, GROUP, NODE, SERVICE

PLACE = re.compile(r"[\w/.-]+\.yml:\d+:")
PLANTED = "pl4nted-value"
ROLES = Path(__file__).parents[3] / "roles"
Place = tuple[str | int, ...]


class Reference(str):
    """`!env PLANTED` when it is written as YAML."""


yaml.SafeDumper.add_representer(Reference, lambda dumper, _: dumper.represent_scalar("!env", "PLANTED"))


def leaves(schema: Mapping[str, Any], path: Place = ()) -> Iterator[Place]:
    """Every place below a schema at which a scalar may stand, and each object or list itself."""
    if path:
        yield path
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, (*path, name))
    more = schema.get("additionalProperties", "object" in schema.get("type", ()))
    if more is not False:
        yield from leaves(more if isinstance(more, dict) else {}, (*path, "x"))
    if isinstance(schema.get("items"), dict):
        yield from leaves(schema["items"], (*path, 0))
    for inner in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from (each for each in leaves(inner, path) if each != path)


def places() -> list[Place]:
    found: list[Place] = [("cluster",), ("version",), ("accept",), ("vars",), ("roles", 0), ("nodes",), ("services",)]
    found += [("connection", *each) for each in leaves(CONNECTION)]
    found += [("groups", "g", *each) for each in leaves(GROUP)]
    found += [("nodes", "a", *each) for each in leaves(NODE)]
    found += [("services", "s", *each) for each in leaves(SERVICE)]
    found += [("accept", 0, *each) for each in leaves(ACCEPT)]
    for name, scope in BUILT_IN.items():
        variables = yaml.safe_load((ROLES / name / "role.yml").read_text(encoding="utf-8")).get("variables", {})
        for each in leaves(variables):
            if scope == "service":
                found.append(("services", "s", *(() if name == "service" else (name,)), *each))
            else:
                found.append(("nodes", "a", "vars", name, *each))
    return sorted(set(found), key=str)


def planted(place: Place) -> dict[str, Any]:
    """A small inventory with the reference at that place."""
    inventory: dict[str, Any] = {
        "version": 1,
        "cluster": "attic",
        "nodes": {"a": {"host": "192.0.2.1"}},
        "services": {"s": {"recipe": "qwen3.5-122b-a10b-int4", "nodes": ["a"], "port": 8000}},
    }
    here: Any = inventory
    for step, after in pairwise(place):
        empty: Any = [] if isinstance(after, int) else {}
        if isinstance(step, int):
            here.append(empty)
            here = here[step]
        elif not isinstance(here.get(step), dict if isinstance(after, str) else list) or not isinstance(after, str):
            here[step] = empty
            here = empty
        else:
            here = here[step]
    if isinstance(here, list):
        here.append(Reference())
    else:
        here[place[-1]] = Reference()
    return inventory


@pytest.mark.parametrize("command", [("lint",), ("render", "a", "-i")], ids=lambda command: command[0])
def test_a_secret_is_taken_or_refused_with_its_place(
    command: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED", PLANTED)
    file = tmp_path / "inventory.yml"
    wrong = []
    for place in places():
        file.write_text(yaml.safe_dump(planted(place), sort_keys=False), encoding="utf-8")
        status = run([*command, str(file)])
        out = "".join(capfd.readouterr())
        if status not in (0, 1) or PLANTED in out or "Traceback" in out or (status == 1 and not PLACE.search(out)):
            wrong.append(f"{'.'.join(map(str, place))}: {status}: {out.strip().splitlines()[-3:]}")
    assert not wrong, f"{len(wrong)} places:\n" + "\n".join(wrong[:20])
