"""The faults: each is injected once into a running apply, and leaves nothing behind but what it broke.

`before` prepares the node before the apply starts, `mend` gives back what no tool could do without (power, disk space,
the network); it never touches what sparkops manages.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.cluster import ENGINE, MODEL, ROOT, Cluster, act
from tests.e2e.test_whose_answer import LISTEN
from tests.lab.hub import Fault as HubFault
from tests.lab.machine import wait_until
from tests.lab.node import Node


@dataclass(frozen=True)
class Scene:
    """What a fault works on: the apply's process, the node it hits, and where its own choices come from."""

    cluster: Cluster
    node: Node
    process: subprocess.Popen[str]
    choice: random.Random


def _nothing(cluster: Cluster, node: Node) -> None:
    """Nothing to prepare or to mend."""


@dataclass(frozen=True)
class Fault:
    """A fault; `weight` is how often it is drawn, `statuses` the exit statuses that the apply may end with.

    `during` is the kind of step in which it comes; `lock_limit` the seconds within which no lock is held any more;
    `after` takes back what only had to be there for the fault.
    """

    name: str
    weight: int
    inject: Callable[[Scene], None]
    statuses: frozenset[int] = frozenset({0, 3, 4})
    before: Callable[[Cluster, Node], None] = _nothing
    mend: Callable[[Cluster, Node], None] = _nothing
    after: Callable[[Cluster, Node], None] = _nothing
    during: str = ""
    lock_limit: float = 30.0


def _signals(*numbers: int) -> Callable[[Scene], None]:
    def send(scene: Scene) -> None:
        for number in numbers:
            scene.process.send_signal(number)
            if number != numbers[-1]:
                time.sleep(scene.choice.uniform(0.02, 0.4))

    return send


def _kill(program: str, mark: str) -> Callable[[Scene], None]:
    return lambda scene: act(scene.node, "kill", program=program, mark=mark)


def _on_node(*argv: str) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        scene.node.exec(*argv, check=False)

    return run


def _reset_link(scene: Scene) -> None:
    scene.node.cut(refuse=True)
    time.sleep(scene.choice.uniform(0.1, 1.5))
    scene.node.restore(refuse=True)


def _hub(fault: HubFault, times: int) -> Callable[[Scene], None]:
    def fail(scene: Scene) -> None:
        scene.cluster.hub.heal()
        scene.cluster.hub.fail("*", fault, times=times)
        scene.cluster.hub.expire_links()

    return fail


def _power_loss(scene: Scene) -> None:
    scene.node.kill()
    time.sleep(scene.choice.uniform(0, 0.5))
    scene.node.start()


def _docker_answers(_: Cluster, node: Node) -> None:
    """systemd gives up on a service that was killed too often; a person would start it."""
    node.exec("systemctl", "reset-failed", "docker.service", check=False)
    node.exec("systemctl", "start", "docker.socket", "docker.service", check=False)
    wait_until(lambda: node.exec("docker", "version", check=False).returncode == 0, 120)


def _sshd_answers(_: Cluster, node: Node) -> None:
    wait_until(node.greets, 120)


def _small_disk(_: Cluster, node: Node) -> None:
    node.tmpfs(ROOT, "14m")


def _fill(scene: Scene) -> None:
    scene.node.exec("sh", "-c", f"dd if=/dev/zero of={ROOT}/filler bs=64k 2>/dev/null; true")


def _free(_: Cluster, node: Node) -> None:
    node.exec("rm", "-f", f"{ROOT}/filler")


def _large_disk(_: Cluster, node: Node) -> None:
    node.exec("umount", "-l", ROOT, check=False)


RUN = "/run/sparkops"


def _small_run(_: Cluster, node: Node) -> None:
    node.tmpfs(RUN, "256k")


def _fill_run(scene: Scene) -> None:
    scene.node.exec("sh", "-c", f"dd if=/dev/zero of={RUN}/filler bs=4k 2>/dev/null; true")


def _free_run(_: Cluster, node: Node) -> None:
    node.exec("rm", "-f", f"{RUN}/filler")


def _large_run(_: Cluster, node: Node) -> None:
    node.exec("umount", "-l", RUN, check=False)


def _unreadable(scene: Scene) -> None:
    name = scene.choice.choice(("config.json", "model-1.safetensors", "model-2.safetensors"))
    scene.node.exec("sh", "-c", f"chown root {MODEL}/{name} && chmod 600 {MODEL}/{name}", check=False)


def _sleep(scene: Scene) -> None:
    """The controller's machine sleeps: longer than its lock lives, and than the node hears nothing of it."""
    scene.process.send_signal(signal.SIGSTOP)
    time.sleep(SLEEP)
    scene.process.send_signal(signal.SIGCONT)


def _cut(scene: Scene) -> None:
    scene.node.cut()
    time.sleep(CUT)
    scene.node.restore()


def _stopped(_: Cluster, node: Node) -> None:
    node.exec("systemctl", "stop", f"{ENGINE}.service", check=False)


def _listen(scene: Scene) -> None:
    scene.node.exec("systemd-run", "--unit", "foreign", "python3", "-c", LISTEN, check=False)


def _silence(_: Cluster, node: Node) -> None:
    node.exec("sh", "-c", "systemctl stop foreign; systemctl reset-failed foreign", check=False)


FOREIGN = "foreign listener"
SLEEP = 90.0
CUT = 60.0
_STOPPED = frozenset({0, 4, 130})
_WORKER = "int.from_bytes(take(8)"
_DROPS = HubFault(drop_after=20_000, rate=300_000)
_TRICKLES = HubFault(rate=2_000)
_DOCKER = ("systemctl", "restart", "docker")

FAULTS = (
    Fault("Ctrl-C", 3, _signals(signal.SIGINT), _STOPPED),
    Fault("Ctrl-C twice", 3, _signals(signal.SIGINT, signal.SIGINT), _STOPPED),
    Fault("SIGTERM", 2, _signals(signal.SIGTERM), _STOPPED),
    Fault("controller killed", 5, _signals(signal.SIGKILL), frozenset({0, -signal.SIGKILL})),
    Fault("worker killed", 5, _kill("python", _WORKER)),
    Fault("job killed", 4, _kill("python", "sparkops-job")),
    Fault("sshd session killed", 2, _kill("sshd", "sshd: spark"), mend=_sshd_answers),
    Fault("sshd restarted", 1, _on_node("systemctl", "restart", "ssh"), mend=_sshd_answers),
    Fault("dockerd killed", 2, _kill("dockerd", "dockerd"), mend=_docker_answers),
    Fault("docker restarted", 2, _on_node(*_DOCKER), mend=_docker_answers),
    Fault("connection reset", 2, _reset_link, mend=_sshd_answers),
    Fault("hub drops connections", 2, _hub(_DROPS, 6)),
    Fault("hub answers 503", 1, _hub(HubFault(status=503, retry_after=1), 3)),
    Fault("power loss", 2, _power_loss),
    Fault("disk full", 2, _fill, before=_small_disk, mend=_free, after=_large_disk),
)
MORE = (
    Fault("docker restarted in a pull", 2, _on_node(*_DOCKER), mend=_docker_answers, during="image"),
    Fault("hub trickles", 2, _hub(_TRICKLES, 3)),
    Fault("file unreadable", 2, _unreadable),
    Fault("run folder full", 2, _fill_run, before=_small_run, mend=_free_run, after=_large_run),
    Fault("docker rename", 3, _on_node("docker", "rename", f"sparkops-{ENGINE}", "mine")),
    Fault(FOREIGN, 3, _listen, before=_stopped, mend=_silence),
    Fault("controller stopped for 90 s", 1, _sleep, lock_limit=90.0),
    Fault("network cut for 60 s in a fetch", 1, _cut, mend=_sshd_answers, during="checkpoint", lock_limit=90.0),
)
"""Those that only `make chaos` draws, since some take over a minute, and some hit the service that only it declares."""
