"""The services of an inventory as serve lines, for lint and fit: words, environment, engine, node by node.

A service's words are made as the unit's are (`service_spec`). It must not check them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sparkops.core import fact_text
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import SecretRef
from sparkops.inventory.inventory import Inventory, Service
from sparkops.inventory.merge import Variables
from sparkops.models.engine import Engine, engine, version_of_image
from sparkops.models.invocation import Ask, Invocation
from sparkops.models.serve_line import parse
from sparkops.models.service_spec import spec_of
from sparkops.models.service_variables import ServiceVariables


@dataclass(frozen=True)
class Placed:
    """A service on one of its nodes: the merged variables of the roles, and the engine that serves it, if known.

    `replica` are the nodes of the same engine, the head first, and `addresses` theirs on the fabric; `folder` is the
    inventory's.
    """

    service: Service
    node: str
    replica: tuple[str, ...]
    variables: Variables
    engine: Engine | None
    addresses: tuple[str | None, ...] = ()
    folder: Path | None = None
    ask: Ask | None = None

    @property
    def rank(self) -> int:
        """The node's place in its engine; the head's is 0."""
        return self.replica.index(self.node)

    @property
    def model(self) -> str:
        """What is served, as a repository or a model's name; "" where neither checkpoint nor recipe names it."""
        named = self.service.recipe.model if self.service.recipe else None
        return str(self.variables["checkpoint"]["repository"] or named or "")

    @property
    def environment(self) -> dict[str, str]:
        """The engine's environment, secrets as their references."""
        given = self.variables["service"]["environment"] or {}
        return {key: str(value) for key, value in given.items() if value is not None}

    @property
    def words(self) -> Sequence[str] | None:
        """The engine's words; None where this is no vLLM, and where they can't be made (`fault`)."""
        return self._words[0]

    @property
    def fault(self) -> InventoryError | None:
        """Why the engine's words can't be made: what compiling the inventory will say too."""
        return self._words[1]

    def invocation(self, model: str) -> Invocation | None:
        """The engine's start on this node, for a model of that name; None where words or engine are not known."""
        if self.words is None or self.engine is None:
            return None
        checkpoint = self.variables["checkpoint"]
        return Invocation(
            line=parse(self.words, self.engine),
            engine=self.engine,
            env=self.environment,
            model_name=model,
            steps=checkpoint.get("steps") or (),
            beside=self.folder,
            ask=self.ask,
            revision=str(checkpoint.get("commit") or checkpoint.get("revision") or ""),
            endpoint=str(checkpoint.get("endpoint") or ""),
        )

    @cached_property
    def _words(self) -> tuple[Sequence[str] | None, InventoryError | None]:
        declared: ServiceVariables = self.variables["service"]
        command = declared["command"]
        if command and not any(word.rpartition("/")[2] in ("vllm", "serve") for word in command):
            return None, None
        service: ServiceVariables = {
            **declared,
            "name": self.service.name,
            "rank": self.rank,
            "nodes": self.replica,
            "addresses": self.addresses,
            "fabric": self.variables.get("fabric"),
        }
        secret = {key for key, value in (declared["environment"] or {}).items() if isinstance(value, SecretRef)}
        try:
            spec = spec_of(service, self.variables["image"], self.variables["checkpoint"], {}, secret)
        except InventoryError as error:
            return None, error
        argv = list(map(fact_text.shown, spec.argv))
        return (argv if command else ["vllm", "serve", *argv]), None


def places(inventory: Inventory, ask: Ask | None = None) -> Iterator[Placed]:
    """Every service on each of its nodes, the head first, without what is retired. Models that are in no knowledge are
    read by `ask`."""
    for service in inventory.services.values():
        if service.state == "retired":
            continue
        for replica in inventory.replicas(service.name):
            for node in replica:
                if inventory.nodes[node].state != "retired":
                    variables = inventory.variables(node, service.name)
                    yield Placed(
                        service,
                        node,
                        replica,
                        variables,
                        _engine(inventory, service, variables),
                        tuple(inventory.addresses(service.name, node)),
                        inventory.folder,
                        ask,
                    )


def _engine(inventory: Inventory, service: Service, variables: Variables) -> Engine | None:
    """The engine of a service: as declared, as in the image's tag, or as in the recipe."""
    image = variables["image"]
    reference = str(image["pull"] or "") if not (image["build"] or {}).get("tag") else ""
    recipe = service.recipe.engine if service.recipe else None
    for version in (variables["service"].get("engine"), version_of_image(reference), recipe):
        if version:
            return engine(str(version), inventory.folder)
    return None
