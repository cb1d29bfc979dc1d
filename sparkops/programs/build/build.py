"""Build a checkpoint out of a base and donors, in a child with the owner's rights whose working directory is staging.

Headers first: the steps change a draft of what will be, and every one of them may refuse before a byte moves. Then the
donors' bytes, the gates over them, the files; index, config.json and the record last. A journal in staging says what
is finished, so that a killed build goes on. It publishes nothing itself and must not know what a step means.
"""

import contextlib
import copy
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sparkops.programs import atomic, disk
from sparkops.programs.build import step_hybrid, step_lm_head, step_mtp, step_repack
from sparkops.programs.build.base import CONFIG, INDEX, Base, unique
from sparkops.programs.build.donors import Source, coalesced, length
from sparkops.programs.build.tensor_plan import Draft, Entry, Gate, Made, Read, Stored
from sparkops.programs.build.write import Output, Writing
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.folder import RECORD
from sparkops.programs.checkpoints.index import identity, lasting
from sparkops.programs.checkpoints.local_sources import take_over
from sparkops.programs.fetch.partial_file import STORE, Ranges, make_store
from sparkops.worker.calls import Refused
from sparkops.worker.system.progress import Say, Tracker, enough_space, size_text, sync

Wanted = dict[int, dict[str, Ranges]]
"""Ranges by donor's number and path."""

STEPS: dict[str, Callable[[Draft, Any], None]] = {
    "hybrid": step_hybrid.apply,
    "mtp": step_mtp.apply,
    "lm_head": step_lm_head.apply,
    "repack": step_repack.apply,
}
JOURNAL = ".sparkops/built.json"
PARTS = ".sparkops/parts"
QUANTIZATION = "quantization_config.json"
SMALL = 1 << 20
"""Bytes of the largest tensor that is fetched for a gate alone."""
NEW_METADATA = {"format": "pt"}
"""The free metadata of a file that the base does not have; loaders ask for it."""


class Building:
    """One order (see `worker/kinds/built_checkpoint`); `base` is the descriptor of the base's folder."""

    def __init__(self, order: dict[str, Any], base: int, say: Say, check: Callable[[], None]) -> None:
        self.order, self.say, self.check = order, say, check
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every file of the base and the donors is held open
        self._base = Base(base, order["files"])
        self._sources = [
            Source(number, each, order["manner"], say, check) for number, each in enumerate(order["donors"])
        ]
        self._finished: dict[str, list[Any]] = {}
        """By path: oid, bytes and lasting identity of what stands complete in staging."""
        self._metadata: dict[str, dict[str, str]] = {}
        self._asked_by: list[str] = []
        """The step that each gate of the draft is of."""

    def work(self) -> dict[str, Any]:
        """Do it: `files` of what stands in staging, their identities (`staged`), which are `linked` from the base."""
        try:
            return self._work()
        except OSError as error:
            raise disk.full(error, self.order["folder"]) from None

    def _work(self) -> dict[str, Any]:
        self._take_up()
        self._base.prove(self.order["known"], self.say, self.check)
        draft = self.draft(lambda name, draft: None)
        config = self._base.json(CONFIG)
        outputs = self.outputs(draft)
        wanted = _wanted(outputs)
        enough_space(self.need(outputs), self.order["folder"])
        if outputs:
            self._hold(draft.gates, wanted)
        self._fetch(wanted)
        self._write(outputs)
        self._write_texts(draft, config)
        self._link_others(draft)
        self._sum_up(draft, wanted)
        return self._result(draft)

    def draft(self, heard: Callable[[str, Draft], None]) -> Draft:
        """The checkpoint to be, from headers alone; `heard` is told before the first step ("") and after each."""
        files, self._metadata = self._base.tensors()
        self._original = {path: list(entries) for path, entries in files.items()}
        config = copy.deepcopy(self._base.json(CONFIG))
        draft = Draft(files, config, [source.donor() for source in self._sources])
        heard("", draft)
        for step in self.order["steps"]:
            known, name = len(draft.gates), next(iter(step))
            _apply(step, draft)
            self._asked_by += [name] * (len(draft.gates) - known)
            heard(name, draft)
        draft.files = {path: entries for path, entries in draft.files.items() if entries}
        unique(draft.files, "the draft")
        return draft

    def _take_up(self) -> None:
        """What an earlier run of the same build finished; whatever else stands here goes, but for fetched content."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            with open(JOURNAL, encoding="utf-8") as file:
                journal = json.load(file)
            if journal["identity"] == self.order["identity"]:
                for path, (oid, size, mark) in journal["files"].items():
                    if lasting(os.lstat(path)) == mark:
                        self._finished[path] = [oid, size, mark]
        for folder, folders, names in os.walk(".", topdown=False):
            for name in names:
                path = os.path.normpath(os.path.join(folder, name))
                if path not in self._finished and path != JOURNAL and not path.startswith(STORE + "/"):
                    os.unlink(path)
            for name in folders:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(folder, name))
        make_store()
        os.mkdir(PARTS, 0o700)

    def _note(self, path: str, oid: str) -> None:
        status = os.lstat(path)
        self._finished[path] = [oid, status.st_size, lasting(status)]
        journal = {"identity": self.order["identity"], "files": self._finished}
        atomic.write(JOURNAL, json.dumps(journal).encode(), 0o600)

    def outputs(self, draft: Draft) -> list[Output]:
        """The files that have to be written: those that are not as the base has them, and not finished."""
        return [
            Output(path, entries, self._metadata.get(path, NEW_METADATA), f"{PARTS}/{number}")
            for number, (path, entries) in enumerate(draft.files.items())
            if path not in self._finished and not self._untouched(path, entries)
        ]

    def _untouched(self, path: str, entries: list[Entry]) -> bool:
        before = self._original.get(path, [])
        return len(before) == len(entries) and all(one is other for one, other in zip(before, entries, strict=True))

    def need(self, outputs: list[Output]) -> int:
        """The bytes that these files take on the disk, with what is still to be fetched of donors for them."""
        wanted = _wanted(outputs)
        fetched = sum(self._sources[number].missing(ranges) for number, ranges in wanted.items())
        return sum(output.size for output in outputs) + fetched

    def taken_over(self, draft: Draft, outputs: list[Output]) -> int:
        """The bytes of the base's weights that stay as they are."""
        written = {output.path for output in outputs}
        return sum(self._base.sizes[path] for path in draft.files if path not in written)

    def _hold(self, gates: list[Gate], wanted: Wanted) -> None:
        """Look through every gate. What a donor sent and fails it is not kept."""
        inputs = [entry for gate in gates for entry in gate.inputs]
        self._fetch(_stored(entry for entry in inputs if entry.size <= SMALL or _among(entry, wanted)))
        for number, (step, gate) in enumerate(zip(self._asked_by, gates, strict=True), 1):
            text = f"holding samples against the base, {number} of {len(gates)}"
            self.say({"progress": {"text": text, "done": None, "total": None}})
            try:
                gate.check(self._reader(gate.inputs))
            except Refused as refused:
                for source in self._sources if refused.type == "failed" else ():
                    source.drop()
                raise Refused(f"{step}: {refused}", refused.type, refused.hint, refused.detail) from None
            self.check()

    def _fetch(self, wanted: Wanted) -> None:
        for number, ranges in wanted.items():
            self._sources[number].fetch(ranges, "fetching from")

    def _read(self, entry: Entry, start: int, count: int) -> bytes:
        content = entry.content
        if isinstance(content, Stored):
            reader = self._base.read if content.origin < 0 else self._sources[content.origin].read
            return reader(content.path, content.start + start, count)
        return _read_made(content, start, count, self._read)

    def _reader(self, inputs: tuple[Entry, ...]) -> Read:
        return lambda number, start, count: self._read(inputs[number], start, count)

    def _where(self, content: Stored) -> int:
        if content.origin < 0:
            return self._base.open(content.path)
        return self._sources[content.origin].mirrors[content.path].descriptor()

    def _write(self, outputs: list[Output]) -> None:
        if not outputs:
            return
        writing = Writing(outputs, self._where, self._read)
        tracker = Tracker(self.say, self.check, f"writing {len(outputs)} files", writing.total)

        def done(output: Output, oid: str) -> None:
            os.makedirs(os.path.dirname(output.path) or ".", mode=0o755, exist_ok=True)
            os.replace(output.part, output.path)
            self._note(output.path, oid)

        writing.run(done, tracker.add, self.check)

    def _write_texts(self, draft: Draft, config: dict[str, Any]) -> None:
        """The index, config.json, and AutoRound's copy of a part of it, where they are not the base's own."""
        listed = {entry.name: path for path, entries in draft.files.items() for entry in entries}
        same = draft.files.keys() == self._original.keys() and all(
            self._untouched(path, entries) for path, entries in draft.files.items()
        )
        if not same and (len(draft.files) > 1 or INDEX in self._base.sizes):
            total = sum(entry.size for entries in draft.files.values() for entry in entries)
            self._put(INDEX, _index(self._base.json(INDEX) if INDEX in self._base.sizes else {}, listed, total))
        quantization = draft.config.get("quantization_config")
        if QUANTIZATION in self._base.sizes and quantization != config.get("quantization_config"):
            self._put(QUANTIZATION, [_text(quantization)])
        if draft.config != config:
            self._put(CONFIG, [_text(draft.config)])

    def _put(self, path: str, text: Iterable[str]) -> None:
        made, part = hashes.Hasher("sha256:", 0), f"{PARTS}/text"
        with open(part, "wb") as file:
            for each in text:
                data = each.encode()
                made.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        self._note(path, made.oid)

    def _link_others(self, draft: Draft) -> None:
        """What the build does not touch: whole shards, tokenizer, licence."""
        paths = [path for path in self._base.sizes if not path.endswith(".safetensors") or path in draft.files]
        for path in paths:
            if path not in self._finished:
                os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                self._link(path)
                self.check()

    def _link(self, path: str) -> None:
        """A file of the base, by a hard link where the disk allows it; hashed where nothing proves it otherwise."""
        before = os.fstat(self._base.open(path))
        way = take_over(f"/proc/self/fd/{self._base.folder}/{path}", path)
        linked = way == "link" and lasting(os.lstat(path)) == lasting(before)
        declared = self._base.oids.get(path, "")
        oid = declared if linked and declared else self._hashed(path, declared or "sha256:")
        if declared and oid != declared:
            raise Refused(f"{path} of the base changed while it was read", hint="run apply again")
        self._note(path, oid)

    def _hashed(self, path: str, sort: str) -> str:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(handle).st_size
            return hashes.read_oid(handle, sort, size, Tracker(self.say, self.check, f"hashing {path}", size).read)
        finally:
            os.close(handle)

    def _sum_up(self, draft: Draft, wanted: Wanted) -> None:
        """The record, after which only fetched content is left to be swept."""
        for number, ranges in wanted.items():
            source, need = self._sources[number], sum(map(length, coalesced(ranges, 0).values()))
            draft.notes.append(
                f"{source.label}: {size_text(source.fetched)} fetched by ranges for the {size_text(need)} needed; "
                "ranges can't be proven by sha256, only by the file's size and the samples"
            )
        files = [[path, size, oid] for path, (oid, size, _) in sorted(self._finished.items())]
        text = json.dumps({**self.order["record"], "files": files}, sort_keys=True, separators=(",", ":"))
        atomic.write(RECORD, text.encode(), 0o644)
        for path in (STORE, PARTS):
            shutil.rmtree(path)
        for folder, _, _ in os.walk("."):
            sync(folder)

    def _result(self, draft: Draft) -> dict[str, Any]:
        return {
            "files": [[path, size, oid] for path, (oid, size, _) in sorted(self._finished.items())],
            "staged": {path: identity(os.lstat(path)) for path in self._finished},
            "linked": [path for path in sorted(self._finished) if self._base.holds(path, os.lstat(path))],
            "notes": draft.notes,
        }


def _apply(step: dict[str, Any], draft: Draft) -> None:
    (name, options), *more = step.items()
    if more or name not in STEPS:
        raise Refused(f"no step of a build is called {name}", hint=f"there are: {', '.join(STEPS)}")
    STEPS[name](draft, options)


def _wanted(outputs: Iterable[Output]) -> Wanted:
    return _stored(entry for output in outputs for entry in output.entries)


def _stored(entries: Iterable[Entry]) -> Wanted:
    """The ranges that entries are read from, those of made ones included: by origin and path."""
    wanted: Wanted = {}
    for entry in entries:
        content = entry.content
        if isinstance(content, Made):
            for origin, files in _stored(content.inputs).items():
                for path, ranges in files.items():
                    wanted.setdefault(origin, {}).setdefault(path, []).extend(ranges)
        elif content.origin >= 0:
            wanted.setdefault(content.origin, {}).setdefault(content.path, []).append((content.start, content.end))
    return wanted


def _among(entry: Entry, wanted: Wanted) -> bool:
    content = entry.content
    return isinstance(content, Stored) and (content.start, content.end) in wanted.get(content.origin, {}).get(
        content.path, []
    )


def _read_made(content: Made, start: int, count: int, read: Callable[[Entry, int, int], bytes]) -> bytes:
    """Bytes of what is made, for a step that stands on another's work."""
    inner: Read = lambda number, at, length: read(content.inputs[number], at, length)  # noqa: E731
    found = b""
    for begin, end in content.blocks():
        if begin < start + count and end > start:
            block = content.block(begin, end, inner)
            found += block[max(0, start - begin) : start + count - begin]
    return found


def _index(before: dict[str, Any], listed: dict[str, str], total: int) -> Iterator[str]:
    """The index's text, bit by bit: it can have 300,000 lines."""
    metadata = before.get("metadata")
    metadata = {**(metadata if isinstance(metadata, dict) else {}), "total_size": total}
    yield '{"metadata": ' + json.dumps(metadata) + ', "weight_map": {'
    for number, name in enumerate(sorted(listed)):
        yield f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(listed[name])}"
    yield "\n}}\n"


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
