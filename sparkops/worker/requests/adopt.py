"""What already runs on this node in the place of a service, and taking it out of the way without deleting any of it.

`look` describes foreign containers and units, `compare` proves a folder against a manifest and changes nothing;
`converge` stops a container and renames it, and stops and disables units. It must not know what differs: that is the
controller's to compare.
"""

import filecmp
import itertools
import os
import re
from collections.abc import Iterator, Mapping

from sparkops.core import atomic
from sparkops.core.kind_messages import Nothing
from sparkops.core.messages import Fields, State
from sparkops.core.request_messages import AdoptLook, AdoptTold, ComparedFiles, TakeoverAsk
from sparkops.programs import docker
from sparkops.programs.launch.listening import sockets
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds import unit
from sparkops.worker.record import uses
from sparkops.worker.system import jobs, processes
from sparkops.worker.system.ports import LABEL
from sparkops.worker.system.root import UNITS

ASIDE = "-before-sparkops"
ENGINE = re.compile(r"(?:.*/)?(?:vllm|sglang|trtllm-serve|llama-server)(?:[.:@-].*)?$")
LAUNCHER = "/usr/local/lib/sparkops/launcher.py"
TEXT_LIMIT = 64 << 10


def look(call: Call, args: AdoptLook) -> AdoptTold:
    """What stands for the service or in its way; where nothing is chosen all that looks like an engine."""
    declared = (docker.inspect_image(args["image"]) or {}).get("Id") if args["image"] else None
    containers: list[Fields] = []
    for each in docker.containers():
        found = docker.inspect_container(str(each["Id"]))
        if found is not None and stands_for(found, args, declared):
            containers.append(_described(found, declared))
    names = [str(each["name"]) for each in containers]
    taken = sorted({port for _, port, _ in sockets()})
    return {"containers": containers, "units": _units(args, names), "listening": taken}


def stands_for(found: docker.Answer, args: AdoptLook, declared: "str | None") -> bool:
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


def _described(found: docker.Answer, declared: "str | None") -> dict[str, object]:
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


def _units(args: AdoptLook, containers: list[str]) -> list[dict[str, object]]:
    """Units that start one of these containers or an engine, or have the declared unit's name, and are not ours."""
    texts = {
        os.path.basename(path): text
        for path, text in uses.texts()
        if os.path.dirname(path) == UNITS and LAUNCHER not in text and len(text) <= TEXT_LIMIT
    }
    chosen = {name: text for name, text in texts.items() if _starts(name, text, args, containers)}
    shown = unit.show(list(chosen))
    found: list[dict[str, object]] = []
    for name, text in chosen.items():
        active = unit.running(shown[name])
        enabled = shown[name].get("UnitFileState") == "enabled"
        if active or enabled or name in (args["unit"], args["chosen_unit"]):
            runs = [each for each in containers if _named(each, text)]
            found.append({"name": name, "text": text, "active": active, "enabled": enabled, "containers": runs})
    return found


def _starts(name: str, text: str, args: AdoptLook, containers: list[str]) -> bool:
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


def compare(call: Call, args: Mapping[str, str]) -> ComparedFiles:
    """Prove what `path` holds of `manifest` (its text); nothing changes but the index of `folder` in `state_dir`."""
    program, key = "sparkops.programs.fetch.caller", f"checkpoint {args['path']}"
    done: ComparedFiles = jobs.run(call, key, program, "compare", args, attach="compare")
    return done


def observe(ask: TakeoverAsk) -> dict[str, object]:
    """What is still `in_place`, under which name the `container` is now ("" for none), and `copies`."""
    in_place, name = [], ""
    if ask["container"] is not None and (found := docker.inspect_container(ask["container"]["id"])) is not None:
        name = str(found["Name"]).lstrip("/")
        if ASIDE not in name or (found.get("State") or {}).get("Running"):
            in_place.append(f"container {name}")
    for each, shown in unit.show(ask["units"]).items():
        if unit.running(shown) or shown.get("UnitFileState") == "enabled":
            in_place.append(f"unit {each}")
    copy = _copy_of(ask["state_dir"], ask["unit"]) if ask["unit"] in ask["units"] else ""
    return {"in_place": in_place, "container": name, "copies": {ask["unit"]: copy} if copy else {}}


def converge(call: Call, ask: TakeoverAsk, found: Fields, want: State, act: Nothing) -> None:
    """Stop the units and the container, and move it aside; a foreign unit of the declared name is copied first."""
    wanted = ask["container"] if found["container"] else None
    if wanted is not None:
        _refuse_removal(wanted, ask["units"])
        docker.act("POST", f"/containers/{wanted['id']}/update", {"RestartPolicy": {"Name": "no"}})
    for name in ask["units"]:
        call.progress(f"stopping {name}")
        if name == ask["unit"] and not found["copies"]:
            _copy(ask["state_dir"], name)
        shown = unit.show([name])[name]
        if shown.get("ActiveState") not in ("inactive", "failed"):
            unit.change(call, "stop", name)
        if shown.get("UnitFileState") == "enabled":
            processes.run([*unit.SYSTEMCTL, "disable", "--", name])
    if wanted is not None and docker.inspect_container(wanted["id"]) is not None:
        call.progress(f"stopping the container {found['container']}")
        try:
            docker.act("POST", f"/containers/{wanted['id']}/stop", timeout=180.0, query={"t": "60"})
            _rename(wanted["id"], found["container"])
        except docker.EngineError:
            if docker.inspect_container(wanted["id"]) is not None:
                raise  # else it was removed as it ended (`--rm`), which its unit's stop does not wait for


def _refuse_removal(wanted: Mapping[str, str], units: list[str]) -> None:
    found = docker.inspect_container(wanted["id"]) or {}
    if (found.get("HostConfig") or {}).get("AutoRemove") and not units:
        raise Refused.of("adopt-container-auto-removed", container=wanted["name"])


def _rename(identity: str, name: str) -> None:
    """Give the stopped container a name beside; one that has such a name already keeps it."""
    if ASIDE in name:
        return
    names = (name + ASIDE + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
    aside = next(each for each in names if docker.inspect_container(each) is None)
    docker.act("POST", f"/containers/{identity}/rename", query={"name": aside})


def _copies(state_dir: str, name: str) -> Iterator[str]:
    """The places of a unit's copies, one after another, the last one of which is free."""
    for number in itertools.count(1):
        path = os.path.join(state_dir, "adopted", name + (f".{number}" if number > 1 else ""))
        yield path
        if not os.path.lexists(path):
            return


def _copy_of(state_dir: str, name: str) -> str:
    """The copy of a unit as it is now; "" where there is none."""
    *taken, _ = _copies(state_dir, name)
    for path in taken:
        if filecmp.cmp(path, os.path.join(UNITS, name), shallow=False):
            return path
    return ""


def _copy(state_dir: str, name: str) -> None:
    os.makedirs(os.path.join(state_dir, "adopted"), mode=0o700, exist_ok=True)
    with open(os.path.join(UNITS, name), "rb") as file:
        atomic.write([*_copies(state_dir, name)][-1], file.read(), 0o600)


CALLS = {"look": look, "compare": compare}
