"""Recipes of sparkrun, its registries and eugr: a command with {placeholders}, and defaults that fill them.

Source: RECIPES.md of spark-arena/sparkrun, recipes/README.md of eugr/spark-vllm-docker (versions 1 and 2, 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sparkops.importing import lines, serving
from sparkops.importing.recipe_draft import Choice, Draft
from sparkops.models.argv import serve_argv

READ = {
    *("recipe_version", "name", "description", "model", "model_revision", "runtime", "container", "defaults", "env"),
    *("command", "metadata", "min_nodes", "max_nodes", "mode", "solo_only", "cluster_only", "mods", "build_args"),
}
RENAMED = {
    "tensor_parallel": "tensor-parallel-size",
    "pipeline_parallel": "pipeline-parallel-size",
    "data_parallel": "data-parallel-size",
}
_MAPPING = {"type": ["object", "null"]}
_TEXTS = {"type": ["array", "null"], "items": {"type": "string"}}
SHAPE: Mapping[str, object] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(
            ("name", "description", "model", "runtime", "container", "command"), {"type": ["string", "null"]}
        ),
        **dict.fromkeys(("defaults", "env", "metadata"), _MAPPING),
        **dict.fromkeys(("mods", "build_args"), _TEXTS),
        **dict.fromkeys(("min_nodes", "max_nodes"), {"type": ["integer", "null"]}),
    },
}
"""What is read of such a file, as a JSON Schema."""
_HOLE = re.compile(r"\{([A-Za-z_]\w*)\}")
ROUNDS = 5
"""How deep defaults may name each other."""


def read(content: Mapping[str, Any], name: str, choice: Choice) -> Draft:
    """The recipe in such a file. Raises InventoryError for one of another engine."""
    old = "runtime" not in content and str(content.get("recipe_version", "1")) == "1"
    draft = Draft(name, "a recipe of eugr" if old else "a recipe of sparkrun", choice)
    runtime, command = str(content.get("runtime") or "vllm"), str(content.get("command") or "")
    if "vllm" not in runtime or (command and not re.search(r"\bvllm\s+serve\b|vllm\.entrypoints", command)):
        raise draft.fault("import-other-engine", value=runtime if "vllm" not in runtime else "another engine")
    draft.image, draft.revision = content.get("container"), content.get("model_revision")
    _summary(draft, content)
    _words(draft, content, command)
    if content.get("model") and not draft.repository:
        draft.take_model(str(content["model"]))
    for key, value in (content.get("env") or {}).items():
        draft.take_environment(key, value)
    _rest(draft, content)
    return draft


def _words(draft: Draft, content: Mapping[str, Any], command: str) -> None:
    defaults: dict[str, Any] = dict(content.get("defaults") or {})
    if draft.official:
        draft.service["command"] = []
    else:
        draft.container["entrypoint"] = []  # these launchers run the command by docker exec
    if not command:
        flags = {RENAMED.get(key, key.replace("_", "-")): value for key, value in defaults.items()}
        _switches(draft, flags)
        serving.take_arguments(draft, serve_argv([], str(content.get("model") or ""), flags))
        return
    filled, used = _fill(command, {"model": content.get("model"), **defaults})
    for key in defaults:
        if key not in used:
            draft.leave(f"defaults.{key}", "its command does not use it")
    lines.take_script(draft, filled)


def _switches(draft: Draft, flags: dict[str, object]) -> None:
    """Without a command a false value means that the flag is not written."""
    for key in [key for key, value in flags.items() if value is False]:
        del flags[key]
        draft.leave(f"defaults.{key}: false", "the flag is not written, so the engine's default applies")


def _fill(command: str, values: Mapping[str, object]) -> tuple[str, set[str]]:
    """The command with its holes filled, and the names that were used; doubled braces are plain ones."""
    doubled = "{{" in command
    text = command.replace("{{", "\0").replace("}}", "\1") if doubled else command
    used: set[str] = set()

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        if found is None:
            return match[0]
        used.add(match[1])
        return str(found).lower() if isinstance(found, bool) else str(found)

    for _ in range(ROUNDS):
        text = _HOLE.sub(value, text)
    return text.replace("\0", "{").replace("\1", "}"), used


def _summary(draft: Draft, content: Mapping[str, Any]) -> None:
    metadata = content.get("metadata") or {}
    summary = metadata.get("description") or content.get("description") or content.get("name") or ""
    draft.summary = " ".join(str(summary).split())
    others = [key for key in metadata if key != "description"]
    if others:
        draft.leave(f"metadata ({', '.join(others)})", "sparkops reads a model's geometry from its own configuration")


def _rest(draft: Draft, content: Mapping[str, Any]) -> None:
    for mod in content.get("mods") or ():
        draft.need(
            f"mod {mod}", "it changes the running container; in sparkops that is image.build: patches, files, run"
        )
    if content.get("build_args"):
        arguments = " ".join(map(str, content["build_args"]))
        draft.need(f"build_args {arguments}", "they are for eugr's builder; name an image that was built so")
    for key in content:
        if key not in READ:
            draft.leave(key, "sparkops' recipes have no such key")
    sizes = [draft.serve.get(f"{each}-parallel-size", 1) for each in ("tensor", "pipeline")]
    nodes = sizes[0] * sizes[1] if all(isinstance(each, int) for each in sizes) else 1
    least, most = _bounds(content)
    if not least <= nodes <= (most or nodes):
        span = f"{least}" if least == most else f"at least {least}" if not most else f"{least} to {most}"
        draft.note(
            f"it asks for {span} nodes, and its command has {nodes} ranks; set tensor- or pipeline-parallel-size"
        )


def _bounds(content: Mapping[str, Any]) -> tuple[int, int | None]:
    least = content.get("min_nodes") or (2 if content.get("cluster_only") or content.get("mode") == "cluster" else 1)
    most = content.get("max_nodes") or (1 if content.get("solo_only") or content.get("mode") == "solo" else None)
    return int(least), None if most is None else int(most)
