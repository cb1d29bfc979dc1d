"""The node half of `generation`: keep the present state of a service as stable, or bring an earlier one back."""

import os
import shutil

from sparkops.core.kind_messages import GenerationAct, GenerationAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call, Refused
from sparkops.worker.kinds import unit
from sparkops.worker.record import generations
from sparkops.worker.record.generations import Generation
from sparkops.worker.system import processes


def observe(ask: GenerationAsk, *, root: str = "/") -> dict[str, object] | None:
    """`stable`: the present state is the newest kept one; `at`: its number; `generations` and `rejected` as kept.

    With `restore` (a number, or "newest"): `target` is the one to bring back, `restored` whether it is there;
    `outdated`: the unit runs from another.
    """
    folder = ask["folder"]
    if not ask["present"]:
        return {} if os.path.isdir(folder) else None
    there = generations.kept(folder)
    now = generations.present(ask["files"], root=root)
    same = [each["number"] for each in there if each["fingerprint"] == now["fingerprint"]]
    state: dict[str, object] = {
        "stable": bool(there) and there[-1]["fingerprint"] == now["fingerprint"],
        "at": same[-1] if same else None,
        "inputs": now["inputs"],
        "rejected": generations.rejected(folder),
        "generations": [{key: each[key] for key in ("number", "time", "inputs")} for each in there],
    }
    if ask.get("restore"):
        target = _target(there, ask["restore"], generations.rejected(folder))
        state["target"] = target["number"] if target else None
        state["restored"] = target is not None and target["fingerprint"] == now["fingerprint"]
        state["outdated"] = unit.outdated(ask["unit"], root)
    return state


def _target(there: list[Generation], wanted: int | str | None, rejected: list[str]) -> Generation | None:
    """The generation of that number; or the newest one that nobody took back, where there is such a one."""
    if wanted == "newest":
        kept = [each for each in there if each["inputs"] not in rejected]
        return next(reversed(kept or there), None)
    return next((each for each in there if each["number"] == wanted), None)


def converge(call: Call, ask: GenerationAsk, found: State, want: State, act: GenerationAct, *, root: str = "/") -> None:
    """Keep the present state, or with `restore` hold it and bring the files and the image of the other back."""
    folder = ask["folder"]
    if want is None:
        shutil.rmtree(folder)
        return
    now = generations.present(ask["files"], root=root)
    if not ask.get("restore"):
        passed = generations.passed(folder)
        if passed.get("fingerprint") != now["fingerprint"]:
            passed = {}  # of another state, as of a node that was a head before
        now["measured"], now["asked"] = passed.get("measured") or {}, passed.get("asked") or {}
        generations.add(folder, now, act["keep"])
        generations.release(folder, now["inputs"])
        return
    target = _target(generations.kept(folder), ask["restore"], generations.rejected(folder))
    if target is None:
        raise Refused.of("generation-missing", service=os.path.basename(folder), wanted=ask["restore"])
    if now["inputs"] != target["inputs"]:
        generations.reject(folder, now["inputs"])
    generations.bring_back(target, root=root)
    if act["image"] and now["inputs"] == target["inputs"] and now["image"][1] != target["image"][1]:
        generations.reject(folder, f"{now['inputs']}+{act['image']}")
    processes.run([*unit.SYSTEMCTL, "daemon-reload"])
