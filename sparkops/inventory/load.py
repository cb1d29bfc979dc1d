"""From a path to an `Inventory`: read, check, build. Offline; no secret is read and nothing is written.

All faults are reported together. It must not know nodes or what roles do with their variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sparkops.core.errors import InventoryError
from sparkops.inventory.build import build
from sparkops.inventory.check import Checker
from sparkops.inventory.declarations import Role, find_roles
from sparkops.inventory.document import Document, Where, parse, read
from sparkops.inventory.faults import Faults, nearest, suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.json_schema import checked
from sparkops.inventory.merge import Layer
from sparkops.inventory.recipes import Recipe, read_recipe
from sparkops.inventory.shards import sharded
from sparkops.inventory.validate import validate

Extra = Sequence["tuple[str, str]"]


def load(path: Path | str, *, extra: Extra = (), shard: tuple[int, int] | None = None) -> Inventory:
    """The inventory in a file. `extra` are the `-e ROLE.VARIABLE=VALUE` of the command line, values in YAML; `shard` is
    the part to work on, by number from 1, and of how many.

    Raises InventoryError with every fault of the file, its roles and its recipes.
    """
    path = Path(path)
    if not path.exists():
        raise _missing(path)
    faults = Faults()
    document = read(path, faults=faults)
    roles, notices = find_roles(path.parent)
    if not isinstance(document.data, dict):
        if document.data is None:
            raise InventoryError.of("inventory-empty", where=document.where())
        raise InventoryError.of("inventory-not-a-mapping", where=document.where())
    validate(document, (), checked(roles), faults, label="the inventory")
    recipes = _recipes(document, path.parent, roles, faults)
    Checker(document, roles, faults).all()
    extras = tuple(_extra(key, value, path.parent, roles, faults) for key, value in extra)
    faults.raise_any()
    made = build(path, document, roles, recipes, extras, notices)
    return sharded(made, *shard) if shard is not None else made


def _missing(path: Path) -> InventoryError:
    """The error for an inventory that is not there, which names those that are."""
    there = sorted(each.name for word in ("*.yml", "*.yaml") for each in path.parent.glob(word) if each.is_file())
    there = [name for name in there if ".lock." not in name]
    if not there:
        return InventoryError.of("inventory-not-found", where=str(path))
    named = [str(path.parent / name) for name in there]
    near = nearest(path.name, there)
    return InventoryError.of("inventory-not-found-others", where=str(path), there=named, near=near or there[0])


def _recipes(document: Document, beside: Path, roles: Mapping[str, Role], faults: Faults) -> dict[str, Recipe]:
    """The recipes in use, by name."""
    found: dict[str, Recipe] = {}
    services = document.data.get("services")
    for name, service in (services if isinstance(services, dict) else {}).items():
        recipe = service.get("recipe") if isinstance(service, dict) else None
        if not isinstance(recipe, str) or recipe in found:
            continue
        try:
            found[recipe] = read_recipe(recipe, beside, where=document.where(("services", name, "recipe")))
        except InventoryError as error:
            faults.take(error)
            continue
        checker = Checker(found[recipe].document, roles, faults)
        checker.namespaces(found[recipe].variables, ("variables",), scope="service")
    return found


def _extra(key: str, value: str, folder: Path, roles: Mapping[str, Role], faults: Faults) -> Layer:
    """One `-e` as a layer of its own."""
    name = f"-e {key}"
    path: Where = tuple(key.split("."))
    empty = Layer(name, {}, Document(name, folder, {}), {})
    role = str(path[0])
    if role not in roles or len(path) < 2 or "" in path:
        if role in roles:
            faults.add("extra-variable-malformed", where="", key=key)
        else:
            faults.add("extra-variable-role-unknown", where="", key=key, role=role, suggestion=suggest(role, roles))
        return empty
    try:
        parsed = parse(value, name=name, folder=folder)
    except InventoryError as error:
        faults.take(error)
        return empty
    marks = {(*path, *place): mark for place, mark in parsed.marks.items()}
    raw = {(*path, *place): text for place, text in parsed.raw.items()}
    document = Document(name, folder, _nest(path, parsed.data), marks, {}, raw)
    Checker(document, roles, faults).namespaces(document.data, ())
    return Layer(name, document.data, document, {role: (role,)})


def _nest(path: Iterable[str | int], value: object) -> object:
    for part in reversed(tuple(path)):
        value = {part: value}
    return value
