"""Facts of the Docker engine, asked over its socket. It must not know images or containers."""

from sparkops.programs import docker as engine
from sparkops.programs import docker_absence
from sparkops.worker.calls import Unknown
from sparkops.worker.system.root import at


def docker(root: str) -> dict[str, object]:
    """Version, storage, cgroups and runtimes; `present` is false where no engine serves, with the `reason`.

    Raises Unknown when the engine can't be asked, or answers something else than its information.
    """
    try:
        info, version = (engine.ask(path, 10.0, at=at(root, engine.SOCKET)) for path in ("/info", "/version"))
    except Unknown as error:
        if error.id not in docker_absence.ABSENT:
            raise
        return {"present": False, "reason": error.reason, "gpu_access": []}
    if not isinstance(info, dict) or not isinstance(version, dict):
        raise Unknown.of("docker-answer-invalid", answer=f"{info!r:.200}")
    return parse_info(info, version)


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
