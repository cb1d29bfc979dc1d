"""paramiko, loaded without what it loads for `Match exec` alone.

paramiko imports `invoke` (and by it asyncio and unittest) to run the commands of `Match exec` in SSH's configuration:
a third of its own loading time, for what hardly any configuration has. Where one has it, `match_exec` loads it then.
"""

from __future__ import annotations

import sys


def _load() -> None:
    if "paramiko" in sys.modules or "invoke" in sys.modules:
        return
    sys.modules["invoke"] = None  # type: ignore[assignment]  # an import of it now fails, which paramiko allows for
    try:
        import paramiko  # noqa: F401
    finally:
        del sys.modules["invoke"]


_load()


def match_exec() -> None:
    """Make `Match exec` work in paramiko's parser of configurations."""
    from paramiko import config

    if config.invoke is None:  # type: ignore[attr-defined]
        import invoke  # type: ignore[import-not-found, unused-ignore]

        config.invoke = invoke  # type: ignore[attr-defined]
