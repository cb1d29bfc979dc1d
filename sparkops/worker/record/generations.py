"""The generations of a service on this node: the rendered files of each state that was stable, to return to.

The folder of a service (`STATE_DIR/generations/SERVICE`) has a file `N.json` for each, `gate.json` (what passed the
gate last) and `rejected.json` (the specs that an apply must not bring again). Files hold secrets, so they are root's
alone. A record names the image by its id and each checkpoint by the digest of its manifest: a return brings these back
or refuses.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import time
from typing import TypedDict, cast

from sparkops.core import atomic
from sparkops.core.descriptors import names
from sparkops.core.messages import Fields
from sparkops.programs import docker
from sparkops.programs.checkpoints.proof import record_digest
from sparkops.worker.calls import Refused
from sparkops.worker.system import safe_path
from sparkops.worker.system.root import at

FOLDER = "generations"
LIMIT = 4 << 20
"""Bytes of one file of a service that are kept; units, specs and environments are far smaller."""


class Kept(TypedDict):
    """A file of a generation: its bytes in base64 and its mode (`0644`); None in its place where there was none."""

    content: str
    mode: str


class Generation(TypedDict):
    """One stable state. `time` is seconds since the epoch; `inputs` the SHA-256 of the spec; `files` by path.

    image: the reference and the engine's id of it; checkpoints: the digest of the manifest of each mounted folder.
    measured: what its gate measured of it, as `gate` observes it; asked: what that asked; {} for nothing.
    """

    number: int
    time: float
    inputs: str
    fingerprint: str
    files: dict[str, Kept | None]
    image: tuple[str, str]
    checkpoints: dict[str, str]
    measured: dict[str, object]
    asked: Fields


def kept(folder: str) -> list[Generation]:
    """The stable generations, oldest first. A damaged record is none: nothing can be brought back from it."""
    numbered = [name for name in names(folder) if re.fullmatch(r"[0-9]{1,9}\.json", name)]
    found = [_read(os.path.join(folder, name)) for name in numbered]
    return sorted((each for each in found if each is not None), key=lambda each: each["number"])


def _read(path: str) -> Generation | None:
    value = _mapping(path)
    return cast(Generation, value) if {"number", "inputs", "fingerprint", "files"} <= value.keys() else None


def present(files: list[str], *, root: str = "/") -> Generation:
    """The state that is there now, not numbered yet. Raises Unknown where Docker does not answer, OSError."""
    contents: dict[str, Kept | None] = {}
    for path in files:
        contents[path] = _kept(at(root, path))
    spec = _spec(contents)
    reference = str(spec.get("image") or "")
    image = docker.inspect_image(reference, at=at(root, docker.SOCKET)) if reference else None
    sources = [str(each.get("source")) for each in spec.get("mounts") or [] if isinstance(each, dict)]
    checkpoints = {each: digest for each in sources if (digest := record_digest(at(root, each)))}
    inputs = next((_digest(each) for path, each in contents.items() if path.endswith(".json") and each), "")
    identity = str((image or {}).get("Id") or "")
    about = json.dumps([contents, identity, checkpoints], sort_keys=True)
    return {
        "number": 0,
        "time": time.time(),
        "inputs": inputs,
        "fingerprint": hashlib.sha256(about.encode()).hexdigest(),
        "files": contents,
        "image": (reference, identity),
        "checkpoints": checkpoints,
        "measured": {},
        "asked": {},
    }


def _kept(path: str) -> Kept | None:
    try:
        with safe_path.place(path) as place:
            handle = place.open()
            with os.fdopen(handle, "rb") as file:
                data = file.read(LIMIT + 1)
                mode = safe_path.permissions(os.fstat(handle).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) > LIMIT:
        raise Refused.of("file-too-large", path=path, limit=LIMIT)
    return {"content": base64.b64encode(data).decode(), "mode": mode}


def _digest(each: Kept) -> str:
    return hashlib.sha256(base64.b64decode(each["content"])).hexdigest()


def _spec(contents: dict[str, Kept | None]) -> Fields:
    for path, each in contents.items():
        if path.endswith(".json") and each is not None:
            with contextlib.suppress(ValueError):
                value = json.loads(base64.b64decode(each["content"]))
                return value if isinstance(value, dict) else {}
    return {}


def add(folder: str, now: Generation, keep: int) -> None:
    """Keep the present state as the newest stable one, and no more than `keep`."""
    there = kept(folder)
    number = there[-1]["number"] + 1 if there else 1
    safe_path.note(folder, f"{number}.json", {**now, "number": number})
    for old in there[: max(0, len(there) + 1 - keep)]:
        atomic.remove(os.path.join(folder, f"{old['number']}.json"))


def passed(folder: str) -> Fields:
    """What passed the gate last: its `fingerprint`, what was `measured` and `asked`; {} for nothing."""
    return _mapping(os.path.join(folder, "gate.json"))


def note_passed(folder: str, fingerprint: str, measured: dict[str, object], asked: dict[str, object]) -> None:
    """Note that this state passed the gate."""
    note = {"fingerprint": fingerprint, "measured": measured, "asked": asked, "time": time.time()}
    safe_path.note(folder, "gate.json", note)


def rejected(folder: str) -> list[str]:
    """What failed here and was taken back: specs (their SHA-256), and `SPEC+IMAGE` where only the image was another."""
    value = _mapping(os.path.join(folder, "rejected.json")).get("inputs")
    return [str(each) for each in value] if isinstance(value, list) else []


def reject(folder: str, inputs: str) -> None:
    """Hold this spec: an apply must not bring it again by itself."""
    others = [each for each in rejected(folder) if each != inputs]
    safe_path.note(folder, "rejected.json", {"inputs": [*others[-9:], inputs]})


def release(folder: str, inputs: str) -> None:
    """The spec became stable after all."""
    there = rejected(folder)
    left = [each for each in there if each.partition("+")[0] != inputs]
    if left != there:
        safe_path.note(folder, "rejected.json", {"inputs": left})


def _mapping(path: str) -> dict[str, object]:
    with contextlib.suppress(OSError):
        return atomic.mapping(path)
    return {}


def bring_back(chosen: Generation, *, root: str = "/") -> None:
    """Write the files of a generation, and give its image its name again. Raises Refused before anything is written.

    What the files need has to be there: the image by its id, each checkpoint with the same manifest.
    """
    reference, identity = chosen["image"]
    socket = at(root, docker.SOCKET)
    if identity and docker.inspect_image(identity, at=socket) is None:
        raise Refused.of("generation-image-gone", number=chosen["number"], image=reference)
    for path, digest in chosen["checkpoints"].items():
        if record_digest(at(root, path)) != digest:
            raise Refused.of("generation-checkpoint-changed", number=chosen["number"], folder=path)
    if identity and "@" not in reference:
        repository, tag = reference, "latest"
        if ":" in reference.rpartition("/")[2]:
            repository, _, tag = reference.rpartition(":")
        docker.tag_image(identity, repository, tag, at=socket)
    for path, each in chosen["files"].items():
        here = at(root, path)
        with safe_path.explained(here), safe_path.place(here) as place:
            if each is not None:
                safe_path.write(place, base64.b64decode(each["content"]), mode=int(each["mode"], 8))
            elif place.stat() is not None:
                place.remove()
