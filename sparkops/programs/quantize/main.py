"""The quantize program: AutoRound in a container, on a base at 16 bit. It needs Docker: root, or its group.

What reads the base and what the container wrote is `folder`, a program that this one runs as the owner of the files.
"""

import contextlib
import os
import pwd
from typing import Any, TypedDict

from sparkops.core.descriptors import FOLDER
from sparkops.programs import docker, runner
from sparkops.programs.checkpoints.folder import give
from sparkops.programs.progress import Listener
from sparkops.programs.protocol import Output
from sparkops.programs.quantize import folder
from sparkops.programs.quantize.container import Container, remove


class Spec(TypedDict):
    """`options`: all that the step takes (models/quantize_step.py), defaults filled in; `base` and `output`: folders;
    `user`: the id of whom they belong to."""

    options: dict[str, Any]
    base: str
    output: str
    user: int


def work(spec: Spec, output: Output) -> str:
    """Fill the output folder with the quantized base. Returns "", or the image that has to be pulled first.

    If it is complete already, nothing is done. Raises Refused.
    """
    owner, options = pwd.getpwuid(spec["user"]), spec["options"]
    base = os.open(spec["base"], FOLDER)

    def as_owner(mode: str, **more: Any) -> Any:
        given = {"mode": mode, "base": base, **more}
        descriptors = [each for each in (base, more.get("output")) if each is not None]
        return runner.run(folder.__name__, given, Listener(), user=owner, descriptors=descriptors)

    sizes = as_owner("survey", options=options)
    container = Container(options, sizes, spec["output"], f"{owner.pw_uid}:{owner.pw_gid}", output)
    target = {"output": _stage(spec["output"], owner), "identity": container.identity}
    if not as_owner("is_complete", **target):
        if not container.is_usable():
            container.require_memory()
            container.require_disk(as_owner("prepare", **target))
            if docker.inspect_image(options["image"]) is None:
                return str(options["image"])
            container.start(spec["base"])
        container.follow()
        output.progress("checking what AutoRound wrote")
        as_owner("take", **target)
    remove(container.name)
    return ""


def _stage(path: str, owner: pwd.struct_passwd) -> int:
    """The output folder, created if it does not exist, as the owner's; its descriptor."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    handle = os.open(path, FOLDER)
    give(handle, owner)
    return handle
