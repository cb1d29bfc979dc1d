"""The services of an inventory judged before anything is touched: their lines, and what only an inventory can show.

Each service's line comes from `inventory/served.py`. It must not know
a node: what is observed is the business of the roles' own resources.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from typing import TypeAlias

from sparkops.core.errors import LintError
from sparkops.inventory import served
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Accept, Inventory
from sparkops.inventory.merge import origin
from sparkops.inventory.served import Placed
from sparkops.lint import line as lines
from sparkops.lint.case import Found
from sparkops.lint.check import Finding, check, ordered, refusing
from sparkops.lint.rules import rules
from sparkops.models import build_steps
from sparkops.models.effective import effective
from sparkops.models.serve_line import parse

COMMIT = re.compile(r"[0-9a-f]{40}")
MOVING = ("latest", "nightly", "main", "dev")
MOST_MEMORY = 0.90
NEAR = 0.8
"""How alike (difflib's ratio) an unknown id must be to a rule's to count as that one misspelt."""
FIRST_BOOT_SECONDS, COLD_START_SECONDS, READY_SECONDS = 2400, 900, 600
"""What first starts, other starts, and loads over several nodes were seen to take at least (spark-world.md L27)."""


def lint_inventory(inventory: Inventory, today: date, nodes: Iterable[str] | None = None) -> list[Finding]:
    """All findings of the services on these nodes (all of them without), those that the inventory accepts marked."""
    chosen = set(inventory.nodes if nodes is None else nodes)
    places = [place for place in served.places(inventory) if place.node in chosen]
    found = [*_lines(inventory, places), *_of_services(inventory, places), *_of_nodes(inventory, places)]
    found += _of_acceptances(inventory, today)
    return ordered([_accepted(each, inventory.accept, today) for each in dict.fromkeys(found)])


def refuse(inventory: Inventory, today: date, nodes: Iterable[str] | None = None) -> None:
    """Raises LintError with every error of the services on these nodes that the inventory does not accept."""
    errors = [_error(each) for each in refusing(lint_inventory(inventory, today, nodes))]
    if errors:
        raise LintError(errors[0].what, where=errors[0].where, hint=errors[0].hint, others=tuple(errors[1:]))


def _error(finding: Finding) -> LintError:
    what = f"{finding.subject}: {finding.message} [{finding.id}]"
    return LintError(what, where=finding.where, hint=finding.remedy)


def _lines(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """What the rules of a line say of each service; what is the same on several nodes is said once."""
    told: set[tuple[str, str, str]] = set()
    for place in places:
        words = place.words()
        if words is None:
            continue
        if place.engine is None:
            message = "neither the image's tag nor the recipe says which engine this is: its line is not judged"
            yield _finding("engine-unknown", Found(message), inventory, place, ("service", "engine"))
            continue
        case = lines.case(
            parse(words, place.engine),
            place.engine,
            env=place.environment,
            model=place.variables["checkpoint"]["repository"] or None,
            spark=place.variables["service"]["gpus"] is not None,
            nodes=len(place.service.nodes),
            beside=inventory.folder,
            steps=place.variables["checkpoint"].get("steps") or (),
        )
        for each in check(case, f"services.{place.service.name}", place.variables["checkpoint"]["repository"] or ""):
            key = (each.subject, each.id, each.message)
            if key not in told:
                told.add(key)
                yield replace(each, where=_where(inventory, place, _path(each)))


def _of_services(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """Image, checkpoint and limits of each service, at its head."""
    for place in places:
        if place.rank:
            continue
        for name, path, found in (*_images(place), *_checkpoints(place), *_limits(place)):
            yield _finding(name, found, inventory, place, path)


Declared: TypeAlias = "Iterator[tuple[str, tuple[str, ...], Found]]"
"""A rule's id, where in the variables, and what was found."""


def _images(place: Placed) -> Declared:
    image = place.variables["image"]
    pinned = image["digest"] or image["manifest"] or image["archive"] or (image["build"] or {}).get("tag")
    if not pinned and (found := _unpinned(str(image["pull"] or ""))):
        yield found[0], ("image", "pull"), Found(found[1])
    for _, name, options in build_steps.named(place.variables["checkpoint"].get("steps") or ()):
        if name == "quantize" and (found := _unpinned(str(options["image"]))):
            remedy = "name it by its digest: image: NAME@sha256:…"
            yield found[0], ("checkpoint", "steps"), Found(f"{name}: {found[1]}", remedy=remedy)


def _unpinned(reference: str) -> tuple[str, str] | None:
    """The rule that an image's name breaks, and how."""
    if not reference or "@sha256:" in reference:
        return None
    _, _, tag = reference.rpartition("/")[2].partition(":")
    if not tag:
        return "image-moves", f"{reference} names no tag, so it is `latest`, which moves"
    if any(word in tag.lower() for word in MOVING):
        return "image-moves", f"the tag of {reference} moves"
    return "image-not-pinned", f"{reference} is named without its digest"


def _checkpoints(place: Placed) -> Declared:
    image, checkpoint = place.variables["image"], place.variables["checkpoint"]
    revision = str(checkpoint["revision"] or "")
    if checkpoint["repository"] and not checkpoint["commit"] and not COMMIT.fullmatch(revision):
        words = f"{checkpoint['repository']} at {revision} is a branch or a tag, which moves"
        yield "checkpoint-not-pinned", ("checkpoint", "revision"), Found(words)
    steps = checkpoint.get("steps") or ()
    for donor in build_steps.donors(steps):
        if not donor.commit and not COMMIT.fullmatch(donor.revision):
            words = f"the donor {donor.repository} at {donor.revision} is a branch or a tag, which moves"
            taker = build_steps.takers(steps, donor)[0]
            remedy = f"give the commit as {taker}: {{donor: {donor.repository}, revision: …}}, or run sparkops lock"
            yield "checkpoint-not-pinned", ("checkpoint", "steps"), Found(words, remedy=remedy)
    names = {name for _, name, _ in build_steps.named(steps)}
    stock = not (image["build"] or {}).get("tag")
    if "lm_head" in names and "repack" not in names and stock:
        words = f"{image['pull'] or 'the image'} is served an INT8 head"
        yield "head-int8-unread", ("checkpoint", "steps"), Found(words)
    mixed = "repack" in names and names & {"hybrid", "lm_head"}
    if mixed and stock and place.engine and not place.engine.law("mixed_groups_read"):
        words = f"vLLM {place.engine.asked} is served groups of different formats in one compressed-tensors checkpoint"
        yield "repack-unread", ("checkpoint", "steps"), Found(words)


def _limits(place: Placed) -> Declared:
    if place.engine is None or place.variables["service"]["gpus"] is None:
        return
    timeouts = place.variables["service"]["timeouts"]
    for key, least in (("first_boot_seconds", FIRST_BOOT_SECONDS), ("cold_start_seconds", COLD_START_SECONDS)):
        if timeouts[key] < least:
            words = f"{key} is {timeouts[key]:g}, and such starts were seen to take {least} and more"
            yield "cold-start-limit", ("service", "timeouts", key), Found(words)
    ready = place.environment.get("VLLM_ENGINE_READY_TIMEOUT_S", str(READY_SECONDS))
    if "--nnodes" in (place.words() or ()) and ready.isdigit() and int(ready) <= READY_SECONDS:
        words = f"VLLM_ENGINE_READY_TIMEOUT_S is {ready} on {len(place.service.nodes)} nodes"
        yield "engine-ready-limit", ("service", "environment", "VLLM_ENGINE_READY_TIMEOUT_S"), Found(words)


def _of_nodes(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """What the services of one node do to each other."""
    by_node: dict[str, list[Placed]] = defaultdict(list)
    for place in places:
        by_node[place.node].append(place)
    for node, here in by_node.items():
        for index, place in enumerate(here):
            beside = [other for other in here[:index] if not _exclude(place, other)]
            yield from _port(inventory, node, place, beside)
            yield from _memory(inventory, node, place, beside)


def _exclude(one: Placed, other: Placed) -> bool:
    """Whether two services never run together, because one names the other's unit as a conflict."""
    return _unit(one) in (other.variables["service"]["conflicts"] or ()) or _unit(other) in (
        one.variables["service"]["conflicts"] or ()
    )


def _unit(place: Placed) -> str:
    return str(place.variables["service"]["unit"] or f"{place.service.name}.service")


def _port(inventory: Inventory, node: str, place: Placed, beside: list[Placed]) -> Iterator[Finding]:
    port = place.variables["service"]["port"]
    for other in beside:
        if not place.rank and not other.rank and other.variables["service"]["port"] == port:
            message = f"port {port} on {node} is {other.service.name}'s as well"
            yield _finding("port-taken-twice", Found(message), inventory, place, ("service", "port"))


def _memory(inventory: Inventory, node: str, place: Placed, beside: list[Placed]) -> Iterator[Finding]:
    shares = {each.service.name: _share(each) for each in (*beside, place)}
    total = sum(shares.values())
    if beside and shares[place.service.name] and total > MOST_MEMORY:
        parts = " + ".join(f"{name} {share:g}" for name, share in shares.items() if share)
        message = f"the services on {node} take {total:.2f} of its memory ({parts}), more than {MOST_MEMORY:g}"
        path = ("service", "serve", "gpu-memory-utilization")
        yield _finding("memory-of-services", Found(message), inventory, place, path)


def _share(place: Placed) -> float:
    """The fraction of a node's memory that a service takes; 0 where it has no GPU, or is no engine that is known."""
    words = place.words()
    if words is None or place.engine is None or place.variables["service"]["gpus"] is None:
        return 0.0
    return effective(parse(words, place.engine), None, place.engine).gpu_memory_utilization


def _of_acceptances(inventory: Inventory, today: date) -> Iterator[Finding]:
    """Entries of `accept` that are over, or name a rule or a service that is none.

    What a plan finds on nodes has ids of its own, mostly with a dot, which no offline look can know.
    """
    for each in inventory.accept:
        name, at, service = each.id.partition("@")
        message = ""
        if each.until and each.until < today.isoformat():
            message = f"the acceptance of {each.id} ran out on {each.until}"
        elif at and name in rules() and service not in inventory.services:
            message = f"{each.id} names no service of this inventory; {suggest(service, inventory.services)}"
        elif name not in rules() and (near := difflib.get_close_matches(name, rules(), 1, NEAR)):
            message = f"nothing is called {name}; did you mean {near[0]}?"
        if message:
            rule = rules()["acceptance-idle"]
            yield Finding(
                id=rule.id,
                severity=rule.severity,
                message=message,
                subject="accept",
                remedy=rule.remedy,
                source=rule.source,
                engine="",
                where=str(inventory.path),
            )


def _path(finding: Finding) -> tuple[str, ...]:
    """Where a finding of a line stands in the variables."""
    flag = finding.flag
    return ("service", "serve", flag.lstrip("-")) if flag.startswith("-") else ("service", "environment", flag)


def _where(inventory: Inventory, place: Placed, path: tuple[str, ...]) -> str:
    """`file:line` of a variable, or of the service where nothing sets it."""
    defaults = inventory.sources.defaults
    layers = [layer for layer in inventory.layers(place.node, place.service.name) if layer not in defaults]
    for candidate in (path, (*path[:-1], path[-1].replace("-", "_")), (*path[:-1], f"no-{path[-1]}")):
        layer = origin(layers, candidate)
        if layer is not None and candidate[-1]:
            found = layer.where(candidate)
            return found.rpartition(":")[0] if found.count(":") > 1 else found
    found = place.service.where
    return found.rpartition(":")[0] if found.count(":") > 1 else found


def _finding(name: str, found: Found, inventory: Inventory, place: Placed, path: tuple[str, ...]) -> Finding:
    rule = rules()[name]
    return Finding(
        id=name,
        severity=found.severity or rule.severity,
        message=found.message,
        subject=f"services.{place.service.name}",
        remedy=found.remedy or rule.remedy,
        source=rule.source,
        engine=place.engine.asked if place.engine else "",
        where=_where(inventory, place, path),
    )


def _accepted(finding: Finding, accepts: Iterable[Accept], today: date) -> Finding:
    """A finding that the inventory accepts, by its id or `ID@SERVICE`, until the day that it names."""
    service = finding.subject.partition(".")[2]
    for each in accepts:
        if each.id in (finding.id, f"{finding.id}@{service}") and (not each.until or each.until >= today.isoformat()):
            return replace(finding, accepted=f"{each.reason}{f' (until {each.until})' if each.until else ''}")
    return finding
