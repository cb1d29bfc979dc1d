"""Facts of the keys by which the ranks of this node's services know each other's messages: a fingerprint each."""

import os

from sparkops.core.group_keys import FOLDER, SUFFIX, fingerprint
from sparkops.worker.system.root import at


def fingerprints(root: str) -> "dict[str, str]":
    """By service; {} where there are none. Raises OSError where they can't be read."""
    folder = at(root, FOLDER)
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(SUFFIX):
            with open(os.path.join(folder, name), "rb") as file:
                found[name.removesuffix(SUFFIX)] = fingerprint(file.read())
    return found
