"""What a cluster manages on this node: `claims/CLUSTER.json` in the state folder.

A claim is written before each act and confirmed after its proof, so that a crash in between leaves the trace of what
was meant. It keeps a digest of what was put there (of a secret an HMAC by the node's key), by which
`claim_records` tells later whether it is still there. Two clusters that claim one thing is an error, unless both
share it.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from sparkops.core import atomic
from sparkops.core.messages import Claim
from sparkops.worker.calls import Refused
from sparkops.worker.record import claim_records, originals
from sparkops.worker.record.claim_records import Entry, Record

_writing = threading.Lock()


@contextlib.contextmanager
def acting(claim: Claim | None, identity: str, action: str) -> Iterator[Callable[[], None] | None]:
    """Around one act on `identity`; None claims nothing.

    Yields what has to be done instead where what stood there before sparkops is kept and the claim is `pruned`: it
    puts that back.

    `claim` is `{state_dir, cluster, kind, name, kept, pruned}`: `kept` goes into the record, and what is `pruned` is
    refused where it is no longer what was put there.
    """
    if claim is None:
        yield None
        return
    state_dir, cluster = claim["state_dir"], claim["cluster"]
    key = f"{claim['kind']} {claim['name']}"
    with _writing:
        kept = _kept(state_dir, key, claim.get("kept") or {})
        mine = _mine(state_dir, cluster, {key: kept}, removing=action == "delete")
        old = mine.get(key, {})
        _clear(old)
        if claim.get("pruned"):
            _refuse_not_ours(state_dir, old)
        first = _first(state_dir, key, old, action)
        original = _original(state_dir, key, old, kept, first if action != "delete" else action)
        meant = {**(old if action == "delete" else {}), **kept, **original, "phase": "acting", "action": first}
        if contents := [*old.get("content", []), *kept.get("content", [])]:
            meant["content"] = list(dict.fromkeys(contents))
        _write(state_dir, cluster, {**mine, key: {**meant, "since": time.time()}})
    back = original.get("original") if claim.get("pruned") and action == "delete" else None
    yield (lambda: originals.put_back(state_dir, old["path"], back)) if back else None
    with _writing:
        mine = claim_records.load(_path(state_dir, cluster))
        mine.pop(key, None)
        if action != "delete":
            mine[key] = {**kept, **original, "phase": "ours", "action": first, "since": time.time()}
        _write(state_dir, cluster, mine)
        if action == "delete":
            originals.forget(state_dir, old)


def note(state_dir: str, cluster: str, claims: Mapping[str, Mapping[str, object]], drop: Iterable[str]) -> None:
    """Claim what stands there as it is declared, and let go of `drop`, in one write. Raises Refused."""
    with _writing:
        kept = {key: _kept(state_dir, key, each) for key, each in claims.items()}
        mine = _mine(state_dir, cluster, kept, removing=False)
        for key, each in kept.items():
            _clear(mine.get(key, {}))
            mine[key] = {
                **each,
                "phase": "ours",
                "action": _first(state_dir, key, mine.get(key, {}), "found"),
                "since": time.time(),
                **{name: value for name, value in mine.get(key, {}).items() if name == "original"},
            }
        dropped = [mine.pop(key, {}) for key in drop]
        for entry in dropped:
            _clear(entry)
        _write(state_dir, cluster, mine)
        for entry in dropped:
            originals.forget(state_dir, entry)


def take_over(state_dir: str, cluster: str, former: str) -> None:
    """Make the claims of the cluster's former name its own; what it claims itself stays as it is. "" for no name.

    An interruption leaves both records, and the next call ends it.
    """
    with _writing:
        records = claim_records.records(state_dir)
        if former == cluster or former not in records:
            return
        _write(state_dir, cluster, {**records[former], **records.get(cluster, {})})
        os.unlink(_path(state_dir, former))


def _original(state_dir: str, key: str, old: Entry, kept: Entry, first: str) -> dict[str, dict[str, object]]:
    """`original` of the claim: what stood there before the first act that changes what sparkops did not create."""
    if "original" in old:
        return {"original": old["original"]}
    untouched = not old or old.get("action") == "found"
    if first in ("create", "delete") or not untouched or kept.get("unit") or kept.get("type") not in ("file", "link"):
        return {}
    return {"original": originals.keep(state_dir, key, kept["path"])}


def _first(state_dir: str, key: str, entry: Entry, action: str) -> str:
    """What sparkops did to a thing first: `create` brought it; with `update` or `found` it was there before.

    What another cluster shares with this one came as that says.
    """
    others = (record.get(key, {}) for record in claim_records.records(state_dir).values())
    return str(entry.get("action") or next((each["action"] for each in others if each.get("action")), action))


def _clear(entry: Entry) -> None:
    """An act that never was confirmed may have been cut off, and what it had prepared is beside the thing."""
    if entry.get("phase") == "acting" and entry.get("path") and entry.get("type") != "directory":
        from sparkops.worker.system import safe_path  # a job, which writes by this module too, does without

        safe_path.clear(entry["path"])


def _kept(state_dir: str, key: str, given: Mapping[str, object]) -> Entry:
    """What the record holds: in the place of a secret its HMAC."""
    kept = {name: value for name, value in given.items() if name != "secret"}
    if "secret" in given:
        make_key(state_dir)
        sealed = claim_records.sealer(state_dir, key.partition(" ")[2])
        sealed.update(given["secret"])
        kept["content"] = ["hmac:" + sealed.hexdigest()]
    return kept


def _mine(state_dir: str, cluster: str, kept: Record, *, removing: bool) -> Record:
    """This cluster's record. Raises Refused where another claims one that not both share, or that is to go."""
    records = claim_records.records(state_dir)
    mine = records.pop(cluster, {})
    for other, record in records.items():
        for key, each in kept.items():
            if key in record and (removing or not (each.get("shared") and record[key].get("shared"))):
                raise Refused.of("claim-of-other-cluster", cluster=other, key=key)
    return mine


def _refuse_not_ours(state_dir: str, entry: Entry) -> None:
    now = claim_records.state(state_dir, entry, {})["now"]
    if not entry or now not in ("ours", "gone", ""):
        raise Refused.of("claim-changed", type="stale")


def _path(state_dir: str, cluster: str) -> str:
    return os.path.join(state_dir, "claims", cluster + ".json")


def _write(state_dir: str, cluster: str, record: Record) -> None:
    for each in (state_dir, os.path.join(state_dir, "claims")):
        os.makedirs(each, mode=0o700, exist_ok=True)
    atomic.write(_path(state_dir, cluster), json.dumps(record, indent=1, sort_keys=True).encode(), 0o600)


def make_key(state_dir: str) -> None:
    """See that the node has a key of its own."""
    if not claim_records.node_key(state_dir):
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        atomic.write(os.path.join(state_dir, "key"), os.urandom(32), 0o600)
