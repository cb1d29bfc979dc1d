"""What already runs on this node in the place of a service, and taking it out of the way without deleting any of it.

`look` describes foreign containers and units, `compare` proves a folder against a manifest and changes nothing, `take`
stops a container and renames it, and stops and disables units. It must not know what differs: the controller compares.
"""

import json
import os
import pwd
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.local_sources import Sources
from sparkops.programs.checkpoints.verify import hearing
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds import unit
from sparkops.worker.record import claims, uses
from sparkops.worker.system import docker, jobs, processes
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.progress import Tracker
from sparkops.worker.system.root import UNITS

ASIDE = "-before-sparkops"
ENGINE = re.compile(r"(?:.*/)?(?:vllm|sglang|trtllm-serve|llama-server)(?:[.:@-].*)?$")
LAUNCHER = "/usr/local/lib/sparkops/launcher.py"
LABEL = "sparkops.service"
TEXT_LIMIT = 64 << 10


def look(call: Call, args: dict[str, Any]) -> dict[str, Any]:
    """The `containers` and `units` that stand for the service or in its way. Raises Unknown.

    `args`: what is declared (`image`, `container`, `port`, `unit`); `chosen` and `chosen_unit` name the one that is
    meant, else all that look like an engine are told.
    """
    declared = (docker.inspect_image(args["image"]) or {}).get("Id")
    containers = []
    for each in docker.containers():
        found = docker.inspect_container(str(each["Id"]))
        if found is not None and stands_for(found, args, declared):
            containers.append(_described(found, declared))
    names = [each["name"] for each in containers]
    return {"containers": containers, "units": _units(args, names)}


def stands_for(found: dict[str, Any], args: dict[str, Any], declared: "str | None") -> bool:
    """Whether an inspected container is what the service would replace: chosen, of its name, or a running engine."""
    config, name = found.get("Config") or {}, str(found.get("Name")).lstrip("/")
    if (config.get("Labels") or {}).get(LABEL):
        return False
    if args["chosen"]:
        return args["chosen"] in (name, found["Id"])
    if ASIDE in name:
        return False
    if name == args["container"]:
        return True
    state = found.get("State") or {}
    if not (state.get("Running") or state.get("Restarting")):
        return False
    bindings = (found.get("HostConfig") or {}).get("PortBindings") or {}
    ports = {str(each.get("HostPort")) for pairs in bindings.values() for each in pairs or []}
    repository = str(config.get("Image")).partition("@")[0].rpartition("/")[2]
    words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    same = declared is not None and found.get("Image") == declared
    return same or str(args["port"]) in ports or any(ENGINE.match(str(word)) for word in (repository, *words[:4]))


def _described(found: dict[str, Any], declared: "str | None") -> dict[str, Any]:
    image = docker.inspect_image(str(found.get("Image"))) or {}
    return {
        "id": found["Id"],
        "name": str(found["Name"]).lstrip("/"),
        "running": bool((found.get("State") or {}).get("Running")),
        "same_image": None if declared is None else found.get("Image") == declared,
        "config": found.get("Config") or {},
        "host": found.get("HostConfig") or {},
        "mounts": found.get("Mounts") or [],
        "image_config": image.get("Config") or {},
    }


def _units(args: dict[str, Any], containers: list[str]) -> list[dict[str, Any]]:
    """Units that start one of these containers or an engine, or have the declared unit's name, and are not ours."""
    texts = {
        os.path.basename(path): text
        for path, text in uses.texts()
        if os.path.dirname(path) == UNITS and LAUNCHER not in text and len(text) <= TEXT_LIMIT
    }
    chosen = {name: text for name, text in texts.items() if _starts(name, text, args, containers)}
    shown = unit.show(list(chosen))
    found = []
    for name, text in chosen.items():
        active = unit.running(shown[name])
        enabled = shown[name].get("UnitFileState") == "enabled"
        if active or enabled or name in (args["unit"], args["chosen_unit"]):
            runs = [each for each in containers if _named(each, text)]
            found.append({"name": name, "text": text, "active": active, "enabled": enabled, "containers": runs})
    return found


def _starts(name: str, text: str, args: dict[str, Any], containers: list[str]) -> bool:
    if args["chosen_unit"]:
        return bool(name == args["chosen_unit"])
    words = re.sub(r"\\\n", " ", text).split()
    return (
        name == args["unit"]
        or any(_named(each, text) for each in containers)
        or any(
            ENGINE.match(word.removeprefix("ExecStart=")) for word in words if "=" not in word or "ExecStart" in word
        )
    )


def _named(container: str, text: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(container)}(?![\w./-])", text) is not None


def compare(call: Call, args: dict[str, Any]) -> dict[str, Any]:
    """Prove what a folder or cache holds of a manifest; nothing is changed but the verification index.

    `args`: `path`, `folder` (the declared one, whose index learns what was proven), state_dir, `manifest` (its text).
    Answers `right`, `wrong`, `missing` (paths), the bytes of the first (`right_bytes`) and of the rest (`other_bytes`).
    """
    return dict(jobs.run(call, f"checkpoint {args['path']}", __name__, "prove", args, attach="compare"))


def prove(job: jobs.Job, args: dict[str, Any]) -> dict[str, Any]:
    """The job of `compare`: reads with the rights of whom the folder belongs to."""
    try:
        owner = os.stat(args["path"]).st_uid
        who = pwd.getpwuid(owner)
    except KeyError:
        who = rights.user("")
    index = hashes.Index(args["state_dir"], args["folder"])
    known = {mark: oid for mark, (oid, _) in index.entries.items()}
    done = rights.run(who, lambda say: _proven(args, known, say, job), hearing(job, index))
    if index.entries:
        index.save()
    return done


def _proven(args: dict[str, Any], known: dict[str, str], say: rights.Report, job: jobs.Job) -> dict[str, Any]:
    manifest = json.loads(args["manifest"])
    sources = Sources([args["path"]], manifest["repository"], manifest["commit"])
    tries = {path: list(sources.candidates(path, oid, size)) for path, size, oid in manifest["files"]}
    tracker = Tracker(say, job.check, "verifying", sum(size * len(tries[path]) for path, size, _ in manifest["files"]))

    def right(file: list[Any]) -> bool:
        path, size, oid = file
        return any(_holds(place, size, oid, known, tracker, say) for place in tries[path])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        proven = list(pool.map(right, manifest["files"]))
    found: dict[str, Any] = {"right": [], "wrong": [], "missing": [], "right_bytes": 0, "other_bytes": 0}
    for (path, size, _), good in zip(manifest["files"], proven, strict=True):
        there = tries[path] or os.path.lexists(os.path.join(args["path"], path))
        found["right" if good else "wrong" if there else "missing"].append(path)
        found["right_bytes" if good else "other_bytes"] += size
    return found


def _holds(place: str, size: int, oid: str, known: dict[str, str], tracker: Tracker, say: rights.Report) -> bool:
    """Whether a file has that content; what was read before and not touched since is not read again."""
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = hashes.identity(os.fstat(handle))
        if known.get(before) == oid:
            tracker.add(size)
            return True
        read = hashes.read_oid(handle, oid, size, tracker.read, lambda told: say({"prefixes": [oid, told]}))
        same = hashes.identity(os.fstat(handle)) == before
    finally:
        os.close(handle)
    if same:
        say({"hashed": [before, read]})
    return same and read == oid


def take(call: Call, args: dict[str, Any]) -> dict[str, Any]:
    """Stop what was shown and move it aside: `container` ({id, name} or None) and `units` (names).

    `unit` is the declared unit's name: where a foreign one has it, its text is kept under `adopted/` of the state
    folder. Answers `container` (its new name; "" for one that its unit makes anew) and `copies` (unit → path).
    """
    wanted = args["container"]
    if wanted is not None:
        _refuse_other(wanted, args["units"])
        docker.act("POST", f"/containers/{wanted['id']}/update", {"RestartPolicy": {"Name": "no"}})
    copies = {}
    for name in args["units"]:
        call.progress(f"stopping {name}")
        if name == args["unit"]:
            copies[name] = _copied(args["state_dir"], name)
        shown = unit.show([name])[name]
        if shown.get("ActiveState") not in ("inactive", "failed"):
            unit.change(call, "stop", name)
        if shown.get("UnitFileState") == "enabled":
            processes.run([*unit.SYSTEMCTL, "disable", "--", name])
    aside = ""
    if wanted is not None and docker.inspect_container(wanted["id"]) is not None:
        call.progress(f"stopping the container {wanted['name']}")
        docker.act("POST", f"/containers/{wanted['id']}/stop", timeout=180.0, query={"t": "60"})
        aside = _renamed(wanted)
    return {"container": aside, "copies": copies}


def _refuse_other(wanted: dict[str, Any], units: list[str]) -> None:
    found = docker.inspect_container(wanted["id"])
    if found is None or str(found["Name"]).lstrip("/") != wanted["name"]:
        raise Refused(f"the container {wanted['name']} is no longer the one that was shown", "stale")
    if (found.get("HostConfig") or {}).get("AutoRemove") and not units:
        raise Refused(
            f"the container {wanted['name']} was started with --rm: stopping it would delete it",
            hint=f"keep how it was started (docker inspect {wanted['name']}), stop it yourself, then run apply",
        )


def _renamed(wanted: dict[str, Any]) -> str:
    """The stopped container's new name; one that has such a name already keeps it."""
    name = str(wanted["name"])
    if ASIDE in name:
        return name
    aside, number = name + ASIDE, 1
    while docker.inspect_container(aside) is not None:
        number += 1
        aside = f"{name}{ASIDE}-{number}"
    docker.act("POST", f"/containers/{wanted['id']}/rename", query={"name": aside})
    return aside


def _copied(state_dir: str, name: str) -> str:
    folder = os.path.join(state_dir, "adopted")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(os.path.join(UNITS, name), "rb") as file:
        text = file.read()
    path, number = os.path.join(folder, name), 1
    while os.path.lexists(path):
        number += 1
        path = os.path.join(folder, f"{name}.{number}")
    claims.write(path, text, 0o600)
    return path


JOBS = {"prove": prove}
CALLS = {"look": look, "compare": compare, "take": take}
