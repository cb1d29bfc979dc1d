"""What a client needs to use the declared services: address, model name, and where the key comes from. Offline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret, SecretRef
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import named
from sparkops.inventory.secrets import Secrets
from sparkops.inventory.served import Placed, places
from sparkops.models.service_spec import served_names
from sparkops.reconcile.targets import Endpoint, endpoints

KEY = "VLLM_API_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An endpoint, the names of its model (none: an engine that is not vLLM), and its key.

    A key is the reference that the inventory has; a Secret where it stands there as plain text, or where `revealed`
    has read it.
    """

    endpoint: Endpoint
    models: tuple[str, ...] = ()
    key: SecretRef | Secret | None = None


def accesses(inventory: Inventory, services: Sequence[str], limit: Sequence[str]) -> tuple[Access, ...]:
    """The endpoints of these services (all without a name) whose head is on a node that `limit` selects.

    Raises InventoryError for unknown names, for a service that can't be compiled, and where none is left.
    """
    known = [name for name, each in inventory.services.items() if each.state != "retired"]
    for name in services:
        if name not in known:
            raise InventoryError.of("service-not-found", service=name, suggestion=suggest(name, known))
    placed = {(each.service.name, each.node): each for each in places(inventory)}
    found = [
        _access(each, placed[each.service, each.node])
        for each in endpoints(inventory, named(inventory, limit))
        if (not services or each.service in services) and (each.service, each.node) in placed
    ]
    if not found:
        raise InventoryError.of("endpoints-none", inventory=str(inventory.path))
    return tuple(found)


def revealed(access: Access, secrets: Secrets) -> Access:
    """The same with the key itself. Raises SecretError where it can't be read."""
    if not isinstance(access.key, SecretRef):
        return access
    return dataclasses.replace(access, key=secrets.resolve(access.key))


def _access(endpoint: Endpoint, placed: Placed) -> Access:
    if placed.fault is not None:
        raise placed.fault
    service = placed.variables["service"]
    known = placed.words is not None
    return Access(
        endpoint=endpoint,
        models=served_names(service, placed.variables["checkpoint"]) if known else (),
        key=_key(service["serve"].get("api-key") or (service["environment"] or {}).get(KEY)),
    )


def _key(declared: object) -> SecretRef | Secret | None:
    """vLLM takes any of the keys of `--api-key`, and without that flag the one of its environment."""
    if isinstance(declared, (list, tuple)):
        declared = declared[0]
    if declared is None or isinstance(declared, SecretRef):
        return declared
    return Secret(str(declared), origin="plain text in the inventory")
