"""What a container is made of: the request for Docker out of a spec, and the folder of compiled kernels."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from sparkops.programs.checkpoints.proof import record_digest, standing
from sparkops.programs.launch.docker import LABEL


def digest_of(spec: dict[str, Any]) -> str:
    """SHA-256 of what the process is started from, as `ServiceSpec.inputs` has it: image and checkpoint by no name."""
    mounts = [dict(each) for each in spec["mounts"]]
    if spec["manifest"] is not None:
        mounts[0]["source"] = ""
    nameless = {**spec, "image": "", "mounts": mounts}
    text = json.dumps(nameless, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def body_of(spec: dict[str, Any], digest: str, secret: dict[str, str], label: str, cache: str) -> dict[str, object]:
    """What POST /containers/create takes. `cache` is a folder of the node, or "" for none."""
    limits, port = spec["limits"], f"{spec['port']}/tcp"
    environment = environment_of(spec, secret, cached=bool(cache))
    mounts = [
        {"Type": "bind", "Source": each["source"], "Target": each["target"], "ReadOnly": each["read_only"]}
        for each in spec["mounts"]
    ]
    if cache:
        mounts.append({"Type": "bind", "Source": cache, "Target": CACHE_TARGET, "ReadOnly": False})
    host: dict[str, object] = {
        "Init": True,
        "NetworkMode": spec["network"],
        "Mounts": mounts,
        "CapAdd": spec["cap_add"],
        "Devices": [{"PathOnHost": d, "PathInContainer": d, "CgroupPermissions": "rwm"} for d in spec["devices"]],
        "Ulimits": [{"Name": k, "Soft": v, "Hard": v} for k, v in sorted(limits["ulimits"].items())],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "3"}},
        "RestartPolicy": {"Name": "no"},
    }
    if spec["network"] != "host":
        host["PortBindings"] = {port: [{"HostIp": spec["host"], "HostPort": str(spec["port"])}]}
    if limits["shm_size_bytes"]:
        host["ShmSize"] = limits["shm_size_bytes"]
    if limits["memory_bytes"]:
        host["Memory"] = host["MemorySwap"] = limits["memory_bytes"]
    if spec["ipc"]:
        host["IpcMode"] = spec["ipc"]
    if spec["gpus"]:
        chosen: dict[str, object] = {"Count": -1} if spec["gpus"] == "all" else {"DeviceIDs": spec["gpus"]}
        host["DeviceRequests"] = [{"Driver": "", "Capabilities": [["gpu"]], **chosen}]
    labels = {LABEL: spec["name"], "sparkops.spec": digest}
    if spec["manifest"] is not None:
        folder = spec["mounts"][0]["source"]
        labels["sparkops.checkpoint"] = record_digest(folder)
        labels["sparkops.files"] = standing(folder, os.path.dirname(spec["key"]))
    if label:
        labels["sparkops.secret"] = label
    body = {
        "Image": spec["image"],
        "Cmd": spec["argv"],
        "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
        "Labels": labels,
        "ExposedPorts": {port: {}},
        "HostConfig": host,
    }
    if spec["entrypoint"] is not None:
        body["Entrypoint"] = spec["entrypoint"]
    return body


def environment_of(spec: dict[str, Any], secret: dict[str, str], *, cached: bool) -> dict[str, str]:
    """The variables that the container gets beside those of its image."""
    return {"PYTHONFAULTHANDLER": "1", **(CACHES if cached else {}), **spec["environment"], **secret}


CONFIG = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
)
"""The part of an image's configuration that says how it runs; engines of several versions tell the rest differently."""


def image_content(layers: list[str], config: Mapping[str, object]) -> str:
    """A digest of the ordered layers and of how the image runs; equal on every engine that has the same image."""
    kept = {key: config[key] for key in CONFIG if config.get(key)}
    text = json.dumps([layers, kept], sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


CACHE_TARGET = "/var/cache/sparkops"
CACHES = {
    "VLLM_CACHE_ROOT": f"{CACHE_TARGET}/vllm",
    "TRITON_CACHE_DIR": f"{CACHE_TARGET}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_TARGET}/inductor",
    "FLASHINFER_WORKSPACE_BASE": f"{CACHE_TARGET}/flashinfer",
}


def cache_folder(spec: dict[str, Any], image_id: str) -> str:
    """The folder of compiled kernels for exactly this image, argument list and rank; made where it is missing.

    vLLM's own key ignores some arguments (vLLM #53366), Triton's the image (#41871): another one gets another folder.
    """
    if not spec["cache"]:
        return ""
    key = json.dumps([image_id, spec["argv"], spec["environment"], spec["rank"]], sort_keys=True)
    above = os.path.join(spec["cache"], spec["name"])
    os.makedirs(above, mode=0o700, exist_ok=True)
    os.chmod(spec["cache"], 0o700)
    folder = os.path.join(above, hashlib.sha256(key.encode()).hexdigest()[:16])
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        os.chmod(folder, 0o777)
    return folder
