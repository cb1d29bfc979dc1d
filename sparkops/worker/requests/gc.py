"""What can be given back on this node: what sparkops brought there and nothing needs any more.

`look` lists it with the bytes that would become free and why each is kept; `remove` looks again and removes what was
asked for and is still unused. It must not know kinds: a kind with data that is not removed unasked offers
`reclaimable(Look) -> list[ItemTold]` and `reclaim(state_dir, ItemTold)`. Nor what is declared: the controller says it.
"""

import contextlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparkops.core.kind_messages import Nothing
from sparkops.core.messages import Claim, Reason, State, reason, reason_of
from sparkops.core.request_messages import GcAsk, GcLook, GcRemove, ItemTold
from sparkops.worker.calls import Call, Refused, kind
from sparkops.worker.reclaiming.items import GONE, Look
from sparkops.worker.record import claim_records, claims, uses

FRESH = 2.0
"""Seconds for which a look counts: the removal of what stood before in a list may take minutes."""


def look(call: Call, args: GcLook) -> list[ItemTold]:
    """The items of all `kinds` that have such. Raises Unknown where a kind cannot find out."""
    return _found(args, _at(args))


def _at(args: GcLook) -> Look:
    mine, others = claim_records.own(args["state_dir"], args["cluster"], args["former"])
    found = uses.look(args["state_dir"], others)
    return Look(args["state_dir"], found, mine, args["declared"], args["foreign"])


def _found(args: GcLook, at: Look) -> list[ItemTold]:
    modules = [kind(name) for name in args["kinds"]]
    return [each for module in modules if hasattr(module, "reclaimable") for each in module.reclaimable(at)]


def remove(call: Call, args: GcRemove) -> list[dict[str, object]]:
    """Remove the `items` that `look` still finds unused, and let go of their claims.

    Answers `{kind, name, left}`: why it was left, None where it was removed.
    """
    claims.take_over(args["state_dir"], args["cluster"], args["former"])
    answers: list[dict[str, object]] = []
    now: dict[tuple[str, str], ItemTold] = {}
    looked = -math.inf
    for number, (sort, name) in enumerate(args["items"]):
        call.progress(f"{sort} {name}", done=number, total=len(args["items"]), unit="things")
        if time.monotonic() - looked > FRESH:
            now = {(item["kind"], item["name"]): item for item in look(call, args)}
            looked = time.monotonic()
        item = now.get((sort, name))
        if item is None or item["kept"]:
            left = item["kept"] if item else reason("gc-disappeared")
        else:
            left = _remove(args, item)
        answers.append({"kind": sort, "name": name, "left": left})
    return answers


def _remove(args: GcLook, item: ItemTold) -> Reason | None:
    try:
        with contextlib.ExitStack() as acts:
            for each in item["claims"]:
                claim: Claim = {
                    "state_dir": args["state_dir"],
                    "cluster": args["cluster"],
                    "kind": each,
                    "name": item["name"],
                    "kept": {},
                    "pruned": False,
                }
                acts.enter_context(claims.acting(claim, item["name"], "delete"))
            if item["note"] != GONE:
                kind(item["by"]).reclaim(args["state_dir"], item)
    except (Refused, OSError) as error:
        return reason_of(error)
    return None


def observe_many(asks: Mapping[str, GcAsk]) -> dict[str, object]:
    """Of each thing the bytes that become free, and why it `stays` (a Reason or None); None where it is gone.

    What only `leaving` ones use is not used, nor is it by a program, which may be theirs: `converge` asks again.
    """
    found: dict[str, object] = {}
    for identity, ask in asks.items():
        at = _at(ask)
        item = _claimed(ask, _found(ask, replace(at, found=at.found.without(set(ask["leaving"])))))
        found[identity] = {"bytes": item["bytes"], "stays": item["kept"]} if item else None
    return found


def _claimed(ask: GcAsk, items: Sequence[ItemTold]) -> ItemTold | None:
    return next((each for each in items if each["name"] == ask["name"] and ask["what"] in each["claims"]), None)


def converge(call: Call, ask: GcAsk, found: State, want: State, act: Nothing) -> None:
    """Remove that thing, and what was left beside it. Raises Refused where somebody uses it."""
    items = look(call, ask)
    item = _claimed(ask, items)
    parent, last = os.path.split(ask["name"])
    beside = os.path.join(parent, f".{last}.sparkops-")
    going = [each for each in items if each["name"].startswith(beside) and not each["kept"]]
    for each in [*going, *([item] if item else [])]:
        if why := each["kept"] or _remove(ask, each):
            raise Refused.of("removal-refused", name=f"{each['kind']} {each['name']}", reason=why)


CALLS = {"look": look, "remove": remove}
