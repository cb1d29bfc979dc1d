"""Node half of `rank`: what one rank of an engine really stands on: the host below it and what its container loaded.

Read only. What is not known for sure is unknown by itself, the rest is told.
"""

import contextlib
import glob
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping

from sparkops.core import atomic
from sparkops.core.kind_messages import RankAsk
from sparkops.core.messages import UNKNOWN, reason_of
from sparkops.programs import docker
from sparkops.programs.launch.container_body import image_content
from sparkops.programs.launch.rdma import AT_START, rdma_devices
from sparkops.worker.calls import Call, Refused
from sparkops.worker.facts import gpu
from sparkops.worker.facts.network import in_time
from sparkops.worker.facts.system import text
from sparkops.worker.requests import facts
from sparkops.worker.system.root import at

NCCL_CONF = "/etc/nccl.conf"
LIBRARY = re.compile(r"(/\S*libnccl\.so[\w.]*)$")
BUILD_ID = re.compile(rb"\x04\0\0\0(?:\x14|\x10|\x08)\0\0\0\x03\0\0\0GNU\0")
LOOKS, POLL = 4, 0.25
"""Looks at a container that ends meanwhile, and the seconds between them."""
HEAD = 1 << 20
"""Bytes of a library in which the linker's build id stands."""


def observe(ask: RankAsk, root: str = "/") -> dict[str, object]:
    """Plain values of the rank; None for what there is none of, such as while nothing runs."""
    node = facts.Node(root)
    state = {**_gpu(root), **{name: _known(look, node) for name, look in HOST.items()}}
    for last in (*[False] * LOOKS, True):
        inside, pid = _inside(ask, root)
        if last or not pid or os.path.exists(at(root, f"/proc/{pid}")):
            break
        time.sleep(POLL)  # its container ended meanwhile; what is there now?
    return {**state, **inside}


def _inside(ask: RankAsk, root: str) -> tuple[dict[str, object], int]:
    """What is in the container, and its process; 0 where none runs."""
    try:
        container = docker.inspect_container(ask["container"])
    except Exception as error:  # noqa: BLE001 - without Docker's answer only what is in the container is unknown
        return dict.fromkeys((*INSIDE, "rdma"), {UNKNOWN: reason_of(error)}), 0
    running = container if container and (container.get("State") or {}).get("Running") else None
    inside = {name: _known(look, root, running) for name, look in INSIDE.items()}
    return {**inside, "rdma": _known(_rdma, root, ask["kept"], running)}, _pid(running) if running else 0


def _known(look: Callable[..., object], *given: object) -> object:
    try:
        return look(*given)
    except Exception as error:  # noqa: BLE001 - one value that cannot be told does not take the others
        return {UNKNOWN: reason_of(error)}


def _gpu(root: str) -> dict[str, object]:
    """Driver and highest clock, in one question to nvidia-smi."""
    try:
        found, _ = gpu.cards()
    except Exception as error:  # noqa: BLE001 - a GPU that can't be asked does not take the other values
        return dict.fromkeys(("driver", "gpu_clock_max_mhz"), {UNKNOWN: reason_of(error)})
    first = found[0] if found else {}
    driver = first.get("driver_version") or gpu.running_module(text(root, "/proc/driver/nvidia/version") or "")
    return {"driver": driver, "gpu_clock_max_mhz": first.get("sm_clock_max_mhz")}


def _gids(node: facts.Node) -> object:
    rails = node.group("fabric")["rails"].values()
    found = {
        each["rdma"]: [gid["index"] for gid in each.get("gids", ()) if gid["type"] == "RoCE v2" and gid["address"]]
        for each in rails
        if each["rdma_state"] == "ACTIVE"
    }
    return "; ".join(f"{name} {', '.join(map(str, found[name]))}" for name in sorted(found)) or None


def _card(node: facts.Node) -> object:
    rails = node.group("fabric")["rails"].values()
    return ", ".join(sorted({f"{each['firmware']} ({each['psid']})" for each in rails if each.get("firmware")})) or None


HOST: Mapping[str, Callable[[facts.Node], object]] = {
    "kernel": lambda node: node.group("os")["kernel"],
    "firmware": lambda node: node.group("firmware").get("bios_version"),
    "connectx_firmware": _card,
    "gid_indices": _gids,
    "memory_bytes": lambda node: node.group("memory")["total_bytes"],
    "cma_bytes": lambda node: node.group("memory")["cma_total_bytes"],
}


def _image(root: str, container: docker.Answer | None) -> object:
    found = docker.inspect_image(str(container["Image"])) if container else None
    if found is None:
        return None
    return image_content(list((found.get("RootFS") or {}).get("Layers") or []), found.get("Config") or {})


def _checkpoint(root: str, container: docker.Answer | None) -> object:
    labels = ((container or {}).get("Config") or {}).get("Labels") or {}
    return labels.get("sparkops.checkpoint") or None


def _pid(container: docker.Answer) -> int:
    return int((container.get("State") or {}).get("Pid") or 0)


def _nccl(root: str, container: docker.Answer | None) -> object:
    return loaded_nccl(root, _pid(container)) if container else None


def loaded_nccl(root: str, pid: int) -> str | None:
    """The NCCL that processes beside `pid` have mapped: path in their container, version by its name, build id.

    Several ones stand side by side: an engine that loads two is a fault of its own.
    """
    found = set()
    for folder in _processes(root, pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            with open(os.path.join(folder, "maps"), encoding="utf-8", errors="replace") as file:
                paths = {match.group(1) for line in file if (match := LIBRARY.search(line.rstrip()))}
            found |= {f"{path} {_build_id(os.path.join(folder, 'root', path.lstrip('/')))}" for path in paths}
    return ", ".join(sorted(found)) or None


def _processes(root: str, pid: int) -> Iterator[str]:
    """The folders of the processes in the PID namespace of one."""
    inside = os.readlink(at(root, f"/proc/{pid}/ns/pid"))
    for folder in sorted(glob.glob(at(root, "/proc/[0-9]*"))):
        try:
            same = os.readlink(os.path.join(folder, "ns/pid")) == inside
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if same:
            yield folder


def _build_id(path: str) -> str:
    """The linker's build id, which tells one build of a library from every other; its size where there is none."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
        size = os.fstat(file.fileno()).st_size
    note = BUILD_ID.search(head)
    if note is None:
        return f"{size} bytes"
    return "build " + head[note.end() : note.end() + head[note.start() + 4]].hex()


def _nccl_conf(root: str, container: docker.Answer | None) -> object:
    if container is None:
        return None
    try:
        with open(at(root, f"/proc/{_pid(container)}/root{NCCL_CONF}"), encoding="utf-8", errors="replace") as file:
            lines = (line.strip() for line in file.read(1 << 16).splitlines())
            return "; ".join(line for line in lines if line and not line.startswith("#")) or "empty"
    except FileNotFoundError:
        if not os.path.exists(at(root, f"/proc/{_pid(container)}")):
            raise
        return None


def _rdma(root: str, kept: str, container: docker.Answer | None) -> object:
    """The RDMA devices `then`, when this very container's engine began to serve (`at`), and `now`; None where that is
    not kept, or there was none."""
    then = atomic.mapping(at(root, f"{kept}/{AT_START}")) if container else {}
    if not container or then.get("container") != container["Id"] or not then.get("devices"):
        return None
    return {"at": then.get("at"), "then": then["devices"], "now": in_time(lambda: rdma_devices(root))}


INSIDE: Mapping[str, Callable[[str, docker.Answer | None], object]] = {
    "image": _image,
    "checkpoint": _checkpoint,
    "nccl": _nccl,
    "nccl_conf": _nccl_conf,
}


def converge(call: Call, ask: dict[str, object], found: object, want: object, act: dict[str, object]) -> None:
    """There is nothing to bring about."""
    raise Refused.of("kind-unknown", kind="rank")
