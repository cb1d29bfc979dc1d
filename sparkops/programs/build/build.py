"""Build a checkpoint from a base and donors. The working directory is the staging folder.

Headers first: the steps change a plan of tensors, and each of them may refuse before a byte moves. Then the donors'
bytes, the checks of them, the files; index, config.json and the record last. A journal in staging lists what is
finished, so that a killed build continues. It publishes nothing and must not know what a step means.
"""

import contextlib
import copy
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sparkops.core import atomic
from sparkops.core.descriptors import FILE, closing
from sparkops.core.messages import Refused
from sparkops.programs import disk
from sparkops.programs.build import step_hybrid, step_lm_head, step_mtp, step_repack
from sparkops.programs.build.base import CONFIG, INDEX, Base, require_unique
from sparkops.programs.build.donor import DonorRepository, coalesced, length
from sparkops.programs.build.spec import Built, Files, Spec, record_text
from sparkops.programs.build.tensor_plan import Check, Computed, PlannedTensor, Read, Stored, TensorPlan
from sparkops.programs.build.write import FileWriter, OutputFile
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.folder import write_record
from sparkops.programs.checkpoints.local_sources import take_over
from sparkops.programs.checkpoints.proof import identity, lasting
from sparkops.programs.fetch.existing import ExistingFolder
from sparkops.programs.fetch.partial_file import STORE, Ranges, make_store
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output

Wanted = dict[int, dict[str, Ranges]]
"""Ranges by donor's number and path."""

STEPS: dict[str, Callable[[TensorPlan, Any], None]] = {
    "hybrid": step_hybrid.apply,
    "mtp": step_mtp.apply,
    "lm_head": step_lm_head.apply,
    "repack": step_repack.apply,
}
JOURNAL = ".sparkops/built.json"
PARTS = ".sparkops/parts"
QUANTIZATION = "quantization_config.json"
SMALL = 1 << 20
"""Bytes of the largest tensor that is fetched for a check alone."""
NEW_METADATA = {"format": "pt"}
"""The free metadata of a file that the base does not have; loaders require it."""


class Build:
    """One build of `spec` on the base behind the open folder `base`."""

    def __init__(self, spec: Spec, base: int, output: Output) -> None:
        self.spec, self.output = spec, output
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every file of the base and the donors stays open
        self._base = Base(base, spec.get("files", ()))
        self._donors = [
            DonorRepository(number, each, spec["fetch"], output) for number, each in enumerate(spec["donors"])
        ]
        self._finished: dict[str, tuple[str, int, str]] = {}
        """By path: oid, bytes and lasting identity of what is complete in staging."""
        self._metadata: dict[str, dict[str, str]] = {}

    def work(self) -> Built:
        """Do it. Raises Refused."""
        try:
            if self._published_is_right():
                return {"files": self.spec["published"], "staged": None}
            return self._work()
        except OSError as error:
            raise disk.full(error, self.spec["folder"]) from None

    def _work(self) -> Built:
        self._resume()
        self._base.verify(self.spec["known"], self.output)
        plan = self.plan()
        config = self._base.json(CONFIG)
        outputs = self.outputs(plan)
        wanted = _wanted(outputs)
        disk.require(self.need(outputs), self.spec["folder"])
        if outputs:
            self._check(plan.checks, wanted)
        self._fetch(wanted)
        self._write(outputs)
        self._write_texts(plan, config)
        self._link_others(plan)
        files = self._complete(wanted)
        for id, args in plan.notices:
            self.output.notice(id, **args)
        return {"files": files, "staged": {path: identity(os.lstat(path)) for path in self._finished}}

    def _published_is_right(self) -> bool:
        """Whether the published folder, if it was built from the same inputs, is undamaged.

        Else what is right of it is put into staging, as if this run had built it; an earlier run of the same build has
        done so already, and may have finished more.
        """
        existing, files = self.spec["existing"], self.spec["published"]
        if existing is None or not files:
            return False
        folder = ExistingFolder(existing, self.output)
        folder.verify([(path, size, oid) for path, size, oid in files], self.spec["published_known"])
        if len(folder.verified) == len(files):
            return True
        if atomic.mapping(JOURNAL).get("identity") != self.spec["identity"]:
            for path, _, oid in files:
                if path in folder.verified:
                    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                    folder.link(path, path)
                    self._note(path, oid)
            self._write_journal()
            self._finished.clear()
        return False

    def plan(self, after_step: Callable[[str, TensorPlan], None] = lambda name, plan: None) -> TensorPlan:
        """The checkpoint to be, from headers alone; `after_step` is called with "" first, and after each step."""
        files, self._metadata = self._base.tensors()
        self._original = {path: list(entries) for path, entries in files.items()}
        config = copy.deepcopy(self._base.json(CONFIG))
        plan = TensorPlan(files, config, [donor.tensors() for donor in self._donors])
        after_step("", plan)
        for step in self.spec["steps"]:
            _apply(step, plan)
            after_step(next(iter(step)), plan)
        plan.files = {path: entries for path, entries in plan.files.items() if entries}
        require_unique(plan.files, "built checkpoint")
        return plan

    def _resume(self) -> None:
        """Take up what an earlier run of the same build finished; all else but fetched content is removed."""
        journal = atomic.mapping(JOURNAL)
        if journal.get("identity") == self.spec["identity"]:
            with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
                for path, (oid, size, mark) in journal["files"].items():
                    with contextlib.suppress(FileNotFoundError):
                        if lasting(os.lstat(path)) == mark:
                            self._finished[path] = (oid, size, mark)
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

    def _finish(self, path: str, oid: str) -> None:
        self._note(path, oid)
        self._write_journal()

    def _note(self, path: str, oid: str) -> None:
        status = os.lstat(path)
        self._finished[path] = (oid, status.st_size, lasting(status))

    def _write_journal(self) -> None:
        os.makedirs(os.path.dirname(JOURNAL), mode=0o755, exist_ok=True)
        journal = {"identity": self.spec["identity"], "files": self._finished}
        atomic.write(JOURNAL, json.dumps(journal).encode(), 0o600)

    def outputs(self, plan: TensorPlan) -> list[OutputFile]:
        """The files that have to be written: those that are not as the base has them, and not finished."""
        return [
            OutputFile(path, entries, self._metadata.get(path, NEW_METADATA), f"{PARTS}/{number}")
            for number, (path, entries) in enumerate(plan.files.items())
            if path not in self._finished and not self._untouched(path, entries)
        ]

    def _untouched(self, path: str, entries: list[PlannedTensor]) -> bool:
        before = self._original.get(path, [])
        return len(before) == len(entries) and all(one is other for one, other in zip(before, entries, strict=True))

    def need(self, outputs: list[OutputFile]) -> int:
        """The bytes that these files take on the disk, with what is still to be fetched of donors for them."""
        fetched = sum(self._donors[number].missing(ranges) for number, ranges in _wanted(outputs).items())
        return sum(output.size for output in outputs) + fetched

    def taken_over(self, plan: TensorPlan, outputs: list[OutputFile]) -> int:
        """The bytes of the base's weights that stay as they are."""
        written = {output.path for output in outputs}
        return sum(self._base.sizes[path] for path in plan.files if path not in written)

    def _check(self, checks: list[Check], wanted: Wanted) -> None:
        """Run every check. All that donors sent is dropped when one fails."""
        inputs = [entry for check in checks for entry in check.inputs]
        self._fetch(_stored(entry for entry in inputs if entry.size <= SMALL or _among(entry, wanted)))
        for number, check in enumerate(checks, 1):
            self.output.progress(f"comparing samples with the base, {number} of {len(checks)}")
            try:
                check.check(self._reader(check.inputs))
            except Refused as refused:
                for donor in self._donors if refused.type == "failed" else ():
                    donor.drop()
                raise
            self.output.check()

    def _fetch(self, wanted: Wanted) -> None:
        for number, ranges in wanted.items():
            self._donors[number].fetch(ranges, "fetching from")

    def _read(self, entry: PlannedTensor, start: int, count: int) -> bytes:
        content = entry.content
        if isinstance(content, Stored):
            reader = self._base.read if content.origin < 0 else self._donors[content.origin].read
            return reader(content.path, content.start + start, count)
        return _read_made(content, start, count, self._read)

    def _reader(self, inputs: tuple[PlannedTensor, ...]) -> Read:
        return lambda number, start, count: self._read(inputs[number], start, count)

    def _descriptor(self, content: Stored) -> int:
        if content.origin < 0:
            return self._base.open(content.path)
        return self._donors[content.origin].mirrors[content.path].descriptor()

    def _write(self, outputs: list[OutputFile]) -> None:
        if not outputs:
            return
        writer = FileWriter(outputs, self._descriptor, self._read)
        tracker = Tracker(self.output, f"writing {len(outputs)} files", writer.total)

        def done(output: OutputFile, oid: str) -> None:
            os.makedirs(os.path.dirname(output.path) or ".", mode=0o755, exist_ok=True)
            os.replace(output.part, output.path)
            self._finish(output.path, oid)

        writer.run(done, tracker.add, self.output.check)

    def _write_texts(self, plan: TensorPlan, config: dict[str, object]) -> None:
        """The index, config.json, and AutoRound's copy of a part of it, where they are not the base's own."""
        listed = {entry.name: path for path, entries in plan.files.items() for entry in entries}
        same = plan.files.keys() == self._original.keys() and all(
            self._untouched(path, entries) for path, entries in plan.files.items()
        )
        if not same and (len(plan.files) > 1 or INDEX in self._base.sizes):
            total = sum(entry.size for entries in plan.files.values() for entry in entries)
            self._put(INDEX, _index(self._base.json(INDEX) if INDEX in self._base.sizes else {}, listed, total))
        quantization = plan.config.get("quantization_config")
        if QUANTIZATION in self._base.sizes and quantization != config.get("quantization_config"):
            self._put(QUANTIZATION, [_text(quantization)])
        if plan.config != config:
            self._put(CONFIG, [_text(plan.config)])

    def _put(self, path: str, text: Iterable[str]) -> None:
        hasher, part = hashes.Hasher("sha256", 0), f"{PARTS}/text"
        with open(part, "wb") as file:
            for each in text:
                data = each.encode()
                hasher.update(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        self._finish(path, hasher.oid)

    def _link_others(self, plan: TensorPlan) -> None:
        """What the build does not change: whole shards, tokenizer, licence."""
        paths = [path for path in self._base.sizes if not path.endswith(".safetensors") or path in plan.files]
        for path in paths:
            if path not in self._finished:
                os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                self._link(path)
                self.output.check()

    def _link(self, path: str) -> None:
        """A file of the base, by a hard link where the disk allows it; hashed unless that proves it."""
        before = os.fstat(self._base.open(path))
        way = take_over(f"/proc/self/fd/{self._base.folder}/{path}", path)
        linked = way == "link" and lasting(os.lstat(path)) == lasting(before)
        declared = self._base.oids.get(path, "")
        oid = declared if linked and declared else self._hash(path, declared or "sha256")
        if declared and oid != declared:
            raise Refused.of("checkpoint-file-changed", checkpoint="base", path=path)
        self._finish(path, oid)

    def _hash(self, path: str, algorithm: str) -> str:
        with closing(os.open(path, FILE)) as handle:
            size = os.fstat(handle).st_size
            return hashes.read_oid(handle, algorithm, size, Tracker(self.output, f"hashing {path}", size).read)

    def _complete(self, wanted: Wanted) -> Files:
        """Write the record, after which only fetched content is left to be removed; returns the files."""
        for number, ranges in wanted.items():
            donor, needed = self._donors[number], sum(map(length, coalesced(ranges, 0).values()))
            self.output.notice("build-donor-ranges", donor=donor.label, fetched=donor.fetched, needed=needed)
        files = [(path, size, oid) for path, (oid, size, _) in sorted(self._finished.items())]
        write_record(record_text(self.spec["record"], files))
        for path in (STORE, PARTS):
            shutil.rmtree(path)
        for folder, _, _ in os.walk("."):
            atomic.sync(folder)
        return files


def _apply(step: dict[str, object], plan: TensorPlan) -> None:
    (name, options), *more = step.items()
    if more or name not in STEPS:
        raise Refused.of("step-unknown", step=name, known=", ".join(STEPS))
    STEPS[name](plan, options)


def _wanted(outputs: Iterable[OutputFile]) -> Wanted:
    return _stored(entry for output in outputs for entry in output.entries)


def _stored(entries: Iterable[PlannedTensor]) -> Wanted:
    """The ranges that entries are read from, those of made ones included: by origin and path."""
    wanted: Wanted = {}
    for entry in entries:
        content = entry.content
        if isinstance(content, Computed):
            for origin, files in _stored(content.inputs).items():
                for path, ranges in files.items():
                    wanted.setdefault(origin, {}).setdefault(path, []).extend(ranges)
        elif content.origin >= 0:
            wanted.setdefault(content.origin, {}).setdefault(content.path, []).append((content.start, content.end))
    return wanted


def _among(entry: PlannedTensor, wanted: Wanted) -> bool:
    content = entry.content
    return isinstance(content, Stored) and (content.start, content.end) in wanted.get(content.origin, {}).get(
        content.path, []
    )


def _read_made(content: Computed, start: int, count: int, read: Callable[[PlannedTensor, int, int], bytes]) -> bytes:
    """Bytes of a computed tensor, for a step that builds on another."""
    inner: Read = lambda number, at, length: read(content.inputs[number], at, length)  # noqa: E731
    found = b""
    for begin, end in content.blocks():
        if begin < start + count and end > start:
            block = content.block(begin, end, inner)
            found += block[max(0, start - begin) : start + count - begin]
    return found


def _index(before: dict[str, object], listed: dict[str, str], total: int) -> Iterator[str]:
    """The index's text, bit by bit: it can have 300,000 lines."""
    metadata = before.get("metadata")
    metadata = {**(metadata if isinstance(metadata, dict) else {}), "total_size": total}
    yield '{"metadata": ' + json.dumps(metadata) + ', "weight_map": {'
    for number, name in enumerate(sorted(listed)):
        yield f"{',' if number else ''}\n{json.dumps(name)}: {json.dumps(listed[name])}"
    yield "\n}}\n"


def _text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
