"""The declared steps of a checkpoint's build: what is wrong with their order, whose weights they take, their one form.

Pure values; `programs/build/step_*.py` change checkpoints.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.core.wording import words
from sparkops.models import quantize_step
from sparkops.models.argv import canonical

NAMES = ("quantize", "hybrid", "mtp", "lm_head", "repack")
LAYERS = "shared_expert"
"""The layers that `hybrid` takes unless others are named."""
NEEDED: Mapping[str, str] = {"hybrid": "donor", "quantize": "image"}
"""What a step can't do without, by its name."""
FORMATS: Mapping[str, str] = {"lm_head": "int8", "repack": "compressed-tensors"}
"""The only value of the steps that are a word."""
_DONOR = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Steps = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a step: its place in the list, its name, id and arguments of the error."""

    index: int
    name: str
    id: str
    args: Mapping[str, Any]

    @property
    def what(self) -> str:
        return words(self.id, self.args)[0]

    @property
    def hint(self) -> str:
        return words(self.id, self.args)[1]


@dataclass(frozen=True, slots=True)
class Donor:
    """A repository that a step takes weights from. `commit` is the lock file's word, or ""."""

    repository: str
    revision: str = "main"
    commit: str = ""


def named(steps: Steps) -> Iterator[tuple[int, str, Any]]:
    """Place, name and options of each step that has the form of one."""
    for index, step in enumerate(steps):
        if isinstance(step, Mapping) and len(step) == 1:
            (name, options), = step.items()  # fmt: skip
            yield index, str(name), options


def unformed(steps: Steps) -> Iterator[Fault]:
    """Every step that has not the form which the role's schema demands; for steps that did not come through it."""
    for index, step in enumerate(steps):
        name = next(iter(step)) if isinstance(step, Mapping) and len(step) == 1 else ""
        if name not in NAMES:
            yield Fault(index, name, "step-unknown", {"step": str(step), "known": ", ".join(NAMES)})
        elif name in FORMATS and step[name] != FORMATS[name]:
            value = str(step[name] or "nothing")
            yield Fault(index, name, "step-value-invalid", {"step": name, "value": value, "expected": FORMATS[name]})


def faults(steps: Steps) -> Iterator[Fault]:
    """Every step that is where it can't be, that is there twice, or whose options are wrong."""
    seen: set[str] = set()
    for index, name, options in named(steps):
        if name in seen:
            yield Fault(index, name, "step-duplicate", {"step": name})
        seen.add(name)
        if name == "quantize" and index:
            yield Fault(index, name, "step-quantize-not-first", {})
        if name == "repack" and index < len(steps) - 1:
            yield Fault(index, name, "step-repack-not-last", {})
        for id, args in _option_faults(name, options if isinstance(options, Mapping) else {}, steps):
            yield Fault(index, name, id, args)


def _option_faults(
    name: str, options: Mapping[str, object], steps: Steps
) -> Iterator[tuple[str, Mapping[str, object]]]:
    if name == "quantize" and options:
        yield from quantize_step.faults(options)
        yield from quantize_step.clashes(options, [other for _, other, _ in named(steps) if other != name])
    needed = NEEDED.get(name)
    if needed and not options.get(needed):
        yield "step-option-missing", {"step": name, "option": needed}
    donor, layers = options.get("donor"), options.get("layers")
    if isinstance(donor, str) and not _DONOR.fullmatch(donor):
        yield "step-donor-invalid", {"donor": donor}
    if isinstance(layers, str):
        try:
            re.compile(layers)
        except re.error as error:
            yield "hybrid-layers-invalid", {"pattern": layers, "text": str(error)}


def donors(steps: Steps) -> tuple[Donor, ...]:
    """The donors, each once, in the order of the steps."""
    found = [_donor(options) for _, _, options in named(steps) if isinstance(options, Mapping)]
    return tuple(dict.fromkeys(each for each in found if each is not None))


def takers(steps: Steps, donor: Donor) -> list[str]:
    """The names of the steps that take from a donor."""
    return [name for _, name, each in named(steps) if isinstance(each, Mapping) and _donor(each) == donor]


def numbered(steps: Steps) -> list[dict[str, Any]]:
    """The steps as the node gets them: defaults filled in, each donor as its number among `donors`."""
    order = donors(steps)
    found: list[dict[str, Any]] = []
    for _, name, options in named(steps):
        content = _plain(name, options)
        donor = _donor(options) if isinstance(options, Mapping) else None
        if donor is not None:
            content = {**content, "donor": order.index(donor)}
        found.append({name: content})
    return found


def content(steps: Steps) -> list[dict[str, object]]:
    """Of `numbered` what decides which bytes are made."""
    return [
        {name: quantize_step.content(options) if name == "quantize" else options}
        for step in numbered(steps)
        for name, options in step.items()
    ]


def digest(steps: Steps) -> str:
    """Eight hexadecimal digits for what is declared, the same whatever the lock file pins."""
    described = []
    for _, name, options in named(steps):
        donor = _donor(options) if isinstance(options, Mapping) else None
        source = {"donor": donor.repository, "revision": donor.revision} if donor is not None else {}
        content = quantize_step.content(options) if name == "quantize" else _plain(name, options)
        described.append({name: {**content, **source} if isinstance(content, dict) else content})
    return hashlib.sha256(canonical(described).encode()).hexdigest()[:8]


def pinned(steps: Steps, commits: Mapping[tuple[str, str], str]) -> list[Mapping[str, object]]:
    """The steps with the commits of donors, by repository and revision; what a step pins itself stays."""
    found: list[Mapping[str, object]] = []
    for step in steps:
        names = list(step) if isinstance(step, Mapping) else []
        options = step[names[0]] if len(names) == 1 else None
        donor = _donor(options) if isinstance(options, Mapping) else None
        commit = commits.get((donor.repository, donor.revision)) if donor is not None and not donor.commit else None
        found.append({names[0]: {**options, "commit": commit}} if commit and isinstance(options, Mapping) else step)
    return found


def _donor(options: Mapping[str, object]) -> Donor | None:
    if not options.get("donor"):
        return None
    return Donor(str(options["donor"]), str(options.get("revision") or "main"), str(options.get("commit") or ""))


def _plain(name: str, options: object) -> Any:
    """A step's options without the location of a donor, with the defaults that change what is made."""
    if not isinstance(options, Mapping):
        return {} if options is None else options
    content = {
        key: each for key, each in options.items() if key not in ("donor", "revision", "commit") and each is not None
    }
    if name == "quantize":
        return quantize_step.complete(content)
    return {"layers": LAYERS, **content} if name == "hybrid" else content


def parsed(word: str) -> dict[str, object]:
    """A step as the command line has it: `hybrid=ORG/NAME@REVISION`, `mtp`, `lm_head=int8`. Raises InventoryError."""
    name, _, value = word.partition("=")
    if name == "quantize":
        raise InventoryError.of("step-quantize-needs-inventory", front_end="command")
    if name not in NAMES:
        known = ", ".join(each for each in NAMES if each != "quantize")
        raise InventoryError.of("step-unknown", front_end="command", step=name, known=known)
    if name in ("hybrid", "mtp"):
        donor, _, revision = value.partition("@")
        return {name: {key: each for key, each in (("donor", donor), ("revision", revision)) if each}}
    return {name: value}
