"""Who on this node uses a folder or an image: containers, units, services' specs, programs, jobs, other clusters.

Looking only. What can't be looked at is never taken for unused: in doubt it says used, or why it can't tell.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sparkops.core.descriptors import names
from sparkops.core.messages import Reason, reason
from sparkops.programs import docker
from sparkops.worker.calls import Unknown
from sparkops.worker.record import generations
from sparkops.worker.record.claim_records import Record
from sparkops.worker.system import jobs
from sparkops.worker.system.root import SPECS, UNITS, at

PROC = "/proc"
TEXT_LIMIT = 1 << 20
"""Bytes of a unit or a spec that are read."""


@dataclass(frozen=True)
class Uses:
    """What was found at one look. Each question is answered by the first reason found.

    `containers` as the engine lists them; `texts` are units and specs by path; `programs` argument lists by number;
    `others` the claims of other clusters, key → their names; `working` the keys of running jobs. `blind` says why the
    containers could not be looked at.
    """

    containers: list[docker.Answer]
    texts: dict[str, str]
    programs: dict[int, list[str]]
    others: dict[str, list[str]]
    working: list[str]
    blind: Reason | None = None

    @property
    def unknown(self) -> Reason | None:
        """Why it is not known who uses an image or folder that nothing else here names."""
        return reason("gc-use-unknown", reason=self.blind) if self.blind else None

    def without(self, leaving: set[str]) -> "Uses":
        """What is left when the units, specs and folders of generations at these paths are gone, with the containers
        that the specs name.

        Programs are left out: whose they are is not known here.
        """
        gone = {_spec_container(text) for path, text in self.texts.items() if path in leaving}
        containers = [each for each in self.containers if not gone & {*map(_bare, each.get("Names") or [])}]
        texts = {path: text for path, text in self.texts.items() if not leaving & {path, os.path.dirname(path)}}
        return replace(self, containers=containers, texts=texts, programs={})

    def job(self, key: str) -> Reason | None:
        """A job that works on it (`checkpoint /models/x`)."""
        return reason("gc-job-working") if key in self.working else None

    def cluster(self, key: str) -> Reason | None:
        """Another cluster that claims it."""
        clusters = self.others.get(key)
        return reason("gc-used-by-cluster", clusters=clusters) if clusters else None

    def folder(self, path: str) -> Reason | None:
        """Who uses a folder, something in it, or a folder around it."""
        for each in self.containers:
            sources = [str(mount.get("Source") or "") for mount in each.get("Mounts") or []]
            if any(overlaps(path, source) for source in sources):
                return _container(each)
        for place, text in self.texts.items():
            if _mounted(path, text):
                return reason("gc-named-in", path=place)
        for number, argv in self.programs.items():
            if any(_named(path, word) for word in argv):
                return reason("gc-used-by-process", pid=number, program=os.path.basename(argv[0]))
        return self.unknown

    def image(self, called: list[str], identity: str) -> Reason | None:
        """Who uses an image, by one of its names or by the engine's id."""
        for each in self.containers:
            if each.get("ImageID") == identity or each.get("Image") in (*called, identity):
                return _container(each)
        for place, text in self.texts.items():
            if any(
                re.search(rf"(?<![\w.:/@-]){re.escape(name)}(?![\w.:/@-])", text)
                for name in (*called, identity)
                if name
            ):
                return reason("gc-named-in", path=place)
        return self.unknown


def _bare(name: object) -> str:
    return str(name).lstrip("/")


def _spec_container(text: str) -> str:
    """The container that a service's spec names; "" for a unit."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(text).get("container") or "")
    return ""


def overlaps(one: str, other: str) -> bool:
    """Whether one path is the other, lies in it, or around it. The root folder is around nothing: monitors mount it."""
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return "/" not in (one, other) and (one.startswith(other) or other.startswith(one))


def _named(path: str, text: str) -> bool:
    return re.search(rf"(?<![\w/.-]){re.escape(path)}(?![\w.@+-])", text) is not None


def _mounted(path: str, text: str) -> bool:
    """Whether a text names the path, or mounts a folder around it (`-v /srv:/srv`, `source=/srv`)."""
    if _named(path, text):
        return True
    above = os.path.dirname(path)
    while above != "/":
        around = re.escape(above)
        if re.search(rf"(?<![\w/.-]){around}/?:/|(?:source|src)=\"?{around}/?(?![\w/.-])", text):
            return True
        above = os.path.dirname(above)
    return False


def _container(each: docker.Answer) -> Reason:
    called = [*map(_bare, each.get("Names") or []), str(each.get("Id"))[:12]]
    return reason("gc-used-by-container", container=called[0], state=each.get("State") or "unknown")


def look(state_dir: str, records: dict[str, Record], *, root: str = "/") -> Uses:
    """Look at the whole node; `records` are the claims of other clusters by their names. Raises OSError."""
    containers, blind = _containers(at(root, docker.SOCKET))
    others: dict[str, list[str]] = {}
    for name, record in records.items():
        for key in record:
            others.setdefault(key, []).append(name)
    return Uses(
        containers,
        {**dict(texts(root)), **dict(_generations(state_dir))},
        dict(_programs(at(root, PROC))),
        {key: sorted(clusters) for key, clusters in others.items()},
        [str(job["key"]) for job in jobs.running()],
        blind,
    )


def _containers(socket: str) -> tuple[list[docker.Answer], Reason | None]:
    """The engine's containers, none where no engine is installed; and why they are not known."""
    try:
        return docker.containers(at=socket), None
    except Unknown as error:
        installed = os.path.exists(socket) or shutil.which("dockerd") is not None
        return [], error.reason if installed else None


def texts(root: str = "/") -> Iterator[tuple[str, str]]:
    """The units that somebody wrote on this node, their drop-ins, and the specs of services: path and text."""
    for folder, ending in ((at(root, UNITS), ".service"), (at(root, SPECS), ".json")):
        for name in names(folder):
            path = os.path.join(folder, name)
            if name.endswith(ending):
                yield from _text(path)
            elif name.endswith(ending + ".d"):
                for inner in names(path):
                    yield from _text(os.path.join(path, inner))


def _generations(state_dir: str) -> Iterator[tuple[str, str]]:
    """The records of what services can return to: they need their image and checkpoint."""
    folder = os.path.join(state_dir, generations.FOLDER)
    for service in names(folder):
        for name in names(os.path.join(folder, service)):
            yield from _text(os.path.join(folder, service, name))


def _text(path: str) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            yield path, file.read(TEXT_LIMIT).decode(errors="replace")


def _programs(proc: str) -> Iterator[tuple[int, list[str]]]:
    for name in os.listdir(proc):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(os.path.join(proc, name, "cmdline"), "rb") as file:
                argv = file.read(TEXT_LIMIT).decode(errors="replace").split("\0")
            if argv[0]:
                yield int(name), argv
