"""Root file systems made with debootstrap: the nodes' and the base of the engine images.

A root file system is named by the hash of its recipe, so that a changed package list makes a new one and an
unchanged one is never made twice. What tests may want to change without a rebuild (fixture programs, sshd's
settings, keys) is not in here but laid over each node when it is created.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import machine
from .dockerd import Engine
from .machine import run

WARDEN_PASSWORD = "s3cr;t $pw"
"""Password of the user whose sudo asks for one; hostile to whoever pastes it into a shell."""


@dataclass(frozen=True)
class Rootfs:
    """A recipe: packages that debootstrap lays down, packages that apt adds in it, and a script run in it last."""

    name: str
    include: Sequence[str]
    extra: Sequence[str] = ()
    script: str = ""

    @property
    def key(self) -> str:
        return machine.recipe_key(machine.RELEASE, asdict(self))

    @property
    def image(self) -> str:
        return f"sparkops-lab/{self.name}:{self.key}"


NODE = Rootfs(
    name="node",
    include=(
        *("systemd", "systemd-sysv", "dbus", "udev", "openssh-server", "iproute2", "procps", "sudo", "python3"),
        *("ca-certificates", "curl", "rsync", "kmod", "iputils-ping", "netplan.io", "ethtool", "pciutils"),
    ),
    extra=("docker.io", "iptables"),
    script=f"""
useradd --create-home --shell /bin/bash --groups docker spark
useradd --create-home --shell /bin/bash --groups docker warden
chpasswd <<'WORDS'
warden:{WARDEN_PASSWORD}
WORDS
printf 'spark ALL=(ALL) NOPASSWD: ALL\\n' > /etc/sudoers.d/spark
printf 'warden ALL=(ALL) ALL\\n' > /etc/sudoers.d/warden
chmod 440 /etc/sudoers.d/spark /etc/sudoers.d/warden
systemctl disable --quiet e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer
systemctl mask --quiet systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
""",
)
"""A node. udev's program is there for netplan, its daemon would act on the machine's devices and stays off."""

ENGINE_BASE = Rootfs(name="engine-base", include=("python3", "ca-certificates", "libnuma1"))
"""What all engine images stand on; the real vLLM's kernels are linked against libnuma."""

CLEAN = """
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id /usr/sbin/policy-rc.d /etc/resolv.conf
: > /etc/machine-id
apt-get clean
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /var/log/*.log /var/log/apt/*
"""


@contextlib.contextmanager
def built(recipe: Rootfs, cache: Path) -> Iterator[Path]:
    """The recipe's root file system as a folder (owned by root), removed at the end."""
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{recipe.name}-", dir=cache))
    root = folder / "root"
    try:
        _debootstrap(recipe, root)
        with _inside(root):
            if recipe.extra:
                _chroot(
                    root, f"apt-get -q update && apt-get -q -y install --no-install-recommends {' '.join(recipe.extra)}"
                )
            _chroot(root, recipe.script + CLEAN)
        yield root
    finally:
        run(["rm", "-rf", "--one-file-system", str(folder)], root=True, check=False)


def ensure(recipe: Rootfs, engine: Engine, cache: Path) -> str:
    """Name of the recipe's image in `engine`, built if it isn't there."""
    if not engine.has_image(recipe.image):
        with built(recipe, cache) as root:
            engine.import_tree(root, recipe.image)
    return recipe.image


def _debootstrap(recipe: Rootfs, root: Path) -> None:
    keyring = machine.debian_keyring()
    mirror = machine.debian_mirror()
    argv = [
        *("debootstrap", "--variant=minbase", f"--include={','.join(recipe.include)}"),
        *([f"--keyring={keyring}"] if keyring else []),
        *(machine.RELEASE, str(root)),
        *([mirror] if mirror else []),
    ]
    run(argv, root=True, timeout=1800)


@contextlib.contextmanager
def _inside(root: Path) -> Iterator[None]:
    """While packages are installed in `root`: names resolve, no service starts."""
    prepare = (
        f"cp -L /etc/resolv.conf {root}/etc/resolv.conf; "
        f"printf '#!/bin/sh\\nexit 101\\n' > {root}/usr/sbin/policy-rc.d; chmod 755 {root}/usr/sbin/policy-rc.d"
    )
    run(["sh", "-c", prepare], root=True)
    yield


def _chroot(root: Path, script: str) -> None:
    env = ["env", "-i", f"PATH=/usr/bin:/bin:{machine.ADMIN_FOLDERS}", "DEBIAN_FRONTEND=noninteractive", "HOME=/root"]
    run([*env, "chroot", str(root), "/bin/sh", "-e", "-s"], root=True, input=script.encode(), timeout=1800)
