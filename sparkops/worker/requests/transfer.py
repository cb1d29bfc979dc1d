"""Whether this node reaches another one that passes content on."""

from sparkops.programs.transfer import client

CALLS = {"reach": client.reach}
