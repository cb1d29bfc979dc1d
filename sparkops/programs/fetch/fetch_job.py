"""The work on a checkpoint's content, in a child with the owner's rights whose working directory is the staging folder.

In this order: prove what the published folder holds, what staging holds from earlier runs and what was pushed; adopt
from other places on the node; fetch the rest; lay the staging folder out as it will be published. It opens nothing
above its working directory but the declared places to adopt from, and publishes nothing itself.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.folder import RECORD
from sparkops.programs.checkpoints.foreign_files import carry
from sparkops.programs.checkpoints.local_sources import Sources, take_over
from sparkops.programs.fetch import download
from sparkops.programs.fetch.http import Hub
from sparkops.programs.fetch.partial_file import Content, make_store
from sparkops.programs.transfer.client import Peer
from sparkops.worker.calls import Refused
from sparkops.worker.system.progress import Say, Tracker, enough_space, size_text, sync

Files = list[tuple[str, int, str]]


class Bringing:
    """One order: `files` of the manifest, its text `record`, and how to get at what is missing."""

    def __init__(self, order: dict[str, Any], existing: int | None, say: Say, check: Callable[[], None]) -> None:
        self.order, self.existing, self.say, self.check = order, existing, say, check
        self.files: Files = [(path, size, oid) for path, size, oid in order["files"]]
        self.good: dict[str, str] = {}
        """Proven paths of the published folder, with the identity that they were proven at."""
        self.adopt: list[str] = list(order["adopt"])
        self.peer = Peer(order["peer"], self.files) if order.get("peer") else None
        self.notes: list[str] = []
        self.hashed = 0
        """Bytes of the published folder that had to be read."""

    def work(self) -> dict[str, Any]:
        """Do it; `in_place`, `staged` or (in mode "look") `missing` tells the parent what came of it."""
        try:
            return self._work()
        except OSError as error:
            raise download.full_disk(error, self.order["folder"]) or error from None
        finally:
            if self.peer is not None:
                self.peer.done()

    def _work(self) -> dict[str, Any]:
        looking = self.order["mode"] == "look"
        self._prove_existing()
        if len(self.good) == len(self.files) and (looking or not self._surplus()):
            return {"missing": [], "notes": self.notes} if looking else self._in_place()
        make_store()
        self._take_back()
        wanted = {oid: size for _, size, oid in self.files if oid not in self._by_oid()}
        wanted = self._unproven(wanted)
        wanted = self._adopt(wanted)
        if wanted:
            missing = self._space(wanted)
            if looking:
                return {"missing": missing, "notes": self.notes}
            if self.order["mode"] == "staged":
                raise Refused(f"{len(missing)} files were not pushed", hint="run apply again to resume")
            self._fetch(wanted)
        elif looking:
            return {"missing": [], "notes": self.notes}
        self._lay_out()
        return {"staged": {path: hashes.identity(os.lstat(path)) for path, _, _ in self.files}, "notes": self.notes}

    def proven(self) -> dict[str, Any]:
        """Prove the published folder and change nothing: `wrong` and `missing` paths, `files` and `size` in all."""
        self._prove_existing()
        bad = [path for path, _, _ in self.files if path not in self.good]
        missing = [path for path in bad if _stat(path, self.existing) is None]
        return {
            "files": len(self.files),
            "size": sum(size for _, size, _ in self.files),
            "hashed": self.hashed,
            "missing": missing,
            "wrong": [path for path in bad if path not in missing],
        }

    def _by_oid(self) -> dict[str, str]:
        """A proven path of the published folder for each content that it holds."""
        return {oid: path for path, _, oid in self.files if path in self.good}

    def _prove_existing(self) -> None:
        if self.existing is None:
            return
        unsure: list[tuple[str, int, str]] = []
        for path, size, oid in self.files:
            status = _stat(path, self.existing)
            if status is not None and stat.S_ISLNK(status.st_mode) and self.order["folder"] not in self.adopt:
                self.adopt.append(self.order["folder"])
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != size:
                continue
            mark = hashes.identity(status)
            known = self.order["known"].get(mark)
            if known == oid:
                self.good[path] = mark
            elif known is None or known.partition(":")[0] != oid.partition(":")[0]:
                unsure.append((path, size, oid))
        self.hashed = sum(size for _, size, _ in unsure)
        tracker = self._tracker("verifying", self.hashed)
        self._together(lambda each: self._prove_one(each, tracker), unsure)

    def _prove_one(self, file: tuple[str, int, str], tracker: Tracker) -> None:
        path, size, oid = file
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.existing)
        try:
            before = hashes.identity(os.fstat(handle))
            found = hashes.read_oid(handle, oid, size, tracker.read, self._prefixes(oid))
            if hashes.identity(os.fstat(handle)) != before:
                return
        finally:
            os.close(handle)
        self.say({"hashed": [before, found]})
        if found == oid:
            self.good[path] = before

    def _surplus(self) -> bool:
        """Whether the published folder holds what its record names and the manifest does not."""
        gone = set(self.order["previous"]) - {path for path, _, _ in self.files}
        return any(_stat(path, self.existing) is not None for path in gone)

    def _in_place(self) -> dict[str, Any]:
        """The published folder holds everything: only its record is written."""
        assert self.existing is not None
        os.fchdir(self.existing)
        self._write_record()
        return {"in_place": True, "notes": self.notes}

    def _write_record(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(".sparkops", 0o755)
        beside = RECORD + ".new"
        with open(beside, "w", encoding="utf-8") as file:
            file.write(self.order["record"])
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, RECORD)

    def _take_back(self) -> None:
        """Undo the layout of a run that ended before it was published: contents go back under their oid."""
        for path, _, oid in self.files:
            place = Content(oid, 0).place
            if os.path.lexists(path) and not os.path.lexists(place) and _real_parents(path):
                os.replace(path, place)

    def _unproven(self, wanted: dict[str, int]) -> dict[str, int]:
        """What of `wanted` does not stand in the store; what stands there or was pushed is proven first."""
        unsure: list[tuple[Content, str]] = []
        missing = dict(wanted)
        for oid, size in wanted.items():
            content = Content(oid, size)
            if content.proven():
                del missing[oid]
                continue
            for path in (content.place, content.place + ".pushed"):
                status = _stat(path)
                if status is not None and stat.S_ISREG(status.st_mode) and status.st_size == size:
                    unsure.append((content, path))
        tracker = self._tracker("verifying", sum(content.size for content, _ in unsure))

        def prove(each: tuple[Content, str]) -> None:
            if self._prove_staged(*each, tracker):
                missing.pop(each[0].oid, None)

        self._together(prove, unsure)
        return missing

    def _prove_staged(self, content: Content, path: str, tracker: Tracker) -> bool:
        """Hash a file of the staging folder; the right one gets its name, the wrong one goes."""
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC) if path.endswith(".pushed") else _reading(path)
        try:
            found = hashes.read_oid(handle, content.oid, content.size, tracker.read, self._prefixes(content.oid))
            if path.endswith(".pushed"):
                os.fsync(handle)
        finally:
            os.close(handle)
        if found != content.oid:
            os.unlink(path)
            self.notes.append(f"{os.path.basename(path)}: its content was {found}; dropped")
            return False
        if path != content.place:
            os.replace(path, content.place)
        content.note_proven()
        return True

    def _adopt(self, wanted: dict[str, int]) -> dict[str, int]:
        """Take over what is missing from the declared places; returns what is still missing."""
        sources = Sources(self.adopt, self.order["repository"], self.order["commit"])
        missing = dict(wanted)
        chosen: dict[str, list[str]] = {}
        for path, size, oid in self.files:
            if oid in wanted and size > 0:
                found = [each for each in sources.candidates(path, oid, size) if each not in chosen.get(oid, [])]
                chosen[oid] = [*chosen.get(oid, []), *found]
        trying = {oid: places for oid, places in chosen.items() if places}
        tracker = self._tracker("adopting", sum(wanted[oid] for oid in trying))
        ways: list[str] = []

        def adopt(oid: str) -> None:
            for source in trying[oid]:
                content = Content(oid, wanted[oid])
                before = os.stat(source)
                way = take_over(source, content.place)
                if self._same(content, before) or self._prove_staged(content, content.place, tracker):
                    ways.append(way)
                    missing.pop(oid, None)
                    return
                self.notes.append(f"{source}: right size, other content; not used")

        self._together(adopt, list(trying))
        if ways:
            self.notes.append(
                f"{len(ways)} files adopted ({', '.join(f'{ways.count(w)} by {w}' for w in sorted(set(ways)))})"
            )
        if sources.dangling:
            self.notes.append(f"{len(sources.dangling)} links lead nowhere, the first is {sources.dangling[0]}")
        if sources.resized:
            self.notes.append(f"{len(sources.resized)} files have another size, the first is {sources.resized[0]}")
        return missing

    def _same(self, content: Content, before: os.stat_result) -> bool:
        """Whether what was taken over is the very file that was read at `before` and held that content."""
        known = self.order["known"].get(hashes.identity(before)) == content.oid
        if known and hashes.lasting(os.lstat(content.place)) == hashes.lasting(before):
            content.note_proven()
            return True
        return False

    def _space(self, wanted: dict[str, int]) -> list[list[Any]]:
        """`[[path, size, oid, bytes pushed]]` of what is missing. Raises Refused where it can't fit on the disk."""
        missing: list[list[Any]] = []
        need = 0
        first = {oid: path for path, _, oid in reversed(self.files)}
        for oid, size in wanted.items():
            pushed = _stat(Content(oid, size).place + ".pushed")
            part = _stat(Content(oid, size).part)
            here = pushed.st_size if pushed is not None else 0
            taken = here if self.order["mode"] == "look" else min(size, part.st_blocks * 512 if part is not None else 0)
            need += max(0, size - taken)
            missing.append([first[oid], size, oid, here if here <= size else 0])
        enough_space(need, self.order["folder"])
        return missing

    def _fetch(self, wanted: dict[str, int]) -> None:
        source: download.Source = self.peer or Hub(**self.order["hub"])
        word = f"receiving {len(wanted)} files from {self.peer.way}" if self.peer else f"fetching {len(wanted)} files"
        names = {oid: path for path, _, oid in reversed(self.files)}
        contents = [Content(oid, size, self.order["prefixes"].get(oid, ())) for oid, size in wanted.items()]
        kept = [content for content in contents if self._kept(content, names[content.oid])]
        self.say({"progress": {"text": word, "done": 0, "total": sum(wanted.values())}})
        tracker = self._tracker(word, sum(wanted.values()))

        def proven(content: Content) -> None:
            self._prefixes(content.oid)(content.prefixes)

        run = download.Fetch(source, download.Manner(**self.order["manner"]), tracker.add, self.check, proven)
        run.run([(content, names[content.oid]) for content in contents])
        for content in kept:
            again = f"{size_text(content.lacking)} of {size_text(content.size)}" if content.believed else "the whole"
            self.notes.append(f"{names[content.oid]} was damaged: {again} fetched again")

    def _kept(self, content: Content, path: str) -> bool:
        """Take up the damaged file of the published folder where its spans can be told apart; True for a repair."""
        status = _stat(path, self.existing) if self.existing is not None else None
        if not content.believed or status is None or not stat.S_ISREG(status.st_mode):
            return False
        if not os.path.exists(content.place + ".json"):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.existing)
            try:
                content.keep(handle, self._tracker(f"copying {path}", min(content.size, status.st_size)).read)
            finally:
                os.close(handle)
        return True

    def _prefixes(self, oid: str) -> Callable[[list[str]], None]:
        """Who tells the parent the prefix digests of a content that was proven."""
        return lambda digests: self.say({"prefixes": [oid, digests]}) if digests else None

    def _lay_out(self) -> None:
        """The staging folder becomes the manifest's files, the record, and what others put into the old folder."""
        for name in os.listdir("."):
            if name != ".sparkops":
                _remove(name)
        last = {oid: path for path, _, oid in self.files}
        held = self._by_oid()
        for path, _, oid in self.files:
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            if path in self.good or oid in held:
                source = path if path in self.good else held[oid]
                link_from(self.existing, source, self.good[source], path)
            elif last[oid] == path:
                os.rename(Content(oid, 0).place, path)
            else:
                take_over(Content(oid, 0).place, path)
        if self.existing is not None:
            carry(self.existing, {path for path, _, _ in self.files} | set(self.order["previous"]))
        for name in os.listdir(".sparkops"):
            _remove(os.path.join(".sparkops", name))
        self._write_record()
        for folder, _, _ in os.walk("."):
            sync(folder)

    def _tracker(self, word: str, total: int) -> Tracker:
        return Tracker(self.say, self.check, word, total)

    def _together(self, each: Callable[[Any], None], things: Iterable[Any]) -> None:
        """Hash side by side on all cores; the first error ends it."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for done in [pool.submit(each, thing) for thing in things]:
                done.result()


def link_from(existing: int | None, path: str, mark: str, target: str) -> None:
    """A proven file of the old folder, in the new one too; raises Refused when it changed since it was proven."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=existing)
    try:
        if hashes.identity(os.fstat(handle)) != mark:
            raise Refused(f"{path} is being written to by somebody else", hint="find out who, then run apply again")
        inode = os.fstat(handle).st_ino
        if take_over(f"/proc/self/fd/{existing}/{path}", target) == "link" and os.lstat(target).st_ino != inode:
            raise Refused(f"{path} is being replaced by somebody else", hint="find out who, then run apply again")
    finally:
        os.close(handle)


def _real_parents(path: str) -> bool:
    """Whether the folders on the way are folders, not links."""
    parts = path.split("/")[:-1]
    return all(not os.path.islink("/".join(parts[: n + 1])) for n in range(len(parts)))


def _stat(path: str, at: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=at, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _reading(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
