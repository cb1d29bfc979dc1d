"""What systemd is told: exit statuses, lines in the journal, how it goes; and what it tells by signals."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable

ENGINE_UNAVAILABLE = 69  # EX_UNAVAILABLE: Docker does not answer, or the image is not on the node
LAUNCHER_DEFECT = 70  # EX_SOFTWARE
START_REFUSED = 71  # EX_OSERR: Docker would not create or start the container
ENGINE_ENDED = 72  # the engine ended unasked, with a status that means something else here (0, 78)
NO_COMPLETION = 74  # EX_IOERR: the engine ran and never answered
NO_MEMORY = 75  # EX_TEMPFAIL: too little memory became free
HUNG = 76  # no sign of life within the watchdog's time
WRONG_SPEC = 78  # EX_CONFIG: another start would end alike; systemd does not try again (RestartPreventExitStatus)
STOOD_STILL = "systemd's watchdog was not fed: the machine, or this launcher, stood still"


class Failed(Exception):
    """An end with a reason: `status` is the exit status."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


def say(text: str) -> None:
    """A line of ours in the journal, told apart from the engine's."""
    print(f"sparkops: {text}", flush=True)


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


def take_signals(handle: "Callable[[int], None]") -> None:
    """In a thread of their own: a handler in the main thread could need a lock that this thread holds."""
    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGABRT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def take() -> None:
        while True:
            handle(signal.sigwait(numbers))

    threading.Thread(target=take, daemon=True).start()
