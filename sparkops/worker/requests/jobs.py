"""The node's jobs, listed and cancelled."""

from collections.abc import Mapping

from sparkops.worker.calls import Call
from sparkops.worker.system import jobs


def _list(call: Call, args: dict[str, object]) -> list[dict[str, object]]:
    return jobs.running()


def _cancel(call: Call, args: Mapping[str, str]) -> bool:
    return jobs.cancel_folder(jobs.folder_of(args["key"]))


CALLS = {"list": _list, "cancel": _cancel}
