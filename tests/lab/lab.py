"""The lab as a whole: up, down, what is running, and the parts that tests ask for.

Everything that exists is read from the engine and from the state folder at the moment it is asked for, so that
several test runs and a shell can use one lab at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import secrets
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import dockerd, images, machine, model, real_engine, registry, rootfs
from .dockerd import Engine
from .images import Image
from .machine import Daemon, LabError, run, store_address
from .node import FABRIC_SUBNET, Node, container_name
from .registry import Registry

NETWORK = "sparkops-lab"
SUBNET = "10.213.77"
GATEWAY = f"{SUBNET}.1"
BRIDGE = "sparkops-lab0"
FABRIC = "sparkops-lab-fabric"
FABRIC_MTU = 9000
LABEL = "sparkops-lab"
HUB_PORT = 5080
MODEL = "lab/tiny-moe"
OVERLAY = Path(__file__).parent / "files" / "node"


@dataclass(frozen=True)
class Lab:
    """The running lab. `state` is its folder, `cache` what outlives it, `engine` what carries the nodes."""

    engine: Engine
    state: Path
    cache: Path

    @classmethod
    def up(cls, nodes: int = 0) -> Lab:
        """Bring the lab up, or find it up; with `nodes`, see that spark-01 … exist. Safe to repeat."""
        state, cache = machine.state_dir(), machine.cache_dir()
        machine.install_missing()
        with machine.locked(_lock(state)):
            state.mkdir(parents=True, exist_ok=True)
            cache.mkdir(parents=True, exist_ok=True)
            engine = dockerd.find(state, cache) or _fresh_engine(state, cache)
            lab = cls(engine, state, cache)
            lab._network()
            lab._key()
            registry.start(state, cache, GATEWAY)
            lab._start_hub()
            rootfs.ensure(rootfs.NODE, engine, cache)
        wanted = [f"spark-{number:02}" for number in range(1, nodes + 1)]
        for name in wanted:
            if name not in {node.name for node in lab.nodes()}:
                lab.add_node(name, wait=False)
        for name in wanted:
            lab.node(name).wait()
        return lab

    @classmethod
    def running(cls) -> Lab | None:
        """The lab that is up, or None."""
        state, cache = machine.state_dir(), machine.cache_dir()
        if not (state / "key").exists():
            return None
        engine = dockerd.find(state, cache)
        return cls(engine, state, cache) if engine else None

    @classmethod
    def down(cls) -> None:
        """End all that was started, and leave the machine as it was. The cache stays."""
        state, cache = machine.state_dir(), machine.cache_dir()
        if not state.exists():
            return
        with machine.locked(_lock(state)):
            died = (state / "before.json").exists()
            engine = dockerd.find(state, cache) or (dockerd.start(state, cache) if died else None)
            if engine is not None:
                _remove_containers(engine)
            for name in ("hub", *registry.INSTANCES):
                daemon = Daemon.load(state / f"{name}.json")
                if daemon is not None:
                    daemon.stop()
            dockerd.stop(state, cache)
            run(["rm", "-rf", "--one-file-system", str(state)], root=True)

    @property
    def address(self) -> str:
        """The machine's address as the nodes see it: here registry and hubs listen."""
        return GATEWAY

    @property
    def key(self) -> Path:
        """The private key that root, spark and warden accept on every node."""
        return self.state / "key"

    @property
    def known_hosts(self) -> Path:
        """The host keys of all nodes, under their name and their address."""
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """A client configuration in which every node has its name, key and known host key."""
        return self.state / "ssh_config"

    @property
    def registry(self) -> Registry:
        """The open registry, which every node may pull from and push to."""
        return registry.instance("registry", GATEWAY)

    @property
    def private_registry(self) -> Registry:
        """The same content, behind a user name and a password."""
        return registry.instance("private-registry", GATEWAY)

    @property
    def hub(self) -> str:
        """Address (HF_ENDPOINT) of the lab's standing hub; it has the tiny model as `lab/tiny-moe`.

        A test that wants faults or a request log starts a Hub of its own (fixture `hub`).
        """
        return f"http://{GATEWAY}:{HUB_PORT}"

    @property
    def model_commit(self) -> str:
        """The commit of `lab/tiny-moe` that the standing hub serves."""
        return (self.state / "hub.log").read_text().split()[1]

    @property
    def model(self) -> Path:
        """The tiny model as a folder."""
        return self.state / "tiny-moe"

    @property
    def engine_image(self) -> Image:
        """The small engine, that answers as vLLM does (see engine.py), in the registry."""
        with machine.locked(self.cache / "images.lock"):
            return images.engine(self.registry, self.cache)

    def real_engine_image(self) -> Image:
        """The real vLLM, its build for CPUs; made when first asked for. Raises NoRealEngine.

        Its build takes minutes, and must not keep others from the small engine.
        """
        assert self.engine_image  # whose base layer it stands on
        with machine.locked(self.cache / "real-engine.lock"):
            return real_engine.image(self.registry, self.cache)

    def auto_round_image(self) -> Image:
        """AutoRound and transformers on torch's CPU build; made when first asked for. Raises NoCpuTorch."""
        with machine.locked(self.cache / "images.lock"):
            return images.auto_round(self.registry, self.cache)

    def nodes(self) -> list[Node]:
        """All nodes, by name."""
        return [
            self.node(path.name) for path in sorted((self.state / "nodes").glob("*")) if (path / "node.json").exists()
        ]

    def node(self, name: str) -> Node:
        """One node by its name; LabError names those there are."""
        try:
            noted = json.loads((self.state / "nodes" / name / "node.json").read_text())
        except FileNotFoundError:
            known = ", ".join(sorted(path.name for path in (self.state / "nodes").glob("*"))) or "none"
            raise LabError(f"no node {name!r} in the lab; there are: {known}") from None
        return Node(name, noted["address"], noted["host_key"], self.engine, self.state)

    def add_node(self, name: str | None = None, *, wait: bool = True) -> Node:
        """A fresh node, by default under a name of its own."""
        name = name or f"fresh-{secrets.token_hex(3)}"
        folder = self.state / "nodes" / name
        with machine.locked(self.state / "nodes.lock"):
            if container_name(name) in self.engine.text("ps", "-a", "--format", "{{.Names}}").split():
                raise LabError(f"a node {name!r} is there already")
            address = self._free_address()
            folder.mkdir(parents=True, exist_ok=True)
            host_key = _host_key(folder)
            self._create(name, address, folder)
            (folder / "node.json").write_text(json.dumps({"address": address, "host_key": host_key}))
            self._client_files()
        node = self.node(name)
        self.engine("start", node.container)
        if wait:
            node.wait()
        return node

    def remove_node(self, node: Node) -> None:
        with machine.locked(self.state / "nodes.lock"):
            node.remove()
            self._client_files()

    @classmethod
    @contextlib.contextmanager
    def session(cls, nodes: int = 0) -> Iterator[Lab]:
        """The lab for one run of something. The last of several to end takes it down, unless `up` was said by hand.

        The hold is taken before the lab is looked for, so that no other run can take it down in between.
        """
        with _held(lambda: cls.up(nodes)) as lab:
            yield lab

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold a lab that is already up, as `session` does."""
        with _held(lambda: self):
            yield

    @property
    def kept(self) -> bool:
        """Was it brought up by hand, so that it stays until somebody takes it down?"""
        return (self.state / "kept").exists()

    def keep(self) -> None:
        (self.state / "kept").touch()

    def fabric(self) -> str:
        """Name of a second network for Node.plug: 10.213.78.0/24 with jumbo frames."""
        with machine.locked(self.state / "nodes.lock"):
            if self.engine("network", "inspect", FABRIC, check=False).returncode != 0:
                self.engine(
                    *("network", "create", "--label", LABEL, "--subnet", f"{FABRIC_SUBNET}.0/24"),
                    *("-o", f"com.docker.network.driver.mtu={FABRIC_MTU}", FABRIC),
                )
        return FABRIC

    def _network(self) -> None:
        if self.engine("network", "inspect", NETWORK, check=False).returncode != 0:
            self.engine(
                *("network", "create", "--label", LABEL, "--subnet", f"{SUBNET}.0/24", "--gateway", GATEWAY),
                *("-o", f"com.docker.network.bridge.name={BRIDGE}", NETWORK),
            )
        run(["ip", "address", "replace", f"{store_address(GATEWAY)}/24", "dev", BRIDGE], root=True)

    def _start_hub(self) -> None:
        """The standing hub, a process of its own, so that it outlives whoever brought the lab up."""
        if Daemon.load(self.state / "hub.json") is not None:
            return
        model.write(self.model)
        (self.state / "hub.log").unlink(missing_ok=True)
        listen = ("--address", GATEWAY, "--port", str(HUB_PORT), "--store-port", str(HUB_PORT + 1))
        argv = [sys.executable, "-m", "tests.lab.hub", *listen, f"{MODEL}={self.model}"]
        pid = machine.start_daemon(argv, self.state / "hub.log", cwd=Path(__file__).parents[2])
        if not machine.wait_until(lambda: self.hub in (self.state / "hub.log").read_text(), 90):
            raise LabError(f"the hub did not start: {(self.state / 'hub.log').read_text()[-800:]}")
        Daemon.of(pid).save(self.state / "hub.json")

    def _key(self) -> None:
        (self.state / "nodes").mkdir(exist_ok=True)
        if not self.key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sparkops-lab", "-f", str(self.key)])
        self._client_files()

    def _free_address(self) -> str:
        taken = {node.address for node in self.nodes()}
        return next(a for a in (f"{SUBNET}.{last}" for last in range(11, 255)) if a not in taken)

    def _create(self, name: str, address: str, folder: Path) -> None:
        capabilities = [f"--cap-add={capability}" for capability in dockerd.capabilities()]
        self.engine(
            *("create", "--name", container_name(name), "--hostname", name, "--label", LABEL),
            *("--network", NETWORK, "--ip", address, "--network-alias", name, "--stop-signal", "SIGRTMIN+3"),
            *("--cap-drop=ALL", *capabilities),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--security-opt", "systempaths=unconfined"),
            *("--tmpfs", "/run:exec", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "-v", "/var/lib/docker"),
            *("--cgroupns=host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "-e", "container=docker"),
            *(rootfs.NODE.image, "/sbin/init"),
        )
        self.engine("cp", "-", f"{container_name(name)}:/", input=self._overlay(folder))

    def _overlay(self, folder: Path) -> bytes:
        """A tar of what is laid over a new node: fixture programs, sshd's settings, keys, Docker's settings."""
        public = (self.state / "key.pub").read_bytes()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path in sorted(OVERLAY.rglob("*")):
                if path.is_file():
                    _add(tar, str(path.relative_to(OVERLAY)), path.read_bytes(), path.stat().st_mode & 0o755)
            for home, owner in (("root", 0), ("home/spark", 1000), ("home/warden", 1001)):
                _add_folder(tar, f"{home}/.ssh", owner)
                _add(tar, f"{home}/.ssh/authorized_keys", public, 0o600, owner)
            _add(tar, "etc/ssh/ssh_host_ed25519_key", (folder / "host_key").read_bytes(), 0o600)
            _add(tar, "etc/ssh/ssh_host_ed25519_key.pub", (folder / "host_key.pub").read_bytes(), 0o644)
            _add(tar, "etc/docker/daemon.json", json.dumps(self._nested_settings(), indent=2).encode(), 0o644)
        return out.getvalue()

    def _nested_settings(self) -> dict[str, object]:
        """Docker's settings on a node. The `nvidia` runtime is there, as on a Spark, and is plain runc."""
        return {
            "insecure-registries": [self.registry.host, self.private_registry.host],
            "runtimes": {"nvidia": {"path": "runc", "runtimeArgs": []}},
            "storage-driver": "overlay2",
            "bip": "172.30.0.1/24",
            "default-address-pools": [{"base": "172.31.0.0/16", "size": 24}],
        }

    def _client_files(self) -> None:
        """Write known_hosts and ssh_config from the nodes there are; each is replaced at once."""
        nodes = self.nodes()
        _replace(self.known_hosts, "".join(f"{n.name},{n.address} {n.host_key}\n" for n in nodes))
        common = (
            f"Host *\n  User spark\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
        )
        hosts = "".join(f"Host {n.name}\n  HostName {n.address}\n  HostKeyAlias {n.name}\n\n" for n in nodes)
        _replace(self.ssh_config, hosts + common)


@contextlib.contextmanager
def _held(bring: Callable[[], Lab]) -> Iterator[Lab]:
    """A shared lock for as long as the lab is used; whoever gets it alone at the end is the last."""
    state = machine.state_dir()
    state.parent.mkdir(parents=True, exist_ok=True)
    with state.with_name(f"{state.name}.users").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        lab = bring()
        try:
            yield lab
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not lab.kept and "SPARKOPS_LAB_KEEP" not in os.environ:
                    lab.down()


def _lock(state: Path) -> Path:
    return state.with_name(f"{state.name}.lock")


def _host_key(folder: Path) -> str:
    for name in ("host_key", "host_key.pub"):
        (folder / name).unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / "host_key")])
    return " ".join((folder / "host_key.pub").read_text().split()[:2])


def _fresh_engine(state: Path, cache: Path) -> Engine:
    """A new engine of the lab's own, without the nodes that an earlier one left when the machine went down."""
    engine = dockerd.start(state, cache)
    _remove_containers(engine)
    run(["rm", "-rf", str(state / "nodes")])
    return engine


def _remove_containers(engine: Engine) -> None:
    of_ours = ("--filter", f"label={LABEL}", "-q")
    containers = engine.text("ps", "-a", *of_ours).split()
    if containers:
        engine("rm", "-f", "-v", *containers)
    networks = engine.text("network", "ls", *of_ours).split()
    if networks:
        engine("network", "rm", *networks)


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.replace(path)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int, owner: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, owner, owner
    tar.addfile(entry, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str, owner: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o700, owner, owner
    tar.addfile(entry)
