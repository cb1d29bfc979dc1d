"""The first look at a machine that no inventory names yet: what it is, and what runs on it already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sparkops.core.errors import BecomeFailed, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.request_messages import AdoptLook, AdoptTold
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.session import Session
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.target import Target
from sparkops.operate import adopt, adopt_diff
from sparkops.operate.first_contact.first_inventory import Engine, Found
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import FACTS, asked, facts_ask
from sparkops.resources.resource import unpack

GROUPS = ("os", "gpu", "memory")
ANY: AdoptLook = {"image": "", "container": "", "port": 0, "unit": "", "chosen": "", "chosen_unit": ""}
"""Asks for every container and unit that looks like an engine."""


def look(target: Target, connections: Connections) -> Found:
    """What a machine says; as root where sudo lets us, since only root sees what others run.

    Raises what keeps it from being asked.
    """
    try:
        return _look(dataclasses.replace(target, become=True), connections)
    except BecomeFailed:
        return _look(target, connections)


def _look(target: Target, connections: Connections) -> Found:
    program = bundle.kinds_bundle([FACTS, adopt.KIND])
    with Fleet({target.name: target}, cluster="", connections=connections, program=program, jobs=1) as fleet:
        session = fleet.session(target.name)
        answers, _ = asked(session, [facts_ask(GROUPS)])
        facts = unpack(answers.get(FACTS))
        engines, listening, unseen = _running(session)
    return Found(
        host=target.host,
        user=SSHConfigs().route(target).end.user,
        port=target.port,
        facts=facts if isinstance(facts, Mapping) else {},
        engines=engines,
        listening=listening,
        unseen=unseen,
    )


def _running(session: Session) -> tuple[tuple[Engine, ...], tuple[int, ...], str]:
    """The engines that run, the ports that are taken, and why that could not be seen."""
    try:
        there: AdoptTold = session.call(f"{adopt.KIND}.look", ANY, timeout=60)
    except SparkopsError as error:
        return (), (), error.what
    engines = [_container(each) for each in there["containers"]]
    named = {each.name for each in engines}
    engines += [_unit(each) for each in there["units"] if each["active"] and not named & set(each["containers"])]
    return tuple(engines), tuple(there["listening"]), ""


def _container(found: Fields) -> Engine:
    config = found["config"]
    words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    bindings = (found["host"].get("PortBindings") or {}).values()
    published = [int(each["HostPort"]) for pairs in bindings for each in pairs or [] if each.get("HostPort")]
    mounts = [str(each.get("Source")) for each in found["mounts"]]
    text = " ".join(map(str, [*words, *mounts]))
    return Engine("container", found["name"], published[0] if published else _port(words), text)


def _unit(found: Fields) -> Engine:
    return Engine("unit", found["name"], _port(found["text"].split()), found["text"])


def _port(words: Sequence[str]) -> int:
    """The port of an engine's words; vLLM's own where they name none."""
    value = str(adopt_diff.flags([str(word) for word in words])[1].get("port"))
    return int(value) if value.isascii() and value.isdecimal() else 8000
