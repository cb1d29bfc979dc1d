"""The hashes of all files of any folder, as a job; a second request of an unchanged folder costs file statuses only."""

from typing import Any

from sparkops.programs.fetch import caller
from sparkops.worker.calls import Call
from sparkops.worker.system import jobs

State = dict[str, Any]


def folder(call: Call, args: State) -> State:
    """`{folder, state_dir}` → `{files: [[path, size, oid]], repository, commit}`, the last two "" without a record."""
    return dict(jobs.run(call, f"checkpoint {args['folder']}", __name__, "hash", args, attach="hash"))


JOBS = {"hash": lambda job, args: caller.hash_folder(args["folder"], args["state_dir"], job)}
CALLS = {"folder": folder}
