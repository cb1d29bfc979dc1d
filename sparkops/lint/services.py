"""Rules about one service of an inventory on one of its nodes: engine, image, checkpoint, limits.

It must not know the other services.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from sparkops.core.system_places import fault_of_folder, is_unit
from sparkops.core.wording import words
from sparkops.inventory.served import Placed
from sparkops.lint.case import Found
from sparkops.models import build_steps
from sparkops.models.service_spec import STATE_DIR

COMMIT = re.compile(r"[0-9a-f]{40}")
MOVING = ("latest", "nightly", "main", "dev")
STARTS = {"first_boot_seconds": 2400, "cold_start_seconds": 900}
"""Seconds that first starts (36 and 40 minutes: vroomfondel/dgxarley) and other starts were seen to take at least."""

READY_SECONDS = 600
"""What the engine's processes wait for each other by default; loads over several nodes take longer."""

STEPS = ("checkpoint", "steps")


def line_not_made(place: Placed) -> Iterable[Found]:
    if place.fault is not None:
        yield Found(f"its serve line cannot be made, so it is not checked: {place.fault.what}", remedy=place.fault.hint)


def engine_unknown(place: Placed) -> Iterable[Found]:
    if place.words is not None and place.engine is None:
        message = "neither the image's tag nor the recipe names the engine's version, so the line is not checked"
        yield Found(message, path=("service", "engine"))


def image_moves(place: Placed) -> Iterable[Found]:
    for reference, found in _images(place):
        if not _tag(reference):
            yield replace(found, message=f"{found.message}{reference} names no tag, so it is `latest`, which moves")
        elif _moves(reference):
            yield replace(found, message=f"{found.message}the tag of {reference} moves")


def image_not_pinned(place: Placed) -> Iterable[Found]:
    for reference, found in _images(place):
        if _tag(reference) and not _moves(reference):
            yield replace(found, message=f"{found.message}{reference} is named without its digest")


def checkpoint_folder_taken(place: Placed) -> Iterable[Found]:
    folder = place.variables["checkpoint"]["folder"]
    if isinstance(folder, str) and (id := fault_of_folder(folder, STATE_DIR)):
        message, remedy = words(id, {"folder": folder})
        yield Found(message, remedy=remedy, path=("checkpoint", "folder"))


def unit_of_system(place: Placed) -> Iterable[Found]:
    unit = str(place.variables["service"]["unit"] or f"{place.service.name}.service")
    if is_unit(unit):
        message, remedy = words("unit-name-of-system", {"unit": unit})
        yield Found(message, remedy=remedy, path=("service", "unit"))


def checkpoint_not_pinned(place: Placed) -> Iterable[Found]:
    checkpoint = place.variables["checkpoint"]
    revision = str(checkpoint["revision"] or "")
    if checkpoint["repository"] and not checkpoint["commit"] and not COMMIT.fullmatch(revision):
        words = f"{checkpoint['repository']} at {revision} is a branch or a tag, which moves"
        yield Found(words, path=("checkpoint", "revision"))
    for donor in build_steps.donors(_steps(place)):
        if not donor.commit and not COMMIT.fullmatch(donor.revision):
            words = f"the donor {donor.repository} at {donor.revision} is a branch or a tag, which moves"
            taker = build_steps.takers(_steps(place), donor)[0]
            remedy = f"give the commit as {taker}: {{donor: {donor.repository}, revision: …}}, or run sparkops lock"
            yield Found(words, remedy=remedy, path=STEPS)


def repack_unread(place: Placed) -> Iterable[Found]:
    names = _step_names(place)
    if place.engine is not None and "repack" in names and names & {"hybrid", "lm_head"} and _released(place):
        yield Found(
            f"vLLM {place.engine.asked} is served groups of different formats in one compressed-tensors checkpoint",
            path=STEPS,
        )


def cold_start_limit(place: Placed) -> Iterable[Found]:
    timeouts = place.variables["service"]["timeouts"]
    for key, least in STARTS.items() if _known_on_gpus(place) else ():
        if timeouts[key] < least:
            words = f"{key} is {timeouts[key]:g}, and such starts were seen to take {least} and more"
            yield Found(words, path=("service", "timeouts", key))


def engine_ready_limit(place: Placed) -> Iterable[Found]:
    name = "VLLM_ENGINE_READY_TIMEOUT_S"
    ready = place.environment.get(name, str(READY_SECONDS))
    several = _known_on_gpus(place) and "--nnodes" in (place.words or ())
    if several and ready.isdecimal() and int(ready) <= READY_SECONDS:
        words = f"{name} is {ready} on {len(place.replica)} nodes"
        yield Found(words, path=("service", "environment", name))


def _images(place: Placed) -> Iterator[tuple[str, Found]]:
    """The images that are named without a digest, each with a finding whose message is still to be completed."""
    image = place.variables["image"]
    pinned = image["digest"] or image["manifest"] or image["archive"] or (image["build"] or {}).get("tag")
    named = [] if pinned else [(str(image["pull"] or ""), Found("", path=("image", "pull")))]
    remedy = "name it by its digest: image: NAME@sha256:…"
    for _, name, options in build_steps.named(_steps(place)):
        if name == "quantize":
            named.append((str(options["image"]), Found("quantize: ", remedy=remedy, path=STEPS)))
    return ((reference, found) for reference, found in named if reference and "@sha256:" not in reference)


def _tag(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[2]


def _moves(reference: str) -> bool:
    return any(word in _tag(reference).lower() for word in MOVING)


def _steps(place: Placed) -> Any:
    return place.variables["checkpoint"].get("steps") or ()


def _step_names(place: Placed) -> set[str]:
    return {name for _, name, _ in build_steps.named(_steps(place))}


def _released(place: Placed) -> bool:
    """Whether the image is a released one, not built here with patches of its own."""
    return not (place.variables["image"]["build"] or {}).get("tag")


def _known_on_gpus(place: Placed) -> bool:
    return place.engine is not None and place.variables["service"]["gpus"] is not None
