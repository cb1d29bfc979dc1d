"""The arguments of `vllm serve` as a recipe's serve arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sparkops.core.secrets import SecretRef
from sparkops.importing.recipe_draft import Draft
from sparkops.importing.secrecy import holds_secret
from sparkops.models.engine import engine
from sparkops.models.serve_line import AUTO, ServeLine, parse

DERIVED: Mapping[str, str] = {
    **dict.fromkeys(
        ("nnodes", "node-rank", "master-addr", "headless"), "it follows from the service's nodes and their order"
    ),
    "master-port": "ranks meet at the engine's own port, 29501",
    "download-dir": "sparkops fetches the checkpoint itself and mounts it",
    "hf-token": "checkpoint.token provides it, read from HF_TOKEN of your environment",
}


OMNI = "--omni"
"""The flag of vLLM-Omni, which is another engine under the same command."""


def take_arguments(draft: Draft, given: Sequence[str]) -> None:
    """The words behind `vllm serve`: the model and its flags, read as the engine's version reads them."""
    line = parse(["serve", *given], engine(draft.engine))
    if any(problem.word == OMNI for problem in line.problems):
        raise draft.fault("import-other-engine", value="vLLM-Omni")
    for problem in line.problems:
        if problem.kind == "place":
            continue  # the recipe has the model first
        draft.leave(problem.word or problem.flag, f"vLLM {draft.engine} would refuse it ({problem.message})")
    for short, long in line.abbreviated.items():
        draft.note(f"{short} is written out as {long}")
    if line.model:
        draft.take_model(line.model)
    for flag, value in line.arguments.items():
        _take_flag(draft, flag, value, line)


def _take_flag(draft: Draft, flag: str, value: Any, line: ServeLine) -> None:
    if flag == "model":
        return
    if flag in ("host", "port"):
        draft.service[flag] = value
    elif flag == "api-key":
        draft.environment["VLLM_API_KEY"] = SecretRef("env", "VLLM_API_KEY")
        draft.note("--api-key: every process list would show it; VLLM_API_KEY of your environment is used instead")
    elif flag == "revision":
        draft.revision = value
    elif flag == "distributed-executor-backend" and value == "ray":
        draft.leave("--distributed-executor-backend ray", "ranks find each other without Ray")
    elif holds_secret(value):
        draft.leave(f"--{flag}", "its value holds what looks like a secret; give it by a variable of the environment")
    elif flag in DERIVED:
        draft.token = draft.token or flag == "hf-token"
        draft.leave(f"--{flag}", DERIVED[flag])
    elif value is None:
        draft.leave(f"--{flag}", "its value is None, which is the engine's own default")
    elif isinstance(value, str) and re.search(r"\$\{?\w|\{\w+\}", value):
        draft.leave(f"--{flag} {value}", "its value is a variable that nothing here sets")
    else:
        draft.serve[flag] = "auto" if flag == "max-model-len" and value == AUTO else _plain(value)
        _look_at(draft, flag, value)


def _look_at(draft: Draft, flag: str, value: object) -> None:
    """What a value stands on besides the recipe."""
    mounted = [mount["target"] for mount in draft.container.get("mounts", ())]
    if flag == "chat-template" and "{" not in str(value) and not any(str(value).startswith(each) for each in mounted):
        del draft.serve[flag]
        draft.need(f"--chat-template {value}", "the file is in neither recipe nor image; mount it and write the flag")
    if flag == "speculative-config" and isinstance(value, Mapping) and value.get("model"):
        draft.environment.setdefault("HF_HUB_OFFLINE", "0")
        draft.note(
            f"the engine fetches the drafter {value['model']} itself, at each start; HF_HUB_OFFLINE is 0 for that"
        )


def _plain(value: object) -> object:
    """Several words as a list; one alone as it is."""
    return value if not isinstance(value, tuple) else value[0] if len(value) == 1 else list(value)
