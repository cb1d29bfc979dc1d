"""What is to be said of a pool beside its figures. It must not count what they are made of."""

from __future__ import annotations

from sparkops.core.wording import size
from sparkops.fit.memory import Budget
from sparkops.fit.pool import Pool
from sparkops.models.invocation import Invocation
from sparkops.models.platform import Device
from sparkops.models.serve_line import AUTO


def pool_notes(run: Invocation, made: Pool, budget: Budget, device: Device) -> list[str]:
    """What of a pool and its budget keeps the engine or the node from working."""
    found = []
    seqs, length = run.effective.max_num_seqs, run.effective.max_model_len
    states = any(group.kind.startswith("state") for group in made.groups)
    if states and seqs > made.blocks > 0 and run.effective.max_capture_size:
        found.append(
            f"max-num-seqs {seqs} is more than the {made.blocks} blocks of the pool, of which each decoding request "
            f"takes one for its state: the engine refuses to capture its graphs; lower it to {made.blocks} at most"
        )
    if length and made.streams(length) < 1:
        lowered = made.context(1, length) if run.line.get("max-model-len") == AUTO else 0
        found.append(
            f"max-model-len auto: the engine lowers it to what fits, about {lowered:,} tokens"
            if lowered
            else f"not one request of max-model-len {length:,} fits: the engine does not start"
        )
    if budget.offloaded:
        found.append(f"--kv-offloading-size takes {size(budget.offloaded)} more of the same memory")
    if budget.overfull:
        found.append(f"the line needs {size(-budget.host)} more than a rank has")
    elif budget.host < device.host:
        found.append(
            f"{size(budget.host)} are left for the host, less than the {size(device.host)} "
            "that are known to be safe; an out-of-memory freezes a Spark"
        )
    return found
