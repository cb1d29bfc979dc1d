"""What a checkpoint holds and whether it is whole, told from its headers alone: no tensor is read.

A `Source` gives names, sizes and ranges of files; a folder and a hub's repository are two. Peak memory is one header
per reader. It must not know how a person reads the answer.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sparkops.checkpoints.hub import Hub, HubError
from sparkops.checkpoints.manifest import Manifest
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.wording import words
from sparkops.models.architecture import tensors as model_tensors
from sparkops.models.architecture.geometry import Geometry, of_config
from sparkops.models.architecture.tensors import Weights
from sparkops.safetensors.header import BITS, LENGTH, Broken, Header, Tensor, header_length, parse_header
from sparkops.safetensors.parts import ORDER, missing_mtp, part_of, second_layout

READERS = 8
SMALL = 64 << 20
"""Bytes of the largest JSON file beside the tensors that is read."""
GUESS = 64 << 10
"""Bytes that the first read of a file takes: most headers fit, so most files cost one request."""
_ONE_BY_ONE = threading.Lock()
"""Headers are fetched side by side and parsed in turn: a hostile one takes ten times its size until it is refused."""
INDEX = "model.safetensors.index.json"
NAMED = 5
"""How many names a fault shows."""


class InspectError(SparkopsError):
    """There is no checkpoint to look at, or it can't be read."""


class Source(Protocol):
    """Where a checkpoint's files are. `name` is for messages."""

    @property
    def name(self) -> str: ...

    def sizes(self) -> Mapping[str, int]:
        """The files' sizes in bytes by their paths."""
        ...

    def read(self, path: str, start: int, count: int) -> bytes:
        """At most `count` bytes of a file from `start`."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder on this machine; links are followed, as the hub client's own folders are made of them."""

    folder: Path

    @property
    def name(self) -> str:
        return str(self.folder)

    def sizes(self) -> Mapping[str, int]:
        try:
            found = [path for path in self.folder.rglob("*") if not path.name.startswith(".")]
        except OSError as error:
            raise InspectError.of("folder-unreadable", where=self.name, why=str(error.strerror)) from None
        snapshots = sorted(each.name for each in (self.folder / "snapshots").glob("*") if each.is_dir())
        if snapshots and (self.folder / "blobs").is_dir():
            name = f"snapshots/{snapshots[-1]}"
            raise InspectError.of("checkpoint-cache-root", where=self.name, snapshot=name)
        dangling = next((path for path in found if path.is_symlink() and not path.exists()), None)
        if dangling is not None:
            link, target = str(dangling.relative_to(self.folder)), str(dangling.readlink())
            raise InspectError.of("checkpoint-link-dangling", where=self.name, link=link, target=target)
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in found if path.is_file()}

    def read(self, path: str, start: int, count: int) -> bytes:
        with open(self.folder / path, "rb") as file:
            file.seek(start)
            return file.read(count)


@dataclass(frozen=True)
class HubSource:
    """A commit of a repository, read by ranges; what is read whole is compared with the commit's list of files."""

    hub: Hub
    manifest: Manifest

    @property
    def name(self) -> str:
        return f"{self.manifest.repository}@{self.manifest.commit[:12]}"

    def sizes(self) -> Mapping[str, int]:
        return {file.path: file.size for file in self.manifest.files}

    def read(self, path: str, start: int, count: int) -> bytes:
        found = self.hub.read(self.manifest.repository, self.manifest.commit, path, start, count)
        file = next(each for each in self.manifest.files if each.path == path)
        if start == 0 and count >= file.size and not file.holds(found):
            raise HubError.of("hub-index-wrong", where=self.name, file=path)
        return found


@dataclass(frozen=True, slots=True)
class Share:
    """All tensors of one part and one dtype: how many, how many numbers, how many bytes."""

    part: str
    dtype: str
    tensors: int
    values: int
    size: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a checkpoint: in which file ("" for the whole), what (an id and arguments), the way out."""

    file: str
    id: str
    text: str
    hint: str

    @classmethod
    def of(cls, id: str, file: str, /, **args: object) -> Fault:
        """The fault of an id of `knowledge/errors/`."""
        return cls(file, id, *words(id, args, "command"))


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a checkpoint holds. `read_per_token`: bytes of weights that decoding one token reads; None unknown.

    `beside`: files that hold the weights once more in another layout, of which nothing else here tells; `weights` are
    those that an engine loads; None where they can't be told.
    """

    name: str
    files: int
    size: int
    shares: tuple[Share, ...]
    quantization: str
    read_per_token: int | None
    faults: tuple[Fault, ...]
    beside: tuple[str, ...] = ()
    config: Mapping[str, object] = field(repr=False, default_factory=dict)
    weights: Weights | None = field(repr=False, default=None)

    @property
    def tensors(self) -> int:
        """How many tensors there are."""
        return sum(each.tensors for each in self.shares)


def inspect(source: Source, readers: int = READERS) -> Inspection:
    """Look at a checkpoint. Raises InspectError where it has no safetensors file, or what the source raises."""
    sizes = source.sizes()
    shards = sorted(path for path in sizes if path.endswith(".safetensors"))
    if not shards:
        raise InspectError.of("no-safetensors-file", where=source.name)
    faults: list[Fault] = []
    config = read_json(source, sizes, "config.json", faults)
    index = read_json(source, sizes, INDEX, faults) if INDEX in sizes else None
    beside = second_layout(shards, (str(each) for each in (_weight_map(index) or {}).values()))
    shards = [each for each in shards if each not in beside]
    with ThreadPoolExecutor(readers) as pool:
        heads = dict(zip(shards, pool.map(lambda path: _head(source, path, sizes[path]), shards), strict=True))
    faults = [*(head for head in heads.values() if isinstance(head, Fault)), *faults]
    good = {path: head for path, head in heads.items() if isinstance(head, Header)}
    faults += _duplicates(good)
    faults += _index_faults(index, sizes, good, set(heads) - set(good))
    text = config.get("text_config") or config
    unread = _unread(index, good)
    if unread or len(good) == len(heads):
        faults += _mtp_faults([*(each.name for head in good.values() for each in head.tensors), *unread], text)
    shares = _shares(good)
    complete = bool(config) and len(good) == len(heads)
    return Inspection(
        name=source.name,
        files=len(sizes),
        size=sum(sizes.values()),
        shares=shares,
        quantization=_quantization(config),
        read_per_token=_read_per_token(shares, _geometry(config)) if complete else None,
        faults=tuple(faults),
        beside=tuple(beside),
        config=config,
        weights=_weights(good, index or {}) if len(good) == len(heads) else None,
    )


def _weights(heads: Mapping[str, Header], index: Mapping[str, object]) -> Weights | None:
    files = model_tensors.counted(list(heads), index)
    return model_tensors.by_part((each.name, each.size) for path in files for each in heads[path].tensors)


def _head(source: Source, path: str, size: int) -> Header | Fault:
    try:
        first = source.read(path, 0, min(GUESS, size))
        length = header_length(first)
        if size < LENGTH + length:
            raise Broken(f"it has {size} bytes and its header alone claims {length}")
        text = first[LENGTH : LENGTH + length]
        if len(text) < length:
            text += source.read(path, len(first), length - len(text))
        with _ONE_BY_ONE:
            header = parse_header(text)
    except Broken as error:
        return Fault.of("safetensors-file-broken", path, why=str(error))
    if header.file_size != size:
        id = "safetensors-file-cut-off" if size < header.file_size else "safetensors-file-too-long"
        return Fault.of(id, path, size=size, needed=header.file_size)
    return header


def _duplicates(heads: Mapping[str, Header]) -> list[Fault]:
    places: dict[str, list[str]] = defaultdict(list)
    for path, head in heads.items():
        for each in head.tensors:
            places[each.name].append(path)
    double = {name: paths for name, paths in places.items() if len(paths) > 1}
    if not double:
        return []
    files = sorted({path for paths in double.values() for path in paths})
    return [Fault.of("tensors-duplicated", files[-1], tensors=_some(double), files=", ".join(files[:NAMED]))]


def _weight_map(index: Mapping[str, object] | None) -> Mapping[str, object] | None:
    found = (index or {}).get("weight_map")
    return found if isinstance(found, dict) else None


def _unread(index: Mapping[str, object] | None, heads: Mapping[str, Header]) -> list[str]:
    """The tensors that the index names in files whose headers are not known."""
    return [tensor for tensor, path in (_weight_map(index) or {}).items() if str(path) not in heads]


def _index_faults(
    index: Fields | None, sizes: Mapping[str, int], heads: Mapping[str, Header], broken: set[str]
) -> list[Fault]:
    """What is wrong with the index; None stands for none, {} for one that can't be read, which is a fault already."""
    name = INDEX
    if index is None:
        several = len(heads) + len(broken) > 1
        return [Fault.of("shards-without-index", name)] if several else []
    weight_map = _weight_map(index)
    if weight_map is None:
        return [Fault.of("index-without-weight-map", name)] if index else []
    faults: list[Fault] = []
    held = {each.name: path for path, head in heads.items() for each in head.tensors}
    named = {tensor: str(path) for tensor, path in weight_map.items()}
    files = sorted(set(named.values()) - set(sizes))
    lost = {*files, *broken}
    absent = [tensor for tensor, path in named.items() if path not in lost and _lacks(heads, path, tensor)]
    if files:
        faults.append(Fault.of("index-files-missing", name, files=", ".join(files[:NAMED])))
    if absent:
        faults.append(Fault.of("index-tensors-missing", name, tensors=_some(absent)))
    unnamed = [tensor for tensor in held if tensor not in weight_map]
    if unnamed:
        faults.append(Fault.of("index-incomplete", name, tensors=_some(unnamed)))
    total = (index.get("metadata") or {}).get("total_size")
    size = sum(each.size for head in heads.values() for each in head.tensors)
    if isinstance(total, int) and total != size and not (broken or files or absent or unnamed):
        faults.append(Fault.of("index-total-size-wrong", name, total=total, size=size))
    return faults


def _lacks(heads: Mapping[str, Header], path: str, tensor: str) -> bool:
    head = heads.get(path)
    return head is None or tensor not in head.names


def _mtp_faults(names: list[str], text_config: Mapping[str, object]) -> list[Fault]:
    missing = missing_mtp(names, text_config)
    if not missing:
        return []
    if not any(part_of(name) == "mtp" for name in names):
        return [Fault.of("mtp-weights-missing", "", layers=text_config["mtp_num_hidden_layers"])]
    return [Fault.of("mtp-weights-incomplete", "", tensors=_some(missing))]


def _some(names: Iterable[object]) -> str:
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(str(each)[:160] for each in listed[:NAMED]) + more


def read_json(source: Source, sizes: Mapping[str, int], name: str, faults: list[Fault]) -> dict[str, Any]:
    """A JSON file of the checkpoint; {} with a fault where it is lacking or is none."""
    if name not in sizes:
        faults.append(Fault.of("json-file-missing", name))
        return {}
    if sizes[name] > SMALL:
        faults.append(Fault.of("json-file-too-large", name, size=sizes[name], limit=SMALL))
        return {}
    try:
        value = json.loads(source.read(name, 0, SMALL))
    except (ValueError, RecursionError):
        faults.append(Fault.of("json-file-broken", name, why="not JSON"))
        return {}
    if not isinstance(value, dict):
        faults.append(Fault.of("json-file-broken", name, why="not a JSON object"))
        return {}
    return value


def _shares(heads: Mapping[str, Header]) -> tuple[Share, ...]:
    groups: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for head in heads.values():
        for each in head.tensors:
            groups[part_of(each.name), each.dtype].append(each)
    order = sorted(groups, key=lambda key: (ORDER.index(key[0]), -BITS[key[1]], key[1]))
    return tuple(
        Share(part, dtype, len(group), sum(each.values for each in group), sum(each.size for each in group))
        for part, dtype in order
        for group in [groups[part, dtype]]
    )


def _geometry(config: Mapping[str, object]) -> Geometry | None:
    """What the configuration means; None where it is not understood."""
    try:
        found = of_config(config)
    except InventoryError:
        return None
    return None if found.gaps else found


def _read_per_token(shares: tuple[Share, ...], geometry: Geometry | None) -> int | None:
    """Of the experts k of E are read; of embeddings a row, unless they are the head too; of vision and MTP nothing."""
    if geometry is None:
        return None
    headless = not any(each.part == "head" for each in shares)
    share = dict.fromkeys(ORDER, 1.0) | {"vision": 0.0, "mtp": 0.0, "embeddings": 1.0 if headless else 0.0}
    if geometry.experts:
        share["experts"] = geometry.experts_per_token / geometry.experts
    return round(sum(each.size * share[each.part] for each in shares))


def _quantization(config: Fields) -> str:
    """The checkpoint's own word for how it is quantised; "" for not at all."""
    found = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if not isinstance(found, Mapping):
        return ""
    words = [str(found.get("quant_method", "unknown"))]
    words += [str(found[key]) for key in ("quant_algo", "format", "packing_format") if found.get(key)]
    if found.get("bits"):
        words.append(f"{found['bits']} bits")
    if found.get("group_size"):
        words.append(f"groups of {found['group_size']}")
    return ", ".join(words)
