"""Write sparse (all-zero) safetensors folders for s18 and s21 under ./checkpoints; a few hundred kB on disk."""

import json
import os
import struct
from pathlib import Path

SIZE = {"BF16": 2, "U8": 1, "F8_E4M3": 1}


def shard(path, tensors):
    offset, header = 0, {}
    for name, (kind, shape) in tensors.items():
        size = SIZE[kind]
        for each in shape:
            size *= each
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def folder(name, config):
    os.makedirs(f"checkpoints/{name}", exist_ok=True)
    Path(f"checkpoints/{name}/config.json").write_text(json.dumps(config))
    return f"checkpoints/{name}"


# s18: gpt-oss-20b: fused MXFP4 experts, their number is `num_local_experts`
place = folder(
    "s18-gpt-oss-20b",
    {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2880,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "vocab_size": 201088,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
    },
)
tensors = {"model.embed_tokens.weight": ("BF16", [201088, 2880]), "lm_head.weight": ("BF16", [201088, 2880])}
for layer in range(24):
    at = f"model.layers.{layer}."
    tensors |= {
        at + "self_attn.q_proj.weight": ("BF16", [4096, 2880]),
        at + "self_attn.k_proj.weight": ("BF16", [512, 2880]),
        at + "self_attn.v_proj.weight": ("BF16", [512, 2880]),
        at + "self_attn.o_proj.weight": ("BF16", [2880, 4096]),
        at + "mlp.router.weight": ("BF16", [32, 2880]),
        at + "mlp.experts.gate_up_proj_blocks": ("U8", [32, 5760, 90, 16]),
        at + "mlp.experts.gate_up_proj_scales": ("U8", [32, 5760, 90]),
        at + "mlp.experts.down_proj_blocks": ("U8", [32, 2880, 90, 16]),
        at + "mlp.experts.down_proj_scales": ("U8", [32, 2880, 90]),
    }
shard(place + "/model-00001-of-00001.safetensors", tensors)
# s21: a Hugging Face cache: the root of a repository, with one snapshot and blobs
root = "checkpoints/s21-hub/models--birds--sparrow"
os.makedirs(root + "/snapshots/0a1b2c3d", exist_ok=True)
os.makedirs(root + "/blobs", exist_ok=True)
os.makedirs(root + "/refs", exist_ok=True)
Path(root + "/refs/main").write_text("0a1b2c3d")
Path(root + "/snapshots/0a1b2c3d/config.json").write_text(
    json.dumps(
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "vocab_size": 100,
        }
    )
)
shard(root + "/blobs/bbbb", {"model.layers.0.self_attn.q_proj.weight": ("BF16", [64, 64])})
if not os.path.lexists(root + "/snapshots/0a1b2c3d/model.safetensors"):
    os.symlink("../../blobs/bbbb", root + "/snapshots/0a1b2c3d/model.safetensors")
