"""The images in the lab's registry, made when first asked for and kept with the registry's storage.

All stand on one base layer (Debian with python3). `lab/engine` is the small engine as `vllm` on what it needs of that;
`lab/auto-round` adds torch's CPU build, transformers and AutoRound, which really quantises the tiny model.
real_engine.py has a third.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import machine, rootfs
from .machine import LabError, run
from .registry import PATH, Layer, Pushed, Registry

ENGINE = Path(__file__).with_name("engine.py")
TORCH = "torch==2.13.0"
TRANSFORMERS = "transformers==5.24.0"
COMPRESSION = "compressed-tensors==0.17.0"
"""The version that vllm 0.33.0 pins."""
QUANTIZER = "auto-round==0.16.1"
TARGET_PYTHON = "3.11"
"""Python of the base layer (Debian bookworm's); wheels are chosen for it, whichever python runs the lab."""

PACKAGES = "/opt/engine"
"""Where the packages lie in the image."""

SITE = "/opt/site-packages"
"""Another name of that folder: dill, which datasets hashes with, knows installed packages by this word in a path."""


class NoCpuTorch(RuntimeError):
    """torch for the CPU can't be had here without gigabytes of GPU libraries."""


@dataclass(frozen=True)
class Image:
    """An image in the lab's registry: what to pull, and the digest of its list of manifests."""

    name: str
    tag: str
    digest: str
    registry: str

    @property
    def reference(self) -> str:
        """Name and tag, as an inventory may have it before it is locked."""
        return f"{self.registry}/{self.name}:{self.tag}"

    @property
    def pinned(self) -> str:
        """Name and digest."""
        return f"{self.registry}/{self.name}@{self.digest}"


def engine(registry: Registry, cache: Path, *, tag: str = "1", labels: Mapping[str, str] | None = None) -> Image:
    """The small engine. Other `labels` make another digest of the same content, for a test that updates an image."""
    program = ENGINE.read_bytes()
    key = machine.recipe_key("engine", _small_base_key(), program.decode(), tag, dict(labels or {}))
    return once(
        registry,
        cache,
        key,
        lambda: registry.push(
            "lab/engine",
            tag,
            [small_base(cache), Layer.written(cache / "layers" / f"{key}.tar.gz", _program_tar(program))],
            entrypoint=["vllm"],
            labels=labels,
            env={"PYTHONUNBUFFERED": "1"},
        ),
    )


def auto_round(registry: Registry, cache: Path) -> Image:
    """AutoRound with what reads its checkpoints, without an entry point of its own. Raises NoCpuTorch."""
    parts = (rootfs.ENGINE_BASE.key, TORCH, TRANSFORMERS, COMPRESSION, QUANTIZER, TARGET_PYTHON, _QUANTIZER_LAUNCHER)
    packages = machine.recipe_key("auto-round", *parts)
    key = machine.recipe_key("auto-round image", packages, SITE)
    return once(
        registry,
        cache,
        key,
        lambda: registry.push(
            "lab/auto-round",
            "1",
            [
                base(cache),
                _packages(cache, packages),
                Layer.written(cache / "layers" / f"{key}.tar.gz", _link_tar(SITE, PACKAGES)),
            ],
            env={"PYTHONPATH": SITE},
            architectures=[architecture()],
        ),
    )


def cpu_torch() -> str:
    """Version of torch that pip would take here, if it is one for the CPU alone; raises NoCpuTorch with the reason.

    Asked of pip itself: its report names what each candidate requires, and a GPU build requires NVIDIA's libraries.
    """
    argv = [*pip(), "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", TORCH]
    with tempfile.TemporaryDirectory() as empty:
        asked = run([*argv, *for_target(Path(empty))], check=False, timeout=300)
    try:
        found = json.loads(asked.stdout)["install"][0]["metadata"]
    except (ValueError, LookupError):
        raise NoCpuTorch(f"pip finds no {TORCH}: {asked.stderr.decode(errors='replace')[-400:].strip()}") from None
    heavy = [name for name in found.get("requires_dist", []) if name.startswith(("nvidia-", "cuda-", "triton"))]
    if heavy:
        raise NoCpuTorch(f"torch {found['version']} requires {heavy[0]} and {len(heavy) - 1} more of its kind")
    return str(found["version"])


def once(registry: Registry, cache: Path, key: str, push: Callable[[], Pushed]) -> Image:
    """The image noted under `key`, if the registry still has it; else pushed and noted."""
    note = cache / "images" / f"{key}.json"
    if note.exists():
        image = Image(**{**json.loads(note.read_text()), "registry": registry.host})
        if registry.digest(image.name, image.digest) and registry.digest(image.name, image.tag) == image.digest:
            return image
    pushed = push()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"name": pushed.name, "tag": pushed.tag, "digest": pushed.digest}))
    return Image(pushed.name, pushed.tag, pushed.digest, registry.host)


def base(cache: Path) -> Layer:
    """The layer that all images stand on, made once."""
    path = cache / "layers" / f"{rootfs.ENGINE_BASE.key}.tar.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with rootfs.built(rootfs.ENGINE_BASE, cache) as root:
            pack(
                root, path, leave_out=("./dev/*", "./proc/*", "./sys/*", "./var/lib/apt/lists/*", "./usr/share/i18n/*")
            )
    return Layer.of(path)


_ZIP = """
import glob, os, sys, zipfile
version = "%d.%d" % sys.version_info[:2]
unused = ("test", "unittest", "lib2to3", "pydoc_data", "idlelib", "tkinter", "turtledemo", "ensurepip", "distutils")
with zipfile.PyZipFile(f"/usr/lib/python{version.replace('.', '')}.zip", "w") as out:
    out.writepy(f"/usr/lib/python{version}")
    for package in sorted(glob.glob(f"/usr/lib/python{version}/*/__init__.py")):
        if os.path.basename(os.path.dirname(package)) not in unused:
            out.writepy(os.path.dirname(package))
"""
_KEPT = (
    *("bin", "lib", "lib64", "usr/lib64", "usr/bin", "usr/lib/*-linux-gnu*", "usr/lib/python3*.zip"),
    *("usr/lib/python3.*/os.py", "usr/lib/python3.*/lib-dynload", "etc/passwd", "etc/group", "etc/nsswitch.conf"),
    *("etc/ld.so.*", "root", "tmp"),
)
_LEFT_OUT = ("*/gconv", "*/perl-base", "./usr/bin/perl*")


def _small_base_key() -> str:
    return machine.recipe_key("small base", rootfs.ENGINE_BASE.key, _ZIP, _KEPT, _LEFT_OUT)


def small_base(cache: Path) -> Layer:
    """The layer of the small engine: of the base its programs, its libraries, and python with its modules in one file.

    Every test with nodes of its own unpacks it on each of them, at a millisecond of a processor for each file.
    """
    path = cache / "layers" / f"{_small_base_key()}.tar.gz"
    if not path.exists():
        with unpacked(base(cache).path, cache) as root:
            inside(root, "python3", "-c", _ZIP)
            kept = sorted({f"./{each.relative_to(root)}" for pattern in _KEPT for each in root.glob(pattern)})
            pack(root, path, only=kept, leave_out=_LEFT_OUT)
    return Layer.of(path)


@contextlib.contextmanager
def unpacked(layer: Path, cache: Path) -> Iterator[Path]:
    """A layer as a folder (owned by root), gone at the end."""
    root = Path(tempfile.mkdtemp(prefix="layer-", dir=cache))
    try:
        run(["tar", "-C", str(root), "-xzf", str(layer)], root=True)
        yield root
    finally:
        run(["rm", "-rf", "--one-file-system", str(root)], root=True, check=False)


def inside(root: Path, *argv: str) -> str:
    """What a command prints whose root directory is `root`; leading words NAME=VALUE are its environment.

    The machine's devices and processes are there as long as it runs, in a mount namespace of its own.
    """
    script = 'mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    clean = ("env", "-i", f"PATH={PATH}", "HOME=/root")
    return run(["unshare", "-m", "sh", "-c", script, str(root), *clean, *argv], root=True).stdout.decode()


def _packages(cache: Path, key: str) -> Layer:
    """The layer with torch, transformers and AutoRound, as pip lays them down for the base layer's python."""
    path = cache / "layers" / f"{key}.tar.gz"
    if not path.exists():
        wanted = [f"torch=={cpu_torch()}", TRANSFORMERS, COMPRESSION, QUANTIZER]
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="packages-", dir=cache))
        try:
            run([*pip(), "--no-compile", *wanted, *for_target(folder / PACKAGES.lstrip("/"))], timeout=1800)
            program = folder / "usr/local/bin/auto-round"
            program.parent.mkdir(parents=True)
            program.write_text(_QUANTIZER_LAUNCHER)
            program.chmod(0o755)
            pack(folder, path, leave_out=(f".{PACKAGES}/torch/include", f".{PACKAGES}/torch/test"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return Layer.of(path)


_QUANTIZER_LAUNCHER = """#!/usr/bin/python3
import sys
from auto_round.__main__ import run
sys.exit(run())
"""


def pip() -> list[str]:
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def for_target(target: Path) -> list[str]:
    return ["--target", str(target), "--python-version", TARGET_PYTHON, "--only-binary=:all:"]


def pack(root: Path, path: Path, *, leave_out: Sequence[str] = (), only: Sequence[str] = (".",)) -> None:
    """Write the folder `root`, or what is named of it, as a gzipped tar that is the same for the same content."""
    beside = path.with_suffix(".part")
    tar = [
        *("tar", "-C", str(root), "--numeric-owner", "--sort=name", "--mtime=2026-01-01"),
        *(f"--exclude={pattern}" for pattern in leave_out),
        *("-c", *only),
    ]
    with beside.open("wb") as out:
        packing = subprocess.Popen(machine.as_root(tar), stdout=subprocess.PIPE)
        squeezed = subprocess.run(["gzip", "-n", "-1"], stdin=packing.stdout, stdout=out)
    if packing.wait() != 0 or squeezed.returncode != 0:
        raise LabError(f"packing {root} failed")
    beside.replace(path)


def _program_tar(program: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("usr/local/bin/vllm")
        body = b"#!/usr/bin/python3\n" + program
        entry.size, entry.mode = len(body), 0o755
        tar.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def _link_tar(name: str, target: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo(name.lstrip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        tar.addfile(entry)
    return out.getvalue()


def architecture() -> str:
    """The machine's architecture as images name it."""
    name = run(["uname", "-m"]).stdout.decode().strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(name, name)
