"""The build program, run as the owner of the files: see `spec.py` for what it is given and what it answers."""

import os

from sparkops.programs.build.build import Build
from sparkops.programs.build.check import check
from sparkops.programs.build.spec import Built, Checked, Spec
from sparkops.programs.protocol import Output


def work(spec: Spec, output: Output) -> Built | Checked:
    """Build, or say what a build would do. Raises Refused."""
    os.fchdir(spec["staging"])
    return check(spec, output) if spec["mode"] == "check" else Build(spec, spec["base"], output).work()
