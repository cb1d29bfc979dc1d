"""Hold a repacked checkpoint against its base with compressed-tensors itself. Runs where that and torch are installed.

`decompress.py BASE REPACKED [--logits]` prints, as JSON, how many layers each format has. Each layer is decompressed by
the package, by the scheme that the repacked config.json names for it, and must be the base's layer bit for bit: as
GPTQ, FP8 blocks or INT8 rows say it. What the package then compresses again must be what stands in the repacked file.

With --logits also transformers loads the repacked one, and what it answers must be what it answers of the base's values
as a 16-bit model. It can do so only where all layers are quantized alike: transformers 5.24 decompresses every dense
layer by one group's scheme.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.utils.match import match_name
from safetensors import safe_open

Tensors = dict[str, torch.Tensor]


def tensors_of(folder: Path) -> Tensors:
    found: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return found


def layer(tensors: Tensors, name: str) -> Tensors:
    """Its tensors by the last word of their names."""
    pieces = ("weight", "weight_packed", "weight_scale", "weight_shape")
    return {piece: tensors[f"{name}.{piece}"] for piece in pieces if f"{name}.{piece}" in tensors}


def scheme_of(config: QuantizationConfig, name: str) -> QuantizationScheme | None:
    if any(match_name(name, each) for each in config.ignore or ()):
        return None
    groups = [each for each in config.config_groups.values() if any(match_name(name, one) for one in each.targets)]
    assert len(groups) <= 1, f"{name} is a target of {len(groups)} groups"
    return groups[0] if groups else None


def as_the_base_says(base: Tensors, name: str, less_one: bool = True) -> torch.Tensor:
    """The values of a layer of the base."""
    if f"{name}.qweight" not in base:
        weight = base[f"{name}.weight"]
        if weight.dtype == torch.int8:
            scale = base[f"{name}.weight_scale"]
            return weight.to(scale.dtype) * scale
        scale = base[f"{name}.weight_scale_inv"]
        wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
        return weight.to(scale.dtype) * wide[: weight.shape[0], : weight.shape[1]]
    words, zeros, scales = (base[f"{name}.{piece}"] for piece in ("qweight", "qzeros", "scales"))
    bits = 32 * zeros.shape[1] // scales.shape[1]
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    mask = (1 << bits) - 1
    values = (words.unsqueeze(1) >> shifts.view(1, -1, 1) & mask).reshape(-1, words.shape[1])
    zero = (zeros.unsqueeze(2) >> shifts.view(1, 1, -1) & mask).reshape(scales.shape) + less_one
    group = values.shape[0] // scales.shape[0]
    signed = values - zero.repeat_interleave(group, 0)
    return (signed.to(scales.dtype) * scales.repeat_interleave(group, 0)).T


def logits_are_the_same(before: Tensors, base: Path, repacked: Path) -> None:
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM
    from transformers.utils.quantization_config import CompressedTensorsConfig

    quantized = {name.rpartition(".")[0] for name in before if name.endswith(".qweight")}
    dense = {name: tensor for name, tensor in before.items() if name.rpartition(".")[0] not in quantized}
    dense |= {f"{name}.weight": as_the_base_says(before, name).contiguous() for name in quantized}
    config = json.loads((base / "config.json").read_text())
    del config["quantization_config"]
    ids = torch.arange(7, 23).view(1, -1)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_file(dense, Path(folder, "model.safetensors"), {"format": "pt"})
        Path(folder, "config.json").write_text(json.dumps(config))
        wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)(ids).logits
        how = CompressedTensorsConfig(dequantize=True)
        found = AutoModelForCausalLM.from_pretrained(repacked, dtype=torch.float16, quantization_config=how)(ids).logits
    assert wanted.std() > 0.1, "the tiny model says the same of everything"
    assert torch.equal(wanted, found), f"logits differ by up to {(wanted - found).abs().max()}"


def main(base: Path, repacked: Path, *, logits: bool) -> None:
    before, after = tensors_of(base), tensors_of(repacked)
    config = QuantizationConfig.model_validate(
        json.loads((repacked / "config.json").read_text())["quantization_config"]
    )
    formats: Counter[str] = Counter()
    for name in sorted({each.rpartition(".")[0] for each in after}):
        pieces = layer(after, name)
        scheme = scheme_of(config, name)
        if "weight_scale" not in pieces:
            assert scheme is None, f"{name} is in 16 bits and the target of a group"
            assert all(torch.equal(before[f"{name}.{piece}"], tensor) for piece, tensor in pieces.items()), name
            continue
        assert scheme is not None, f"{name} is quantized and no group's target"
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        weight = compressor.decompress(pieces, scheme)["weight"]
        wanted = as_the_base_says(before, name)
        assert weight.dtype == wanted.dtype, name
        assert torch.equal(weight, wanted), f"{name} has other values"
        again = compressor.compress({"weight": weight, "weight_scale": pieces["weight_scale"]}, scheme)
        for piece, tensor in pieces.items():
            assert torch.equal(again[piece].view(torch.uint8), tensor.view(torch.uint8)), f"{name}.{piece}"
        formats[f"{scheme.format} {scheme.weights.num_bits} {scheme.weights.strategy}"] += 1
    if logits:
        logits_are_the_same(before, base, repacked)
    print(json.dumps(dict(sorted(formats.items()))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), logits="--logits" in sys.argv)
