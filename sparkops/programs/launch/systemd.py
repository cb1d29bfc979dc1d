"""What systemd is told."""

import contextlib
import socket


class Systemd:
    """sd_notify(3) without libsystemd."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog = int(environ.get("WATCHDOG_USEC") or 0) / 1e6
        self.status = ""

    def tell(self, **fields: object) -> None:
        """Send these fields; where nobody listens, nothing happens."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        text = "\n".join(f"{key}={value}" for key, value in fields.items())
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(text.encode(), address)

    def phase(self, text: str) -> None:
        """The status line, sent when it differs; a single line."""
        text = " ".join(text.split())[:400]
        if text != self.status:
            self.status = text
            self.tell(STATUS=text)
