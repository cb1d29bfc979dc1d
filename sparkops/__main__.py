"""The entry point: answers `--version` at once, and hands everything else to the command line.

The command-line library is imported only when a command runs, so that what needs no library pays for none.
"""

import os
import signal
import sys


def main() -> int:
    """Run one command; returns the exit status of DESIGN's table."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from sparkops import __version__
        from sparkops.cli import process

        try:
            print(f"sparkops {__version__}", flush=True)
        except OSError as error:
            process.prepare()
            print(f"error: standard output: {error.strerror}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 74
        return 0
    if sys.getfilesystemencoding() != "utf-8":  # the locale's own; file names and arguments are read by it already
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    from sparkops.cli import process
    from sparkops.cli.app import run

    process.prepare()
    status = run(sys.argv[1:])
    # The interpreter's own end gives signals their default back: a Ctrl-C there would turn the status into a death.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(main())
