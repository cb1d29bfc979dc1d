"""Facts of the Docker engine, asked over its socket. It must not know images or containers."""

import json

from sparkops.programs import docker as engine
from sparkops.programs import docker_absence
from sparkops.worker.calls import Unknown

SOCKET = "/var/run/docker.sock"


def docker(socket: str = SOCKET) -> dict[str, object]:
    """Version, storage, cgroups and runtimes; `present` is false where no engine serves, with the `reason`.

    Raises Unknown when the engine can't be asked, or answers something else than its information.
    """
    try:
        status, body = engine.request("GET", "/info", timeout=10.0, at=socket)
        _, versions = engine.request("GET", "/version", timeout=10.0, at=socket)
    except Unknown as error:
        if error.id not in docker_absence.ABSENT:
            raise
        return {"present": False, "reason": error.reason, "gpu_access": []}
    if status != 200:
        raise Unknown.of("docker-error-status", status=status, text=engine.message(body))
    try:
        return parse_info(json.loads(body), json.loads(versions))
    except ValueError:
        raise Unknown.of("docker-answer-invalid", answer=f"{body[:200]!r}") from None


def parse_info(info: engine.Answer, version: engine.Answer) -> dict[str, object]:
    """The facts out of `GET /info` and `GET /version`. `gpu_access` names the ways to hand a GPU to a container."""
    runtimes = sorted(info.get("Runtimes") or {})
    devices = sorted(each.get("ID", "") for each in info.get("DiscoveredDevices") or [])
    access = ["runtime"] if "nvidia" in runtimes else []
    if any(device.startswith("nvidia.com/gpu") for device in devices):
        access.append("cdi")
    components = {each.get("Name"): each.get("Version") for each in version.get("Components") or []}
    return {
        "present": True,
        "error": None,
        "version": info.get("ServerVersion"),
        "api_version": version.get("ApiVersion"),
        "containerd": components.get("containerd"),
        "runc": components.get("runc"),
        "storage_driver": info.get("Driver"),
        "snapshotter": any("containerd.snapshotter" in str(pair) for pair in info.get("DriverStatus") or []),
        "cgroup_driver": info.get("CgroupDriver"),
        "cgroup_version": info.get("CgroupVersion"),
        "runtimes": runtimes,
        "default_runtime": info.get("DefaultRuntime"),
        "cdi_folders": list(info.get("CDISpecDirs") or []),
        "cdi_devices": devices,
        "gpu_access": access,
        "root": info.get("DockerRootDir"),
        "live_restore": info.get("LiveRestoreEnabled"),
    }
