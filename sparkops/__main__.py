"""The entry point: answers `--version` at once, and hands everything else to the command line.

The command-line library is imported only when a command runs, so that what needs no library pays for none.
"""

import signal
import sys


def main() -> int:
    """Run one command; returns the exit status of DESIGN's table."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from sparkops import __version__

        print(f"sparkops {__version__}")
        return 0
    from sparkops.cli.app import run

    status = run(sys.argv[1:])
    # The interpreter's own end gives signals their default back: a Ctrl-C there would turn the status into a death.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(main())
