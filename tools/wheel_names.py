"""The names that an engine's wheel registers: parsers, backends, quantisation, variables, metrics.

It must not know flags.
"""

from __future__ import annotations

import ast
import re

from sparkops.models.engine_pages import alphabetical
from tools.wheel_source import UNKNOWN, Wheel

READ = re.compile(r"(?:environ(?:\.get)?|getenv)\s*[\[(]\s*[\"'](VLLM_[A-Z0-9_]+)[\"']")
METRIC = re.compile(r"[\"'](vllm:[a-z0-9_]+)[\"']")
METRIC_FOLDERS = ("vllm/v1/metrics/", "vllm/v1/spec_decode/", "vllm/v1/simple_kv_offload/")
"""Where the metrics of every engine are made; connectors have more of their own."""

REGISTRIES = {
    "tool_parsers": ("_TOOL_PARSERS_TO_REGISTER", ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")),
    "reasoning_parsers": ("_REASONING_PARSERS_TO_REGISTER", ("vllm.reasoning",)),
    "load_formats": ("_LOAD_FORMAT_TO_MODEL_LOADER", ("vllm.model_executor.model_loader",)),
    "deprecated_quantization_methods": (
        "DEPRECATED_QUANTIZATION_METHODS",
        ("vllm.model_executor.layers.quantization",),
    ),
    "quantization_methods": ("QuantizationMethods", ("vllm.model_executor.layers.quantization",)),
}
"""The variable that holds each list, and the modules where it has stood."""

NO_MODELS = ("_PREVIOUSLY_", "_OOT_", "_TRANSFORMERS_BACKEND_")
"""Mappings of the registry that name no class of the engine's own."""

MOE_FORMATS = {"MoeUnquantized": "unquantized", "MoeFp8": "fp8", "MoeNvfp4": "nvfp4"}
"""Lists of the backends that experts of a format take, each by the name of its module and function."""

QUANTIZATION_WORDS = ("QUANT_KEY_NAMES", "_ONLINE_SHORTHANDS")


def names(wheel: Wheel) -> dict[str, str]:
    """Each list of the page, as words."""
    found = {key: _registered(wheel, variable, modules) for key, (variable, modules) in REGISTRIES.items()}
    found["architectures"] = alphabetical(_architectures(wheel))
    found["environment"] = alphabetical(_environment(wheel))
    found["metrics"] = alphabetical(_metrics(wheel))
    return found


def quantization_words(wheel: Wheel) -> dict[str, str]:
    """The words of online quantisation: names of types, shorthands, and those of them that have a type for `linear`
    and for `moe`. Nothing in a version without them."""
    module = wheel.module("vllm.config.quantization")
    if module is None or not all(name in module.names for name in QUANTIZATION_WORDS):
        return {}
    keys = module.named("QUANT_KEY_NAMES")
    table = module.names["_ONLINE_SHORTHANDS"]
    assert isinstance(table, (ast.Assign, ast.AnnAssign)) and isinstance(table.value, ast.Dict)
    parts: dict[str, set[str]] = {"linear": set(), "moe": set()}
    shorthands = set()
    for key, value in zip(table.value.keys, table.value.values, strict=True):
        word = str(key.value) if isinstance(key, ast.Constant) else ""
        shorthands.add(word)
        for argument in value.keywords if isinstance(value, ast.Call) else ():
            if argument.arg in parts:
                parts[argument.arg].add(word)
    return {
        "OnlineKeys": alphabetical(set(keys)),
        "OnlineShorthands": alphabetical(shorthands),
        "OnlineLinear": alphabetical(parts["linear"]),
        "OnlineMoe": alphabetical(parts["moe"]),
    }


def moe_words(wheel: Wheel) -> dict[str, str]:
    """The words of --moe-backend that experts of a format take: the keys of the mapping that refuses the others."""
    found = {}
    for name, part in MOE_FORMATS.items():
        module = wheel.module(f"vllm.model_executor.layers.fused_moe.oracle.{part}")
        function = module.names.get(f"map_{part}_backend") if module is not None else None
        for node in ast.walk(function) if function is not None else ():
            if isinstance(node, ast.Dict) and node.keys:
                found[name] = alphabetical({str(key.value) for key in node.keys if isinstance(key, ast.Constant)})
    return found


def connector_words(wheel: Wheel) -> dict[str, str]:
    """The connectors that `kv_connector` names."""
    module = wheel.module("vllm.distributed.kv_transfer.kv_connector.factory")
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)] if module is not None else []
    registered = {
        str(call.args[0].value)
        for call in calls
        if ast.unparse(call.func).endswith("register_connector") and isinstance(call.args[0], ast.Constant)
    }
    return {"KVConnectors": alphabetical(registered)} if registered else {}


def _registered(wheel: Wheel, variable: str, modules: tuple[str, ...]) -> str:
    """The words of a list, of a Literal or of a mapping's keys."""
    for name in modules:
        module = wheel.module(name)
        statement = module.names.get(variable) if module is not None else None
        if module is None or not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        literal = module.literal(statement.value)
        value = literal if literal is not None else module.value(statement.value)
        return "" if value is UNKNOWN else alphabetical({str(each) for each in value})
    raise ValueError(f"{wheel.path.name} has no {variable} in {' or '.join(modules)}")


def _architectures(wheel: Wheel) -> set[str]:
    """The keys of the registry's mappings of models; not those that it only remembers or has as plugins."""
    module = wheel.module("vllm.model_executor.models.registry")
    found = set()
    for name, statement in module.names.items() if module is not None else ():
        mapping = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        if name.endswith("_MODELS") and not name.startswith(NO_MODELS) and isinstance(mapping, ast.Dict):
            found |= {str(key.value) for key in mapping.keys if isinstance(key, ast.Constant)}
    if not found:
        raise ValueError(f"{wheel.path.name} has no registry of models")
    return found


def _environment(wheel: Wheel) -> set[str]:
    """The variables of vllm/envs.py, and those that are read elsewhere."""
    module = wheel.module("vllm.envs")
    statement = module.names.get("environment_variables") if module is not None else None
    assert isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(statement.value, ast.Dict)
    named = {str(key.value) for key in statement.value.keys if isinstance(key, ast.Constant)}
    read = {name for path in _sources(wheel, "vllm/") for name in READ.findall(wheel.text(path))}
    return named | read


def _metrics(wheel: Wheel) -> set[str]:
    return {name for folder in METRIC_FOLDERS for path in _sources(wheel, folder)
            for name in METRIC.findall(wheel.text(path))}  # fmt: skip


def _sources(wheel: Wheel, folder: str) -> list[str]:
    return [path for path in wheel.files if path.startswith(folder) and path.endswith(".py")]
