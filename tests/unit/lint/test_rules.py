"""Every rule has a line on which it fires, and a near miss on which it does not."""

import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.checkpoints.hub import HubError, HubUnreachable
from sparkops.core.data import bundled
from sparkops.core.errors import SparkopsError
from sparkops.lint import acceptances, neighbours, ranks, services
from sparkops.lint.case import Case
from sparkops.lint.check import LINE_RULES, Finding, check, checks
from sparkops.lint.rules import rules
from sparkops.models.architecture.geometry import of_config
from sparkops.models.architecture.quantisation import of_config as of_checkpoint
from sparkops.models.catalogue import FromHub
from sparkops.models.effective import speculative
from sparkops.models.engine import engine, versions
from sparkops.models.engine_pages import engine_content
from sparkops.models.serve_line import parse_text

SPEC = "--speculative-config"
MTP2 = f'{SPEC} {{"method":"mtp","num_speculative_tokens":2}}'.replace("{", "'{").replace("}", "}'")
OFF, ON = "--no-enable-prefix-caching", "--enable-prefix-caching"
FOUND = FromHub("birds/sparrow", "0" * 40, "", 0, cached=True)
LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"


@cache
def models() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "verdicts.json").read_text())["models"]
    return content


def spec(**fields: Any) -> str:
    return f"{SPEC} '{json.dumps(fields)}'"


def drafting(method: str, size: str = "122B-A10B", **fields: Any) -> str:
    name = {"draft_model": "draft"}.get(method, method)
    return spec(method=method, model=f"drafter-{name}-{size}", **({"num_speculative_tokens": 3} | fields))


def modelopt(algorithm: str, producer: str = "modelopt") -> dict[str, Any]:
    return {"producer": {"name": producer}, "quantization": {"quant_algo": algorithm}}


def findings(
    words: str,
    version: str = "0.33.0",
    model: str = "122B-A10B-bf16",
    *,
    gpus: int = 1,
    env: dict[str, str] | None = None,
    spark: bool = False,
    nodes: int = 0,
    formats: dict[str, str] | None = None,
    steps: tuple[str, ...] = (),
    patched: bool = False,
    from_hub: FromHub | None = None,
    not_read: SparkopsError | None = None,
    beside: dict[str, Any] | None = None,
    **config: Any,
) -> list[Finding]:
    listed = engine(version)
    line = parse_text(f"vllm serve Qwen3.5-{model} {words}" if model else f"vllm serve {words}", listed)
    wanted = speculative(line)
    drafter = models().get(wanted.model or "") if wanted else None
    known = models().get(f"Qwen3.5-{model}")
    if known is not None and config:
        named = {"architectures": config.pop("architectures", known["architectures"])}
        known = {**known, **named, "text_config": {**known["text_config"], **config}}
    stored = of_checkpoint(known or {}, beside)
    return check(
        Case(
            line=line,
            engine=listed,
            geometry=of_config(known) if known else None,
            drafter=of_config(drafter) if drafter else None,
            from_hub=from_hub,
            not_read=not_read,
            quantisation=replace(stored, formats=formats or stored.formats, steps=steps),
            env=env or {},
            gpus=gpus,
            spark=spark,
            nodes=nodes,
            patched=patched,
            architectures=tuple((known or {}).get("architectures", ())),
        )
    )


NGRAM: dict[str, Any] = {
    "architectures": ["Qwen4ExpForConditionalGeneration"],
    "hc_count": 4,
    "ple_layer_ids": [1],
    "indexer_n_heads": 16,
}
"""A configuration of Qwen4Exp with a table of n-grams and sparse attention."""
LATENT: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
SPARSE: dict[str, Any] = {
    **LATENT,
    "architectures": ["DeepseekV32ForCausalLM"],
    "index_n_heads": 64,
    "index_head_dim": 128,
}
DENSE_ONLY: dict[str, Any] = {
    "architectures": ["Qwen3_5ForCausalLM"],
    "intermediate_size": 9216,
    **dict.fromkeys(("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size")),
}

FIRES: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {
    "unknown-flag": [({"words": "--swap-space 4"}, {"words": "--cpu-offload-gb 4"})],
    "ambiguous-flag": [({"words": "--max-num 4"}, {"words": "--max-num-se 4"})],
    "flag-value": [
        ({"words": "--max-num-seqs four"}, {"words": "--max-num-seqs 4"}),
        ({"words": "--max-num-seqs 4k"}, {"words": "--max-num-batched-tokens 4k"}),
        ({"words": "--max-num-seqs"}, {"words": "--enforce-eager"}),
        ({"words": "--hf-overrides '{a: 1}'"}, {"words": "--hf-overrides '{\"a\": 1}'"}),
    ],
    "flag-choice": [({"words": "--dtype int8"}, {"words": "--dtype half"})],
    "extra-words": [({"words": "--enforce-eager true"}, {"words": "--enforce-eager"})],
    "model-not-first": [
        (
            {"words": "--max-num-seqs 4 --served-model-name x M", "model": ""},
            {"words": "M --max-num-seqs 4 --served-model-name x", "model": ""},
        ),
        (
            {"words": "--served_model_name=x --max-num-seqs 4", "model": ""},
            {"words": "--served_model_name=x --model M", "model": ""},
        ),
        ({"words": "--served-model-name x M", "model": ""}, {"words": "--max-num-seqs 4 M", "model": ""}),
    ],
    "help-asked": [({"words": "--help"}, {"words": "--port 8000"})],
    "configuration-key-unknown": [
        ({"words": "-cc.bogus=1"}, {"words": "-cc.compile_mm_encoder=true"}),
        ({"words": "--pooler-config '{\"logit_bias\": 1}'"}, {"words": "--pooler-config '{\"logit_mean\": 1}'"}),
        ({"words": "-cc.pass_config.fuse_x=1"}, {"words": "-cc.pass_config.fuse_norm_quant=1"}),
    ],
    "configuration-value": [
        ({"words": "-cc.cudagraph_mode=HALF"}, {"words": "-cc.cudagraph_mode=full"}),
        ({"words": "-cc.mode=9"}, {"words": "-cc.mode=3"}),
        (
            {"words": spec(method="mtp", num_speculative_tokens=1, moe_backend="tritone")},
            {"words": spec(method="mtp", num_speculative_tokens=1, moe_backend="triton")},
        ),
        ({"words": "--override-generation-config 5"}, {"words": "--override-generation-config '{\"top_k\": 5}'"}),
        ({"words": "--eplb-config.window_size 0"}, {"words": "--eplb-config.window_size 1"}),
    ],
    "configuration-refused": [
        (
            {"words": '--kv-transfer-config \'{"kv_connector": "LMCacheConnectorV1"}\''},
            {"words": '--kv-transfer-config \'{"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}\''},
        ),
        (
            {"words": "--structured-outputs-config.disable_any_whitespace true"},
            {
                "words": "--structured-outputs-config.disable_any_whitespace true "
                "--structured-outputs-config.backend xgrammar"
            },
        ),
    ],
    "flags-refused": [
        ({"words": "--collect-detailed-traces all"}, {"words": "--otlp-traces-endpoint http://x"}),
        (
            {"words": "--enable-elastic-ep"},
            {"words": "--enable-elastic-ep --enable-eplb --enable-expert-parallel -tp 2", "gpus": 2},
        ),
    ],
    "connector-unknown": [
        (
            {"words": '--kv-transfer-config \'{"kv_role": "kv_both"}\''},
            {"words": '--kv-transfer-config \'{"kv_role": "kv_both", "kv_connector": "NixlConnector"}\''},
        ),
        (
            {"words": '--kv-transfer-config \'{"kv_role": "kv_both", "kv_connector": "Nixl"}\''},
            {
                "words": "--kv-transfer-config "
                '\'{"kv_role": "kv_both", "kv_connector": "X", "kv_connector_module_path": "m"}\''
            },
        ),
    ],
    "word-unknown": [({"words": "--mamba-backend nope"}, {"words": "--mamba-backend triton"})],
    "hybrid-manager-off": [
        ({"words": "--disable-hybrid-kv-cache-manager"}, {"words": "--no-disable-hybrid-kv-cache-manager"})
    ],
    "quantization-config-idle": [
        (
            {"words": '--quantization-config \'{"linear": "fp8_per_tensor"}\''},
            {"words": '--quantization online --quantization-config \'{"linear": "fp8_per_tensor"}\''},
        ),
        (
            {"words": '--quantization-config \'{"linear": "fp8_per_tensor"}\''},
            {"words": '--quantization-config \'{"linear": "fp8_per_tensor"}\'', "model": "122B-A10B-fp8"},
        ),
    ],
    "moe-backend-refused": [
        ({"words": "--moe-backend marlin"}, {"words": "--moe-backend triton"}),
        (
            {"words": "--moe-backend triton", "model": "122B-A10B-nvfp4"},
            {"words": "--moe-backend marlin", "model": "122B-A10B-nvfp4"},
        ),
    ],
    "number-out-of-range": [
        ({"words": "--max-logprobs -2"}, {"words": "--max-logprobs -1"}),
        ({"words": "--enable-lora --max-loras 0"}, {"words": "--enable-lora --max-loras 1"}),
        ({"words": "--port 65536"}, {"words": "--port 65535"}),
        ({"words": "--gpu-memory-utilization 1.01"}, {"words": "--gpu-memory-utilization 1.0"}),
        ({"words": "--gpu-memory-utilization 0"}, {"words": "--gpu-memory-utilization 0.01"}),
        ({"words": "--max-num-seqs 0"}, {"words": "--max-num-seqs 1"}),
        ({"words": "-O4"}, {"words": "-O3"}),
        ({"words": "--max-model-len -2"}, {"words": "--max-model-len -1"}),
    ],
    "abbreviated-flag": [({"words": "--max-model 8192"}, {"words": "--max_model_len 8192"})],
    "deprecated-flag": [
        ({"words": "--mamba-cache-mode align"}, {"words": "--mamba-cache-mode align", "version": "0.32.0"})
    ],
    "log-outputs-without-requests": [
        ({"words": "--enable-log-outputs"}, {"words": "--enable-log-outputs --enable-log-requests"})
    ],
    "model-not-named": [({"words": "--port 8000", "model": ""}, {"words": "--port 8000"})],
    "config-file-not-read": [({"words": "--config serve.yml"}, {"words": "--config-format hf"})],
    "align-block-over-batched-tokens": [
        (
            {"words": f"{ON} --kv-cache-dtype fp8 --max-num-batched-tokens 4175", "version": "0.26.0"},
            {"words": f"{ON} --kv-cache-dtype fp8 --max-num-batched-tokens 4176", "version": "0.26.0"},
        ),
        (
            {"words": f"{ON} --kv-cache-dtype fp8", "version": "0.26.0"},
            {"words": f"{ON} --kv-cache-dtype fp8", "version": "0.27.1"},
        ),
    ],
    "coarse-prefix-cache": [
        ({"words": f"{ON} --kv-cache-dtype fp8"}, {"words": f"{ON} --kv-cache-dtype fp8 --max-num-batched-tokens 8192"})
    ],
    "long-prefill-below-block": [
        (
            {"words": f"{ON} --max-num-batched-tokens 8192 --long-prefill-token-threshold 2095", "version": "0.26.0"},
            {"words": f"{ON} --max-num-batched-tokens 8192 --long-prefill-token-threshold 2096", "version": "0.26.0"},
        )
    ],
    "long-prefill-over-length": [
        (
            {"words": "--max-model-len 4096 --long-prefill-token-threshold 4097"},
            {"words": "--max-model-len 4096 --long-prefill-token-threshold 4096"},
        )
    ],
    "chunked-mm-input-in-align": [
        ({"words": f"{ON} --disable-chunked-mm-input"}, {"words": f"{OFF} --disable-chunked-mm-input"})
    ],
    "prefix-caching-without-chunked-prefill": [
        ({"words": f"{ON} --no-enable-chunked-prefill"}, {"words": f"{OFF} --no-enable-chunked-prefill"})
    ],
    "mamba-block-size-without-prefix-caching": [
        ({"words": f"{OFF} --mamba-block-size 4096"}, {"words": f"{ON} --mamba-block-size 4096"})
    ],
    "mamba-block-size-without-effect": [
        ({"words": f"{ON} --mamba-block-size 4096"}, {"words": f"{OFF} --mamba-block-size 4096"})
    ],
    "mamba-cache-mode-lowered": [
        (
            {"words": "--mamba-cache-mode all", "version": "0.31.0"},
            {"words": "--mamba-cache-mode align", "version": "0.31.0"},
        )
    ],
    "block-size-without-backend": [
        ({"words": "--block-size 24"}, {"words": "--block-size 32"}),
        ({"words": "--block-size 24"}, {"words": "--block-size 24", "version": "0.19.1"}),
    ],
    "prefix-caching-unsaid": [({"words": ""}, {"words": OFF})],
    "mtp-with-prefix-caching": [({"words": f"{MTP2} {ON}"}, {"words": f"{MTP2} {OFF}"})],
    "batched-tokens-below-seqs": [
        (
            {"words": "--max-num-batched-tokens 127 --max-num-seqs 128"},
            {"words": "--max-num-batched-tokens 128 --max-num-seqs 128"},
        )
    ],
    "batched-tokens-below-length": [
        (
            {"words": f"{OFF} --no-enable-chunked-prefill --max-model-len 8192 --max-num-batched-tokens 8191"},
            {"words": f"{OFF} --no-enable-chunked-prefill --max-model-len 8192"},
        )
    ],
    "batch-limits-unset": [
        ({"words": "--max-num-seqs 4"}, {"words": "--max-num-seqs 4 --max-num-batched-tokens 8192"})
    ],
    "wide-batch": [({"words": "--max-num-batched-tokens 16385"}, {"words": "--max-num-batched-tokens 16384"})],
    "speculative-method-unknown": [
        (
            {
                "words": spec(method="dflash", model="drafter-dflash-122B-A10B", num_speculative_tokens=3),
                "version": "0.19.1",
            },
            {"words": spec(method="dflash", model="drafter-dflash-122B-A10B", num_speculative_tokens=3)},
        )
    ],
    "speculative-field-unknown": [
        (
            {"words": spec(method="mtp", num_speculative_tokens=1, depth=2)},
            {"words": spec(method="mtp", num_speculative_tokens=1)},
        )
    ],
    "speculative-tokens-missing": [({"words": spec(method="mtp")}, {"words": MTP2})],
    "speculative-tokens-out-of-range": [
        (
            {"words": spec(method="mtp", num_speculative_tokens=0)},
            {"words": spec(method="mtp", num_speculative_tokens=64)},
        )
    ],
    "speculative-model-missing": [
        ({"words": spec(method="eagle", num_speculative_tokens=2)}, {"words": drafting("eagle3")}),
        ({"words": spec(num_speculative_tokens=2)}, {"words": "--spec-method mtp --spec-tokens 2"}),
    ],
    "speculative-length-over-model": [
        (
            {"words": f"--max-model-len 4096 {spec(method='mtp', num_speculative_tokens=1, max_model_len=4097)}"},
            {"words": f"--max-model-len 4096 {spec(method='mtp', num_speculative_tokens=1, max_model_len=4096)}"},
        )
    ],
    "drafter-vocabulary-differs": [
        (
            {"words": spec(method="draft_model", model="drafter-draftvocab-122B-A10B", num_speculative_tokens=3)},
            {"words": drafting("draft_model")},
        )
    ],
    "drafter-for-another-model": [({"words": drafting("dflash", "35B-A3B")}, {"words": drafting("dflash")})],
    "drafter-backend-causal": [
        (
            {"words": drafting("dflash", attention_backend="FLASHINFER"), "version": "0.23.0"},
            {"words": drafting("dflash", attention_backend="FLASHINFER"), "version": "0.24.0"},
        ),
        (
            {"words": f"--kv-cache-dtype fp8 {drafting('dflash', attention_backend='FLASH_ATTN')}"},
            {"words": f"--kv-cache-dtype fp8 {drafting('dflash', attention_backend='TRITON_ATTN')}"},
        ),
    ],
    "draft-parallel-size": [
        (
            {"words": f"-tp 4 {drafting('draft_model', draft_tensor_parallel_size=2)}", "gpus": 4},
            {"words": f"-tp 4 {drafting('draft_model', draft_tensor_parallel_size=1)}", "gpus": 4},
        )
    ],
    "draft-head-on-runner-v1": [
        (
            {
                "words": spec(method="mtp", num_speculative_tokens=1, draft_lm_head_quantization="fp8"),
                "env": {"VLLM_USE_V2_MODEL_RUNNER": "0"},
            },
            {"words": spec(method="mtp", num_speculative_tokens=1, draft_lm_head_quantization="fp8")},
        )
    ],
    "no-tokens-left-to-schedule": [
        (
            {"words": drafting("dflash", num_speculative_tokens=9), "version": "0.27.1"},
            {"words": drafting("dflash", num_speculative_tokens=8), "version": "0.27.1"},
        )
    ],
    "mtp-with-pipeline": [
        (
            {"words": f"-pp 2 {MTP2}", "gpus": 2, "version": "0.29.0"},
            {"words": f"-pp 2 {MTP2}", "gpus": 2, "version": "0.30.0"},
        )
    ],
    "speculative-batch-not-captured": [
        (
            {"words": f"{MTP2} --max-num-seqs 4", "version": "0.26.0"},
            {"words": f"{MTP2} --max-num-seqs {seqs}{rest}", "version": version},
        )
        for seqs, rest, version in (
            (4, " --cudagraph-capture-sizes 3 6 9 12", "0.26.0"),
            (8, "", "0.26.0"),
            (4, "", "0.29.0"),
        )
    ],
    "mtp-unsupported": [({"words": MTP2, "architectures": ["Qwen3MoeForCausalLM"]}, {"words": MTP2})],
    "mtp-weights-missing": [({"words": MTP2, "mtp_num_hidden_layers": 0}, {"words": MTP2})],
    "repeated-mtp-layer": [({"words": MTP2}, {"words": spec(method="mtp", num_speculative_tokens=1)})],
    "lookup-window": [
        (
            {"words": spec(method="ngram", num_speculative_tokens=2, prompt_lookup_min=3, prompt_lookup_max=2)},
            {"words": spec(method="ngram", num_speculative_tokens=2, prompt_lookup_min=2, prompt_lookup_max=2)},
        )
    ],
    "lookup-on-hybrid": [({"words": spec(method="ngram", num_speculative_tokens=2)}, {"words": MTP2})],
    "suffix-package-missing": [({"words": spec(method="suffix", num_speculative_tokens=2)}, {"words": MTP2})],
    "async-scheduling-method": [
        (
            {"words": f"--async-scheduling {spec(method='ngram', num_speculative_tokens=2)}", "version": "0.32.0"},
            {"words": f"--async-scheduling {spec(method='ngram', num_speculative_tokens=2)}"},
        )
    ],
    "narrow-steps-with-speculation": [
        ({"words": f"{MTP2} --max-num-batched-tokens 8191"}, {"words": f"{MTP2} --max-num-batched-tokens 8192"})
    ],
    "compile-cache-of-speculation": [({"words": MTP2}, {"words": MTP2, "env": {"VLLM_CACHE_ROOT": "/cache/mtp2"}})],
    "quantization-unknown": [({"words": "-q int8_per_channel"}, {"words": "-q int8_per_channel_weight_only"})],
    "quantization-deprecated": [({"words": "-q fp_quant"}, {"words": "-q fp_quant --allow-deprecated-quantization"})],
    "quantization-of-another-checkpoint": [
        ({"words": "-q modelopt", "model": "122B-A10B-fp8"}, {"words": "-q fp8", "model": "122B-A10B-fp8"}),
        ({"words": "-q awq", "model": "122B-A10B-fp8"}, {"words": "-q awq", "model": "122B-A10B-nvfp4"}),
    ],
    "modelopt-algorithm-refused": [
        ({"words": "", "beside": modelopt("MIXED_PRECISION")}, {"words": "", "beside": modelopt("NVFP4")}),
        ({"words": "", "beside": modelopt("MXFP8")}, {"words": "", "beside": modelopt("MXFP8", producer="other")}),
    ],
    "quantization-without-checkpoint": [
        ({"words": "-q awq"}, {"words": "-q fp8"}),
        ({"words": "-q online"}, {"words": '-q online --quantization-config \'{"linear":"fp8_per_block"}\''}),
    ],
    "quantization-config-refused": [
        (
            {"words": '--quantization-config \'{"targets":{"a":"fp8_per_block_static"}}\'', "version": "0.30.0"},
            {"words": '--quantization-config \'{"targets":{"a":"fp8_per_block"}}\'', "version": "0.30.0"},
        ),
        (
            {"words": '--quantization-config \'{"linear":{"weight":"fp8_per_tensor"}}\''},
            {"words": '--quantization-config \'{"linear":{"weight":"fp8_per_tensor_static"}}\''},
        ),
        (
            {"words": '--quantization-config \'{"linear":"nvfp4_per_tensor"}\''},
            {"words": '--quantization-config \'{"linear":"fp8_per_tensor"}\''},
        ),
    ],
    "dtype-of-quantization": [
        (
            {"words": "--dtype float32", "model": "122B-A10B-nvfp4"},
            {"words": "--dtype float16", "model": "122B-A10B-nvfp4"},
        )
    ],
    "nvfp4-moe-backend": [
        ({"words": "", "model": "122B-A10B-nvfp4"}, {"words": "--moe-backend marlin", "model": "122B-A10B-nvfp4"})
    ],
    "marlin-columns": [
        (
            {"words": "-tp 4", "gpus": 4, "model": "122B-A10B-autoround"},
            {"words": "-tp 2", "gpus": 2, "model": "122B-A10B-autoround"},
        )
    ],
    "kv-dtype-unknown": [({"words": "--kv-cache-dtype int8"}, {"words": "--kv-cache-dtype int8_per_token_head"})],
    "kv-dtype-on-hybrid": [
        (
            {"words": "--kv-cache-dtype turboquant_k8v4", "version": "0.20.2"},
            {"words": "--kv-cache-dtype turboquant_k8v4", "version": "0.21.0"},
        )
    ],
    "no-attention-backend": [
        (
            {"words": "--kv-cache-dtype nvfp4", "version": "0.25.1"},
            {"words": "--kv-cache-dtype nvfp4", "version": "0.24.0"},
        )
    ],
    "attention-backend-refused": [
        ({"words": "--attention-backend XFORMERS"}, {"words": "--attention-backend flash_attn"}),
        (
            {"words": "--attention-backend FLASH_ATTN --kv-cache-dtype fp8"},
            {"words": "--attention-backend TRITON_ATTN --kv-cache-dtype fp8"},
        ),
    ],
    "heads-not-divisible": [({"words": "-tp 3", "gpus": 3}, {"words": "-tp 4", "gpus": 4})],
    "experts-below-ranks": [
        ({"words": "-tp 8", "gpus": 8, "num_experts": 4}, {"words": "-tp 8", "gpus": 8, "num_experts": 8})
    ],
    "not-enough-gpus": [({"words": "-tp 2"}, {"words": "-tp 2 --nnodes 2"})],
    "nodes-do-not-divide": [({"words": "-tp 2 --nnodes 3"}, {"words": "-tp 2 --nnodes 2"})],
    "node-rank-out-of-range": [
        ({"words": "-tp 2 --nnodes 2 --node-rank 2"}, {"words": "-tp 2 --nnodes 2 --node-rank 1"})
    ],
    "nodes-need-processes": [
        (
            {"words": "-tp 2 --nnodes 2 --distributed-executor-backend ray"},
            {"words": "-tp 2 --nnodes 2 --distributed-executor-backend mp"},
        )
    ],
    "executor-unknown": [
        (
            {"words": "--distributed-executor-backend processes"},
            {"words": "--distributed-executor-backend mine.Executor"},
        )
    ],
    "kv-heads-not-divisible": [
        (
            {"words": "-tp 4", "gpus": 4, "num_key_value_heads": 6},
            {"words": "-tp 2", "gpus": 2, "num_key_value_heads": 6},
        ),
        (
            {"words": "-tp 4", "gpus": 4, "num_key_value_heads": 6},
            {"words": "-tp 4", "gpus": 4, "num_key_value_heads": 2},
        ),
    ],
    "context-parallel": [({"words": "-tp 2 -dcp 2", "gpus": 2}, {"words": "-tp 4 -dcp 2", "gpus": 4})],
    "expert-balancing": [
        (
            {"words": "-tp 2 --enable-eplb", "gpus": 2},
            {"words": "-tp 2 --enable-eplb --enable-expert-parallel", "gpus": 2},
        ),
        ({"words": "--enable-eplb -ep"}, {"words": "-ep"}),
    ],
    "data-parallel-rank": [({"words": "-dp 2 -dpn 2"}, {"words": "-dp 2 -dpn 1"})],
    "data-parallel-balancer": [
        ({"words": "-dp 2 -dpl 3"}, {"words": "-dp 2 -dpl 2"}),
        ({"words": "--data-parallel-external-lb"}, {"words": "--data-parallel-external-lb -dp 2 -dpn 0"}),
    ],
    "headless-with-api-servers": [
        ({"words": "--headless --api-server-count 2"}, {"words": "--headless --api-server-count 0"})
    ],
    "worker-not-headless": [
        (
            {"words": "-tp 2 --nnodes 2 --node-rank 1"},
            {"words": "-tp 2 --nnodes 2 --node-rank 1 --headless"},
        )
    ],
    "nodes-of-service": [({"words": "-tp 4", "nodes": 2, "gpus": 1}, {"words": "-tp 2", "nodes": 2})],
    "hybrid-across-nodes": [
        ({"words": "-tp 2 --nnodes 2"}, {"words": "-tp 2 --nnodes 2 --enforce-eager"}),
    ],
    "vision-data-parallel": [
        (
            {"words": "--language-model-only --mm-encoder-tp-mode data"},
            {"words": "--language-model-only --mm-encoder-tp-mode weights"},
        )
    ],
    "hybrid-checkpoint": [
        (
            {"words": "", "model": "122B-A10B-autoround", "formats": {"experts": "int4-g128", "shared_experts": "fp8"}},
            {"words": "", "model": "122B-A10B-autoround", "formats": {"experts": "int4-g128", "head": "int8"}},
        ),
        (
            {"words": "", "model": "122B-A10B-autoround", "formats": {"shared_experts": "fp8"}},
            {"words": "", "model": "122B-A10B-fp8", "formats": {"shared_experts": "fp8"}},
        ),
        (
            {"words": "", "model": "122B-A10B-autoround", "steps": ("hybrid",)},
            {"words": "", "model": "122B-A10B-autoround", "steps": ("mtp",)},
        ),
    ],
    "head-int8-unread": [
        (
            {"words": "", "model": "122B-A10B-autoround", "formats": {"head": "int8"}},
            {"words": "", "model": "122B-A10B-autoround", "formats": {"head": "int8"}, "patched": True},
        ),
        (
            {"words": "", "model": "122B-A10B-autoround", "steps": ("mtp", "lm_head")},
            {"words": "", "model": "122B-A10B-autoround", "steps": ("mtp",)},
        ),
    ],
    "gloo-interface": [
        (
            {"words": "", "env": {"GLOO_SOCKET_IFNAME": "eth0,eth1"}},
            {"words": "", "env": {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0,eth1"}},
        )
    ],
    "gid-index-pinned": [
        (
            {"words": "-tp 2 --nnodes 2", "env": {"NCCL_IB_GID_INDEX": index}},
            {"words": "-tp 2 --nnodes 2", "env": {"NCCL_IB_HCA": "rocep1s0f0", **other}},
        )
        for index, other in (("3", {}), ("", {"NCCL_IB_GID_INDEX": "-1"}))
    ],
    "ray-memory-monitor": [
        (
            {"words": "--distributed-executor-backend ray"},
            {"words": "--distributed-executor-backend ray", "env": {"RAY_memory_monitor_refresh_ms": "0"}},
        )
    ],
    "memory-fraction": [
        ({"words": ""}, {"words": "--gpu-memory-utilization 0.85"}),
        (
            {"words": "-tp 2 --nnodes 2 --gpu-memory-utilization 0.81"},
            {"words": "-tp 2 --nnodes 2 --gpu-memory-utilization 0.8"},
        ),
    ],
    "kv-cache-bytes": [({"words": "--kv-cache-memory-bytes -1"}, {"words": "--kv-cache-memory-bytes 20G"})],
    "kv-cache-bytes-unbounded": [({"words": "--kv-cache-memory-bytes 20G"}, {"words": ""})],
    "length-over-native": [
        ({"words": "--max-model-len 262145"}, {"words": "--max-model-len 262144"}),
        ({"words": "--max-model-len 512k"}, {"words": "--max-model-len 512k", "env": {LONG: "1"}}),
    ],
    "capture-sizes": [
        (
            {"words": "--cudagraph-capture-sizes 1 2 4 --max-cudagraph-capture-size 8"},
            {"words": "--cudagraph-capture-sizes 1 2 8 --max-cudagraph-capture-size 8"},
        )
    ],
    "architecture-absent": [
        ({"words": "", "version": "0.28.0", **NGRAM}, {"words": "", "version": "0.29.0", **NGRAM}),
        (
            {"words": "", "architectures": ["Dots1ForCausalLM"], "version": "0.24.0"},
            {"words": "", "architectures": ["Dots1ForCausalLM"], "version": "0.23.0"},
        ),
        (
            {"words": "", "architectures": ["NeverHeardOfForCausalLM"]},
            {"words": "--model-impl transformers", "architectures": ["NeverHeardOfForCausalLM"]},
        ),
    ],
    "architecture-refuses": [
        (
            {"words": "--pipeline-parallel-size 2", "gpus": 2, **NGRAM},
            {"words": "--tensor-parallel-size 2", "gpus": 2, **NGRAM},
        ),
        ({"words": "--dtype half", **NGRAM}, {"words": "--dtype bfloat16", **NGRAM}),
        ({"words": "--kv-cache-dtype nvfp4", **NGRAM}, {"words": "--kv-cache-dtype fp8", **NGRAM}),
        (
            {"words": "--kv-cache-dtype fp8", "version": "0.30.0", **NGRAM},
            {"words": "--kv-cache-dtype fp8", "version": "0.31.0", **NGRAM},
        ),
        (
            {"words": "--pipeline-parallel-size 2", "gpus": 2, **NGRAM},
            {"words": "--pipeline-parallel-size 2", "gpus": 2},
        ),
        ({"words": "-ep", **DENSE_ONLY}, {"words": "-ep"}),
        ({"words": "--kv-cache-dtype nvfp4", **LATENT}, {"words": "--kv-cache-dtype nvfp4"}),
        (
            {"words": "--kv-cache-dtype nvfp4", **LATENT},
            {"words": "--kv-cache-dtype nvfp4", "version": "0.20.2", **LATENT},
        ),
        ({"words": "--dtype half", **SPARSE}, {"words": "--dtype half", **LATENT}),
        ({"words": "--block-size 32", **SPARSE}, {"words": "--block-size 64", **SPARSE}),
        ({"words": "--block-size 96", **SPARSE}, {"words": "--block-size 128", **SPARSE}),
        ({"words": "--kv-cache-dtype bfloat16", **SPARSE}, {"words": "--kv-cache-dtype bfloat16", **LATENT}),
        (
            {"words": "--kv-cache-dtype int8_per_token_head", **LATENT},
            {"words": "--kv-cache-dtype int8_per_token_head"},
        ),
        (
            {"words": "--kv-cache-dtype fp8_e5m2", "model": "122B-A10B-fp8"},
            {"words": "--kv-cache-dtype fp8_e5m2", "model": "122B-A10B-awq"},
        ),
        (
            {"words": spec(method="suffix", num_speculative_tokens=2), **NGRAM},
            {"words": spec(method="ngram", num_speculative_tokens=2), **NGRAM},
        ),
    ],
    "tool-parser-missing": [
        ({"words": "--enable-auto-tool-choice"}, {"words": "--enable-auto-tool-choice --tool-call-parser qwen3_xml"})
    ],
    "tool-parser-unknown": [
        (
            {"words": "--enable-auto-tool-choice --tool-call-parser qwen3_json", "version": "0.31.0"},
            {"words": "--enable-auto-tool-choice --tool-call-parser qwen3_json", "version": "0.32.0"},
        )
    ],
    "tool-choice-off": [
        ({"words": "--tool-call-parser qwen3_xml"}, {"words": "--enable-auto-tool-choice --tool-call-parser qwen3_xml"})
    ],
    "tool-parser-of-family": [
        (
            {"words": "--enable-auto-tool-choice --tool-call-parser hermes"},
            {"words": "--enable-auto-tool-choice --tool-call-parser hermes", "model": "unheard/of"},
        ),
        (
            {"words": "--tool-call-parser hermes", "model": "org/GLM-4.7-Flash"},
            {"words": "--tool-call-parser hermes", "model": "org/Qwen3-30B-A3B"},
        ),
    ],
    "reasoning-parser-of-family": [
        ({"words": "--reasoning-parser glm45"}, {"words": "--reasoning-parser qwen3"}),
        (
            {"words": "--reasoning-parser qwen3", "model": "org/gpt-oss-120b"},
            {"words": "--reasoning-parser qwen3", "model": "unheard/of"},
        ),
    ],
    "reasoning-parser-unknown": [
        ({"words": "--reasoning-parser qwen3_5"}, {"words": "--reasoning-parser qwen3"}),
        (
            {"words": "--structured-outputs-config.reasoning_parser qwen3_5"},
            {"words": "--structured-outputs-config.reasoning_parser qwen3"},
        ),
    ],
    "load-format": [
        (
            {"words": "--load-format instanttensor", "version": "0.28.0"},
            {"words": "--load-format instanttensor", "version": "0.29.0"},
        )
    ],
    "variable-unknown": [
        ({"words": "", "env": {"VLLM_ATTENTION_BACKEND": "X"}}, {"words": "", "env": {"VLLM_USE_DEEP_GEMM": "0"}})
    ],
    "runner-v2-without-align": [
        (
            {"words": ON, "env": {"VLLM_USE_V2_MODEL_RUNNER": "1"}, "version": "0.24.0"},
            {"words": ON, "env": {"VLLM_USE_V2_MODEL_RUNNER": "1"}, "version": "0.25.1"},
        )
    ],
    "model-unknown": [({"words": "", "model": "unheard/of"}, {"words": ""})],
    "model-from-hub": [({"words": "", "from_hub": FOUND}, {"words": ""})],
    "repository-renamed": [
        ({"words": "", "from_hub": replace(FOUND, moved_to="trees/sparrow")}, {"words": "", "from_hub": FOUND})
    ],
    "repository-refused": [
        (
            {"words": "", "not_read": HubError.of("hub-repository-missing")},
            {"words": "", "not_read": HubUnreachable.of("hub-too-slow", seconds=9)},
        )
    ],
    "engine-unlisted": [({"words": "", "version": "0.26.1"}, {"words": "", "version": "v0.26.0"})],
}
PAIRS = [(name, fires, misses) for name, pairs in FIRES.items() for fires, misses in pairs]


OF_INVENTORY = {
    "head-int8-unread",
    "repack-unread",
    "engine-unknown",
    "image-moves",
    "image-not-pinned",
    "checkpoint-folder-taken",
    "unit-of-system",
    "checkpoint-not-pinned",
    "port-taken-twice",
    "group-port-taken-twice",
    "memory-of-services",
    "cold-start-limit",
    "engine-ready-limit",
    "acceptance-idle",
    "weights-do-not-fit",
    "line-not-made",
    "address-of-all-ranks",
    "host-value-on-all-ranks",
    "ring-not-declared",
    "master-port-taken-twice",
}
"""Rules that no bare line breaks; their lines stand in test_declared.py and test_ranks.py."""


def test_every_rule_has_its_lines_and_its_words() -> None:
    assert set(FIRES) | OF_INVENTORY == set(rules())
    assert set(checks(*LINE_RULES)) == set(FIRES)


@pytest.mark.parametrize(
    "module", [*LINE_RULES, services, neighbours, ranks, acceptances], ids=lambda each: each.__name__
)
def test_the_words_of_a_modules_rules_are_in_the_file_of_its_name(module: ModuleType) -> None:
    path = bundled("knowledge") / "rules" / f"{module.__name__.rpartition('.')[2]}.yml"
    assert list(yaml.safe_load(path.read_text())) == list(checks(module))


@pytest.mark.parametrize(("name", "fires", "misses"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_a_rule_fires_on_its_line_and_not_on_the_near_miss(
    name: str, fires: dict[str, Any], misses: dict[str, Any]
) -> None:
    assert name in [found.id for found in findings(**fires)]
    assert name not in [found.id for found in findings(**misses)]


@pytest.mark.parametrize(
    "config",
    [
        '{"linear":"fp8_per_tensor_dynamic"}',
        '{"linear":{"weight":"fp8_per_block_static","activation":"fp8_per_token"}}',
    ],
)
def test_the_long_names_of_online_quantisation_are_accepted(config: str) -> None:
    assert "quantization-config-refused" not in {found.id for found in findings(f"--quantization-config '{config}'")}


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999"])
def test_a_number_without_end_is_a_fault_and_no_crash(value: str) -> None:
    found = findings(f"--compilation-config '{{\"max_cudagraph_capture_size\": {value}}}'")
    assert "configuration-value" in [each.id for each in found]


def test_what_a_file_of_further_flags_may_change_is_no_error() -> None:
    words = "--enable-auto-tool-choice --max-num-seqs four"
    for more, severity in (("", "error"), (" --config flags.yml", "warning")):
        found = {each.id: each.severity for each in findings(words + more)}
        assert found["tool-parser-missing"] == severity
        assert found["flag-value"] == "error"


def test_true_is_one_speculative_token() -> None:
    found = {each.id for each in findings(spec(method="mtp", num_speculative_tokens=True))}
    assert "speculative-tokens-out-of-range" not in found


@pytest.mark.parametrize("backend", ["flashinfer_b12x", "flashinfer_trtllm"])
def test_a_backend_that_was_asked_for_is_not_called_another(backend: str) -> None:
    found = findings(f"--moe-backend {backend}", model="122B-A10B-nvfp4", spark=True)
    told = next(each for each in found if each.id == "nvfp4-moe-backend")
    assert told.severity == "warning"
    assert "CUTLASS" not in told.message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory-fraction", ""),
        ("lookup-on-hybrid", spec(method="ngram", num_speculative_tokens=2)),
        ("wide-batch", "--max-num-batched-tokens 65536"),
        ("drafter-for-another-model", drafting("dflash", "35B-A3B")),
        ("kv-cache-bytes", "--kv-cache-memory-bytes -1"),
    ],
)
def test_what_harms_a_spark_is_a_warning_for_a_bare_line_and_an_error_on_a_spark(name: str, words: str) -> None:
    assert {found.severity for found in findings(words) if found.id == name} == {"warning"}
    assert {found.severity for found in findings(words, spark=True) if found.id == name} == {"error"}


def test_the_thread_s_crash_is_found_with_its_number() -> None:
    found = findings(f"{ON} --kv-cache-dtype fp8", "0.19.1", "122B-A10B-autoround")[0]
    assert found.severity == "error"
    assert "block_size (4176) must be <= max_num_batched_tokens (2048)" in found.message
    assert "4176" in found.remedy


def test_an_unknown_flag_says_which_versions_know_it_and_what_came_instead() -> None:
    found = next(each for each in findings("--calculate-kv-scales") if each.id == "unknown-flag")
    assert "known up to 0.27.1" in found.message
    assert "scales come with the checkpoint" in found.remedy
    found = next(each for each in findings("--quantization-config x", "0.21.0") if each.id == "unknown-flag")
    assert "known since 0.22.1" in found.message


def test_an_unknown_variable_is_an_error_where_the_engine_is_told_to_fail() -> None:
    env = {"VLLM_SLEEP_WHEN_IDLE": "1"}
    found = {
        each.severity for each in findings("--fail-on-environ-validation", env=env) if each.id == "variable-unknown"
    }
    assert found == {"error"}


def test_without_a_geometry_the_rules_about_it_are_silent() -> None:
    found = findings(f"-tp 3 {ON} --kv-cache-dtype fp8 --max-model-len 9999999", "0.19.1", "unheard/of", gpus=8)
    assert [each.id for each in found if each.severity == "error"] == []


@pytest.mark.parametrize("version", versions())
def test_an_engine_file_has_the_shape_of_its_schema_and_says_its_own_version(version: str) -> None:
    folder = bundled("knowledge")
    schema = json.loads((folder / "engine.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((folder / "engines" / f"{version}.yml").read_text()), schema)
    jsonschema.validate(engine_content(version, None), schema)
    assert engine_content(version, None)["version"] == version


def test_the_rules_have_the_shape_of_their_schema() -> None:
    folder = bundled("knowledge")
    schema = json.loads((folder / "rules.schema.json").read_text())
    for path in (folder / "rules").glob("*.yml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


ODD = [
    "",
    "0",
    "-1",
    "1",
    "2.5",
    "None",
    "null",
    "[]",
    "[1]",
    "{}",
    '{"method": 3}',
    '{"text_config": 1}',
    "a b",
    "auto",
    "9" * 30,
]
KEYS = [
    "method",
    "model",
    "num_speculative_tokens",
    "cudagraph_mode",
    "cudagraph_capture_sizes",
    "text_config",
    "targets",
]
DOTTED = [
    "speculative-config",
    "compilation-config",
    "hf-overrides",
    "quantization-config",
    "structured-outputs-config",
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(engine("0.33.0").flags)), st.sampled_from(ODD))
        | st.tuples(st.builds("{}.{}".format, st.sampled_from(DOTTED), st.sampled_from(KEYS)), st.sampled_from(ODD)),
        max_size=6,
    ),
    st.sampled_from(["0.19.1", "0.26.0", "0.33.0"]),
)
def test_no_line_makes_lint_fail(pairs: list[tuple[str, str]], version: str) -> None:
    words = " ".join(f"--{flag}={shlex.quote(value)}" for flag, value in pairs)
    for found in findings(words, version):
        assert found.message
        assert found.remedy


@pytest.mark.parametrize(
    "words", ["\u2013-enforce-eager", "\u2014enforce-eager", "--max-model-len\u00a08192", "\u201cx y\u201d"]
)
def test_what_a_word_processor_made_of_a_line_is_named(words: str) -> None:
    worst = findings(words=words)[0]
    assert worst.severity == "error"
    assert f"U+{ord(next(each for each in words if not each.isascii())):04X}" in worst.remedy
