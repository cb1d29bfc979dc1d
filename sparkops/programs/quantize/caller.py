"""The caller's side of the quantize program: a job of a node, with the rights to use Docker."""

import os
from collections.abc import Callable

from sparkops.programs import runner
from sparkops.programs.progress import Listener, Reporter
from sparkops.programs.quantize import main
from sparkops.programs.quantize.container import GRACE, name_of, remove

PROGRAM = main.__name__


def quantize(spec: main.Spec, job: Reporter, pull: Callable[[str], None]) -> str:
    """Run the program; `pull` pulls an image by its name where it is missing. Returns the output folder.

    Raises Refused. A cancelled run leaves what the container wrote, for the next one.
    """
    while image := runner.run(PROGRAM, spec, Listener(job), grace=2.0 * GRACE):
        pull(image)
    return spec["output"]


def discard(output: str) -> None:
    """Stop and remove the container of an output folder that is no longer wanted. Raises Refused."""
    if os.path.lexists(output):
        remove(name_of(output))
