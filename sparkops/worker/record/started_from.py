"""From what the running container of a service was made: spec, secrets, image, checkpoint, environment, limits."""

import hashlib
import hmac
import json
import os
from typing import Any

from sparkops.core import atomic
from sparkops.core.kind_messages import UnitAsk
from sparkops.programs import docker
from sparkops.programs.checkpoints import proof
from sparkops.programs.launch.container_body import digest_of, environment_of
from sparkops.worker.record import claim_records
from sparkops.worker.system.root import SPECS, at

CONTAINER = (
    *("container_inputs", "container_image", "container_checkpoint", "secret_inputs"),
    *("container_environment", "container_settings", "restart_policy", "paused"),
)
UPDATABLE = (
    *("Memory", "MemoryReservation", "NanoCpus", "CpuShares", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod"),
    *("CpuRealtimeRuntime", "CpusetCpus", "CpusetMems", "BlkioWeight", "PidsLimit"),
)
"""What `docker update` changes of a container that runs, but for its restart policy and for the swap, of which Docker
keeps another value than it was given where the kernel does not count it."""


def inputs(
    ask: UnitAsk, found: docker.Answer | None, shown: dict[str, str], running: bool, root: str
) -> dict[str, object]:
    """What the unit's running container was made from; None where none runs yet. Raises Unknown.

    A unit that says that it serves has one; else `container_inputs` is "", which is like no declared one.
    """
    if found is None or not running:
        state = dict.fromkeys(CONTAINER)
        return {**state, **({"container_inputs": ""} if shown.get("ActiveState") == "active" else {})}
    labels = (found.get("Config") or {}).get("Labels") or {}
    state = {"container_inputs": labels.get("sparkops.spec", ""), "secret_inputs": None}
    if ask["image"]:
        image = docker.inspect_image(ask["image"]) or {}
        state["container_image"] = "current" if image.get("Id") == found.get("Image") else "other"
    if ask["model"]:
        loaded, files = labels.get("sparkops.checkpoint") or "", labels.get("sparkops.files") or ""
        state["loaded"] = f"sha256:{loaded}" if loaded and files == proof.PROVEN else ""
        same = loaded == proof.record_digest(ask["model"]) and (
            files == proof.PROVEN or (bool(files) and files == proof.seen(ask["model"]))
        )
        state["container_checkpoint"] = "current" if same else "other"
    if ask["secret"] is not None:
        key = claim_records.node_key(ask["state_dir"])
        label = hmac.new(key, ask["secret"], hashlib.sha256).hexdigest() if key else ""
        equal = bool(label) and hmac.compare_digest(label, labels.get("sparkops.secret", ""))
        state["secret_inputs"] = "declared" if equal else "other"
    spec = _spec(ask, labels.get("sparkops.spec", ""), root)
    state["container_environment"] = _environment(spec, found, root) if spec else None
    state["container_settings"] = _settings(spec, found) if spec else None
    state["restart_policy"] = (found.get("HostConfig") or {}).get("RestartPolicy", {}).get("Name") or "no"
    state["paused"] = bool((found.get("State") or {}).get("Paused"))
    return state


def _spec(ask: UnitAsk, digest: str, root: str) -> dict[str, Any] | None:
    """The spec that is there now; None where the container was not started from it: that is told already."""
    try:
        with open(os.path.join(at(root, SPECS), f"{ask['service']}.json"), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    spec: dict[str, Any] = json.loads(data)
    return spec if digest_of(spec) == digest else None


def _settings(spec: dict[str, Any], found: docker.Answer) -> str:
    """Whether the container has the arguments and the limits of its spec, which somebody may have changed since."""
    wanted = {"Memory": spec["limits"]["memory_bytes"]}
    host = found.get("HostConfig") or {}
    limited = all((_limit(host.get(key)) or 0) == (wanted.get(key) or 0) for key in UPDATABLE)
    return "declared" if limited and (found.get("Config") or {}).get("Cmd") == spec["argv"] else "other"


def _limit(value: object) -> object:
    """None for what Docker takes as no limit."""
    return None if value == -1 else value


def _environment(spec: dict[str, Any], found: docker.Answer, root: str) -> str:
    """Whether the container has the variables that its spec, its secrets and its image give, and no others."""
    image = docker.inspect_image(str(found.get("Image"))) or {}
    secrets = atomic.mapping(at(root, spec["secrets"])) if spec["secrets"] else {}
    wanted = {**_variables(image), **environment_of(spec, secrets, cached=bool(spec["cache"]))}
    return "declared" if _variables(found) == wanted else "other"


def _variables(found: docker.Answer) -> dict[str, str]:
    return dict(each.partition("=")[::2] for each in (found.get("Config") or {}).get("Env") or ())
