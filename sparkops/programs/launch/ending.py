"""How a launcher ends, and its lines in the journal."""

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
