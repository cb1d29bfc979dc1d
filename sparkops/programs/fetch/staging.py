"""The staging folder, which is the working directory: contents of earlier runs, pushed ones, and adopted ones.

It opens nothing above its working directory but the declared places to adopt from.
"""

import os
import stat

from sparkops.core.descriptors import closing
from sparkops.programs.checkpoints.folder import status_of
from sparkops.programs.checkpoints.local_sources import Sources, take_over
from sparkops.programs.checkpoints.proof import identity, lasting
from sparkops.programs.fetch.existing import File, hash_recorded
from sparkops.programs.fetch.partial_file import Content
from sparkops.programs.parallel import on_all_cores
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output

PUSHED = ".pushed"
"""How the name of a content ends that was pushed and is not verified yet."""
Wanted = dict[str, int]
"""Contents by oid, with their bytes."""


class Staging:
    """The contents in the staging folder of `folder`. `known` are oids by the identities of files that were read."""

    def __init__(self, folder: str, known: dict[str, str], output: Output) -> None:
        self._folder, self._known, self._output = folder, known, output

    def undo_layout(self, files: list[File]) -> None:
        """Undo the layout of a run that ended before it was published: contents get the names of their oids again."""
        for path, _, oid in files:
            place = Content(oid, 0).place
            if os.path.lexists(path) and not os.path.lexists(place) and _real_parents(path):
                os.replace(path, place)

    def verify(self, wanted: Wanted) -> Wanted:
        """Verify what of `wanted` is there or was pushed; what is still missing."""
        unsure: list[tuple[Content, str]] = []
        missing = dict(wanted)
        for oid, size in wanted.items():
            content = Content(oid, size)
            if content.proven() or self._read_already(content):
                del missing[oid]
                continue
            for path in (content.place, content.place + PUSHED):
                status = status_of(path)
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_size == size:
                    unsure.append((content, path))
        tracker = Tracker(self._output, "verifying", sum(content.size for content, _ in unsure))

        def verify(each: tuple[Content, str]) -> None:
            if self._verify(*each, tracker):
                missing.pop(each[0].oid, None)

        on_all_cores(verify, unsure)
        return missing

    def _read_already(self, content: Content) -> bool:
        """Whether it was linked from where its content was read, and is unchanged since."""
        status = status_of(content.place)
        return status is not None and self._known.get(identity(status)) == content.oid

    def _verify(self, content: Content, path: str, tracker: Tracker) -> bool:
        """Hash a file of the staging folder; the right one gets its name, the wrong one is removed."""
        pushed = path.endswith(PUSHED)
        with closing(os.open(path, (os.O_RDWR if pushed else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)) as handle:
            found = hash_recorded(handle, content.oid, content.size, tracker, self._output)
            if pushed:
                os.fsync(handle)
        if found != content.oid:
            os.unlink(path)
            self._output.notice("content-removed", folder=self._folder, file=os.path.basename(path), found=found)
            return False
        if path != content.place:
            os.replace(path, content.place)
        content.note_proven()
        return True

    def adopt(self, files: list[File], wanted: Wanted, sources: Sources) -> Wanted:
        """Take over from the sources what is missing; what is still missing."""
        missing = dict(wanted)
        found: dict[str, list[str]] = {}
        for path, size, oid in files:
            if oid in wanted and size > 0:
                others = found.setdefault(oid, [])
                others += [each for each in sources.candidates(path, oid, size) if each not in others]
        candidates = {oid: places for oid, places in found.items() if places}
        tracker = Tracker(self._output, "adopting", sum(wanted[oid] for oid in candidates))
        ways: list[str] = []

        def adopt(oid: str) -> None:
            for source in candidates[oid]:
                content = Content(oid, wanted[oid])
                before = os.stat(source)
                way = take_over(source, content.place)
                if self._unchanged(content, before) or self._verify(content, content.place, tracker):
                    ways.append(way)
                    missing.pop(oid, None)
                    return
                self._output.notice("adopted-file-wrong", folder=self._folder, source=source)

        on_all_cores(adopt, candidates)
        self._report(sources, ways)
        return missing

    def _unchanged(self, content: Content, before: os.stat_result) -> bool:
        """Whether what was taken over is the very file that was read at `before` and had that content."""
        known = self._known.get(identity(before)) == content.oid
        if known and lasting(os.lstat(content.place)) == lasting(before):
            content.note_proven()
            return True
        return False

    def _report(self, sources: Sources, ways: list[str]) -> None:
        if ways:
            counts = [f"{ways.count(way)} by {way}" for way in sorted(set(ways))]
            self._output.notice("files-adopted", folder=self._folder, count=len(ways), ways=counts)
        for id, paths in (
            ("adopt-links-dangling", sources.dangling),
            ("adopt-sizes-differ", sources.resized),
            ("adopt-listing-unreadable", sources.unreadable),
            ("adopt-place-unreadable", sources.denied),
        ):
            if paths:
                self._output.notice(id, folder=self._folder, count=len(paths), first=paths[0])


def _real_parents(path: str) -> bool:
    """Whether the folders on the way are folders, not links."""
    parts = path.split("/")[:-1]
    return all(not os.path.islink("/".join(parts[: n + 1])) for n in range(len(parts)))
