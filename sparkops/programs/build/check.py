"""What the steps of a build would do, from the headers of base and donors: nothing is built.

The working directory is an empty folder. A base on a hub is laid out there as sparse files that hold their headers
alone, which is all that a step reads.
"""

import os

from sparkops.core.messages import Refused
from sparkops.programs import disk
from sparkops.programs.build.base import CONFIG, INDEX
from sparkops.programs.build.build import Build
from sparkops.programs.build.donor import DonorRepository
from sparkops.programs.build.spec import Checked, Repository, Spec, StepCheck
from sparkops.programs.build.tensor_plan import Computed, PlannedTensor, TensorPlan
from sparkops.programs.fetch.partial_file import make_store
from sparkops.programs.protocol import Output

Tensors = dict[str, PlannedTensor]


def check(spec: Spec, output: Output) -> Checked:
    """Plan the build and compare the plan before and after each step."""
    make_store()
    repository = spec.get("repository")
    base = spec["base"] if repository is None else _headers(repository, spec, output)
    fetched = sum(size for _, size, _ in repository["files"]) if repository is not None else 0
    return _planned(Build({**spec, "files": []}, base, output), fetched)


def _headers(repository: Repository, spec: Spec, output: Output) -> int:
    """The base of a hub as an open folder: whole JSON files, and of the rest the headers."""
    source = DonorRepository(0, repository, spec["fetch"], output, "base")
    for path, place, size in source.headers((CONFIG, INDEX)):
        target = os.path.join("base", path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(place, target)
        os.truncate(target, size)
    return os.open("base", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _planned(build: Build, fetched: int) -> Checked:
    """`fetched` are the bytes of a base that has to be fetched."""
    steps: list[StepCheck] = []
    before: Tensors = {}
    known = 0
    free = disk.free(build.spec["folder"])

    def after_step(name: str, plan: TensorPlan) -> None:
        nonlocal before, known
        now = plan.tensors()
        if name:
            notices = plan.notices[known:]
            steps.append({"name": name, "notices": notices, **_difference(before, now)})
        before, known = now, len(plan.notices)

    try:
        plan = build.plan(after_step)
    except Refused as error:
        declared = build.spec["steps"]
        name = next(iter(declared[len(steps)])) if len(steps) < len(declared) else "result"
        steps.append({"name": name, "error": dict(error.as_json())})
        return {"steps": steps, "size": 0, "files": 0, "written": 0, "needed": 0, "free": free}
    outputs = build.outputs(plan)
    written = sum(output.size for output in outputs)
    return {
        "steps": steps,
        "size": written + build.taken_over(plan, outputs),
        "files": len(plan.files),
        "written": written,
        "needed": disk.with_margin(build.need(outputs) + fetched),
        "free": free,
    }


def _difference(before: Tensors, now: Tensors) -> StepCheck:
    fresh = [entry for key, entry in now.items() if before.get(key) is not entry]
    return {
        "changed": sum(entry.name in before for entry in fresh),
        "added": sum(entry.name not in before for entry in fresh),
        "removed": sum(key not in now for key in before),
        "from_donors": sum(end - start for _, _, start, end in _from_donors(now) - _from_donors(before)),
    }


def _from_donors(tensors: Tensors) -> set[tuple[int, str, int, int]]:
    """The ranges of donors (number, file, start, end) that tensors are made of, each once."""
    found: set[tuple[int, str, int, int]] = set()
    left = list(tensors.values())
    while left:
        content = left.pop().content
        if isinstance(content, Computed):
            left += content.inputs
        elif content.origin >= 0:
            found.add((content.origin, content.path, content.start, content.end))
    return found
