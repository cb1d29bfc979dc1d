"""How a container is started, as `docker run` and compose files say it: mounts, ports, memory, devices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sparkops.importing.recipe_draft import Draft

OURS = "the unit and its launcher see to that"
BY_UNIT = {
    *("d", "detach", "i", "interactive", "t", "tty", "rm", "init", "q", "quiet", "name", "container-name", "restart"),
    *("pull", "log-driver", "log-opt", "runtime"),
}
IPC = ("host", "private", "shareable")
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def take_flag(draft: Draft, flag: str, value: str) -> None:
    """One flag of `docker run` other than its entry point and ports."""
    if flag == "env":
        name, sign, text = value.partition("=")
        draft.take_environment(name, text if sign else f"${{{name}}}")
    elif flag in ("volume", "v"):
        take_volume(draft, value)
    elif flag == "mount":
        parts = dict(part.partition("=")[::2] for part in value.split(","))
        source, target = parts.get("source", parts.get("src", "")), parts.get("target", parts.get("dst", ""))
        take_volume(draft, f"{source}:{target}{':ro' if 'readonly' in parts or 'ro' in parts else ''}")
    elif flag == "gpus":
        take_gpus(draft, value)
    elif flag in ("network", "net"):
        take_network(draft, value)
    elif flag == "ulimit":
        name, _, limit = value.partition("=")
        take_ulimit(draft, name, limit.split(":")[0])
    elif flag == "device":
        take_device(draft, value)
    elif flag == "cap-add":
        draft.container.setdefault("cap_add", []).append(value)
    elif flag == "privileged":
        leave_privileged(draft)
    else:
        take_size_or_leave(draft, flag, value)


def take_size_or_leave(draft: Draft, key: str, value: object) -> None:
    """Memory, shared memory and IPC under docker's or compose's name; any other setting is left, and said."""
    flag = key.replace("_", "-")
    if flag in ("shm-size", "memory", "mem-limit"):
        amount = gib(value)
        if amount is None:
            draft.leave(f"{key} {value}", "it is not a size")
        else:
            name = "shm_size_gib" if flag == "shm-size" else "memory_gib"
            draft.limits[name] = amount
            draft.note(f"{key} {value} is carried over as limits.{name} {amount}")
    elif flag == "ipc" and value in IPC:
        draft.container["ipc"] = value
    elif flag in BY_UNIT:
        draft.leave(
            f"{key} {value}".strip() if value not in (None, "") else f"--{key}" if len(key) > 1 else f"-{key}", OURS
        )
    else:
        draft.leave(_shown(key, value), "sparkops has no such setting of a container")


def _shown(key: str, value: object) -> str:
    return f"{key} {value}" if value not in (None, "") else f"--{key}" if len(key) > 1 else f"-{key}"


def take_volume(draft: Draft, text: str) -> None:
    """`source:target[:options]`; the hub's cache becomes a folder to adopt files from."""
    source, _, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if target.rstrip("/").endswith(("/huggingface", "/huggingface/hub")):
        if source.startswith("/"):
            draft.adopt.append(source)
            draft.note(f"files in {source} are adopted; the engine gets the checkpoint, not the cache")
        elif re.fullmatch(r"(?:~|\$HOME|\$\{HOME\})/\.cache/huggingface/?", source) is None:
            draft.leave(
                f"volume {text}", "sparkops fetches the checkpoint itself; name the cache's path in checkpoint.adopt"
            )
    elif re.search(r"/\.?(?:cache/vllm|vllm_cache|triton|cache/flashinfer|flashinfer|torchinductor)/?$", target):
        draft.leave(f"volume {text}", "sparkops keeps compiled kernels itself (container.cache)")
    elif not source.startswith("/") or not target.startswith("/") or "$" in text:
        draft.need(f"volume {text}", "a mount needs absolute paths of the node and the container")
    else:
        mount = {"source": source, "target": target, "read_only": "ro" in options.split(",")}
        draft.container.setdefault("mounts", []).append(mount)


def take_ports(draft: Draft, ports: Sequence[str]) -> None:
    """Published ports; with the node's own network the engine listens where it was published."""
    inner = draft.service.get("port", 8000)
    for text in ports:
        match = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+):)?(\d+):(\d+)(?:/tcp)?", text)
        if match is None or int(match[3]) != inner:
            draft.leave(f"port {text}", f"the engine listens on {inner}, and only one port is published")
            continue
        draft.service["port"] = int(match[2])
        if match[1]:
            draft.service["host"] = match[1]
        elif draft.service.get("host") in ("127.0.0.1", "localhost"):
            draft.service.pop("host")
        if match[2] != match[3]:
            draft.note(f"the engine listens on {match[2]} itself, since it has the node's own network")


def take_network(draft: Draft, value: str) -> None:
    """Host and bridge are the two that there are."""
    if value == "host":
        return
    if value == "bridge":
        draft.container["network"] = "bridge"
    else:
        draft.leave(f"network {value}", "the container gets the node's own network (container.network)")


def take_gpus(draft: Draft, value: object) -> None:
    """`all`, a list of device ids, or a number, which on one GPU is all."""
    text = str(value).strip("\"'")
    if text.startswith("device="):
        draft.service["gpus"] = text.removeprefix("device=").split(",")
    elif text not in ("all", "1", "-1"):
        draft.leave(f"gpus {text}", "a Spark has one GPU; the engine gets it")


def take_ulimit(draft: Draft, name: str, value: Any) -> None:
    """One limit; a soft one stands for both."""
    if re.fullmatch(r"-?\d+", str(value)):
        draft.limits.setdefault("ulimits", {})[name] = int(value)
    else:
        draft.leave(f"ulimit {name}={value}", "it is not a number")


def take_device(draft: Draft, text: str) -> None:
    """A device of the node under its own name."""
    source, _, rest = text.partition(":")
    if source.startswith("/dev/") and rest.partition(":")[0] in ("", source):
        draft.container.setdefault("devices", []).append(source)
    else:
        draft.leave(f"device {text}", "a device is mounted under its own name, from /dev")


def leave_privileged(draft: Draft) -> None:
    """Nothing is privileged here."""
    draft.leave("privileged", "the container gets what it names: container.devices and container.cap_add")


def gib(value: object) -> float | int | None:
    """A size as Docker writes it in GiB: `16g`, `64gb`, 1073741824; None for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", str(value).strip().lower())
    if match is None:
        return None
    amount = round(float(match[1]) * UNITS[match[2]] / 2**30, 3)
    return int(amount) if amount == int(amount) else amount
