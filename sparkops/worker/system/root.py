"""Where a node's own files are: below `root`, which is "/" but for a test's folder or a mounted file system."""

import os

UNITS = "/etc/systemd/system"
SPECS = "/etc/sparkops/services"
"""Where the specs of services are, and their secret environments."""


def at(root: str, path: str) -> str:
    """The absolute `path` of the node below `root`."""
    return os.path.join(root, path.lstrip("/"))
