"""Rules about ranks, nodes, executors and experts.

It must not know another version than the case's, nor an inventory: `nodes` come with the case.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.lint.case import Case, Found

EXECUTORS = ("mp", "uni", "ray", "external_launcher")
WITH_NODES = ("mp", "uni", "external_launcher")
TENSOR, EXECUTOR = "--tensor-parallel-size", "--distributed-executor-backend"


def heads_not_divisible(case: Case) -> Iterable[Found]:
    ranks, geometry = case.effective.tensor_parallel, case.geometry
    if geometry is None or ranks < 1:
        return
    uneven = geometry.uneven(ranks)
    if case.engine.law("tensor_parallel_check") == "gdn" and (values := uneven.get("linear value heads")):
        yield Found(
            f"{values} is not divisible by {ranks}: the value heads of the linear layers are split evenly", TENSOR
        )
    elif "attention heads" in uneven:
        yield Found(
            f"Total number of attention heads ({geometry.heads}) must be divisible by tensor parallel size ({ranks})",
            TENSOR,
            remedy=f"take one of {', '.join(str(each) for each in (1, 2, 4, 8, 16) if not geometry.heads % each)}",
        )


def kv_heads_not_divisible(case: Case) -> Iterable[Found]:
    ranks, geometry = case.effective.tensor_parallel, case.geometry
    if geometry is None or ranks < 1 or "attention heads" in (uneven := geometry.uneven(ranks)):
        return
    if count := uneven.get("KV heads"):
        yield Found(
            f"{count} KV heads are neither split evenly over {ranks} ranks nor shared evenly by them: the engine stops "
            "at an assertion without words",
            TENSOR,
        )


def experts_below_ranks(case: Case) -> Iterable[Found]:
    geometry, ranks = case.geometry, case.effective.tensor_parallel
    if geometry is not None and 0 < geometry.experts < ranks:
        yield Found(f"Tensor parallel size {ranks} is greater than the number of experts {geometry.experts}", TENSOR)


def not_enough_gpus(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.nnodes > 1 or case.line.get("distributed-executor-backend") or now.world_size * now.data_parallel <= 1:
        return
    if case.gpus < now.world_size:
        yield Found(
            f"World size ({now.world_size}) is larger than the number of available GPUs ({case.gpus}) in this node",
            TENSOR if now.tensor_parallel > 1 else "--pipeline-parallel-size",
            remedy=f"spread it with --nnodes {now.world_size // max(1, case.gpus)}, or lower the sizes",
        )


def nodes_do_not_divide(case: Case) -> Iterable[Found]:
    now = case.effective
    world = now.world_size * now.data_parallel
    if now.nnodes > 1 and world % now.nnodes:
        words = (
            f"world_size={world} must be divisible by nnodes={now.nnodes}"
            if case.engine.law("nnodes_wording") == "assert"
            else f"`--nnodes {now.nnodes}` must evenly divide the total world size ({world})"
        )
        yield Found(words, "--nnodes", remedy="tensor x pipeline x data parallel sizes make the number of nodes")


def node_rank_out_of_range(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.nnodes > 1 and not 0 <= now.node_rank < now.nnodes:
        words = (
            f"node_rank={now.node_rank} must be less than nnodes={now.nnodes}"
            if case.engine.law("nnodes_wording") == "assert"
            else f"--node-rank must be between 0 and {now.nnodes - 1}, not {now.node_rank}"
        )
        yield Found(words, "--node-rank")


def nodes_need_processes(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.nnodes > 1 and now.executor not in WITH_NODES:
        yield Found(
            "nnodes > 1 can only be set when distributed executor backend is mp, uni or external_launcher, not "
            f"{now.executor}",
            EXECUTOR,
        )


def executor_unknown(case: Case) -> Iterable[Found]:
    given = case.line.get("distributed-executor-backend")
    if isinstance(given, str) and given not in EXECUTORS and "." not in given:
        yield Found(
            f"not enough values to unpack: {given!r} is neither {', '.join(EXECUTORS)} nor the dotted path of a class",
            EXECUTOR,
        )


def context_parallel(case: Case) -> Iterable[Found]:
    now, geometry = case.effective, case.geometry
    ranks, tensor = now.decode_context_parallel, now.tensor_parallel
    if ranks <= 1 or now.prefill_context_parallel > 1:
        return
    about = "--decode-context-parallel-size"
    if tensor % ranks:
        yield Found(f"tp_size={tensor} must be divisible by dcp_size={ranks}", about)
    elif geometry is not None and not geometry.gaps and geometry.plain:
        kv = geometry.kv_heads
        if tensor <= kv:
            yield Found(
                f"tensor parallel size {tensor} must be greater than total num kv heads {kv} when enable decode "
                "context parallel for GQA/MQA",
                about,
            )
        elif ranks > tensor // kv:
            yield Found(
                f"decode context parallel size {ranks} must be at most {tensor // kv}, {tensor} ranks by {kv} heads",
                about,
            )
        elif geometry.heads // kv % ranks:
            yield Found(
                f"the number of query heads of each KV head ({geometry.heads // kv}) must be divisible by the decode "
                f"context parallel size ({ranks})",
                about,
            )


def expert_balancing(case: Case) -> Iterable[Found]:
    now = case.effective
    if not case.line.get("enable-eplb"):
        redundant = case.line.mapping("eplb-config").get("num_redundant_experts")
        if redundant:
            yield Found(f"num_redundant_experts is set to {redundant} but EPLB is not enabled", "--eplb-config")
        return
    if not case.line.get("enable-expert-parallel"):
        yield Found("enable_expert_parallel must be True to use EPLB", "--enable-eplb")
    elif now.tensor_parallel * now.data_parallel * now.prefill_context_parallel <= 1:
        yield Found(
            f"EPLB requires tensor or data parallelism, but got TP={now.tensor_parallel}, DP={now.data_parallel}",
            "--enable-eplb",
        )


def data_parallel_rank(case: Case) -> Iterable[Found]:
    rank, size = case.line.get("data-parallel-rank"), case.effective.data_parallel
    if isinstance(rank, int) and size > 1 and not 0 <= rank < size:
        yield Found(f"data_parallel_rank ({rank}) must be in the range [0, {size})", "--data-parallel-rank")


def data_parallel_balancer(case: Case) -> Iterable[Found]:
    local, size = case.line.get("data-parallel-size-local"), case.effective.data_parallel
    if isinstance(local, int) and local > size:
        yield Found(
            f"data_parallel_size_local ({local}) must be <= data_parallel_size ({size})", "--data-parallel-size-local"
        )
    for flag in ("data-parallel-external-lb", "data-parallel-rank"):
        if case.line.get(flag) not in (None, False) and size <= 1:
            implied = ", which a rank turns on," if flag == "data-parallel-rank" else ""
            yield Found(f"data_parallel_external_lb{implied} can only be set when data_parallel_size > 1", f"--{flag}")


def headless_with_api_servers(case: Case) -> Iterable[Found]:
    count = case.line.get("api-server-count")
    if case.line.get("headless") and isinstance(count, int) and count > 0:
        yield Found(
            f"--api-server-count={count} cannot be used with --headless: no API server is started in headless mode",
            "--api-server-count",
        )


def worker_not_headless(case: Case) -> Iterable[Found]:
    now = case.effective
    if now.nnodes > 1 and 0 < now.node_rank < now.nnodes and not case.line.get("headless"):
        yield Found(
            f"rank {now.node_rank} of {now.nnodes} is a worker: it serves no API and wants --headless", "--node-rank"
        )


def nodes_of_service(case: Case) -> Iterable[Found]:
    now = case.effective
    ranks = now.world_size * now.data_parallel
    if case.nodes > 1 and now.world_size > 1 and ranks != case.nodes * case.gpus:
        yield Found(
            f"{ranks} ranks (tensor {now.tensor_parallel} x pipeline {now.pipeline_parallel} x data "
            f"{now.data_parallel}) on {case.nodes} nodes of {case.gpus} GPU each",
            TENSOR,
        )


def hybrid_across_nodes(case: Case) -> Iterable[Found]:
    now = case.effective
    if case.hybrid and now.nnodes > 1 and not case.line.get("enforce-eager"):
        yield Found(
            "a model with a recurrent state over several nodes: hangs and wrong output were reported on the official "
            "image with CUDA graphs, and good runs on community images",
            "--nnodes",
        )


def vision_data_parallel(case: Case) -> Iterable[Found]:
    if case.line.get("language-model-only") and case.line.get("mm-encoder-tp-mode") == "data":
        yield Found(
            "--mm-encoder-tp-mode data splits an encoder that --language-model-only leaves out", "--mm-encoder-tp-mode"
        )


def ray_memory_monitor(case: Case) -> Iterable[Found]:
    if case.effective.executor == "ray" and case.variables.get("RAY_memory_monitor_refresh_ms") != "0":
        yield Found("Ray's memory monitor counts the shared memory of a Spark as used, and kills workers", EXECUTOR)


def gloo_interface(case: Case) -> Iterable[Found]:
    given = case.variables.get("GLOO_SOCKET_IFNAME", "")
    if any(each in given for each in ",^= "):
        yield Found(f"GLOO_SOCKET_IFNAME={given} names no single interface", "GLOO_SOCKET_IFNAME")


def gid_index_pinned(case: Case) -> Iterable[Found]:
    given = case.variables.get("NCCL_IB_GID_INDEX")
    if given == "":
        yield Found(
            "NCCL_IB_GID_INDEX is empty: NCCL reads 0, a link-local address", "NCCL_IB_GID_INDEX", severity="error"
        )
    elif given is not None and given != "-1":
        yield Found(f"NCCL_IB_GID_INDEX {given}: one index for all ports and nodes", "NCCL_IB_GID_INDEX")
