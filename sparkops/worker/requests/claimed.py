"""What the records of claims on this node say, and bringing this cluster's up to date.

It must not know which claims a cluster still means: the controller names those.
"""

from sparkops.core.messages import ClaimsAnswer, ClaimsNote, ClaimsRequest
from sparkops.worker.calls import Call
from sparkops.worker.record import claim_records
from sparkops.worker.requests import lock


def observe(ask: ClaimsRequest) -> ClaimsAnswer:
    """This cluster's claims that are not `declared`, and those of others on what is.

    `ask`: state_dir, cluster, its `former` name, `declared` ("KIND NAME", …), `strays` to look at claims beyond those,
    `whole` to get the declared ones' entries too. Answers `strays` (each entry with what `state` says), `foreign`
    ({key: {cluster: shared}}), `claims`, `renamed` where there are claims of the former name, and `locked` where
    another run works here.
    """
    declared = set(ask["declared"])
    strays: dict[str, dict[str, object]] = {}
    claims: dict[str, dict[str, object]] = {}
    others: dict[str, dict[str, bool]] = {}
    records = claim_records.records(ask["state_dir"])
    renamed = ask["former"] != ask["cluster"] and ask["former"] in records
    mine, records = claim_records.own(ask["state_dir"], ask["cluster"], ask["former"])
    for cluster, record in records.items():
        for key in record:
            others.setdefault(key, {})[cluster] = bool(record[key].get("shared"))
    for key, entry in mine.items():
        if key in declared:
            if ask.get("whole"):
                claims[key] = entry
        elif ask.get("strays"):
            strays[key] = {**entry, **claim_records.state(ask["state_dir"], entry, others.get(key, {}))}
    foreign = {key: others[key] for key in others if key in declared}
    locked = lock.locked(ask["state_dir"])
    return {"strays": strays, "foreign": foreign, "claims": claims, "renamed": renamed, "locked": locked}


def note(call: Call, args: ClaimsNote) -> None:
    from sparkops.worker.record import claims  # acts only: a look does not pay for it

    claims.take_over(args["state_dir"], args["cluster"], args["former"])
    claims.note(args["state_dir"], args["cluster"], args["claims"], args["drop"])


CALLS = {"note": note}
