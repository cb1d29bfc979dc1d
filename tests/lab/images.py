"""The engine images in the lab's registry, made when first asked for and kept with the registry's storage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .registry import Registry


class NoCpuTorch(RuntimeError):
    """torch for the CPU can't be had here without gigabytes of GPU libraries; use the small engine instead."""


@dataclass(frozen=True)
class Image:
    """An image in the lab's registry."""

    reference: str
    digest: str


def engine(registry: Registry, cache: Path) -> Image:
    raise NotImplementedError


def transformers(registry: Registry, cache: Path) -> Image:
    raise NotImplementedError
