"""The node's jobs, listed and cancelled."""

from typing import Any

from sparkops.worker.calls import Call
from sparkops.worker.system import jobs


def _list(call: Call, args: dict[str, object]) -> list[dict[str, object]]:
    return jobs.running()


def _cancel(call: Call, args: dict[str, Any]) -> bool:
    return jobs.cancel_folder(jobs.folder_of(args["key"]))


CALLS = {"list": _list, "cancel": _cancel}
