"""`python -m tests.audit`: known vulnerabilities in what is installed beside sparkops, by pip-audit.

The network decides nothing here: without an answer of the vulnerability service the audit is left out, and that is
said in one line; what the service was not able to tell about is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LIMIT = 20.0
"""Seconds for the whole audit; `make check` takes less than a minute."""
AUDIT = ("pip_audit", "--local", "--skip-editable", "--progress-spinner=off", "--timeout=5", "--format=json")


def verdict(answer: str, said: str) -> tuple[int, str]:
    """The exit status and the words for what pip-audit printed: its JSON, and its standard error."""
    try:
        asked: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (said.strip().splitlines() or ["it printed nothing"])[-1]
        return 0, f"audit left out: {last}"
    bad = [_told(each) for each in asked if each.get("vulns")]
    silent = [each["name"] for each in asked if "skip_reason" in each]
    if bad:
        return 1, "\n".join(["known vulnerabilities:", *bad])
    if len(silent) == len(asked):
        return 0, "audit left out: the service told nothing about any package"
    words = f"audit: {len(asked) - len(silent)} packages without a known vulnerability"
    return 0, words + (f"; nothing is told about {', '.join(silent)}" if silent else "")


def _told(package: dict[str, Any]) -> str:
    faults = package["vulns"]
    mended = dict.fromkeys(version for fault in faults for version in fault["fix_versions"])
    names = ", ".join(fault["id"] for fault in faults)
    return f"{package['name']} {package['version']}: {names} (mended in {', '.join(mended) or 'no version yet'})"


def main() -> int:
    """Ask, print, and give the exit status: 1 only for a known vulnerability."""
    try:
        done = subprocess.run([sys.executable, "-m", *AUDIT], capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        print(f"audit left out: no answer within {LIMIT:.0f} s")
        return 0
    status, words = verdict(done.stdout, done.stderr)
    print(words)
    return status


if __name__ == "__main__":
    sys.exit(main())
