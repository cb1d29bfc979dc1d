"""Real nodes on one machine: containers that run systemd, sshd and a Docker of their own.

The lab is what the end-to-end tests, the benchmarks and `make demo` stand on. It knows nothing of sparkops: it
offers machines to be provisioned, a registry, a model hub, a tiny model and engines that answer. It needs the
standard library only, and leaves the machine it runs on as it was.
"""

from .lab import Lab
from .node import Node

__all__ = ["Lab", "Node"]
