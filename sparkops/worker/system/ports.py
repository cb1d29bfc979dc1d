"""Who listens on a port of this node: a service's own container or unit, or something foreign, with its names."""

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sparkops.programs import docker, docker_absence
from sparkops.programs.launch import listening
from sparkops.programs.launch.listening import Owner, Unseen
from sparkops.worker.calls import Unknown
from sparkops.worker.system import processes

LABEL = "sparkops.service"
_ID = re.compile(r"(?m)^Id=(\S+)$")
LOOKS = 3
PAUSE = 0.1
"""Seconds between two looks: a process that is just ending holds a socket that nobody seems to hold."""


class Held(NamedTuple):
    """A port: whether the service itself listens there, and what else does.

    `foreign`: `process`, `pid`, `container` (a name) and `unit` say who it is, "" and 0 where there is none; `service`
    is the service of sparkops that it belongs to. A container that Docker does not know (podman's, Kubernetes') has a
    `unit` too.
    """

    own: bool
    foreign: dict[str, object] | None


def held(port: int, host: str, find: Callable[[], Mapping[str, object] | None], unit: str = "") -> Held:
    """Who listens on `host`:`port`: the container that `find` inspects, the `unit`, or something foreign.

    What is foreign is looked at twice: between the looks at the socket and at the container the service may have been
    started again, or the process have ended. Raises Unknown where that can't be told: only root sees whose a socket is,
    and a port may be Docker's without anybody that listens.
    """
    found = _held(port, host, find, unit)
    return found if found.foreign is None else _held(port, host, find, unit)


def _held(port: int, host: str, find: Callable[[], Mapping[str, object] | None], unit: str) -> Held:
    owners = _owners(port, host)
    if not owners:
        return _published(port, host, find)
    own = find()
    for each in owners:
        if any(_is(one, own, unit) for one in each):
            continue
        behind = _published(port, host, find) if each[0].dockers and not each[0].relayed else Held(False, None)
        if not behind.own:
            return behind if behind.foreign is not None else Held(False, _stranger(each[0], port))
    return Held(True, None)


def _owners(port: int, host: str) -> list[list[Owner]]:
    for look in range(LOOKS):
        try:
            return list(listening.owners(listening.listening(port, host)).values())
        except Unseen as error:
            if look == LOOKS - 1:
                raise Unknown.of("port-owner-unknown", port=port, text=str(error)) from None
            time.sleep(PAUSE)
    return []


def _is(owner: Owner, own: Mapping[str, object] | None, unit: str) -> bool:
    if own is None:
        return bool(unit) and owner.unit == unit
    return own.get("Id") == owner.container or (bool(owner.relayed) and owner.relayed in _addresses(own))


def _addresses(found: docker.Answer) -> list[str]:
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    kinds = ("IPAddress", "GlobalIPv6Address")
    return [str(each[kind]) for each in networks.values() for kind in kinds if each.get(kind)]


def described(owner: Owner) -> dict[str, object]:
    """A process with its container or unit, and the service of sparkops that it belongs to."""
    found: Mapping[str, object] | None = None
    unit = "" if owner.container or owner.relayed else owner.unit
    with contextlib.suppress(Unknown):  # its id is known all the same
        if owner.relayed:
            found = next((each for each in docker.containers() if owner.relayed in _addresses(each)), None)
        elif owner.container:
            found = docker.inspect_container(owner.container)
            unit = owner.unit if found is None else ""
    return {**_names(found, owner.container), "pid": owner.pid, "process": owner.process, "unit": unit}


def _stranger(owner: Owner, port: int) -> dict[str, object]:
    """As `described`; of systemd itself the socket unit for which it listens, where it tells."""
    found = described(owner)
    if owner.pid == 1:
        with contextlib.suppress(Unknown):
            _, out, _ = processes.ask(["systemctl", "--no-pager", "show", "--property=Id,Listen", "--", "*.socket"])
            for block in out.split("\n\n"):
                if re.search(rf"(?m)^Listen=(?:\S*:)?{port} \(Stream\)$", block) and (name := _ID.search(block)):
                    return {**found, "unit": name[1]}
    return found


def _published(port: int, host: str, find: Callable[[], Mapping[str, object] | None]) -> Held:
    """A container whose port Docker publishes without a proxy that listens. Raises Unknown where Docker is silent."""
    try:
        there = docker.containers(every=False)
    except Unknown as error:
        if error.id not in docker_absence.ABSENT:
            raise
        return Held(False, None)  # without Docker nothing is published
    address = listening.numeric(host)  # looks a name up: once, not for each container
    holding = [each for each in there if _publishes(each, port, address)]
    own = find() if holding else None
    for each in holding:
        if each.get("Id") != (own or {}).get("Id"):
            return Held(False, {**_names(each, ""), "pid": 0, "process": "", "unit": ""})
    return Held(bool(holding), None)


def _publishes(listed: docker.Answer, port: int, host: str) -> bool:
    """Whether a listed container has this port of the node, at an address that is in the way of `host`."""
    return any(
        (pair.get("PublicPort"), pair.get("Type")) == (port, "tcp")
        and listening.overlap(str(pair.get("IP") or "0.0.0.0"), host)
        for pair in listed.get("Ports") or ()
    )


def _names(found: docker.Answer | None, identity: str) -> dict[str, str]:
    """Name and service of a container, inspected or listed."""
    if found is None:
        return {"container": identity[:12], "service": ""}
    name = str(found.get("Name") or (found.get("Names") or [""])[0]).lstrip("/")
    labels = found.get("Labels") or (found.get("Config") or {}).get("Labels") or {}
    return {"container": name, "service": str(labels.get(LABEL, ""))}


def words(owner: Mapping[str, object]) -> str:
    """Who it is: `process 412 (vllm) of container foreign`."""
    told = f"process {owner['pid']} ({owner['process']})" if owner["pid"] else ""
    place = f"container {owner['container']}" if owner["container"] else str(owner["unit"])
    return " of ".join(each for each in (told, place) if each)
