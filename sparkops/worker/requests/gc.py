"""What can be given back on this node: images and checkpoint folders that sparkops brought and nothing needs any more.

`look` lists them with the bytes that would become free and why each is kept; `remove` looks again and removes what was
asked for and is still unused. It must not know what is declared: the controller names that.

Brought by sparkops is: what this cluster claims, the folders below `models/` of the state folder and those that have a
verification index there; and images with the label of a build of ours.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from sparkops.core.messages import Claim, Reason, reason, reason_of
from sparkops.programs import docker
from sparkops.programs.checkpoints import publish
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import indexes
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds.image import LABEL
from sparkops.worker.kinds.image import remove as remove_image
from sparkops.worker.record import claim_records, claims, uses

BLOCK = 512
DECLARED = reason("gc-declared")
KINDS = ("checkpoint", "built_checkpoint")
"""The kinds whose things are folders with a record."""
HELPERS = ("partial", "old", "quantized")
"""How the names beside such a folder end."""
GONE = reason("gc-claim-only")

Item = dict[str, Any]


def look(call: Call, args: dict[str, Any]) -> list[Item]:
    """All of it. Raises Unknown for images where Docker does not tell.

    `args`: state_dir, cluster, `kinds` (checkpoint, image), what is declared (`folders`, `images`, `builds`), and
    `foreign` to list images that sparkops did not bring. Answers `{kind, name, bytes, kept, unknown, note, claim}`:
    kind `leftover` is what a fetch left behind, `foreign` an image of somebody else; `kept` (a Reason) is None for what
    can go; `unknown`: it is kept since it is not known who uses it.
    """
    found = uses.look(args["state_dir"], args["cluster"])
    mine = claim_records.records(args["state_dir"]).get(args["cluster"], {})
    items: list[Item] = []
    if "checkpoint" in args["kinds"]:
        for folder in sorted(folders(args["state_dir"], mine)):
            items += checkpoint(folder, args["folders"], found, claim=any(f"{kind} {folder}" in mine for kind in KINDS))
    if "image" in args["kinds"]:
        items += images(args, found, mine)
    return items


def folders(state_dir: str, mine: dict[str, Any]) -> set[str]:
    """The folders of checkpoints that sparkops brought here, whether something is left of them or not."""
    found = {key.partition(" ")[2] for key in mine if key.partition(" ")[0] in KINDS}
    found |= {index.folder for index in indexes(state_dir)}
    for model in _inside(os.path.join(state_dir, "models")):
        for path in _inside(model):
            parent, name = os.path.split(path)
            name = CheckpointFolder.original_name(name) or name
            if name.startswith(".") and (ending := name.rpartition(".sparkops-"))[2] in HELPERS:
                name = ending[0][1:]
            found.add(os.path.join(parent, name))
    return {each for each in found if os.path.isabs(each) and each != "/"}


def _inside(folder: str) -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from (os.path.join(folder, name) for name in os.listdir(folder))


def checkpoint(folder: str, declared: list[str], found: uses.Uses, *, claim: bool) -> list[Item]:
    """The items of one checkpoint: its folder, and what a fetch left beside it."""
    place, key = CheckpointFolder(folder), f"checkpoint {folder}"
    wanted = any(uses.overlaps(folder, each) for each in declared)
    held = found.job(key) or found.cluster(key) or found.cluster(f"built_checkpoint {folder}")
    items = [
        _item(
            "leftover",
            place.beside(name),
            _size(place.beside(name)),
            held or (reason("gc-resumable") if wanted and name != place.old else None),
            note=reason("gc-replaced" if name == place.old else "gc-unfinished"),
        )
        for name in place.helpers
        if os.path.lexists(place.beside(name))
    ]
    aside = reason("gc-set-aside", folder=folder)
    items += [_item("leftover", path, _size(path), aside) for path in place.set_aside()]
    if os.path.lexists(folder):
        kept = (DECLARED if wanted else None) or held or found.folder(folder) or _strange(place)
        unknown = bool(kept) and kept == found.unknown
        items.append(_item("checkpoint", folder, _size(folder), kept, claim=claim, unknown=unknown))
    elif claim and not wanted:
        items.append(_item("checkpoint", folder, 0, held, note=GONE, claim=True))
    return items


def _item(
    kind: str,
    name: str,
    size: int,
    kept: Reason | None,
    *,
    note: Reason | None = None,
    claim: bool = False,
    unknown: bool = False,
) -> Item:
    about = {"kind": kind, "name": name, "bytes": size, "kept": kept, "unknown": unknown}
    return {**about, "note": note, "claim": claim}


def _strange(place: CheckpointFolder) -> Reason | None:
    """Why a folder is not ours to remove: no record of sparkops in it, or files that the record does not name."""
    try:
        handle = place.open()
    except Refused as error:
        return error.reason
    if handle is None:
        return None
    try:
        digest, record = record_of(handle)
        ours = {path for path, _, _ in record.get("files", [])}
        extra = [
            path
            for folder, _, names, _ in os.fwalk(".", dir_fd=handle, follow_symlinks=False)
            for path in (os.path.normpath(os.path.join(folder, name)) for name in names)
            if path not in ours and not path.startswith(".sparkops/")
        ]
    finally:
        os.close(handle)
    if not digest:
        return reason("gc-without-record")
    if extra:
        return reason("gc-foreign-files", files=sorted(extra))
    return None


def _size(path: str) -> int:
    """Bytes that become free with a tree: a file that has another name elsewhere (a cache's) frees nothing."""
    blocks: dict[tuple[int, int], list[int]] = {}
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                entry = blocks.setdefault((status.st_dev, status.st_ino), [status.st_blocks, status.st_nlink, 0])
                entry[2] += 1
    return BLOCK * sum(count for count, links, seen in blocks.values() if seen >= links)


def images(args: dict[str, Any], found: uses.Uses, mine: dict[str, Any]) -> list[Item]:
    """The images that this cluster claims, builds of ours that lost their name, and with `foreign` all others."""
    there = {str(each["Id"]): each for each in _listed()}
    items, known = [], set()
    for key in sorted(key for key in mine if key.startswith("image ")):
        name = key.partition(" ")[2]
        held = (DECLARED if name in args["images"] else None) or found.job(key) or found.cluster(key)
        seen = docker.inspect_image(name)
        if seen is None:
            if not held:
                items.append(_item("image", name, 0, None, note=GONE, claim=True))
            continue
        identity = str(seen["Id"])
        known.add(identity)
        held = held or found.image([name, *_names(there.get(identity, {}))], identity)
        if not held and mine[key].get("action") == "found":
            held = reason("gc-there-before")
        items.append(_item("image", name, _image_size(there.get(identity, seen), name), held, claim=True))
    for identity, each in there.items():
        label = (each.get("Labels") or {}).get(LABEL)
        if identity in known:
            continue
        if label and not _names(each):
            held = (DECLARED if label in args["builds"] else None) or found.image([], identity)
            held = held or (reason("gc-job-builds") if any(w.startswith("image ") for w in found.working) else None)
            items.append(_item("image", identity, _image_size(each, ""), held, note=reason("gc-build-without-name")))
        elif args["foreign"]:
            name = (_names(each) or [identity])[0]
            items.append(_item("foreign", name, _image_size(each, name), reason("gc-foreign")))
    return items


def _listed() -> list[dict[str, Any]]:
    """The engine's images; where it can tell, with the bytes that they share with others."""
    query = {"shared-size": "1"} if docker.speaks((1, 42)) else None
    return [each for each in docker.ask("/images/json", timeout=120.0, query=query) or [] if isinstance(each, dict)]


def _names(image: dict[str, Any]) -> list[str]:
    told = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
    return [str(name) for name in told if "<none>" not in str(name)]


def _image_size(image: dict[str, Any], name: str) -> int:
    """Bytes of its own, where the engine tells what is shared; none while it keeps another tag."""
    if any(not name.endswith(each) for each in _tags(image)):
        return 0
    shared = int(image.get("SharedSize") or 0)
    return max(0, int(image.get("Size") or 0) - max(0, shared))


def _tags(image: dict[str, Any]) -> list[str]:
    return [str(each) for each in image.get("RepoTags") or [] if "<none>" not in str(each)]


def remove(call: Call, args: dict[str, Any]) -> list[dict[str, Any]]:
    """Remove the `items` ([kind, name]) that `look` still finds unused, and let go of their claims.

    Answers `{kind, name, left}`: why it was left, None where it was removed.
    """
    answers = []
    now = {(item["kind"], item["name"]): item for item in look(call, args)}
    for number, (kind, name) in enumerate(args["items"]):
        call.progress(f"{kind} {name}", done=number, total=len(args["items"]), unit="things")
        item = now.get((kind, name))
        if item is None or item["kept"]:
            left = item["kept"] if item else reason("gc-disappeared")
        else:
            left = _remove(args, item)
        answers.append({"kind": kind, "name": name, "left": left})
    return answers


def _remove(args: dict[str, Any], item: Item) -> Reason | None:
    kind, name = item["kind"], item["name"]
    mine = claim_records.records(args["state_dir"]).get(args["cluster"], {})
    kinds = [each for each in (kind, *KINDS) if f"{each} {name}" in mine] if item["claim"] else []
    try:
        with contextlib.ExitStack() as acts:
            for each in dict.fromkeys(kinds):
                claim: Claim = {
                    "state_dir": args["state_dir"],
                    "cluster": args["cluster"],
                    "kind": each,
                    "name": name,
                    "kept": {},
                    "pruned": False,
                }
                acts.enter_context(claims.acting(claim, name, "delete"))
            if item["note"] != GONE:
                _act(args["state_dir"], kind, name)
    except (Refused, OSError) as error:
        return reason_of(error)
    return None


def _act(state_dir: str, kind: str, name: str) -> None:
    if kind == "image":
        remove_image({"name": name})
        return
    parent, last = os.path.split(name)
    if kind == "leftover":
        CheckpointFolder(os.path.join(parent, last[1:].rpartition(".sparkops-")[0])).abandon(last)
    else:
        publish.retire(CheckpointFolder(name), state_dir)
    if os.path.dirname(parent) == os.path.join(state_dir, "models"):
        with contextlib.suppress(OSError):
            os.rmdir(parent)


CALLS = {"look": look, "remove": remove}
