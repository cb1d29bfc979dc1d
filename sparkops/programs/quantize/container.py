"""AutoRound's container: created, followed to its end, removed.

The container outlives the job: it is found again by its name, and its label says what it works for. A running one is
followed, one that ended well is used, a failed one is started again; AutoRound then continues after the last finished
layer (AR_RESUME_DIR, since 0.16), or the last finished shard where it only rounds.
"""

import hashlib
import os
import time
from typing import Any

from sparkops.core.messages import Refused, Unknown, reason_of
from sparkops.programs import docker
from sparkops.programs.launch.node import MEMINFO, available
from sparkops.programs.protocol import Output
from sparkops.programs.quantize import auto_round

LABEL = "sparkops.quantize"
POLL = 1.0
PATIENCE = 180.0
"""Seconds for which the engine may not answer (it may be restarted) before the program gives up following."""
GRACE = 20
"""Seconds between asking the container to stop and killing it."""
TAIL = 60
"""Lines of the container's log that are read."""
State = dict[str, Any]


class Container:
    """The container of one output folder. `sizes` is what `folder.survey` returned, `user` is `UID:GID`."""

    def __init__(self, options: State, sizes: State, folder: str, user: str, output: Output) -> None:
        self.options, self.sizes, self.folder, self.user, self._output = options, sizes, folder, user, output
        self.identity = str(sizes["identity"])
        self.name = name_of(folder)
        self.duration = auto_round.duration(sizes, options)

    def is_usable(self) -> bool:
        """Whether a container works for this, or has ended well; any other is removed."""
        state = docker.inspect_container(self.name)
        if state is None:
            return False
        ours = (state["Config"].get("Labels") or {}).get(LABEL) == self.identity
        if ours and (state["State"]["Running"] or (_ended(state) and state["State"]["ExitCode"] == 0)):
            return True
        remove(self.name)
        return False

    def require_disk(self, written: int) -> None:
        """Raises Refused where the output would not fit; `written` bytes of it exist already."""
        disk = os.statvfs(self.folder)
        free, needed = disk.f_bavail * disk.f_frsize, auto_round.disk(self.sizes, self.options) - written
        if needed > free:
            raise Refused.of("quantize-disk-too-small", folder=self.folder, needed=needed, free=free)

    def require_memory(self) -> None:
        """Raises Refused where less memory is free than the declared or the estimated need."""
        declared = self.options["memory"]
        needed, rule = auto_round.memory(self.sizes, self.options)
        if declared:
            needed, rule = int(declared * (1 << 30)), "as declared"
        free = available(MEMINFO)
        if needed > free:
            raise Refused.of("quantize-memory-too-small", needed=needed, free=free, rule=rule)

    def start(self, base: str) -> None:
        """Create and start the container; its image has to be there. Raises Refused."""
        self._output.progress(f"starting AutoRound, {self.duration}")
        try:
            docker.act("POST", "/containers/create", self._configuration(base), query={"name": self.name})
            docker.act("POST", f"/containers/{self.name}/start")
        except docker.EngineError as error:
            remove(self.name)
            raise auto_round.not_started(error.message, self.options) from None

    def _configuration(self, base: str) -> State:
        argv, options = auto_round.argv(self.options), self.options
        mounts = [_mount(base, auto_round.BASE, True), _mount(self.folder, auto_round.WORK, False)]
        if not auto_round.plain(options) and options["dataset"].startswith("/"):
            mounts.append(_mount(options["dataset"], auto_round.dataset(options), True))
        host: State = {
            "Mounts": mounts,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "ShmSize": 1 << 30,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
        }
        if not options["network"]:
            host["NetworkMode"] = "none"
        if options["memory"]:
            host["Memory"] = host["MemorySwap"] = int(options["memory"] * (1 << 30))
        if options["gpu"]:
            host["DeviceRequests"] = [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
        return {
            "Image": options["image"],
            "Entrypoint": argv[:1],
            "Cmd": argv[1:],
            "Env": [f"{name}={value}" for name, value in auto_round.environment(options).items()],
            "User": self.user,
            "WorkingDir": auto_round.WORK,
            "Labels": {LABEL: self.identity},
            "HostConfig": host,
        }

    def follow(self) -> None:
        """Until the container has ended well. Raises Refused with the reason where it does not, or on a cancel."""
        answered = time.monotonic()
        while True:
            if self._output.stopping.wait(POLL):
                remove(self.name)
                self._output.check()
            try:
                state, log = docker.inspect_container(self.name), docker.logs(self.name, TAIL) or ""
            except (Unknown, OSError) as error:
                if time.monotonic() - answered > PATIENCE:
                    raise Refused.of("quantize-engine-not-answering", reason=reason_of(error)) from None
                continue
            answered = time.monotonic()
            if state is None:
                raise Refused.of("quantize-container-disappeared", container=self.name)
            if _ended(state):
                return self._require_success(state["State"], log)
            text, done, total = auto_round.progress(log) or ("AutoRound starts", None, None)
            unit = "shards" if "shards" in text else "layers"
            self._output.progress(f"{text}; {self.duration}", done, total, unit)

    def _require_success(self, state: State, log: str) -> None:
        if state["ExitCode"] != 0:
            remove(self.name)
            raise auto_round.failure(int(state["ExitCode"]), bool(state.get("OOMKilled")), log, self.options)


def name_of(folder: str) -> str:
    """The name of the container of an output folder."""
    return "sparkops-quantize-" + hashlib.sha256(folder.encode()).hexdigest()[:12]


def remove(name: str) -> None:
    """Stop and remove a container, if it exists; what it wrote stays. Raises Refused."""
    for method, path, query in (
        ("POST", f"/containers/{name}/stop", {"t": str(GRACE)}),
        ("DELETE", f"/containers/{name}", {"force": "1", "v": "1"}),
    ):
        try:
            docker.act(method, path, query=query)
        except docker.EngineError as error:
            if error.status != 404:
                raise Refused.of("quantize-container-not-removed", container=name, text=error.message) from None


def _ended(state: docker.Answer) -> bool:
    return not state["State"]["Running"] and state["State"]["Status"] in ("exited", "dead")


def _mount(source: str, target: str, read_only: bool) -> State:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
