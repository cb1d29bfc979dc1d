"""Packages on the node: seen by one dpkg-query for all, changed by apt-get, never at the price of another package.

A package manager is never killed: it outlives the session, and the next run waits for its lock.
"""

import contextlib
import fnmatch
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from sparkops.core.kind_messages import PackageAct, PackageAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import long_process, processes
from sparkops.worker.system.root import at

FORMAT = "${Package}\t${Architecture}\t${Version}\t${Status}\n"
PRESENT = frozenset(
    {"installed", "half-configured", "unpacked", "half-installed", "triggers-awaited", "triggers-pending"}
)
SETTLED = frozenset({"installed", "triggers-awaited", "triggers-pending"})
"""States that count as installed: pending triggers are run by dpkg itself, at its next turn."""
ENV = {
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
}
"""No questions, and no restarts of services behind the user's back."""
LOCK_WAIT = 60
LIMIT = 1800.0
FRESH = 3600.0
"""Seconds for which a package list counts as new, unless a source was added meanwhile."""
STAMP = "/run/sparkops/apt-updated"
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/preferences.d")
SHOWN = ("Get:", "Fetched ", "Preparing ", "Unpacking ", "Setting up ", "Removing ", "Processing ", "Waiting ")
CAUSES = {
    "dpkg was interrupted": "apt-dpkg-interrupted",
    "Could not get lock": "apt-locked",
    "remove is disabled": "apt-removal-disabled",
    "Held packages were changed": "apt-package-held",
    "No space left": "apt-disk-full",
    "enough free space": "apt-disk-full",
    "unmet dependencies": "apt-dependencies-unmet",
}
"""What apt-get prints, and the id of the error."""


class Package(NamedTuple):
    """One line of dpkg-query: a package that has something on the disk."""

    name: str
    architecture: str
    version: str
    wish: str
    status: str


def observe_many(asks: dict[str, PackageAsk]) -> dict[str, object]:
    """status, version and hold of each named package; held and unheld names for each pattern."""
    packages = parse(processes.output(["dpkg-query", "--show", "--showformat=" + FORMAT]))
    return {identity: _state(ask, packages) for identity, ask in asks.items()}


def parse(text: str) -> list[Package]:
    """The packages of dpkg-query's answer that have something on the disk. Raises Unknown for another answer."""
    found = []
    for line in text.splitlines():
        fields = line.split("\t")
        status = fields[-1].split()
        if len(fields) != 4 or len(status) != 3:
            raise Unknown.of("program-output-invalid", program="dpkg-query")
        if status[2] in PRESENT:
            found.append(Package(fields[0], fields[1], fields[2], status[0], status[2]))
    return found


def _state(ask: PackageAsk, packages: list[Package]) -> dict[str, object] | None:
    name: str = ask["name"]
    if ask["pattern"]:
        matching = [each for each in packages if fnmatch.fnmatchcase(each.name, name)]
        return {
            "held": sorted({each.name for each in matching if each.wish == "hold"}),
            "unheld": sorted({each.name for each in matching if each.wish != "hold"}),
        }
    found = of_name(name, packages)
    if found is None:
        return None
    status = "installed" if found.status in SETTLED else found.status
    return {"status": status, "version": found.version, "hold": found.wish == "hold"}


def of_name(name: str, packages: list[Package]) -> Package | None:
    """The package of a name, of the node's own architecture unless the name says another (`libc6:arm64`)."""
    bare, _, architecture = name.partition(":")
    native = next((each.architecture for each in packages if each.name == "dpkg"), "")
    wanted = (architecture,) if architecture else (native, "all")
    return next((each for each in packages if each.name == bare and each.architecture in wanted), None)


def converge(call: Call, ask: PackageAsk, found: State, want: State, act: PackageAct) -> None:
    """Install, change, remove, hold or release. `act`: `update` the package lists first, `holds` (hold is declared)."""
    name: str = ask["name"]
    if ask["pattern"]:
        key = "unheld" if "unheld" in (want or {}) else "held"
        processes.run(["apt-mark", "hold" if key == "unheld" else "unhold", *(found or {})[key]])
        return
    if want is None:
        _remove(call, name, holds=act["holds"])
        return
    if found is None or found["status"] != "installed" or not matches(found["version"], want.get("version")):
        _install(call, name, want.get("version"), act)
    if "hold" in want:
        processes.run(["apt-mark", "hold" if want["hold"] else "unhold", name])


def matches(version: str, wanted: str | None) -> bool:
    """Whether a version is the wanted one, exactly or by a pattern such as `580.95.*`."""
    return wanted is None or version == wanted or fnmatch.fnmatchcase(version, wanted)


def _install(call: Call, name: str, version: str | None, act: PackageAct) -> None:
    trouble = _update(call) if act["update"] else None
    argv = ["install", "--no-install-recommends", "--no-remove"]
    if act["holds"]:
        argv.append("--allow-change-held-packages")
    try:
        if version is not None:
            argv.append("--allow-downgrades")
            name = f"{name}={_choose(call, name, version, renew=act['update'])}"
        _apt(call, [*argv, name])
    except Refused as error:
        if not trouble:
            raise
        raise Refused.of(
            "package-lists-outdated", detail=error.detail, reason=error.reason, update=trouble.reason
        ) from None


def _choose(call: Call, name: str, version: str, *, renew: bool) -> str:
    """The newest version that the node's repositories have and that matches; with `renew` also one of a minute ago."""
    offered = versions(processes.ask(["apt-cache", "madison", name])[1])
    if renew and not any(matches(each, version) for each in offered):
        with contextlib.suppress(Refused):
            _apt(call, ["update"])
        offered = versions(processes.ask(["apt-cache", "madison", name])[1])
    for each in offered:
        if matches(each, version):
            return each
    if not offered:
        raise Refused.of("package-not-in-repositories", name=name)
    raise Refused.of("package-version-missing", name=name, version=version, offered=offered)


def versions(madison: str) -> list[str]:
    """The versions in `apt-cache madison`'s answer, newest first as it gives them."""
    rows = [[field.strip() for field in line.split("|")] for line in madison.splitlines()]
    return list(dict.fromkeys(row[1] for row in rows if len(row) == 3 and row[2].endswith("Packages")))


def _update(call: Call) -> Refused | None:
    """Renew the package lists where they are old; returns what went wrong, which need not matter."""
    if fresh(time.time()):
        return None
    try:
        _apt(call, ["update"])
    except Refused as error:
        return error
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(STAMP), mode=0o755, exist_ok=True)
        with open(STAMP, "w", encoding="utf-8"):
            os.utime(STAMP)
    return None


def fresh(now: float, *, root: str = "/") -> bool:
    """Whether the lists were renewed lately, and after the last change of the sources."""
    try:
        renewed = os.stat(at(root, STAMP)).st_mtime
    except OSError:
        return False
    paths = [at(root, source) for source in SOURCES]
    for folder in tuple(paths):
        with contextlib.suppress(OSError):
            paths += [os.path.join(folder, name) for name in os.listdir(folder)]
    changed = [0.0]
    for path in paths:
        with contextlib.suppress(OSError):
            changed.append(os.stat(path).st_mtime)
    return now - FRESH < renewed <= now and renewed > max(changed)


def _remove(call: Call, name: str, *, holds: bool) -> None:
    held = ["--allow-change-held-packages"] if holds else []
    code, out, _ = processes.ask(["apt-get", "--simulate", *held, "remove", "--", name], timeout=60.0)
    others = sorted(removed(out) - {name, name.partition(":")[0]})
    if code == 0 and others:
        raise Refused.of("package-removes-others", name=name, others=others)
    _apt(call, ["remove", *held, name])


def removed(simulation: str) -> set[str]:
    """The packages that a simulated apt-get run would take away."""
    lines = (line.split() for line in simulation.splitlines())
    return {words[1].partition(":")[0] for words in lines if len(words) > 1 and words[0] in ("Remv", "Purg")}


def _apt(call: Call, words: list[str]) -> None:
    """Run apt-get; where an earlier run was cut off by a power loss, let dpkg finish that and run again."""
    try:
        _apt_once(call, words)
    except Refused as error:
        if "dpkg was interrupted" not in error.detail:
            raise
        call.progress("dpkg was interrupted earlier; letting it finish")
        argv = ["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"]
        long_process.run(call, argv, timeout=LIMIT, env=ENV, line=_teller(call))
        _apt_once(call, words)


def _apt_once(call: Call, words: list[str]) -> None:
    options = ["-y", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_WAIT}"]
    options += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
    try:
        long_process.run(call, ["apt-get", *options, *words], timeout=LIMIT, env=ENV, line=_teller(call))
    except Refused as error:
        if error.type == "cancelled":
            raise
        said = [line[2:].strip() for line in error.detail.splitlines() if line.startswith("E:")]
        id = next((id for part, id in CAUSES.items() if part in error.detail), "apt-failed" if said else "")
        if not id:
            raise
        raise Refused.of(id, detail=error.detail, command=words[0], text=said[0] if said else "") from None


def _teller(call: Call) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if line.startswith(SHOWN):
            call.progress(line[:120])

    return tell
