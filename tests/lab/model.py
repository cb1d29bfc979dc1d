"""A tiny Qwen3.5-MoE checkpoint, in every name and key as the large ones, made with the standard library.

Random but always the same weights, about half a million of them; `transformers` and vLLM's loader read it as they
read the released models: `text_config` inside config.json, `model.language_model.…` and `mtp.…` names, bfloat16
shards with an index, a byte-level tokenizer. It says nothing sensible and says it at once.
"""

from __future__ import annotations

import json
import math
import random
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SHARDS = 4
SPECIAL = ("<|bos|>", "<|end|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Fill = Callable[[random.Random], float]


@dataclass(frozen=True)
class Geometry:
    """Sizes of the tiny model, named as in config.json."""

    vocab_size: int = 512
    hidden_size: int = 64
    num_hidden_layers: int = 4
    full_attention_interval: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 16
    linear_num_key_heads: int = 2
    linear_num_value_heads: int = 4
    linear_key_head_dim: int = 16
    linear_value_head_dim: int = 16
    linear_conv_kernel_dim: int = 4
    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 32
    shared_expert_intermediate_size: int = 32
    mtp_num_hidden_layers: int = 1

    @property
    def layer_types(self) -> list[str]:
        full = self.full_attention_interval
        return ["linear_attention" if (n + 1) % full else "full_attention" for n in range(self.num_hidden_layers)]


SERVABLE = Geometry(
    hidden_size=128,
    head_dim=32,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    moe_intermediate_size=64,
    shared_expert_intermediate_size=64,
)
"""What vLLM's kernels for CPUs can serve (0.32.0: attention heads from 32 on, Gated DeltaNet of 64 or 128); 4.3 MB."""


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: its name, its shape, and how one value of it is drawn."""

    name: str
    shape: Sequence[int]
    fill: Fill

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def write(folder: Path, *, seed: int = 0, geometry: Geometry | None = None) -> Path:
    """Write the checkpoint into `folder` (made if missing) and return it; another `seed` gives other weights."""
    geometry = geometry or Geometry()
    folder.mkdir(parents=True, exist_ok=True)
    shards = _sharded(list(tensors(geometry)), SHARDS)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_safetensors(folder / name, shard, random.Random(f"{seed}/{number}"))
        weight_map |= {tensor.name: name for tensor in shard}
    total = sum(2 * tensor.size for shard in shards for tensor in shard)
    _json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    _json(folder / "config.json", config(geometry))
    _json(
        folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "do_sample": False}
    )
    _json(folder / "tokenizer.json", tokenizer())
    _json(folder / "tokenizer_config.json", _tokenizer_config())
    return folder


def config(geometry: Geometry) -> dict[str, object]:
    """config.json as the released models have it: the language model's values sit under `text_config`."""
    text = {
        **vars(geometry),
        "model_type": "qwen3_5_moe_text",
        "layer_types": geometry.layer_types,
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000000, "partial_rotary_factor": 0.25},
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    return {
        "architectures": ["Qwen3_5MoeForCausalLM"],
        "model_type": "qwen3_5_moe",
        "text_config": text,
        "dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "tie_word_embeddings": False,
    }


def tensors(geometry: Geometry) -> Iterator[Tensor]:
    """All tensors of the checkpoint in the order in which they are written."""
    hidden, vocab = geometry.hidden_size, geometry.vocab_size
    stem = "model.language_model"
    yield Tensor(f"{stem}.embed_tokens.weight", (vocab, hidden), _weight)
    for number, kind in enumerate(geometry.layer_types):
        yield from _layer(f"{stem}.layers.{number}", kind, geometry)
    yield Tensor(f"{stem}.norm.weight", (hidden,), _zero)
    yield Tensor("lm_head.weight", (vocab, hidden), _weight)
    if geometry.mtp_num_hidden_layers:
        yield Tensor("mtp.fc.weight", (hidden, 2 * hidden), _weight)
        for name in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"):
            yield Tensor(f"mtp.{name}.weight", (hidden,), _zero)
    for number in range(geometry.mtp_num_hidden_layers):
        yield from _layer(f"mtp.layers.{number}", "full_attention", geometry)


def _layer(stem: str, kind: str, geometry: Geometry) -> Iterator[Tensor]:
    hidden = geometry.hidden_size
    yield Tensor(f"{stem}.input_layernorm.weight", (hidden,), _zero)
    yield from (_linear_attention if kind == "linear_attention" else _full_attention)(stem, geometry)
    yield Tensor(f"{stem}.post_attention_layernorm.weight", (hidden,), _zero)
    yield Tensor(f"{stem}.mlp.gate.weight", (geometry.num_experts, hidden), _weight)
    yield Tensor(f"{stem}.mlp.shared_expert_gate.weight", (1, hidden), _weight)
    yield from _gated_mlp(f"{stem}.mlp.shared_expert", hidden, geometry.shared_expert_intermediate_size)
    for number in range(geometry.num_experts):
        yield from _gated_mlp(f"{stem}.mlp.experts.{number}", hidden, geometry.moe_intermediate_size)


def _gated_mlp(stem: str, hidden: int, inner: int) -> Iterator[Tensor]:
    yield Tensor(f"{stem}.gate_proj.weight", (inner, hidden), _weight)
    yield Tensor(f"{stem}.up_proj.weight", (inner, hidden), _weight)
    yield Tensor(f"{stem}.down_proj.weight", (hidden, inner), _weight)


def _linear_attention(stem: str, geometry: Geometry) -> Iterator[Tensor]:
    """Gated DeltaNet: q, k and v in one projection, a short convolution over them, a decay for each value head."""
    hidden, heads = geometry.hidden_size, geometry.linear_num_value_heads
    values = heads * geometry.linear_value_head_dim
    mixed = 2 * geometry.linear_num_key_heads * geometry.linear_key_head_dim + values
    for name, shape, fill in (
        ("in_proj_qkv.weight", (mixed, hidden), _weight),
        ("in_proj_z.weight", (values, hidden), _weight),
        ("in_proj_b.weight", (heads, hidden), _weight),
        ("in_proj_a.weight", (heads, hidden), _weight),
        ("conv1d.weight", (mixed, 1, geometry.linear_conv_kernel_dim), _weight),
        ("A_log", (heads,), lambda draw: math.log(draw.uniform(1, 16))),
        ("dt_bias", (heads,), _one),
        ("norm.weight", (geometry.linear_value_head_dim,), _one),
        ("out_proj.weight", (hidden, values), _weight),
    ):
        yield Tensor(f"{stem}.linear_attn.{name}", shape, fill)


def _full_attention(stem: str, geometry: Geometry) -> Iterator[Tensor]:
    """Attention whose query projection holds the output gate too, hence twice as wide."""
    hidden, size = geometry.hidden_size, geometry.head_dim
    queries, keys = geometry.num_attention_heads * size, geometry.num_key_value_heads * size
    for name, shape, fill in (
        ("q_proj", (2 * queries, hidden), _weight),
        ("k_proj", (keys, hidden), _weight),
        ("v_proj", (keys, hidden), _weight),
        ("o_proj", (hidden, queries), _weight),
        ("q_norm", (size,), _zero),
        ("k_norm", (size,), _zero),
    ):
        yield Tensor(f"{stem}.self_attn.{name}.weight", shape, fill)


def _weight(draw: random.Random) -> float:
    return draw.uniform(-0.05, 0.05)


def _zero(_: random.Random) -> float:
    """The norms are centred on zero: the model computes 1 + weight."""
    return 0.0


def _one(_: random.Random) -> float:
    return 1.0


def _sharded(all_tensors: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """Consecutive groups of about equal size."""
    share = sum(tensor.size for tensor in all_tensors) / count
    shards: list[list[Tensor]] = [[] for _ in range(count)]
    done = 0
    for tensor in all_tensors:
        shards[min(count - 1, int(done / share))].append(tensor)
        done += tensor.size
    return shards


def _write_safetensors(path: Path, shard: Sequence[Tensor], draw: random.Random) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for tensor in shard:
        begin = len(body)
        body += _bfloat16(tensor.fill(draw) for _ in range(tensor.size))
        header[tensor.name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, len(body)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _bfloat16(values: Iterator[float]) -> bytes:
    """The upper halves of the little-endian float32 values."""
    singles = array("f", values)
    if sys.byteorder == "big":
        singles.byteswap()
    raw = singles.tobytes()
    out = bytearray(len(raw) // 2)
    out[0::2], out[1::2] = raw[2::4], raw[3::4]
    return bytes(out)


def tokenizer() -> dict[str, object]:
    """tokenizer.json of a byte-level BPE without merges: one token a byte, and four special ones."""
    vocab = {token: number for number, token in enumerate([*SPECIAL, *_byte_characters()])}
    special = [
        {
            "id": n,
            "content": t,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for n, t in enumerate(SPECIAL)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [],
        },
    }


def _byte_characters() -> list[str]:
    """The printable stand-in of each byte, as GPT-2's byte-level coding chose them."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(moved)) for byte in range(256)]


def _tokenizer_config() -> dict[str, object]:
    """tokenizer_config.json; the processor class keeps transformers from looking for an image processor."""
    bos, end, *_ = SPECIAL
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": 32768,
        "clean_up_tokenization_spaces": False,
        "processor_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
    }


def _json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
