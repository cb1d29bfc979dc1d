"""What the launchers of one engine's ranks know of each other: the GroupSpec within a service's spec.

It must not know roles, files or units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparkops.core import fact_text
from sparkops.core.fact_text import FactOf
from sparkops.core.group_keys import FOLDER, SUFFIX
from sparkops.models.argv import canonical
from sparkops.models.rank_environment import rank_address
from sparkops.models.service_variables import RankVariables, ServiceVariables

NO_KEY = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """What a rank has to know of its group: seconds, the file of its key, and where the launcher notes how it stands.

    `digest` is of what is declared for all ranks: only ranks of one declaration start together, and only on one
    content of image and checkpoint, which their launchers tell each other. `ranks` has for each, the head first, its
    `node` and its address on each of the `roads`, the one that the engine needs first.
    """

    digest: str
    key: str
    record: str
    ranks: tuple[Mapping[str, object], ...]
    heartbeat_seconds: float
    minimum_uptime_seconds: float
    hang_cooldown_seconds: float
    restarts_per_boot: int


def address(service: ServiceVariables, rank: int) -> str:
    """Where the others find a rank."""
    return rank_address(service["addresses"][rank], service.get("fabric") or {}, service["nodes"][rank])


def group_key_path(service: ServiceVariables) -> str:
    """The file of the key by which the ranks of a service know each other's messages."""
    return f"{FOLDER}/{service['name']}{SUFFIX}"


def group_keys(service: ServiceVariables) -> str:
    """The fingerprints of the keys that the ranks have now, NO_KEY for none: facts of all their nodes."""
    path = ("group_keys", service["name"])
    return " ".join(str(FactOf(node, path, missing=NO_KEY)) for node in service["nodes"])


def group_of(service: ServiceVariables, ranks: Sequence[Mapping[str, object]]) -> GroupSpec:
    """The group of a rank; `ranks` is what is declared for each, without secrets."""
    settings = service["group"]
    return GroupSpec(
        digest=fact_text.digest(canonical([service["nodes"], ranks])),
        key=group_key_path(service),
        record=f"/run/sparkops/groups/{service['name']}.json",
        ranks=tuple({"node": node, "roads": _roads(service, rank, node)} for rank, node in enumerate(service["nodes"])),
        heartbeat_seconds=settings["heartbeat_seconds"],
        minimum_uptime_seconds=settings["minimum_uptime_seconds"],
        hang_cooldown_seconds=settings["hang_cooldown_seconds"],
        restarts_per_boot=int(settings["restarts_per_boot"]),
    )


def _roads(service: ServiceVariables, rank: int, node: str) -> dict[str, str]:
    """A node's address on each network that connects all ranks: the fabric, where all have one, and management."""
    management = str(FactOf(node, ("network", "management", "address")))
    fabric = {each: address(service, each) for each in range(len(service["nodes"]))}
    if any("@fact:" in address for address in fabric.values()):
        return {"management": management}
    return {"fabric": fabric[rank], "management": management}


def declared_of(declared: RankVariables, holds: Callable[[object], bool]) -> dict[str, object]:
    """What an engine is started from, out of a rank's variables; not its image, of which the name says nothing."""
    service = declared["service"]
    environment = {key: value for key, value in service["environment"].items() if not holds(value)}
    kept = {key: service[key] for key in ("command", "model", "serve", "port")}
    checkpoint = {key: declared["checkpoint"].get(key) for key in ("repository", "steps")}
    return {**kept, "environment": environment, "checkpoint": checkpoint}
