"""A compose file: the one service in it that serves with vLLM. Source: the compose specification, docs.docker.com."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sparkops.importing import containers, lines
from sparkops.importing.recipe_draft import Choice, Draft
from sparkops.importing.secrecy import is_secret
from sparkops.inventory.faults import suggest

_DEFAULT = re.compile(r"\$\{(\w+):?-([^}]*)\}")
READ = {
    *("image", "build", "entrypoint", "command", "environment", "volumes", "ports", "gpus", "devices", "cap_add"),
    *("ulimits", "deploy", "privileged", "network_mode"),
}
OURS = (
    "restart",
    "logging",
    "pull_policy",
    "stdin_open",
    "tty",
    "init",
    "stop_grace_period",
    "container_name",
    "runtime",
)
"""What a unit and its launcher see to."""


_WORDS = {"type": ["string", "array", "null"], "items": {"type": ["string", "number", "boolean"]}}
_LIST = {"type": ["array", "null"], "items": {"type": ["string", "number", "object"]}}
_MAPPING = {"type": ["object", "null"]}
_DEVICES = {"type": ["array", "null"], "items": {"type": "object"}}
_RESOURCES = {
    "type": ["object", "null"],
    "properties": {"limits": _MAPPING, "reservations": {**_MAPPING, "properties": {"devices": _DEVICES}}},
}
SHAPE: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "services": {
            "type": "object",
            "additionalProperties": {
                **_MAPPING,
                "properties": {
                    "image": {"type": "string"},
                    **dict.fromkeys(("entrypoint", "command"), _WORDS),
                    **dict.fromkeys(("volumes", "ports", "devices", "cap_add"), _LIST),
                    "environment": {"type": ["object", "array", "null"]},
                    "ulimits": _MAPPING,
                    "deploy": {**_MAPPING, "properties": {"resources": _RESOURCES}},
                },
            },
        }
    },
}
"""What is read of such a file, as a JSON Schema."""


def read(content: Mapping[str, Any], name: str, choice: Choice) -> Draft:
    """The recipe in a compose file. Raises InventoryError where it is not clear which service is meant."""
    draft = Draft(name, "a compose file", choice)
    service = _chosen(draft, content["services"])
    draft.image = service.get("image")
    if "build" in service:
        draft.need("build", "sparkops builds by the role image: base, packages, patches, run")
    for key, value in service.items():
        if key not in READ:
            _leave(draft, key, value)
    for key, value in _pairs(service.get("environment")):
        draft.take_environment(key, value)
    _container(draft, service)
    entrypoint = service.get("entrypoint")
    lines.take_command(
        draft, None if entrypoint is None else draft.words(entrypoint), draft.words(service.get("command"))
    )
    containers.take_ports(draft, [_port(each) for each in service.get("ports") or ()])
    for key in content:
        if key not in ("services", "version", "name", "volumes") and not key.startswith("x-"):
            draft.leave(key, "a recipe is one service; the fabric and the nodes are the inventory's")
    return draft


def _chosen(draft: Draft, services: Mapping[str, object]) -> Mapping[str, Any]:
    """The service that was asked for, else the only one that looks like vLLM."""
    wanted = draft.choice.service
    if wanted is not None and wanted not in services:
        raise draft.fault("import-service-not-found", wanted=wanted, suggestion=suggest(wanted, services))
    found = [wanted] if wanted else [name for name, each in services.items() if _serves(draft, each)]
    if len(found) != 1:
        count = "none" if not found else "more than one"
        raise draft.fault("import-service-count", count=count, services=", ".join(services))
    for name in services:
        if name != found[0]:
            draft.leave(f"service {name}", "a recipe is one service")
    return dict(_filled(services[found[0]] or {}))


def _serves(draft: Draft, service: object) -> bool:
    if not isinstance(service, Mapping):
        return False
    parts = [
        str(service.get("image", "")),
        *draft.words(service.get("entrypoint")),
        *draft.words(service.get("command")),
    ]
    return any("vllm" in part.lower() for part in parts)


def _filled(value: object) -> Any:
    """Compose's defaults put in (`${X:-y}` → y); environment keeps its own, to be read as references."""
    if isinstance(value, str):
        return _DEFAULT.sub(lambda match: match[0] if is_secret(match[1], match[2]) else match[2], value).replace(
            "$$", "$"
        )
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if isinstance(value, Mapping):
        return {key: each if key == "environment" else _filled(each) for key, each in value.items()}
    return value


def _pairs(content: object) -> Iterator[tuple[str, object]]:
    """Environment as a mapping or a list; a name alone is taken from the caller's own."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield key, f"${{{key}}}" if value is None else value
    for each in content if isinstance(content, list) else ():
        name, sign, value = str(each).partition("=")
        yield name, value if sign else f"${{{name}}}"


def _container(draft: Draft, service: Mapping[str, Any]) -> None:
    for each in service.get("volumes") or ():
        if isinstance(each, Mapping):
            options = ":ro" if each.get("read_only") else ""
            each = f"{each.get('source', '')}:{each.get('target', '')}{options}"
        containers.take_volume(draft, str(each))
    for name, limit in (service.get("ulimits") or {}).items():
        containers.take_ulimit(draft, name, limit.get("soft") if isinstance(limit, Mapping) else limit)
    for each in service.get("devices") or ():
        containers.take_device(draft, str(each))
    for each in service.get("cap_add") or ():
        draft.container.setdefault("cap_add", []).append(str(each))
    if service.get("privileged"):
        containers.leave_privileged(draft)
    if service.get("network_mode"):
        containers.take_network(draft, str(service["network_mode"]))
    if service.get("gpus") not in (None, "all"):
        draft.leave("gpus", "a Spark has one GPU; the engine gets it")
    _deploy(draft, service.get("deploy") or {})


def _deploy(draft: Draft, deploy: Mapping[str, Any]) -> None:
    resources = deploy.get("resources") or {}
    for device in (resources.get("reservations") or {}).get("devices") or ():
        if device.get("device_ids"):
            containers.take_gpus(draft, f"device={','.join(map(str, device['device_ids']))}")
        else:
            containers.take_gpus(draft, device.get("count", "all"))
    if (resources.get("limits") or {}).get("memory"):
        containers.take_size_or_leave(draft, "mem_limit", resources["limits"]["memory"])
    for key in deploy:
        if key != "resources":
            draft.leave(f"deploy.{key}", "the inventory sets the nodes of a service")


def _leave(draft: Draft, key: str, value: Any) -> None:
    if key in OURS:
        draft.leave(key, containers.OURS)
    elif key == "healthcheck":
        draft.leave(key, "the launcher and the role health ask for a real completion")
    elif key in ("env_file", "secrets", "configs"):
        draft.need(f"{key} {value}", "write its variables into environment, secrets as !env or !file")
    elif key == "depends_on":
        draft.need(f"depends_on {', '.join(value)}", "a recipe is one service")
    elif isinstance(value, str | int | float):
        containers.take_size_or_leave(draft, key, value)
    else:
        draft.leave(key, "sparkops has no such setting of a container")


def _port(each: object) -> str:
    if isinstance(each, Mapping):
        host = f"{each['host_ip']}:" if each.get("host_ip") else ""
        return f"{host}{each.get('published', each.get('target', ''))}:{each.get('target', '')}"
    text = str(each)
    return text if ":" in text else f"{text}:{text}"
