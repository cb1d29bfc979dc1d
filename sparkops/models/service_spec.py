"""What a service's process is started from, as one value: the ServiceSpec, its canonical JSON and its digest.

The launcher on the node reads the JSON; the unit carries the digest, and so does the container as a label. Two specs
with one digest start the same process from the same image and checkpoint, however those are named: their content is
compared at the container. Secret environment is no part of it: it travels beside, and is compared by an HMAC with a key
of the node. It must not know roles, files or units.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from secrets import token_hex

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret
from sparkops.models import build_steps
from sparkops.models.argv import canonical, serve_argv
from sparkops.models.group_spec import GroupSpec, address, declared_of, group_key_path, group_keys, group_of
from sparkops.models.parallel import grouped, world
from sparkops.models.rank_environment import rank_environment
from sparkops.models.service_variables import CheckpointVariables, ImageVariables, LimitVariables, ServiceVariables

GIB = 1 << 30
STATE_DIR = "/var/lib/sparkops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder or file of the node inside the container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes, 0 for none. `memory_free_bytes` is waited for before the start; `memory_bytes` caps the container's memory
    (CUDA's allocations are not counted in it on GB10). `ulimits` by name: memlock -1 is unlimited.
    """

    memory_free_bytes: int = 0
    shm_size_bytes: int = 0
    memory_bytes: int = 0
    ulimits: Mapping[str, int] = field(default_factory=dict)
    drop_caches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The completion that proves the engine: `model` as served (None: the first of /v1/models), a limit in seconds."""

    model: str | None = None
    prompt: str = "The capital of France is"
    seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds. `first_boot` is for a start without compiled kernels, `cold_start` for all others."""

    docker_seconds: float
    memory_seconds: float
    first_boot_seconds: float
    cold_start_seconds: float
    stop_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """All that a rank of a service is started from. Paths are the node's.

    `image` is the reference to run; `manifest` says of what the checkpoint is, which the first of `mounts` brings. The
    launcher keeps what it learns in the folder `kept`.
    """

    name: str
    container: str
    image: str
    argv: tuple[str, ...]
    port: int
    limits: Limits
    probe: Probe
    timeouts: Timeouts
    entrypoint: tuple[str, ...] | None = None
    manifest: Mapping[str, str] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    gpus: str | tuple[str, ...] | None = "all"
    network: str = "host"
    host: str = "0.0.0.0"
    ipc: str | None = None
    rank: int = 0
    secrets: str | None = None
    key: str = "/var/lib/sparkops/key"
    cache: str | None = None
    kept: str | None = None
    group: GroupSpec | None = None

    @property
    def text(self) -> str:
        """Canonical JSON: one form for one meaning. An engine without other ranks has no group in it."""
        return canonical(self._mapping())

    @property
    def inputs(self) -> str:
        """`text` without the image's name and the checkpoint's folder: a pin of the same content changes nothing.

        Its SHA-256 is the digest; the launcher makes the same one of the file.
        """
        mounts = [asdict(each) for each in self.mounts]
        if self.manifest is not None:
            mounts[0]["source"] = ""
        return canonical({**self._mapping(), "image": "", "mounts": mounts})

    def _mapping(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "group" or value}

    @property
    def digest(self) -> str:
        """SHA-256 of `inputs`, hexadecimal."""
        return hashlib.sha256(self.inputs.encode()).hexdigest()


def functions(holds: Callable[[object], bool], seal: Callable[[object], object]) -> dict[str, Callable[..., object]]:
    """The functions that role files see: `service_spec` and `service_inputs` (texts), `secret_environment`, `headless`,
    `model_folder`, `base_folder`, `grouped`, `group_key_path`, `group_keys` and `new_group_key`.

    `holds` tells what holds a secret, `seal` makes one that expressions may pass on.
    """
    made: dict[str, object] = {}

    def make(
        service: ServiceVariables,
        image: ImageVariables,
        checkpoint: CheckpointVariables,
        node: Mapping[str, object],
    ) -> ServiceSpec:
        if holds([service.get("serve"), service.get("command"), service.get("model")]):
            raise InventoryError.of("serve-secret")
        secret = {key for key, value in (service.get("environment") or {}).items() if holds(value)}
        ranks = [declared_of(each, holds) for each in service.get("ranks") or ()]
        return spec_of(service, image, checkpoint, node, secret, ranks)

    def secrets(service: ServiceVariables) -> dict[str, object]:
        environment = service.get("environment") or {}
        return {key: value for key, value in environment.items() if value is not None and holds(value)}

    def folder(checkpoint: CheckpointVariables, node: Mapping[str, object]) -> str | None:
        return model_folder(checkpoint, str(node.get("state_dir") or STATE_DIR))

    def base(checkpoint: CheckpointVariables, node: Mapping[str, object]) -> str | None:
        return base_folder(checkpoint, str(node.get("state_dir") or STATE_DIR))

    def new_group_key(service: ServiceVariables) -> object:
        """The same for all ranks of an engine; another one at each compilation."""
        engine = f"{service['name']} {service['nodes'][0]}"
        return made.setdefault(engine, seal(Secret(token_hex(32), "the group's key")))

    return {
        "service_spec": lambda *given: make(*given).text,
        "service_inputs": lambda *given: make(*given).inputs,
        "secret_environment": secrets,
        "headless": headless,
        "model_folder": folder,
        "base_folder": base,
        "grouped": lambda service: grouped(service["nodes"], service["serve"]),
        "group_key_path": group_key_path,
        "group_keys": group_keys,
        "new_group_key": new_group_key,
    }


def spec_of(
    service: ServiceVariables,
    image: ImageVariables,
    checkpoint: CheckpointVariables,
    node: Mapping[str, object],
    secret: set[str],
    ranks: Sequence[Mapping[str, object]] = (),
) -> ServiceSpec:
    """The spec of a service on a node, out of the variables of the roles `service`, `image` and `checkpoint`.

    `secret` names the environment variables that are secret; `ranks` is what is declared for each, without secrets.
    Raises InventoryError.
    """
    state_dir = str(node.get("state_dir") or STATE_DIR)
    folder = model_folder(checkpoint, state_dir)
    model, mounts = _model(service, folder)
    plain = {
        key: _text(value) for key, value in service["environment"].items() if key not in secret and value is not None
    }
    offline = {"HF_HUB_OFFLINE": "1"} if folder else {}
    own = _rank(service) if ranks_flags(service) else {}
    container = service["container"]
    return ServiceSpec(
        name=service["name"],
        container=container["name"] or f"sparkops-{service['name']}",
        image=_image(image),
        entrypoint=None if container["entrypoint"] is None else tuple(container["entrypoint"]),
        manifest=_manifest(checkpoint) if folder else None,
        argv=tuple(serve_argv(service["command"], model, _serve(service))),
        environment={**offline, **{name: text for name, text in own.items() if name not in secret}, **plain},
        mounts=(*mounts, *map(_mount, container["mounts"])),
        devices=tuple(container["devices"]),
        cap_add=tuple(container["cap_add"]),
        gpus=service["gpus"] if service["gpus"] in ("all", None) else tuple(map(str, service["gpus"])),
        network=container["network"],
        host=service["host"],
        port=service["port"],
        ipc=container["ipc"],
        rank=service.get("rank", 0),
        limits=_limits(service["limits"]),
        probe=Probe(
            model=_served_name(service), prompt=service["prompt"], seconds=service["timeouts"]["probe_seconds"]
        ),
        timeouts=_timeouts(service["timeouts"]),
        secrets=f"/etc/sparkops/services/{service['name']}.env" if secret else None,
        key=f"{state_dir}/key",
        cache=f"{state_dir}/compiled" if container["cache"] else None,
        kept=f"{state_dir}/services/{service['name']}",
        group=group_of(service, ranks) if ranks and grouped(service["nodes"], service["serve"]) else None,
    )


def _mount(declared: Mapping[str, object]) -> Mount:
    read_only = declared.get("read_only", True)
    return Mount(source=str(declared["source"]), target=str(declared["target"]), read_only=bool(read_only))


def _image(image: ImageVariables) -> str:
    reference = image["build"]["tag"] or image["pull"]
    if not reference:
        raise InventoryError.of("service-without-image")
    return str(reference)


def model_folder(checkpoint: CheckpointVariables, state_dir: str) -> str | None:
    """Where the role `checkpoint` puts what is served, the built one where it has steps; None without a checkpoint."""
    base, steps = base_folder(checkpoint, state_dir), checkpoint.get("steps")
    if base is None or not steps:
        return base
    return checkpoint["folder"] or f"{base}--built-{build_steps.digest(steps)}"


def base_folder(checkpoint: CheckpointVariables, state_dir: str) -> str | None:
    """Where the repository's own files are put: beside what is built of them, which has the declared folder then."""
    repository = checkpoint["repository"]
    if not repository:
        return None
    name, revision = (str(each).replace("/", "--") for each in (repository, checkpoint["revision"]))
    declared = None if checkpoint.get("steps") else checkpoint["folder"]
    return declared or f"{state_dir}/models/{name}/{revision}"


def _model(service: ServiceVariables, folder: str | None) -> tuple[str, tuple[Mount, ...]]:
    """The engine's argument for the model, and what has to be mounted for it."""
    if folder:
        target = service["container"]["model_path"]
        return service["model"] or target, (Mount(source=folder, target=target),)
    if not service["model"]:
        raise InventoryError.of("service-without-model", service=service["name"])
    return str(service["model"]), ()


def _serve(service: ServiceVariables) -> Mapping[str, object]:
    for key in ("host", "port", "model"):
        if service["serve"].get(key, service[key]) != service[key]:
            given, declared = service["serve"][key], service[key]
            name = service["name"]
            raise InventoryError.of("serve-contradicts-service", service=name, key=key, serve=given, declared=declared)
    bridged = service["container"]["network"] == "bridge"  # the host is where its port is published on the node
    host = "0.0.0.0" if bridged else service["host"]
    return {"port": service["port"], **ranks_flags(service), **service["serve"], "host": host}


def ranks_flags(service: ServiceVariables) -> dict[str, object]:
    """The flags by which one engine runs over all nodes of a service, a rank on each, without Ray; {} for others.

    Who writes `nnodes` has said it all himself. Source: vLLM's --nnodes, --node-rank, --master-addr and --headless,
    alike in 0.19 to 0.33. Raises InventoryError where nodes can't share the ranks evenly.
    """
    nodes, serve = service.get("nodes") or [], service["serve"]
    ranks = world(serve)
    if not grouped(nodes, serve):
        return {}
    if ranks % len(nodes):
        raise InventoryError.of("nodes-do-not-divide-ranks", service=service["name"], nodes=len(nodes), ranks=ranks)
    flags = {"nnodes": len(nodes), "node-rank": service["rank"], "master-addr": address(service, 0)}
    return {**flags, "headless": True} if service["rank"] else flags


def headless(service: ServiceVariables) -> bool:
    """Whether this rank of a service has no API of its own, since the engine's head on another node answers for it."""
    return bool({**ranks_flags(service), **service["serve"]}.get("headless"))


def _rank(service: ServiceVariables) -> dict[str, str]:
    """What a rank's environment says of its host."""
    rank = service["rank"]
    environment = rank_environment(service, service.get("fabric") or {}, service["nodes"][rank])
    return {"VLLM_HOST_IP": address(service, rank), **environment}


def served_names(service: ServiceVariables, checkpoint: CheckpointVariables) -> tuple[str, ...]:
    """The names by which vLLM serves a model: `served-model-name`, else the argument for the model; () without one."""
    path = service["container"]["model_path"] if checkpoint["repository"] else ""
    return _given_names(service) or tuple(filter(None, [service["model"] or path]))


def _given_names(service: ServiceVariables) -> tuple[str, ...]:
    name = service["serve"].get("served-model-name")
    names = name if isinstance(name, Sequence) and not isinstance(name, str) else [name]
    return tuple(str(each) for each in names if each is not None)


def _served_name(service: ServiceVariables) -> str | None:
    return next(iter(_given_names(service)), None)


def _manifest(checkpoint: CheckpointVariables) -> Mapping[str, str]:
    named = {"repository": str(checkpoint["repository"])}
    steps = checkpoint.get("steps")
    return {**named, "steps": build_steps.digest(steps)} if steps else named


def _limits(limits: LimitVariables) -> Limits:
    def size(gib: float | None) -> int:
        return int((gib or 0) * GIB)

    return Limits(
        memory_free_bytes=size(limits["memory_free_gib"]),
        shm_size_bytes=size(limits["shm_size_gib"]),
        memory_bytes=size(limits["memory_gib"]),
        ulimits={key: value for key, value in limits["ulimits"].items() if value is not None},
        drop_caches=limits["drop_caches"],
    )


def _timeouts(timeouts: Mapping[str, float]) -> Timeouts:
    return Timeouts(**{key: timeouts[key] for key in Timeouts.__dataclass_fields__})


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)
