"""What differs between a container or unit that runs already and a declared ServiceSpec. Pure: values in, words out.

`what` of a difference is where it is declared (`service.serve.max-model-len`), so that a reader can keep what runs.
Values whose names look secret are `***`. It must not know how a node is asked.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.messages import Fields

MASK = "***"
SECRET = re.compile(r"token|key|secret|passw|credential", re.IGNORECASE)
INLINE = re.compile(r"((?:token|key|secret|passw\w*|credentials?)[\"']?(?:=|:?\s+))[^\s\"',}]+", re.IGNORECASE)
PLAIN = frozenset({"tokenizer", "tokenizer-mode", "max-num-batched-tokens", "skip-tokenizer-init"})
"""Flags that sound secret and are not."""
SHM = 64 << 20
"""Bytes of /dev/shm that Docker gives unless told otherwise."""
NOTHING = "(none)"
ENGINE = re.compile(r"(?:.*/)?vllm$")


@dataclass(frozen=True, slots=True)
class Difference:
    """`what` is declared otherwise than it runs; both as words."""

    what: str
    found: str
    declared: str


def container(
    found: Mapping[str, object], spec: Mapping[str, object], secret: Sequence[str] = ()
) -> tuple[Difference, ...]:
    """All differences. `found` is what the worker's `adopting.look` tells of one; `secret` names secret environment."""
    return (
        *_image(found, spec),
        *_command(found, spec),
        *_environment(found, spec, secret),
        *_mounts(found, spec),
        *_host(found, spec),
    )


def _differ(what: str, found: object, declared: object) -> Iterator[Difference]:
    if found != declared:
        yield Difference(what, _words(what, found), _words(what, declared))


def _words(what: str, value: object) -> str:
    last = what.rpartition(".")[2]
    if value is None or value == [] or value == "":
        return NOTHING
    if SECRET.search(last) and last not in PLAIN:
        return MASK
    if isinstance(value, bool):
        return "yes" if value else "no"
    return masked(value if isinstance(value, str) else json.dumps(value))


def masked(text: str) -> str:
    """A text without the values that follow names that look secret (`HF_TOKEN=…`, `--api-key …`)."""
    return INLINE.sub(rf"\1{MASK}", text)


def _image(found: Fields, spec: Mapping[str, object]) -> Iterator[Difference]:
    if found["same_image"] is not True:
        yield from _differ("image", str(found["config"].get("Image")), spec["image"])


def _command(found: Fields, spec: Fields) -> Iterator[Difference]:
    config = found["config"]
    entrypoint = spec["entrypoint"]
    own = found["image_config"].get("Entrypoint") or []
    runs = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    yield from arguments(runs, [*(own if entrypoint is None else entrypoint), *spec["argv"]])


def arguments(found: Sequence[str], declared: Sequence[str]) -> Iterator[Difference]:
    """The differences of two argument lists: the words before the first flag, then flag by flag."""
    (first, there), (head, wanted) = flags(found), flags(declared)
    yield from _differ("service.command", shlex.join(first), shlex.join(head))
    for name in sorted({*there, *wanted}):
        yield from _differ(f"service.serve.{name}", there.get(name), wanted.get(name))


def flags(words: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """The words before the flags; these by name, without dashes: True and False (`--no-x`), a value (JSON parsed), or a
    list. `--a_b=1` is `--a-b 1`, as vLLM takes it."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            head, sign, value = word.lstrip("-").partition("=")
            name = head.replace("_", "-")
            found[name] = [value] if sign else []
        else:
            found[name].append(word)
    first, result = found.pop(""), dict[str, object]()
    for name, values in found.items():
        if not values and name.startswith("no-"):
            result[name.removeprefix("no-")] = False
        else:
            result[name] = True if not values else _value(values[0]) if len(values) == 1 else values
    return first, result


def _value(word: str) -> object:
    if word[:1] in "{[":
        try:
            return json.loads(word)
        except ValueError:
            return word
    return word


def _environment(found: Fields, spec: Fields, secret: Sequence[str]) -> Iterator[Difference]:
    """What was given beside the image's own; a secret is only told by name, for its value is not compared here."""
    own = set(found["image_config"].get("Env") or [])
    there = dict(str(each).partition("=")[::2] for each in found["config"].get("Env") or [] if each not in own)
    for name in sorted({*there, *spec["environment"]}):
        if name in secret:
            continue
        yield from _differ(f"service.environment.{name}", there.get(name), spec["environment"].get(name))
    for name in sorted(set(secret) - there.keys()):
        yield Difference(f"service.environment.{name}", NOTHING, MASK)


def _mounts(found: Fields, spec: Fields) -> Iterator[Difference]:
    there = {str(each["Destination"]): _mount(each) for each in found["mounts"] if each.get("Destination")}
    wanted = {
        each["target"]: f"{each['source']}{' (read-only)' if each['read_only'] else ''}" for each in spec["mounts"]
    }
    for target in sorted({*there, *wanted}):
        yield from _differ(f"service.container.mounts {target}", there.get(target), wanted.get(target))


def _mount(each: Mapping[str, object]) -> str:
    source = f"volume {each.get('Name')}" if each.get("Type") == "volume" else str(each.get("Source"))
    return source + ("" if each.get("RW", True) else " (read-only)")


def _host(found: Fields, spec: Fields) -> Iterator[Difference]:
    host, limits = found["host"], spec["limits"]
    network = host.get("NetworkMode") or "default"
    yield from _differ("service.container.network", "bridge" if network == "default" else network, spec["network"])
    yield from _differ("published ports", ports(host), [f"{spec['host']}:{spec['port']}"] * (spec["network"] != "host"))
    policy = (host.get("RestartPolicy") or {}).get("Name") or "no"
    yield from _differ("restart policy", policy, "no")
    ipc = host.get("IpcMode") or ""
    if spec["ipc"] or ipc == "host":
        yield from _differ("service.container.ipc", ipc, spec["ipc"])
    if "host" not in (ipc, spec["ipc"]):
        yield from _differ(
            "shm bytes (service.limits.shm_size_gib)", host.get("ShmSize") or SHM, limits["shm_size_bytes"] or SHM
        )
    yield from _differ("memory bytes (service.limits.memory_gib)", host.get("Memory") or 0, limits["memory_bytes"])
    yield from _differ("service.gpus", _gpus(host), spec["gpus"])
    yield from _differ("service.container.cap_add", sorted(host.get("CapAdd") or []), sorted(spec["cap_add"]))
    devices = sorted(str(each.get("PathOnHost")) for each in host.get("Devices") or [])
    yield from _differ("service.container.devices", devices, sorted(spec["devices"]))
    yield from _differ("privileged", bool(host.get("Privileged")), False)
    soft = {str(each.get("Name")): each.get("Soft") for each in host.get("Ulimits") or []}
    for name in sorted({*soft, *limits["ulimits"]}):
        yield from _differ(f"service.limits.ulimits.{name}", soft.get(name), limits["ulimits"].get(name))


def ports(host: Fields) -> list[str]:
    """What a container publishes, as `address:port` of the node."""
    bindings = (host.get("PortBindings") or {}).values()
    return sorted(
        f"{each.get('HostIp') or '0.0.0.0'}:{each.get('HostPort')}" for pairs in bindings for each in pairs or []
    )


def _gpus(host: Fields) -> object:
    for each in host.get("DeviceRequests") or []:
        if any("gpu" in names for names in each.get("Capabilities") or []):
            return "all" if each.get("Count") == -1 else list(each.get("DeviceIDs") or [each.get("Count")])
    return "all" if host.get("Runtime") == "nvidia" else None


def unit(text: str, spec: Fields) -> tuple[Difference, ...]:
    """The differences of the engine's argument list in a unit that runs it without a container; empty for others."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if not line.strip().startswith("ExecStart="):
            continue
        try:
            words = shlex.split(line.strip().removeprefix("ExecStart=").lstrip("-@:+!"))
        except ValueError:
            continue
        start = next((number for number, word in enumerate(words) if ENGINE.match(word)), None)
        if start is not None and "docker" not in words[0]:
            return tuple(arguments(["vllm", *words[start + 1 :]], spec["argv"]))
    return ()


def model_source(found: Fields) -> str:
    """The folder of the node that a container has its model from: the mount of its model's path, or its hub cache."""
    config = found["config"]
    words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    first, given = flags(words)
    models = [str(word) for word in (given.get("model"), *first[::-1]) if word]
    for each in found["mounts"]:
        target, source = str(each.get("Destination") or "").rstrip("/"), str(each.get("Source") or "")
        if each.get("Type") != "bind" or not target:
            continue
        for model in models:
            if model == target or model.startswith(target + "/"):
                return source + model[len(target) :]
        if target.endswith(("/huggingface", "/huggingface/hub")):
            return source
    return ""
