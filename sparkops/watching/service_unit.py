"""The systemd service of a watcher, as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparkops.compile.expressions import quote_systemd

TEXT = """\
# /etc/systemd/system/sparkops-watch.service
# A service and no timer: connections are kept from round to round, and a finding that has to stand for a while
# (--hold) is remembered between them. `systemctl reload sparkops-watch` reads the inventory again.
# No SSH agent and no terminal is here: keys are files without a passphrase, passwords come from the inventory.
[Unit]
Description=sparkops watch {inventory}
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
{environment}ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=1
TimeoutStopSec=120
# The watcher itself: the signal is not for the commands that it runs.
KillMode=mixed

[Install]
WantedBy=multi-user.target
"""


def service_unit(
    command: Sequence[str], *, inventory: str, user: str, folder: Path, environment: Mapping[str, str]
) -> str:
    """The unit that runs `command` in a folder as a user. Raises ValueError for what no unit file can carry."""
    lines = (f"Environment={quote_systemd(f'{name}={value}')}\n" for name, value in sorted(environment.items()))
    return TEXT.format(
        inventory=quote_systemd(inventory),
        user=user,
        folder=str(folder).replace("%", "%%"),
        environment="".join(lines),
        command=" ".join(quote_systemd(each, command=True) for each in command),
    )
