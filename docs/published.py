"""The published points that `fit` is held against: what was published, by whom, and what the formulas give.

`docs/generate.py` writes them as a page; a test holds the page and the deviations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparkops.core.data import bundled
from sparkops.fit.decode import Decoder
from sparkops.fit.fit import fit_invocation
from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.hybrid_cache import BlockRule, CacheOptions, layout
from sparkops.models.architecture.quantisation import Quantisation, part_bytes
from sparkops.models.catalogue import find
from sparkops.models.invocation import of_text


@dataclass(frozen=True)
class Point:
    """One published figure: what it is of, its value, what is computed, and its source."""

    group: str
    what: str
    published: float
    computed: float
    source: str
    digits: int = 0

    @property
    def deviation(self) -> float:
        """How much more is computed than was published, in percent."""
        return (self.computed / self.published - 1) * 100


RUN = "vLLM's configuration classes, run on a CPU"
MODELS = ("Qwen3.5-35B-A3B", "Qwen3.5-122B-A10B", "Qwen3.5-397B-A17B")
BLOCKS = (
    ("Qwen3.5-122B-A10B", "auto", 1, 0, 2096, RUN),
    ("Qwen3.5-122B-A10B", "fp8", 1, 0, 4176, "a crash in the NVIDIA forum; the 397B recipe of spark-arena"),
    ("Qwen3.5-122B-A10B", "fp8", 1, 1, 4192, RUN),
    ("Qwen3.5-122B-A10B", "auto", 1, 2, 2112, RUN),
    ("Qwen3.5-122B-A10B", "auto", 1, 12, 2240, "Entrpi FINDINGS"),
    ("Qwen3.5-122B-A10B", "auto", 4, 0, 1056, RUN),
    ("Qwen3.5-122B-A10B", "nvfp4", 1, 0, 7424, RUN),
    ("Qwen3.5-122B-A10B", "turboquant_k8v4", 1, 0, 5504, RUN),
    ("Qwen3.5-122B-A10B", "turboquant_4bit_nc", 1, 0, 8160, RUN),
    ("Qwen3.5-122B-A10B", "int8_per_token_head", 1, 0, 4112, RUN),
    ("Qwen3.5-35B-A3B", "auto", 1, 0, 1056, RUN),
    ("Qwen3.5-35B-A3B", "auto", 1, 2, 1072, RUN),
    ("Qwen3.5-35B-A3B", "fp8", 1, 0, 2096, RUN),
)
CEILINGS: tuple[tuple[str, dict[str, str], int, float, tuple[float, float, float]], ...] = (
    ("AutoRound INT4 as published", {}, 0, 1.0, (103, 39.8, 23.3)),
    ("+ FP8 shared experts", {"shared_experts": "fp8"}, 0, 1.0, (108, 42.6, 25.0)),
    ("+ INT8 head only", {"head": "int8"}, 0, 1.0, (128, 44.8, 25.6)),
    ("both", {"shared_experts": "fp8", "head": "int8"}, 0, 1.0, (135, 48.4, 27.5)),
    ("both, MTP-1 at 1.95", {"shared_experts": "fp8", "head": "int8"}, 1, 1.95, (169, 62.0, 34.8)),
    ("both, MTP-2 at 2.65", {"shared_experts": "fp8", "head": "int8"}, 2, 2.65, (169, 63.1, 35.1)),
    ("FP8 shared experts, MTP-1 at 1.95", {"shared_experts": "fp8"}, 1, 1.95, (128, 52.6, 30.7)),
)
INT4 = {"experts": "int4-g128", "attention": "int4-g128", "linear_attention": "int4-g128"}
OTHERS = (
    ("INT4 experts only", {"experts": "int4-g128"}, (60, 21.0, 12.5)),
    ("NVFP4 experts only", {"experts": "nvfp4"}, (59, 20.8, 12.3)),
    (
        "official FP8",
        {"experts": "fp8", "attention": "fp8", "linear_attention": "fp8", "shared_experts": "fp8"},
        (75, 26.9, 15.2),
    ),
)


def points() -> list[Point]:
    """Every published point, in the order of the page."""
    return [*_totals(), *_blocks(), *_pages(), *_requests(), *_sizes(), *_pools(), *_ceilings()]


def _geometry(name: str) -> Geometry:
    model = find(name)
    assert model is not None, name
    return model.geometry


def _totals() -> Iterator[Point]:
    for name, total in zip(MODELS, (34.66e9, 122.11e9, 396.35e9), strict=True):
        computed = _geometry(name).text_parameters
        assert computed is not None, name
        yield Point("parameters", name, total, computed, "model cards")


def _blocks() -> Iterator[Point]:
    for name, dtype, ranks, drafted, block, source in BLOCKS:
        options = CacheOptions(kv_dtype=dtype, tensor_parallel=ranks, speculative_tokens=drafted)
        sizes = layout(_geometry(name), options)
        what = f"{name}, {dtype}, TP {ranks}, {drafted} drafted"
        yield Point("block size", what, block, sizes.block_size or 0, source)
    aligned = (("auto", 0, 2112), ("fp8", 0, 4224), ("fp8", 1, 4224))
    for dtype, drafted, block in aligned:
        options = CacheOptions(kv_dtype=dtype, speculative_tokens=drafted)
        sizes = layout(_geometry(MODELS[1]), options, BlockRule(multiple=64))
        what = f"{MODELS[1]}, {dtype}, {drafted} drafted, 0.33 with prefix caching"
        yield Point("block size", what, block, sizes.block_size or 0, RUN)
    half = layout(_geometry(MODELS[1]), CacheOptions(ssm_dtype="bfloat16")).block_size or 0
    yield Point("block size", f"{MODELS[1]}, auto, state in bfloat16", 1072, half, RUN)


def _pages() -> Iterator[Point]:
    page = layout(_geometry("Qwen3.5-35B-A3B")).mamba_page_bytes
    yield Point("page, bytes", "Qwen3.5-35B-A3B, state", 2146304, page, "google/tunix PR 2326")
    padded = layout(_geometry("Qwen3.5-122B-A10B"), CacheOptions(speculative_tokens=12)).page_bytes or 0
    yield Point("page, bytes", "Qwen3.5-122B-A10B, DFlash 12, padded", 4587520, padded, "Entrpi FINDINGS")


def _requests() -> Iterator[Point]:
    for name, tokens in zip(MODELS, (20, 24, 30), strict=True):
        kib = (layout(_geometry(name)).kv_bytes_per_token or 0) / 1024
        yield Point(
            "keys and values, KiB a token",
            f"{name}, BF16",
            tokens,
            kib,
            "by hand from config.json; InferSim pull request 11",
            1,
        )
    for name, state in zip(MODELS, (61.4, 146.5, 183.2), strict=True):
        mib = layout(_geometry(name)).state_bytes_per_request / 2**20
        yield Point(
            "recurrent state, MiB a request", name, state, mib, "by hand from config.json; InferSim pull request 11", 1
        )


def _sizes() -> Iterator[Point]:
    for name, size in zip(MODELS, (1.69, 5.05, 13.19), strict=True):
        parts = part_bytes(_geometry(name), Quantisation())
        head = (parts["mtp"] + parts["mtp_experts"]) / 1e9
        yield Point(
            "weights, GB", f"{name}, head for prediction, BF16", size, head, "by hand from the names of the tensors", 2
        )
    sizes: tuple[tuple[str, dict[str, str], bool, float, str], ...] = (
        (MODELS[1], INT4, False, 67.27, "forum 361819 (62.65 GiB on the GPU)"),
        (MODELS[1], INT4, True, 71.94, "NVIDIA forum 361819, albond README (67 GB on disk, read as GiB)"),
        (MODELS[1], {}, False, 244.0, "by hand: 2 bytes a parameter"),
        (MODELS[1], {"experts": "nvfp4"}, False, 78.0, "forum 361819 (txn545)"),
        (MODELS[1], {"experts": "nvfp4"}, True, 81.5, "docai.hu (Sehyo)"),
        (MODELS[2], {}, False, 793.0, "by hand: 2 bytes a parameter"),
        (MODELS[2], INT4, False, 199.0, "NVIDIA forum 362368; other pages say 200 to 240"),
        (MODELS[2], {"experts": "nvfp4"}, False, 238.0, "vllm-project/recipes"),
    )
    for name, formats, mtp, size, source in sizes:
        parts = part_bytes(_geometry(name), Quantisation(formats=formats))
        total = sum(count for part, count in parts.items() if mtp or not part.startswith("mtp")) / 1e9
        words = ", ".join(sorted(set(formats.values()))) or "BF16"
        yield Point("weights, GB", f"{name}, {words}{', with MTP' if mtp else ''}", size, total, source, 1)


def _pools() -> Iterator[Point]:
    path: Path = bundled("knowledge") / "models" / "qwen3.5-122b-a10b.yml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for each in content["pools"]:
        found = fit_invocation(of_text(each["serve"], each["engine"], env=each.get("environment")))
        yield Point("pool, tokens", each["setup"], each["tokens"], found.pool_tokens or 0, each["source"])


def _ceilings() -> Iterator[Point]:
    for index, name in enumerate(MODELS):
        for what, changed, drafted, tokens, published in CEILINGS:
            yield _ceiling(name, what, {**INT4, **changed}, drafted, tokens, published[index])
        for what, formats, speeds in OTHERS:
            yield _ceiling(name, what, formats, 0, 1.0, speeds[index])


def _ceiling(name: str, what: str, formats: dict[str, str], drafted: int, tokens: float, published: float) -> Point:
    geometry = _geometry(name)
    decoder = Decoder(
        geometry, part_bytes(geometry, Quantisation(formats=formats)), layout(geometry), 273e9, mtp=drafted > 0
    )
    one = decoder.step(drafted=drafted, tokens=tokens)
    group = "ceiling, tok/s at 273 GB/s"
    return Point(group, f"{name}, {what}", published, one.tokens_per_second, "by hand from config.json", 1)
