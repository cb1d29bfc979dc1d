"""Writes the defaults of configuration classes: `python -m tools.wheel_defaults WHEEL > FILE`.

WHEEL is one of transformers, FILE knowledge/architectures/_defaults.json.

A key that config.json lacks has its class's default in the engine. Listed are those on which a size depends and which
an architecture's description would silently read as nothing (no gap says that the key is lacking), or which files of
that class leave out. Nothing of the wheel is imported or run.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from sparkops.models.architecture import architectures
from sparkops.models.architecture.architectures import Shape
from sparkops.models.architecture.descriptions import ORDINARY, Description, described, known
from tools.wheel_source import UNKNOWN, Module, Wheel

AUTO = "transformers.models.auto"
BASE = "PreTrainedConfig"
ABOUT = "What the engine takes for a key that config.json lacks, where it would read as nothing."
SOURCE = "transformers {version}, the configuration classes; written by python -m tools.wheel_defaults WHEEL"
ENGINES_OWN = ("DeepseekV32", "DeepseekV4", "KimiLinear", "KimiK25", "Step3p5", "MiniMaxM3")
"""Architectures whose configuration class is vLLM's own (transformers_utils/configs), not that of transformers."""

LISTS = {"mlp_layer_types": ("dense", "sparse"), "layers_block_type": ("mamba", "moe", "attention", "mlp")}
"""What classes make of other keys for each layer: some of each, so that every part is there."""
FIRST = {"first_k_dense_replace": 1}
"""The same, where no class has a default."""


def main(path: str) -> None:
    """Prints the file."""
    wheel = Wheel(Path(path))
    found = {name: each for name in known() if (each := defaults(wheel, name))}
    source = SOURCE.format(version=wheel.metadata["Version"])
    print(json.dumps({"about": ABOUT, "defaults": found, "source": source}, indent=1, sort_keys=True))


def defaults(wheel: Wheel, name: str) -> dict[str, object]:
    """The keys of one architecture that matter; nothing where transformers has no class for it."""
    description, (given, nested) = described(name), _given(wheel, name)
    if description is None or not given or name.startswith(ENGINES_OWN):
        return {}
    kinds = {"layer_types": description.content.get("kinds", ORDINARY), **LISTS}
    lists = {key: list(islice(cycle(each), 128)) for key, each in kinds.items()}
    short = {**FIRST, "layer_types": lists["layer_types"], **given}
    return {
        key: given[key]
        for key in sorted(description.reads & set(given))
        if any(_matters(description, full, key, nested) for full in (short, {**short, **lists, **given}))
    }


def _matters(description: Description, full: Mapping[str, object], key: str, nested: bool) -> bool:
    """Whether a size depends on the key, and either files leave it out or no gap says that it is lacking."""
    whole = architectures.shape(description, full)
    if whole == architectures.shape(description, {**full, key: _other(full[key])}):
        return False
    return nested or not _told(whole, architectures.shape(description, {**full, key: None}))


def _told(whole: Shape, without: Shape) -> bool:
    """Whether there are gaps that the whole configuration has not."""
    return bool(set(without.gaps) - set(whole.gaps) or set(without.part_gaps) - set(whole.part_gaps))


def _other(value: object) -> object:
    """Another value of the same type."""
    return not value if isinstance(value, bool) else 2 * value if isinstance(value, int) else f"{value}-other"


def _given(wheel: Wheel, name: str) -> tuple[dict[str, object], bool]:
    """The constant defaults of an architecture's class, its text part flat, where they say something; and whether it
    has such a part, of which a file leaves out what equals the default.

    One that has another name in files (`attribute_map`) is left out where a description may read that name.
    """
    model_type = _model_types(wheel).get(name)
    class_name = _table(wheel, f"{AUTO}.auto_mappings", "CONFIG_MAPPING_NAMES").get(model_type or "")
    module = next((each for each in _configurations(wheel, model_type or "") if class_name in each.names), None)
    found = _fields(module, str(class_name)) if module is not None else {}
    inner = found.pop("sub_configs", None)
    description = described(name)
    if isinstance(inner, tuple) and description is not None:
        found |= _fields(*inner)
    aliases = found.pop("attribute_map", {})
    read = description.reads if description is not None else ()
    twice = {own for other, own in aliases.items() if other in read} if isinstance(aliases, Mapping) else set()
    given = {key: value for key, value in found.items() if value and key not in twice and _plain(value)}
    return given, isinstance(inner, tuple) or found.get("base_config_key") == "text_config"


def _plain(value: object) -> bool:
    return isinstance(value, (bool, int, str))


def _configurations(wheel: Wheel, model_type: str) -> Iterator[Module]:
    for path in sorted(wheel.files):
        named = path.startswith("transformers/models/") and "/configuration_" in path and path.endswith(".py")
        if named and f'"{model_type}"' in wheel.text(path):
            yield wheel.file(path)


def _fields(module: Module, name: str) -> dict[str, Any]:
    """The fields of a class and its bases with constant defaults; its text part as module and name."""
    found: dict[str, Any] = {}
    place = module.find(name)
    where, node = place or (module, None)
    if not isinstance(node, ast.ClassDef) or name == BASE:
        return found
    for base in node.bases:
        found |= _fields(where, ast.unparse(base))
    made = _made(node)
    found |= _asked(node)
    for each in node.body:
        value = each.value if isinstance(each, (ast.Assign, ast.AnnAssign)) else None
        target = (
            each.target
            if isinstance(each, ast.AnnAssign)
            else each.targets[0]
            if isinstance(each, ast.Assign)
            else None
        )
        if not isinstance(target, ast.Name) or value is None:
            continue
        if target.id == "sub_configs":
            inner = _text(value)
            found[target.id] = (where, inner) if inner else None
        elif target.id.startswith(("base_model", "keys_to", "ignore_keys")) or target.id == "model_type":
            continue
        else:
            constant = UNKNOWN if target.id in made else where.value(value)
            found[target.id] = None if constant is UNKNOWN else constant
    return found


def _made(node: ast.ClassDef) -> set[str]:
    """The fields that `__post_init__` gives another value, but where they have none."""
    made: set[str] = set()
    for method in node.body:
        for each in ast.walk(method) if isinstance(method, ast.FunctionDef) and method.name == "__post_init__" else ():
            if isinstance(each, ast.If) and ast.unparse(each.test).endswith(" is None"):
                continue
            for child in ast.iter_child_nodes(each):
                made |= {name for target in _targets(child) if (name := ast.unparse(target)) not in _kept(child)}
    return {each.removeprefix("self.") for each in made}


def _kept(node: ast.AST) -> str:
    """The value that an assignment keeps where there is one (`a if a is not None else b`, `a or b`); "" without."""
    value = node.value if isinstance(node, ast.Assign) else None
    if isinstance(value, ast.IfExp) and "None" in ast.unparse(value.test):
        return f"{ast.unparse(value.body)} {ast.unparse(value.orelse)}"
    return ast.unparse(value.values[0]) if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) else ""


def _asked(node: ast.ClassDef) -> dict[str, Any]:
    """What the class takes for a key of no field: `kwargs.pop("key", default)`."""
    calls = (each for each in ast.walk(node) if isinstance(each, ast.Call) and len(each.args) == 2)
    return {
        key.value: default.value
        for call in calls
        if ast.unparse(call.func) in ("kwargs.pop", "kwargs.get", "kwargs.setdefault")
        for key, default in [call.args]
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(default, ast.Constant)
    }


def _targets(node: ast.AST) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else []


def _text(node: ast.expr) -> str:
    """The class of the text part among those of the parts."""
    keys = node.keys if isinstance(node, ast.Dict) else []
    for key, value in zip(keys, node.values if isinstance(node, ast.Dict) else [], strict=True):
        if isinstance(key, ast.Constant) and key.value == "text_config" and isinstance(value, ast.Name):
            return value.id if value.id != "AutoConfig" else ""
    return ""


def _model_types(wheel: Wheel) -> dict[str, str]:
    """The type of model of each architecture."""
    found: dict[str, str] = {}
    module = wheel.module(f"{AUTO}.modeling_auto")
    for name in module.names if module is not None else ():
        if name.endswith("_MAPPING_NAMES"):
            for model_type, classes in _table(wheel, f"{AUTO}.modeling_auto", name).items():
                for each in (classes,) if isinstance(classes, str) else classes or ():
                    found.setdefault(each, model_type)
    return found


def _table(wheel: Wheel, path: str, name: str) -> dict[str, Any]:
    """One `OrderedDict([(key, value), …])`."""
    module = wheel.module(path)
    node = module.names.get(name) if module is not None else None
    call = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    if module is None or not isinstance(call, ast.Call) or not call.args:
        return {}
    pairs = module.value(call.args[0])
    return {} if pairs is UNKNOWN else dict(pairs)


if __name__ == "__main__":
    main(sys.argv[1])
