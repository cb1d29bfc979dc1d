"""Who listens on a port of this node: a service's own container, or something foreign, with its names."""

from collections.abc import Mapping
from typing import Any

from sparkops.programs import docker
from sparkops.programs.launch import listening
from sparkops.programs.launch.listening import Owner, Unseen
from sparkops.worker.calls import Unknown

LABEL = "sparkops.service"


def foreign(port: int, host: str, own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What listens on `host`:`port` and is not the inspected container `own`; None where nothing does.

    `process`, `pid`, `container` (a name) and `unit` say who it is, "" and 0 where there is none; `service` is the
    service of sparkops that it belongs to. Raises Unknown where only root can see it.
    """
    try:
        held = listening.owners(listening.listening(port, host))
    except Unseen as error:
        raise Unknown(f"who listens on port {port} is not known: {error}") from None
    for owners in held.values():
        if not any(_is(each, own) for each in owners):
            return _described(owners[0])
    return _published(port, own) if not held else None


def _is(owner: Owner, own: Mapping[str, Any] | None) -> bool:
    if own is None:
        return False
    return own.get("Id") == owner.container or (bool(owner.relayed) and owner.relayed in _addresses(own))


def _addresses(found: Mapping[str, Any]) -> list[str]:
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return [str(each["IPAddress"]) for each in networks.values() if each.get("IPAddress")]


def _described(owner: Owner) -> dict[str, Any]:
    found: Mapping[str, Any] | None = None
    if owner.relayed:
        found = next((each for each in docker.containers() if owner.relayed in _addresses(each)), None)
    elif owner.container:
        found = docker.inspect_container(owner.container)
    unit = "" if owner.container or owner.relayed else owner.unit
    return {**_names(found, owner.container), "pid": owner.pid, "process": owner.process, "unit": unit}


def _published(port: int, own: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A container whose port Docker publishes without a proxy that listens."""
    try:
        there = docker.containers(every=False)
    except Unknown:
        return None  # without Docker nothing is published
    for each in there:
        ports = {pair.get("PublicPort") for pair in each.get("Ports") or ()}
        if port in ports and each.get("Id") != (own or {}).get("Id"):
            return {**_names(each, ""), "pid": 0, "process": "", "unit": ""}
    return None


def _names(found: Mapping[str, Any] | None, identity: str) -> dict[str, str]:
    """Name and service of a container, inspected or listed."""
    if found is None:
        return {"container": identity[:12], "service": ""}
    name = str(found.get("Name") or (found.get("Names") or [""])[0]).lstrip("/")
    labels = found.get("Labels") or (found.get("Config") or {}).get("Labels") or {}
    return {"container": name, "service": str(labels.get(LABEL, ""))}


def words(owner: Mapping[str, Any]) -> str:
    """Who it is: `process 412 (vllm) of container foreign`."""
    told = f"process {owner['pid']} ({owner['process']})" if owner["pid"] else ""
    place = f"container {owner['container']}" if owner["container"] else str(owner["unit"])
    return " of ".join(each for each in (told, place) if each)
