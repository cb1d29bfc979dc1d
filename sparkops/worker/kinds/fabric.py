"""Node half of `fabric`: the interface of each link, its addresses now and after a reboot, and the change of both as a
trial that the node takes back itself.

A trial stands below /run only, so that a reboot ends it. It becomes lasting when a *fresh* session confirms it; else a
timer of systemd takes it back, whatever became of the worker and the connection. Who renames the trial's mark first,
the confirmation or the timer, has decided.
"""

import contextlib
import glob
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sparkops.core import atomic
from sparkops.core.kind_messages import FabricAsk
from sparkops.core.messages import Reason, State, reason
from sparkops.worker.calls import Call, Refused
from sparkops.worker.facts import fabric, network
from sparkops.worker.system import netplan, processes
from sparkops.worker.system.root import SPECS, UNITS, at

CONFIRM = 45.0
"""Seconds in which a fresh session has to confirm; where the worker cannot, the timer takes it back MARGIN later."""
MARGIN = 15.0
FINISH = 120.0
"""Seconds for a confirmation that has begun to come to its end."""
LIVE = 15.0
"""Seconds for the interfaces to have their addresses after `netplan apply`."""
APPLY = 60.0
STOP = 300.0
"""Seconds for engines to stop."""
ETC, RUN = "/etc/netplan", "/run/netplan"
STATE = "/run/sparkops/fabric"
UNDO = "sparkops-fabric-undo"
ASIDE = ".before-sparkops"


def observe(ask: FabricAsk, root: str = "/") -> dict[str, object]:
    """For each link (`p0/0`) the IPv4 addresses of its interface, with `.mtu` its MTU.

    `lasting`: netplan's files say the same; `names` maps links to interfaces, `rails` to what their hardware says.
    `faults` are the reasons for which nothing may be changed; `files` those of others that would be set aside;
    `session`: this session, or management, goes over one of the interfaces.
    `ask`: links (slot, port, twin, address), interfaces (by port, empty for what is found), port, mtu, adopt.
    """
    told = network.network(root)
    interfaces = told["interfaces"]
    card = fabric.fabric(root, interfaces)
    names, faults = _names(ask, card, interfaces)
    files = netplan.files(root) if names else {}
    wanted = {names[each["slot"]]: each["address"] for each in ask["links"] if each["slot"] in names}
    for name in names.values():
        faults += _stacked(name, interfaces)
        faults += netplan.faults(files, name, interfaces[name].get("mac"))
    aside = _aside(files, wanted, faults, bool(ask["adopt"]))
    state: dict[str, object] = {
        "names": names,
        "rails": {slot: _rail(name, card, interfaces) for slot, name in names.items()},
        "faults": faults,
        "twins_share": _twins_share(ask, card, names, interfaces),
        "files": aside,
        "session": bool({told["session_interface"], told["management"]["interface"]} & set(names.values())),
    }
    if ask["links"]:
        state["lasting"] = (
            bool(wanted) and not aside and all(_lasts(files, *each, ask["mtu"]) for each in wanted.items())
        )
    for each in ask["links"]:
        found = interfaces[names[each["slot"]]] if each["slot"] in names else {}
        state[each["slot"]] = [address for address in found.get("addresses", ()) if ":" not in address]
        if ask["mtu"]:
            state[f"{each['slot']}.mtu"] = found.get("mtu")
    return state


def _names(
    ask: FabricAsk, card: Mapping[str, Any], interfaces: Mapping[str, Any]
) -> tuple[dict[str, str], list[Reason]]:
    """The interface of each link, or why it can't be told."""
    ports = ask["interfaces"] or card["ports"]
    missing = sorted(name for names in ports.values() for name in names if name not in interfaces)
    if missing:
        return {}, [reason("fabric-interface-absent", interface=name) for name in missing]
    if not ports:
        return {}, [reason("fabric-device-absent")]
    cabled = [port for port, names in sorted(ports.items()) if any(interfaces[name]["carrier"] for name in names)]
    if not ask["links"]:
        chosen = [ask["port"]] if ask["port"] else cabled
        return {f"{port}/{at}": name for port in chosen for at, name in enumerate(ports.get(port, ()))}, []
    found = {}
    for each in ask["links"]:
        port = each["port"]
        if port == "cable":
            if len(cabled) != 1:
                return {}, [reason("fabric-port-ambiguous", ports=cabled)]
            port = cabled[0]
        if each["twin"] >= len(ports.get(port, ())):
            return {}, [reason("fabric-port-absent", port=port, ports=sorted(ports))]
        found[each["slot"]] = ports[port][each["twin"]]
    return found, []


def _stacked(name: str, interfaces: Mapping[str, Any]) -> list[Reason]:
    uppers = [
        interfaces[name].get("master"),
        *(upper for upper, each in interfaces.items() if each.get("below") == name),
    ]
    hardware = interfaces[name].get("kind") in (None, "veth", "dummy")
    uppers += [] if hardware else [name]
    return [reason("fabric-interface-stacked", interface=name, upper=upper) for upper in uppers if upper]


def _aside(files: netplan.Files, wanted: Mapping[str, str], faults: list[Reason], adopt: bool) -> list[str]:
    """The files of others whose addresses are in the way; a fault for each that must stay."""
    found: list[str] = []
    for name, address in wanted.items():
        for file, extra in netplan.others(files, name, [address]):
            if not adopt:
                faults.append(reason("fabric-netplan-other", file=file, interface=name, addresses=extra))
            elif not netplan.only_of(files, file, wanted):
                faults.append(reason("fabric-netplan-mixed", file=file, interface=name))
            elif file not in found:
                found.append(file)
    return found


def _rail(name: str, card: Mapping[str, Any], interfaces: Mapping[str, Any]) -> dict[str, object]:
    kept = ("pcie_gts", "pcie_lanes", "rdma", "rdma_state")
    rail = card["rails"].get(name, {})
    return {
        "interface": name,
        **{key: interfaces[name].get(key) for key in ("speed_mbps", "carrier", "mtu")},
        **{key: rail.get(key) for key in kept},
    }


def _twins_share(
    ask: FabricAsk, card: Mapping[str, Any], names: Mapping[str, str], interfaces: Mapping[str, dict[str, object]]
) -> list[str]:
    ports = ask["interfaces"] or card["ports"]
    chosen = set(names.values())
    twins = [[name for name in found if name in chosen] for found in ports.values()]
    return [said for found in twins for said in fabric.shared_subnets(found, dict(interfaces))]


def _lasts(files: netplan.Files, name: str, address: str, mtu: int | None) -> bool:
    whole = netplan.merged(files, name)
    plain = [each for each in whole["addresses"] if ":" not in each]
    return plain == [address] and not whole.get("dhcp4") and (mtu is None or whole.get("mtu") == mtu)


def converge(call: Call, ask: FabricAsk, found: State, want: State, act: Mapping[str, object], root: str = "/") -> None:
    """Try the wanted addresses; lasting once a fresh session has confirmed. Raises Refused where it was taken back."""
    assert found is not None
    names = found["names"]
    addresses = {names[each["slot"]]: each["address"] for each in ask["links"]}
    state = at(root, STATE)
    if os.path.exists(os.path.join(state, "trial.json")):
        raise Refused.of("fabric-trial-runs", type="busy")
    os.makedirs(state, mode=0o700, exist_ok=True)
    trial = {
        "token": os.urandom(16).hex(),
        "text": netplan.text(addresses, ask["mtu"]),
        "addresses": addresses,
        "aside": found["files"],
        "units": list(units_on_rails(root)),
    }
    try:
        _begin(root, trial, netplan.text(addresses, ask["mtu"], netplan.TRIAL))
        processes.run(["netplan", "generate"], timeout=APPLY)
        if not os.path.exists(os.path.join(state, "trial.json")):
            raise Refused.of("fabric-trial-over")  # the timer was faster: nothing would take the change back any more
        processes.run(["netplan", "apply"], timeout=APPLY)
        _wait_for(addresses)
        call.progress("the new addresses are tried; confirming over a new connection", confirm=trial["token"])
        _wait_for_confirmation(root)
    except Exception:
        undo(root)
        raise


def _begin(root: str, trial: Mapping[str, Any], text: str) -> None:
    """Arm the timer, stop what uses the rails, and only then put the files of the trial there.

    The trial's mark comes after the timer: where this is killed between them, nothing else would take it away.
    """
    state = at(root, STATE)
    for name in ("confirmed.json", "undoing.json"):
        atomic.remove(os.path.join(state, name))
    atomic.write(os.path.join(state, "undo.sh"), _undo_script(root, trial).encode(), 0o700)
    script = os.path.join(state, "undo.sh")
    seconds = f"--on-active={STOP + APPLY + LIVE + CONFIRM + MARGIN:.0f}"
    timer = ["systemd-run", "--quiet", "--collect", f"--unit={UNDO}", "--timer-property=AccuracySec=1s"]
    processes.run([*timer, seconds, "/bin/sh", script])
    atomic.write(os.path.join(state, "trial.json"), json.dumps(trial).encode(), 0o600)
    if trial["units"]:
        processes.run(["systemctl", "stop", *trial["units"]], timeout=STOP)
    os.makedirs(at(root, RUN), exist_ok=True)
    atomic.write(at(root, f"{RUN}/{netplan.OURS}"), text.encode(), 0o600)
    for file in trial["aside"]:
        atomic.write(at(root, f"{RUN}/{file}"), f"{netplan.TRIAL}\nnetwork: {{version: 2}}\n".encode(), 0o600)


def _undo_script(root: str, trial: Mapping[str, Any]) -> str:
    """What takes the trial back. It does nothing once the trial was confirmed, or is being taken back by another."""
    state = shlex.quote(at(root, STATE))
    lines = [
        "#!/bin/sh",
        "# Made by sparkops: takes back a network that no new connection confirmed.",
        f"mv {state}/trial.json {state}/undoing.json 2>/dev/null || exit 0",
        *(f"rm -f {shlex.quote(at(root, f'{RUN}/{file}'))}" for file in (netplan.OURS, *trial["aside"])),
        f"timeout {APPLY:g} netplan apply",
    ]
    interfaces, ip = network.network(root)["interfaces"], f"timeout {network.LIMIT:g} ip"
    for name, address in trial["addresses"].items():
        if address not in interfaces[name]["addresses"]:
            lines.append(f"{ip} address del {shlex.quote(address)} dev {shlex.quote(name)} 2>/dev/null")
        kept = map(shlex.quote, interfaces[name]["addresses"])
        lines += [f"{ip} address replace {each} dev {shlex.quote(name)}" for each in kept]
        lines.append(f"{ip} link set {shlex.quote(name)} mtu {int(interfaces[name]['mtu'])}")
    lines += [f"systemctl start --no-block {shlex.join(trial['units'])}"] if trial["units"] else []
    return "\n".join([*lines, "exit 0"]) + "\n"


def _wait_for(addresses: Mapping[str, str]) -> None:
    deadline = time.monotonic() + LIVE
    while missing := _not_live(addresses):
        if time.monotonic() > deadline:
            raise Refused.of("fabric-address-not-live", addresses=missing)
        time.sleep(0.2)


def _not_live(addresses: Mapping[str, str]) -> list[str]:
    status, said, _ = processes.ask(["ip", "-j", "-d", "address"], timeout=network.LIMIT)
    found = network.parse_addresses(said) if status == 0 else {}
    return [
        f"{each} on {name}" for name, each in addresses.items() if each not in found.get(name, {}).get("addresses", ())
    ]


def _wait_for_confirmation(root: str) -> None:
    """Raises Refused where the trial was taken back. At the deadline that is tried here: a confirmation that has begun
    by then is waited for."""
    deadline = time.monotonic() + CONFIRM

    def there(name: str) -> bool:
        return os.path.exists(os.path.join(at(root, STATE), name))

    while True:
        waiting, confirming = there("trial.json"), there("confirming.json")  # in the order in which it is renamed
        if there("confirmed.json"):
            return
        late = time.monotonic() - deadline
        if not (waiting or confirming) or late > FINISH:
            raise Refused.of("fabric-not-confirmed", seconds=CONFIRM)
        if waiting and late > 0:
            undo(root)
        else:
            time.sleep(0.2)


def undo(root: str = "/") -> None:
    """Take a trial back now; nothing where it was confirmed or taken back."""
    with contextlib.suppress(Refused):
        processes.run(["/bin/sh", os.path.join(at(root, STATE), "undo.sh")], timeout=APPLY + LIVE)
    with contextlib.suppress(Refused):
        processes.run(["systemctl", "stop", f"{UNDO}.timer"])


def confirm(call: Call, args: Mapping[str, object], root: str = "/") -> None:
    """Make a trial lasting: the call of a session that was opened after `netplan apply`. Raises Refused."""
    state = at(root, STATE)
    trial = atomic.mapping(os.path.join(state, "trial.json"))
    if not trial or trial.get("token") != args["token"]:
        raise Refused.of("fabric-trial-over")
    if missing := _not_live(trial["addresses"]):
        raise Refused.of("fabric-address-not-live", addresses=missing)
    lasting, prepared = at(root, f"{ETC}/{netplan.OURS}"), at(root, f"{ETC}/{netplan.OURS}.new")
    atomic.write(prepared, trial["text"].encode(), 0o600)
    try:
        os.rename(os.path.join(state, "trial.json"), os.path.join(state, "confirming.json"))
    except FileNotFoundError:
        os.unlink(prepared)
        raise Refused.of("fabric-trial-over") from None
    os.rename(prepared, lasting)
    for file in trial["aside"]:
        with contextlib.suppress(FileNotFoundError):
            os.rename(at(root, f"{ETC}/{file}"), at(root, f"{ETC}/{file}{ASIDE}"))
    for file in (netplan.OURS, *trial["aside"]):
        atomic.remove(at(root, f"{RUN}/{file}"))
    processes.run(["netplan", "generate"], timeout=APPLY)
    with contextlib.suppress(Refused):
        processes.run(["systemctl", "stop", f"{UNDO}.timer"])
    if trial["units"]:
        processes.run(["systemctl", "start", "--no-block", *trial["units"]])
    os.rename(os.path.join(state, "confirming.json"), os.path.join(state, "confirmed.json"))


def units_on_rails(root: str) -> Iterator[str]:
    """The active units that run a rank of an engine over several nodes. Raises Unknown where systemd is silent."""
    for path in sorted(glob.glob(at(root, f"{UNITS}/*.service"))):
        with contextlib.suppress(OSError, ValueError, KeyError), open(path, encoding="utf-8", errors="replace") as file:
            words = [word for word in file.read().split() if word.startswith(SPECS + "/") and word.endswith(".json")]
            if not words:
                continue
            with open(at(root, words[0]), encoding="utf-8") as spec:
                argv = json.load(spec)["argv"]
            name = os.path.basename(path)
            if "--nnodes" in argv and _active(name):
                yield name


def _active(unit: str) -> bool:
    status, said, _ = processes.ask(["systemctl", "is-active", unit])
    return status == 0 or said.strip() in ("activating", "reloading")


CALLS = {"confirm": confirm}
