"""The node half of `unit`: one `systemctl show` for all units, and the files and processes behind them."""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sparkops.core import atomic
from sparkops.core.descriptors import FILE, names
from sparkops.core.kind_messages import UnitAct, UnitAsk
from sparkops.core.messages import State, unknown_of
from sparkops.programs import docker
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.facts import system
from sparkops.worker.record import claims, started_from
from sparkops.worker.system import main_process, ports, processes, safe_path
from sparkops.worker.system.root import UNITS, at

_Answer = TypeVar("_Answer")
STAMPS = "/run/sparkops/units"
VENDOR = ("/usr/lib/systemd/system", "/lib/systemd/system", "/usr/local/lib/systemd/system")
"""Where packages put their units. Source: systemd.unit(5)."""
TRANSIENT = "/run/systemd/transient/"
"""Where systemd keeps units that came over its bus; they hide files of /etc. Source: systemd.unit(5)."""
GROUPS = "/run/sparkops/groups"
TEXT_LIMIT = 64 << 10
SYSTEMCTL = ["systemctl", "--no-pager", "--no-ask-password"]
SHOWN = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "NeedDaemonReload", "FragmentPath"),
    *("DropInPaths", "MainPID", "Result", "NRestarts", "StatusText", "Job", "ExecMainStartTimestampMonotonic"),
)
POLL = 0.25
LOOKS = 12
"""Looks at a unit whose process or container ends meanwhile: the launcher has its last words for three seconds."""
BY_CGROUP = ("Memory", "CPU", "IO", "Tasks", "Allowed", "Delegate", "Slice")
"""How properties begin that systemd sets for what runs (systemd.resource-control(5)); others wait for a start."""


def observe_many(asks: dict[str, UnitAsk], *, root: str = "/") -> dict[str, object]:
    """The states of all units, from one process; one unit's trouble leaves the others known."""
    more = sorted({name for ask in asks.values() for name in ask["properties"]})
    shown = show([ask["name"] for ask in asks.values()], more)
    states: dict[str, object] = {}
    for identity, ask in asks.items():
        try:
            states[identity] = _settled(ask, shown[ask["name"]], more, root)
        except Unknown as error:
            states[identity] = error
        except OSError as error:
            states[identity] = unknown_of(error)
    return states


def _settled(ask: UnitAsk, shown: dict[str, str], more: list[str], root: str) -> dict[str, object] | None:
    """As `_state`, from another look where the process or its container ended after systemd's word."""

    def state(shown: dict[str, str]) -> dict[str, object] | None:
        return _state(ask, shown, root)

    def settled(found: dict[str, object] | None) -> bool:
        return found is None or found.get("container_inputs") != ""

    return _again(state, shown, ask["name"], more, settled)


def _again(
    look: Callable[[dict[str, str]], _Answer],
    shown: dict[str, str],
    name: str,
    more: Iterable[str] = (),
    settled: Callable[[_Answer], bool] = lambda _: True,
) -> _Answer:
    """What `look` makes of a unit, from another word of systemd's where its process ended after that one."""
    for _ in range(LOOKS):
        try:
            found = look(shown)
            if settled(found):
                return found
        except Unknown as error:
            if error.id != "unit-process-ended":
                raise
        time.sleep(POLL)
        shown = show([name], more)[name]
    return look(shown)


def show(units: list[str], more: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """What systemd says of these units, by name. Raises Unknown when it doesn't answer, or not for all."""
    wanted = list(dict.fromkeys(units))
    if not wanted:
        return {}
    properties = ",".join(dict.fromkeys([*SHOWN, *more]))
    status, out, err = processes.ask([*SYSTEMCTL, "show", "--property=" + properties, "--", *wanted])
    blocks = [dict(_pair(line) for line in block.splitlines()) for block in out.split("\n\n") if block.strip()]
    if status != 0 or len(blocks) != len(wanted):
        said = err.strip().splitlines() or [f"systemctl show ended with {status}, {len(blocks)} answers"]
        raise Unknown.of("systemd-not-answering", text=said[-1])
    return dict(zip(wanted, blocks, strict=True))


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key, value


def _state(ask: UnitAsk, shown: dict[str, str], root: str) -> dict[str, object] | None:
    path = os.path.join(at(root, UNITS), ask["name"])
    text = _text(path)
    there = text is not None or shown.get("LoadState") != "not-found" or os.path.islink(path)
    active = shown.get("ActiveState", "")
    if not there and active == "inactive" and (ask["content"] or not ask["present"]):
        taken = _port_taken(ask, None)
        return {"exists": False, "port_taken": taken} if taken and not taken["service"] else None
    state: dict[str, object] = {
        "exists": there,
        "enabled": shown.get("UnitFileState") == "enabled",
        "masked": shown.get("LoadState") == "masked" or shown.get("UnitFileState", "").startswith("masked"),
        "running": running(shown),
        "failed": active == "failed",
        "reload_needed": shown.get("NeedDaemonReload") == "yes",
        "drop_ins": sorted({*shown.get("DropInPaths", "").split(), *_drop_ins(ask["name"], root)}),
        "state": f"{active} ({shown.get('SubState', '')})",
        "result": shown.get("Result", ""),
        "restarts": int(shown.get("NRestarts") or 0),
    }
    if ask["content"]:
        state["content"] = "sha256:" + hashlib.sha256(text).hexdigest() if text is not None else None
        if state["content"] != ask["content"]:
            state["vendor"] = _vendor(ask["name"], shown.get("FragmentPath", ""), root)
        if text is not None and state["content"] != ask["content"] and len(text) <= TEXT_LIMIT:
            state["text"] = text.decode(errors="replace")
    if ask["inputs"]:
        state["inputs"] = inputs_of(ask["name"], shown, root) if state["running"] else None
    if ask["main_process"]:
        pid = int(shown.get("MainPID") or 0)
        state["main_process"] = main_process.words(pid, root) if state["running"] and pid else None
    own = None
    if ask["container"] and state["running"]:
        own = docker.service_container(ask["service"] or "")
    if ask["container"]:
        state.update(started_from.inputs(ask, own, shown, running(shown), root))
    if ask["port"]:
        state["port_taken"] = _port_taken(ask, own)
        if not state["running"] and state["result"] not in ("", "success"):
            state["said"] = journal(ask["name"])
    if ask["service"]:
        state.update(_kept(ask["service"], ask["state_dir"], root))
    for name in ask["properties"]:
        state[f"property.{name}"] = shown.get(name, "")
    if late := [name for name in ask["properties"] if not name.startswith(BY_CGROUP)]:
        state["waiting"] = late if state["running"] and _newer_than_process(shown, root) else []
    return state


def _newer_than_process(shown: dict[str, str], root: str) -> bool:
    """Whether a drop-in of the unit is newer than its process."""
    started = time.time() - time.monotonic() + int(shown.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    changed = 0.0
    for path in shown.get("DropInPaths", "").split():
        with contextlib.suppress(OSError):
            changed = max(changed, os.stat(at(root, path)).st_mtime)
    return int(shown.get("MainPID") or 0) > 0 and changed > started


def _port_taken(ask: UnitAsk, own: docker.Answer | None) -> dict[str, object] | None:
    """What listens on the unit's port and is neither its container nor goes by itself when it starts."""
    if not ask["port"]:
        return None
    port, host, service = ask["port"], ask["host"], ask["service"] or ""
    foreign = ports.held(port, host, lambda: own).foreign
    if foreign is not None and own is not None:  # another container of its own may run since
        foreign = ports.held(port, host, lambda: docker.service_container(service)).foreign
    return None if foreign is None or _displaced(foreign, ask["displaces"]) else foreign


def _displaced(foreign: dict[str, object], units: list[str]) -> bool:
    """Whether what listens goes by itself when the unit starts. A container's own unit can't be told: any may be it,
    and the launcher looks again once they are stopped."""
    if foreign["unit"] and not foreign["container"]:
        return foreign["unit"] in units
    return any(running(shown) for shown in show(units).values())


def _vendor(name: str, fragment: str, root: str) -> str:
    """The file by which a package brought a unit of this name; "" where none did."""
    paths = [os.path.join(folder, name) for folder in VENDOR]
    found = [path for path in paths if os.path.exists(at(root, path))]
    ours = not fragment or fragment.startswith((UNITS + "/", "/run/"))
    return found[0] if found else "" if ours else fragment


def running(shown: dict[str, str]) -> bool:
    """Whether it runs or is on its way to: a unit that waits for its automatic restart does not run."""
    active = shown.get("ActiveState")
    if active == "activating":
        return shown.get("SubState") not in ("auto-restart", "auto-restart-queued")
    return active in ("active", "reloading", "refreshing")


def _text(path: str) -> bytes | None:
    """The unit file that stands there itself; a link (a mask, an alias) is none."""
    if os.path.islink(path):
        return None
    try:
        handle = os.open(path, FILE)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read()


def _drop_ins(name: str, root: str) -> list[str]:
    """Those that stand there, also where systemd has not read them yet."""
    folder = os.path.join(at(root, UNITS), name + ".d")
    return [os.path.join(folder, entry) for entry in names(folder) if entry.endswith(".conf")]


def inputs_of(name: str, shown: dict[str, str], root: str) -> str | None:
    """The digest that the running unit was started from; "" where it says none, None where it has no process yet.
    Raises Unknown, OSError."""
    pid = int(shown.get("MainPID") or 0)
    if pid:
        return main_process.inputs(pid, root)
    if shown.get("ActiveState") == "activating":
        return None
    return (system.text(root, f"{STAMPS}/{name}") or "").strip()


def outdated(name: str, root: str) -> bool:
    """Whether a unit runs that was started from other inputs than its text names now. Raises Unknown, OSError."""
    text = _text(os.path.join(at(root, UNITS), name)) or b""
    declared = re.search(rb"(?m)^Environment=" + main_process.VARIABLE + rb"(\S*)$", text)
    if not declared:
        return False
    wanted = (None, declared[1].decode(errors="replace"))
    return _again(lambda shown: running(shown) and inputs_of(name, shown, root) not in wanted, show([name])[name], name)


def _kept(service: str, state_dir: str, root: str) -> dict[str, object]:
    """What the launcher keeps of the service: its last start, token and hang, and its group of ranks."""
    folder = os.path.join(at(root, state_dir), "services", service)
    kept: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        start = atomic.mapping(os.path.join(folder, "last-start.json"))
        kept["last_start"] = {key: float(start[key]) for key in ("port_seconds", "token_seconds", "at")}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept["last_token"] = float(atomic.mapping(os.path.join(folder, "last-token.json"))["at"])
    with contextlib.suppress(OSError):
        path = os.path.join(folder, "last-hang.txt")
        kept["last_hang"] = {"path": path, "at": round(os.stat(path).st_mtime)}
    with contextlib.suppress(OSError):
        if group := atomic.mapping(os.path.join(at(root, GROUPS), service + ".json")):
            kept["group"] = group
    return kept


RUNS = (
    *("inputs", "main_process", "container_inputs", "container_image", "container_checkpoint", "secret_inputs"),
    *("container_environment", "container_settings"),
)


def converge(call: Call, ask: UnitAsk, found: State, want: State, act: UnitAct) -> None:
    """Bring the unit to `want`; None stops, disables and removes it."""
    name = ask["name"]
    if want is None:
        _remove(call, name)
        return
    found = found or {}
    if ask["secret"] is not None:
        claims.make_key(ask["state_dir"])
    if want.get("masked") is False and found.get("masked"):
        processes.run([*SYSTEMCTL, "unmask", "--", name])
    if "content" in want and want["content"] != found.get("content"):
        _refuse_vendor(name)
        _end_transient(call, name)
        safe_path.put(os.path.join(UNITS, name), act["content"], 0o644)
        processes.run([*SYSTEMCTL, "daemon-reload"])
    elif found.get("reload_needed") or "content" not in want:
        # Of a unit that a package brings, systemd does not notice the first drop-in: it has cached which folders exist.
        processes.run([*SYSTEMCTL, "daemon-reload"])
    if "enabled" in want and want["enabled"] != found.get("enabled", False):
        processes.run([*SYSTEMCTL, "enable" if want["enabled"] else "disable", "--", name])
    if want.get("running") is False and found.get("running"):
        change(call, "stop", name)
    if want.get("masked") and not found.get("masked"):
        processes.run([*SYSTEMCTL, "mask", "--", name])
    if found.get("restart_policy") not in (None, want.get("restart_policy")):
        _without_restarts(ask["service"] or "")
    if found.get("paused") and want.get("paused") is False:
        _resume(ask["service"] or "")
    if want.get("running"):
        _run(call, ask, found, want, act)


def _without_restarts(service: str) -> None:
    """Leave the restarts of a container to its unit; what runs is not interrupted."""
    if (container := docker.service_container(service)) is not None:
        docker.act("POST", f"/containers/{container['Id']}/update", {"RestartPolicy": {"Name": "no"}})


def _resume(service: str) -> None:
    """Let a container go on that somebody paused."""
    container = docker.service_container(service)
    if container is not None and container["State"].get("Paused"):
        docker.act("POST", f"/containers/{container['Id']}/unpause")


def _refuse_vendor(name: str) -> None:
    if path := _vendor(name, show([name])[name].get("FragmentPath", ""), "/"):
        raise Refused.of("unit-of-system", unit=name, path=path)


def _end_transient(call: Call, name: str) -> None:
    """Stop what `systemd-run` made under this name: systemd does not read the name's file before it is gone."""
    if not show([name])[name].get("FragmentPath", "").startswith(TRANSIENT):
        return
    change(call, "stop", name)
    processes.ask([*SYSTEMCTL, "reset-failed", "--", name])  # one that failed stays loaded


def _run(call: Call, ask: UnitAsk, found: Mapping[str, object], want: Mapping[str, object], act: UnitAct) -> None:
    name, wait = ask["name"], bool(act.get("wait", True))
    now = show([name])[name]
    other = any(found.get(key) is not None and found[key] != want[key] for key in RUNS if key in want)
    if not running(now):
        change(call, "start", name, wait)
    elif other or act.get("again") or (not found.get("running") and outdated(name, "/")):  # systemd was faster
        change(call, "restart", name, wait)


def change(call: Call, verb: str, name: str, wait: bool = True) -> None:
    """Start, stop or restart, following systemd's job; without `wait` only until the new process is there.

    A session that ends leaves the job to systemd. Raises Refused with the journal's last lines when it fails.
    """
    old = show([name])[name].get("MainPID", "0")
    if verb in ("start", "restart"):
        # People's stops and starts count for its start limit, too. A unit that is not loaded has none, and is refused.
        processes.ask([*SYSTEMCTL, "reset-failed", "--", name])
    processes.run([*SYSTEMCTL, "--no-block", verb, "--", name])
    started = time.monotonic()
    while True:
        now = show([name])[name]
        status = now.get("StatusText") or now.get("SubState", "")
        call.progress(f"{name}: {status}", done=round(time.monotonic() - started), unit="s")
        fresh = now.get("ActiveState") == "activating" and now.get("MainPID") not in ("0", old)
        if not now.get("Job") or (not wait and fresh):
            break
        if call.stopping.wait(POLL):
            raise Refused.of("unit-wait-cancelled", type="cancelled", unit=name, verb=verb)
    bad = running(now) if verb == "stop" else not (running(now) or _was_short(now))
    if bad:
        raise Refused.of(
            "unit-verb-failed",
            detail=journal(name),
            unit=name,
            verb=verb,
            state=now.get("ActiveState"),
            result=now.get("Result"),
        )


def _was_short(shown: dict[str, str]) -> bool:
    """A oneshot without RemainAfterExit that did its work is inactive again, with success."""
    return shown.get("ActiveState") == "inactive" and shown.get("Result") == "success"


def journal(name: str, lines: int = 40) -> str:
    """The last lines that the unit said; "" where the journal can't tell."""
    argv = ["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={name}"]
    with contextlib.suppress(Unknown):
        return processes.ask(argv)[1]
    return ""


def _remove(call: Call, name: str) -> None:
    path = os.path.join(UNITS, name)
    now = show([name])[name]
    active = now.get("ActiveState") not in ("inactive", "failed")
    fragment = now.get("FragmentPath", "")
    if fragment != path and not os.path.islink(path) and (fragment or active):
        raise Refused.of("unit-not-own", unit=fragment or name)
    if active:
        change(call, "stop", name)
    if now.get("UnitFileState") in ("enabled", "enabled-runtime"):
        processes.run([*SYSTEMCTL, "disable", "--", name])
    for each in (path, os.path.join(STAMPS, name)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(each)
    processes.run([*SYSTEMCTL, "daemon-reload"])
    if show([name])[name].get("ActiveState") == "failed":
        processes.run([*SYSTEMCTL, "reset-failed", "--", name])
