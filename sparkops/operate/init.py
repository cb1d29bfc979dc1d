"""The first inventory: commented, valid as it stands, and filled in with what given hosts say about themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EDITOR_LINE = "# yaml-language-server: $schema=./inventory.schema.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was seen of one host: how it is reached, the key it showed, its facts."""

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    host_key: str = ""
    facts: Mapping[str, Any]


TEMPLATE = """\
{editor}
# One cluster of DGX Spark nodes and the services on them. `sparkops plan` shows what would change.
version: 1
cluster: {cluster}

# How to reach the nodes. ~/.ssh/config is honoured; what stands here wins.
connection:
  user: {user}
  become: true                  # through sudo; a password is asked for once, if one is needed

nodes:
{nodes}services:
  qwen:
    nodes: [{first}]
    port: 8000
    # The engine's image, by tag or better by digest. v0.26.0 is said to be the first official one with GB10's
    # kernels (unverified).
    image:
      pull: vllm/vllm-openai:v0.26.0
    command: []                 # that image's entry point is `vllm serve`; others need `command: [vllm, serve]`
    # A model repository on the Hugging Face hub, and the commit to stay on.
    checkpoint:
      repository: Intel/Qwen3.5-122B-A10B-int4-AutoRound
      revision: main            # pin a commit: `revision: <40 hex digits>`
      # token: !env HF_TOKEN    # for gated repositories; read only when it is used
    # vLLM's own flag names, verbatim: true → --x, false → --no-x, a mapping → JSON.
    serve:
      max-model-len: 131072
      max-num-seqs: 4
      max-num-batched-tokens: 8192   # never leave this open on GB10: vLLM's default there is an accident
      gpu-memory-utilization: 0.82
"""


def inventory(found: Sequence[Found], cluster: str = "attic") -> str:
    """The text of a first inventory for these hosts, or for one example node."""
    hosts = found or (Found(name="spark-01", host="192.168.1.11", facts={}),)
    user = next((each.user for each in hosts if each.user), None) or "nvidia"
    return TEMPLATE.format(
        editor=EDITOR_LINE,
        cluster=cluster,
        user=user,
        nodes="".join(_node(each, user) for each in hosts),
        first=hosts[0].name,
    )


def _node(found: Found, user: str) -> str:
    lines = [f"  {found.name}:", f"    host: {found.host}"]
    more = {"port": found.port, "user": found.user if found.user != user else None}
    inner = [f"{key}: {value}" for key, value in more.items() if value is not None]
    if found.host_key:
        inner.append(f'host_key: "{found.host_key}"')
    if inner:
        lines += ["    connection:", *(f"      {each}" for each in inner)]
    lines += [f"    # {each}" for each in _remarks(found.facts)]
    return "\n".join(lines) + "\n\n"


def _remarks(facts: Mapping[str, Any]) -> list[str]:
    """What was seen, as comments: they inform, they declare nothing."""
    remarks = []
    system, gpu, memory = (_group(facts, name) for name in ("os", "gpu", "memory"))
    if system:
        remarks.append(f"seen: {system.get('pretty') or system.get('id')}, kernel {system.get('kernel')}")
    if gpu.get("name"):
        remarks.append(f"seen: {gpu['name']}, driver {gpu.get('driver_version')}, CUDA {gpu.get('cuda_version')}")
    if isinstance(memory.get("total_bytes"), (int, float)):
        remarks.append(f"seen: {memory['total_bytes'] / 2**30:.1f} GiB of memory")
    return [re.sub(r"[^\x20-\x7e]", "?", each) for each in remarks]


def _group(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = facts.get(name)
    return group if isinstance(group, Mapping) else {}


def node_name(host: str) -> str:
    """An inventory name from a host: the first label of a DNS name, an address with dashes."""
    text = host if re.fullmatch(r"[\d.:a-fA-F]+", host) else host.partition(".")[0]
    return re.sub(r"[^\w-]", "-", text).strip("-").lower() or "spark-01"
