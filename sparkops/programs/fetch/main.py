"""Bring the files of a manifest into a staging folder, or verify those of a folder: the program, run as the owner.

In this order: verify what the published folder holds, what staging has from earlier runs and what was pushed; adopt
from other places of this machine; fetch the rest; lay the staging folder out as it will be published. It publishes
nothing itself.

Records are `{"hashed": [identity, oid]}` for each file that was read and `{"prefixes": [oid, digests]}`. The result is
`{"in_place": true}` where only the record had to be written, `{"staged": {path: identity}}`, in mode `list`
`{"missing": [[path, size, oid, bytes pushed]]}`; in mode `verify` the `ExistingFolder.summary`, in mode `compare` what
`compare` returns.
"""

import os
import stat
from typing import Any, Literal, TypedDict

from sparkops.core import atomic
from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import PeerOrder
from sparkops.core.messages import Refused
from sparkops.programs import disk
from sparkops.programs.checkpoints.folder import Files, status_of, write_record
from sparkops.programs.checkpoints.local_sources import Sources, take_over
from sparkops.programs.checkpoints.proof import identity
from sparkops.programs.fetch import download
from sparkops.programs.fetch.compare import compare
from sparkops.programs.fetch.existing import ExistingFolder, File, record_prefixes
from sparkops.programs.fetch.http import Hub
from sparkops.programs.fetch.partial_file import Content, make_store
from sparkops.programs.fetch.staging import PUSHED, Staging, Wanted
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output
from sparkops.programs.transfer.client import Peer


class Spec(TypedDict, total=False):
    """What the program is given.

    mode: `fetch`, `staged` (all was pushed), `list` (what would have to be pushed), `verify`, `compare`.
    folder: the published folder's path, for messages and for adopting from it.
    existing, staging: descriptors of the published and the staging folder.
    files: the manifest's, `[[path, bytes, oid]]`; `previous`: the paths that the published record names.
    known: oids by identity of files that were read before; `prefixes`: prefix digests by oid.
    record: the text of the record. adopt: places to look into, as `local_sources.Sources` takes them.
    hub: `{endpoint, repository, commit, token}`; `peer`: another node instead (`transfer.client.Peer`).
    options: of `download.Options`.
    """

    mode: Literal["fetch", "staged", "list", "verify", "compare"]
    folder: str
    existing: int | None
    staging: int
    files: Files
    previous: list[str]
    known: dict[str, str]
    prefixes: dict[str, list[str]]
    record: str
    adopt: list[str]
    repository: str
    commit: str
    hub: dict[str, str]
    peer: PeerOrder | None
    options: dict[str, Any]


def work(spec: Spec, output: Output) -> dict[str, object]:
    """Do what `mode` says. Raises Refused."""
    existing = ExistingFolder(spec.get("existing"), output)
    existing.require(spec["folder"])
    files: list[File] = [(path, size, oid) for path, size, oid in spec["files"]]
    if spec["mode"] == "verify":
        existing.verify(files, spec["known"])
        if existing.unreadable:
            raise Refused("files-unreadable", existing.denied(spec["folder"]))
        return existing.summary(files)
    if spec["mode"] == "compare":
        return {**compare(spec["folder"], Sources([spec["folder"]], spec["repository"], spec["commit"]), files,
                          spec["known"], output)}  # fmt: skip
    os.fchdir(spec["staging"])
    order = spec.get("peer")
    peer = Peer(order, files) if order else None
    try:
        return FetchJob(spec, files, existing, peer, output).run()
    except OSError as error:
        raise disk.full(error, spec["folder"]) from None
    finally:
        if peer is not None:
            peer.done()


class FetchJob:
    """Staging brought to hold the files of one spec."""

    def __init__(
        self, spec: Spec, files: list[File], existing: ExistingFolder, peer: Peer | None, output: Output
    ) -> None:
        self._spec, self._files, self._existing, self._peer, self._output = spec, files, existing, peer, output
        self._staging = Staging(spec["folder"], spec["known"], output)

    def run(self) -> dict[str, object]:
        """All of it, up to the layout."""
        mode, existing = self._spec["mode"], self._existing
        existing.verify(self._files, self._spec["known"])
        if len(existing.verified) == len(self._files):
            if mode == "list":
                return {"missing": []}
            if not self._surplus() and existing.writable:
                return self._in_place()
        if existing.unreadable:
            self._output.notice("files-not-used", folder=self._spec["folder"], **existing.denied(self._spec["folder"]))
        make_store()
        self._staging.undo_layout(self._files)
        wanted = {oid: size for _, size, oid in self._files if oid not in self._held()}
        wanted = self._staging.verify(wanted)
        wanted = self._staging.adopt(self._files, wanted, self._sources())
        if wanted or mode == "list":
            missing = self._missing(wanted)
            if mode == "list":
                return {"missing": missing}
            if mode == "staged":
                raise Refused.of("files-not-pushed", count=len(missing), first=missing[0][0])
            self._fetch(wanted)
        self._lay_out()
        return {"staged": {path: identity(os.lstat(path)) for path, _, _ in self._files}}

    def _sources(self) -> Sources:
        places, folder = list(self._spec["adopt"]), self._spec["folder"]
        if self._existing.links and folder not in places:
            places.append(folder)
        return Sources(places, self._spec["repository"], self._spec["commit"])

    def _held(self) -> dict[str, str]:
        """A verified path of the published folder for each content in it."""
        return {oid: path for path, _, oid in self._files if path in self._existing.verified}

    def _surplus(self) -> bool:
        """Whether the published folder has what its record names and the manifest does not."""
        gone = set(self._spec["previous"]) - {path for path, _, _ in self._files}
        return any(self._existing.status(path) is not None for path in gone)

    def _in_place(self) -> dict[str, object]:
        """The published folder holds everything: only its record is written."""
        assert self._existing.handle is not None
        os.fchdir(self._existing.handle)
        write_record(self._spec["record"])
        return {"in_place": True}

    def _missing(self, wanted: Wanted) -> list[list[object]]:
        """`[[path, size, oid, bytes pushed]]` of what is missing. Raises Refused where it can't fit on the disk."""
        missing: list[list[object]] = []
        need = 0
        first = {oid: path for path, _, oid in reversed(self._files)}
        for oid, size in wanted.items():
            content = Content(oid, size)
            status, part = status_of(content.place + PUSHED), status_of(content.part)
            pushed = status.st_size if status is not None else 0
            taken = min(size, part.st_blocks * 512 if part is not None else 0)
            need += max(0, size - (pushed if self._spec["mode"] == "list" else taken))
            missing.append([first[oid], size, oid, pushed if pushed <= size else 0])
        disk.require(need, self._spec["folder"])
        return missing

    def _fetch(self, wanted: Wanted) -> None:
        peer, count, total = self._peer, len(wanted), sum(wanted.values())
        source: download.Source = peer or Hub(**self._spec["hub"])
        text = f"receiving {count} files from {peer.way}" if peer else f"fetching {count} files"
        names = {oid: path for path, _, oid in reversed(self._files)}
        contents = [Content(oid, size, self._spec["prefixes"].get(oid, ())) for oid, size in wanted.items()]
        repaired = [content for content in contents if self._repair(content, names[content.oid])]
        self._output.progress(text, 0, total)
        download.Fetch(
            source,
            download.Options(**self._spec["options"]),
            Tracker(self._output, text, total).add,
            self._output.check,
            lambda content: record_prefixes(self._output, content.oid, content.prefixes),
        ).run([(content, names[content.oid]) for content in contents])
        for content in repaired:
            fetched = content.lacking if content.repairable else content.size
            file, folder = names[content.oid], self._spec["folder"]
            self._output.notice("file-repaired", folder=folder, file=file, fetched=fetched, size=content.size)

    def _repair(self, content: Content, path: str) -> bool:
        """Begin with the damaged file of the published folder where its spans can be told apart; True for a repair."""
        status = self._existing.status(path)
        if not content.repairable or status is None or not stat.S_ISREG(status.st_mode):
            return False
        if path in self._existing.unreadable:
            return False
        if not os.path.exists(content.place + ".json"):
            with closing(self._existing.open(path)) as handle:
                size = min(content.size, status.st_size)
                content.copy_from(handle, Tracker(self._output, f"copying {path}", size).read)
        return True

    def _lay_out(self) -> None:
        """The staging folder becomes the manifest's files and the record."""
        for name in os.listdir("."):
            if name != ".sparkops":
                atomic.remove(name)
        last = {oid: path for path, _, oid in self._files}
        held = self._held()
        for path, _, oid in self._files:
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            if path in self._existing.verified or oid in held:
                self._existing.link(path if path in self._existing.verified else held[oid], path)
            elif last[oid] == path:
                os.rename(Content(oid, 0).place, path)
            else:
                take_over(Content(oid, 0).place, path)
        for name in os.listdir(".sparkops"):
            atomic.remove(os.path.join(".sparkops", name))
        write_record(self._spec["record"])
        for folder, _, _ in os.walk("."):
            atomic.sync(folder)
