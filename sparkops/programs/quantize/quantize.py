"""The step `quantize` of a build: AutoRound in a container, on a base at 16 bit.

The container outlives the job: it is found again by its name, and its label says for what it works. A job that finds
it running follows it, takes what a finished one left, and starts a failed one anew; AutoRound then goes on behind the
last finished layer (AR_RESUME_DIR, since 0.16), or the last finished shard where it only rounds.
"""

import contextlib
import hashlib
import os
import pwd
import time
from collections.abc import Callable
from typing import Any

from sparkops.programs.checkpoints.folder import hand_over
from sparkops.programs.quantize import auto_round as words
from sparkops.programs.quantize import folder
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.images import pull
from sparkops.worker.images.build import unframed
from sparkops.worker.system import docker
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.jobs import Job

LABEL = "sparkops.quantize"
POLL = 1.0
PATIENCE = 180.0
"""Seconds for which the engine may not answer (it may be restarted) before the job gives up following."""
GRACE = 20
"""Seconds between asking the container to stop and killing it."""
TAIL = 60
"""Lines of the container's log that are looked at."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
State = dict[str, Any]


def quantize(job: Job, options: State, base: str, output: str, who: pwd.struct_passwd) -> None:
    """Fill the folder `output` with the base quantised, as `who`; done already, it costs a look.

    options: all that the step takes (models/quantize_step.py), defaults filled in. Raises Refused.
    """
    source = os.open(base, _FOLDER)
    sizes = _as(who, lambda: folder.survey(source, options))
    identity = sizes["identity"]
    target = _stage(output, who)
    run = _Run(job, options, sizes, output, who)
    if _as(who, lambda: {"taken": folder.is_taken(target, identity)})["taken"]:
        run.remove()
        return
    if run.found() is None:
        run.check_memory()
        run.check_disk(_as(who, lambda: {"bytes": folder.prepare(target, identity)})["bytes"])
        run.start(base)
    run.follow()
    job.progress("looking through what AutoRound wrote")
    _as(who, lambda: folder.take(target, source, identity))
    run.remove()


def discard(output: str) -> None:
    """Stop and remove the container of an output folder that is no longer wanted."""
    if os.path.lexists(output):
        _remove(_name(output))


def _name(output: str) -> str:
    return "sparkops-quantize-" + hashlib.sha256(output.encode()).hexdigest()[:12]


def _remove(name: str) -> None:
    """Stop a container and take it away; what it wrote stays."""
    with contextlib.suppress(docker.EngineError):
        docker.act("POST", f"/containers/{name}/stop", query={"t": str(GRACE)})
    with contextlib.suppress(docker.EngineError):
        docker.act("DELETE", f"/containers/{name}", query={"force": "1", "v": "1"})


def _as(who: pwd.struct_passwd, work: Callable[[], State]) -> State:
    return rights.run(who, lambda _: work(), lambda _: None)


def _stage(output: str, who: pwd.struct_passwd) -> int:
    """The output folder, made where it is lacking, as the user's own; its descriptor."""
    os.makedirs(os.path.dirname(output), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(output, 0o700)
    handle = os.open(output, _FOLDER)
    hand_over(handle, who)
    return handle


class _Run:
    """The container of one output folder."""

    def __init__(self, job: Job, options: State, sizes: State, output: str, who: pwd.struct_passwd) -> None:
        self.job, self.options, self.sizes, self.output, self.who = job, options, sizes, output, who
        self.identity = str(sizes["identity"])
        self.name = _name(output)
        self.duration = words.duration(sizes, options)

    def found(self) -> State | None:
        """The container, where it works for this or has ended well; any other is removed."""
        state = docker.inspect_container(self.name)
        if state is None:
            return None
        ours = (state["Config"].get("Labels") or {}).get(LABEL) == self.identity
        if ours and (state["State"]["Running"] or (_ended(state) and state["State"]["ExitCode"] == 0)):
            return state
        self.remove()
        return None

    def check_disk(self, there: int) -> None:
        """Raises Refused where the output would not fit; `there` bytes of it are written already."""
        disk = os.statvfs(self.output)
        free, needed = disk.f_bavail * disk.f_frsize, words.disk(self.sizes, self.options) - there
        if needed > free:
            raise Refused(
                f"quantising needs {needed / 1e9:.1f} GB more by estimate; {self.output} has {free / 1e9:.1f} GB free",
                hint="free space there, or declare another folder; plain_rtn with iters: 0 needs no room to work",
            )

    def check_memory(self) -> None:
        """Raises Refused where less memory is free than the declared or the estimated need."""
        declared = self.options["memory"]
        by_rule, rule = words.memory(self.sizes, self.options)
        needed = int(declared * (1 << 30)) if declared else by_rule
        free = _available()
        if needed > free:
            why = "as declared" if declared else f"by a rule that was never checked on a Spark: {rule}"
            raise Refused(
                f"quantising needs {needed / 1e9:.1f} GB of memory ({why}), and {free / 1e9:.1f} GB are free",
                hint="stop what runs there; low_gpu_mem_usage and plain_rtn take less; `memory` (GiB) overrides it",
            )

    def start(self, base: str) -> None:
        """Create and start the container. Raises Refused."""
        image = str(self.options["image"])
        if docker.inspect_image(image) is None:
            self._pull(image)
        self.job.progress(f"starting AutoRound, {self.duration}")
        try:
            docker.act("POST", "/containers/create", self._order(base), query={"name": self.name})
            docker.act("POST", f"/containers/{self.name}/start")
        except docker.EngineError as error:
            self.remove()
            raise words.not_started(error.message, self.options) from None

    def _pull(self, image: str) -> None:
        named, _, digest = image.partition("@")
        repository, colon, tag = named.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = named, "" if digest else "latest"
        try:
            pull.pull(self.job, {"name": image, "repository": repository, "tag": tag, "digest": digest})
        except Refused as error:
            error.hint = f"{error.hint}; an image that is built on the node is declared as image.build of a service"
            raise

    def _order(self, base: str) -> State:
        argv, options = words.argv(self.options), self.options
        mounts = [_mount(base, words.BASE, True), _mount(self.output, words.WORK, False)]
        if not words.plain(options) and options["dataset"].startswith("/"):
            mounts.append(_mount(options["dataset"], words.dataset(options), True))
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
            "Env": [f"{name}={value}" for name, value in words.environment(options).items()],
            "User": f"{self.who.pw_uid}:{self.who.pw_gid}",
            "WorkingDir": words.WORK,
            "Labels": {LABEL: self.identity},
            "HostConfig": host,
        }

    def follow(self) -> None:
        """Until the container has ended well. Raises Refused with the reason where it does not, or on a cancel."""
        heard = time.monotonic()
        while True:
            if self.job.stopping.wait(POLL):
                self.remove()
                self.job.check()
            try:
                state, said = docker.inspect_container(self.name), self._said()
            except (Unknown, OSError) as error:
                if time.monotonic() - heard > PATIENCE:
                    raise Refused(f"{error}; AutoRound may go on there", hint="run apply again to follow it") from None
                continue
            heard = time.monotonic()
            if state is None:
                raise Refused(
                    "somebody removed AutoRound's container", hint="run apply again: finished layers are kept"
                )
            if _ended(state):
                return self._judge(state["State"], said)
            text, done, total = words.progress(said) or ("AutoRound starts", None, None)
            unit = "shards" if "shards" in text else "layers"
            self.job.progress(f"{text}; {self.duration}", done, total, unit=unit)

    def _said(self) -> str:
        query = {"stdout": "1", "stderr": "1", "tail": str(TAIL)}
        status, data = docker.request("GET", f"/containers/{self.name}/logs", query=query)
        return unframed(data).decode(errors="replace") if status == 200 else ""

    def _judge(self, state: State, said: str) -> None:
        if state["ExitCode"] == 0:
            return
        self.remove()
        raise words.failure(int(state["ExitCode"]), bool(state.get("OOMKilled")), said, self.options)

    def remove(self) -> None:
        _remove(self.name)


def _ended(state: State) -> bool:
    return not state["State"]["Running"] and state["State"]["Status"] in ("exited", "dead")


def _mount(source: str, target: str, read_only: bool) -> State:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}


def _available() -> int:
    """Bytes of memory that can be had without swapping."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    raise Unknown("/proc/meminfo tells no MemAvailable")
