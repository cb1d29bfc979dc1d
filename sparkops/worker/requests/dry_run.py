"""What the steps of a build would do, from the headers of base and donors: nothing is built and nothing stays.

A base on a hub is laid out as sparse files that hold their headers alone, which is all that a step reads.
"""

import os
import shutil
import tempfile
from typing import Any

from sparkops.programs.build.base import CONFIG, INDEX
from sparkops.programs.build.build import Building
from sparkops.programs.build.donors import Source
from sparkops.programs.build.tensor_plan import Draft, Entry, Made
from sparkops.programs.fetch import download
from sparkops.programs.fetch.http import Hub
from sparkops.programs.fetch.partial_file import Content, make_store
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.progress import free_space, with_margin

State = dict[str, Any]
Tensors = dict[str, Entry]


def look(call: Call, args: State) -> State:
    """`{base: {folder} or a source, donors, steps, manner, folder}` → `{steps, size, files, written, needed, free}`.

    Bytes: `size` of all weights as files, `written` of those that are not taken over from the base as they are,
    `needed` on the disk of the folder, where `free` are.
    Each of `steps` is `{name, changed, added, removed, from_donors, notes}`, or `{name, refused, hint}` as the last.
    """
    place = tempfile.mkdtemp(prefix="sparkops-check-")

    def work(say: rights.Report) -> State:
        os.chdir(place)
        make_store()

        def check() -> None:
            if call.stopping.is_set():
                raise Refused("cancelled", "cancelled")

        base = args["base"].get("folder") or _headers(args, say, check)
        order = {**args, "files": [], "identity": "", "known": {}}
        handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fetched = sum(size for _, size, _ in args["base"].get("files", []))
        return {
            **_told(Building(order, handle, say, check), args["steps"], fetched),
            "free": free_space(args["folder"]),
        }

    def hear(message: State) -> None:
        if isinstance(message.get("progress"), dict):
            call.progress(**{key: message["progress"].get(key) for key in ("text", "done", "total")})

    try:
        return rights.run(rights.user(""), work, hear)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _headers(args: State, say: rights.Report, check: Any) -> str:
    """The base of a hub as a folder: whole JSON files, and of the rest the headers."""
    told = args["base"]
    source = Source(0, told, args["manner"], say, check)
    source.donor()
    small = [(Content(oid, size), path) for path, size, oid in told["files"] if path in (CONFIG, INDEX)]
    hub = Hub(**{**told["hub"], "repository": told["repository"], "commit": told["commit"]})
    download.Fetch(hub, download.Options(**args["manner"]), lambda come, lost: None, check).run(
        [each for each in small if not each[0].proven()]
    )
    for path, place, size in [
        *((path, mirror.part, mirror.size) for path, mirror in source.mirrors.items()),
        *((path, content.place, content.size) for content, path in small),
    ]:
        target = os.path.join("base", path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(place, target)
        os.truncate(target, size)
    return "base"


def _told(building: Building, steps: list[State], fetched: int) -> State:
    """`fetched` are the bytes of a base that is not here yet."""
    done: list[State] = []
    before: list[Tensors] = []
    notes: list[str] = []

    def heard(name: str, draft: Draft) -> None:
        now = {entry.name: entry for entries in draft.files.values() for entry in entries}
        if name:
            done.append(_difference(name, before[-1], now, draft.notes[len(notes) :]))
        notes[:] = draft.notes
        before.append(now)

    try:
        draft = building.draft(heard)
    except Refused as error:
        name = next(iter(steps[len(done)])) if len(done) < len(steps) else "the result"
        refused = {"name": name, "refused": str(error), "hint": error.hint, "notes": []}
        return {"steps": [*done, refused], "size": 0, "files": 0, "written": 0, "needed": 0}
    outputs = building.outputs(draft)
    written = sum(output.size for output in outputs)
    return {
        "steps": done,
        "size": written + building.taken_over(draft, outputs),
        "files": len(draft.files),
        "written": written,
        "needed": with_margin(building.need(outputs) + fetched),
    }


def _difference(name: str, before: Tensors, now: Tensors, notes: list[str]) -> State:
    fresh = [entry for key, entry in now.items() if before.get(key) is not entry]
    return {
        "name": name,
        "changed": sum(entry.name in before for entry in fresh),
        "added": sum(entry.name not in before for entry in fresh),
        "removed": sum(key not in now for key in before),
        "from_donors": sum(end - start for _, _, start, end in _donated(now) - _donated(before)),
        "notes": notes,
    }


def _donated(tensors: Tensors) -> set[tuple[int, str, int, int]]:
    """The ranges of donors (number, file, start, end) that tensors are made of, each once."""
    found: set[tuple[int, str, int, int]] = set()
    left = list(tensors.values())
    while left:
        content = left.pop().content
        if isinstance(content, Made):
            left += content.inputs
        elif content.origin >= 0:
            found.add((content.origin, content.path, content.start, content.end))
    return found


CALLS = {"look": look}
