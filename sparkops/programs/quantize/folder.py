"""The folders of a quantization: what the base contains, and the output from empty to complete.

A program that is run as their owner. The output folder is the container's while it works; the headers of what it made
are checked, the files moved up, and a mark is written last.
"""

import hashlib
import json
import math
import os
import stat
from typing import Any

from sparkops.core import atomic
from sparkops.core.descriptors import FOLDER, closing
from sparkops.core.messages import Refused
from sparkops.programs.build.base import CONFIG, NAMED, Base
from sparkops.programs.checkpoints.folder import record_of
from sparkops.programs.protocol import Output
from sparkops.programs.quantize import auto_round, auto_round_resume

MARK = ".sparkops/quantized.json"
"""The identity of what the folder's files were made of; it exists once they are complete."""
STARTED = ".sparkops/quantizing.json"
CHECKED = ".sparkops/checked.json"
WHOLE = ("BF16", "F16", "F32", "F64")
_APART = ("embed_tokens", "lm_head", "conv1d", "visual", "norm", "mlp.gate.", "shared_expert_gate")
"""Parts of names of tensors that AutoRound leaves as they are."""
_OURS = (auto_round.OUT, auto_round.HOME, auto_round.SPACE, auto_round.RESUME)


def survey(base: int, options: dict[str, object]) -> dict[str, object]:
    """Of the base behind the descriptor: `identity` of what is made of it, `bytes` of its tensors, `weights` to round.

    Raises Refused for a base that is not at 16 bit, and for calibration data that can't be read.
    """
    found = Base(base, [])
    if _quantized(found.json(CONFIG)):
        raise Refused.of("quantize-base-quantized")
    size = weights = 0
    for path, entries in found.tensors()[0].items():
        for entry in entries:
            if entry.dtype not in WHOLE and len(entry.shape) > 1:
                raise Refused.of("quantize-base-not-16-bit", tensor=entry.name, path=path, dtype=entry.dtype)
            size += entry.size
            if len(entry.shape) > 1 and not any(part in entry.name for part in _APART):
                weights += 0 if auto_round.is_kept(entry.name, options) else math.prod(entry.shape)
    matter = {key: value for key, value in options.items() if key not in auto_round.WITHOUT_EFFECT}
    text = json.dumps({"base": record_of(base)[0], "options": matter}, sort_keys=True, separators=(",", ":"))
    _check_data(options)
    return {
        "identity": "quantize:sha256:" + hashlib.sha256(text.encode()).hexdigest(),
        "bytes": size,
        "weights": weights,
    }


def _quantized(config: dict[str, object]) -> bool:
    text = config.get("text_config")
    return bool(config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config")))


def _check_data(options: dict[str, object]) -> None:
    path = str(options["dataset"])
    if auto_round.plain(options):
        return
    if not path.startswith("/"):
        if not options["network"]:
            raise Refused.of("quantize-data-without-network", dataset=path)
        return
    if not path.endswith((".json", ".jsonl")):
        raise Refused.of("quantize-data-not-json", dataset=path)
    if not os.access(path, os.R_OK) or not os.path.isfile(path):
        raise Refused.of("quantize-data-unreadable", dataset=path)


def is_complete(output: int, identity: str) -> bool:
    """Whether the folder has the complete output already."""
    os.fchdir(output)
    return bool(atomic.mapping(MARK).get("identity") == identity)


def prepare(output: int, identity: str) -> int:
    """The folder ready for the container: empty, unless the same was begun in it. Returns the bytes in it."""
    os.fchdir(output)
    if atomic.mapping(STARTED).get("identity") != identity:
        for name in os.listdir("."):
            atomic.remove(name)
        os.makedirs(os.path.dirname(STARTED), mode=0o755)
        atomic.write(STARTED, json.dumps({"identity": identity}).encode(), 0o600)
    atomic.remove(CHECKED)
    for name in _OURS:
        os.makedirs(name, mode=0o755, exist_ok=True)
    return sum(
        os.stat(name, dir_fd=at, follow_symlinks=False).st_blocks * 512
        for _, _, files, at in os.fwalk(".", follow_symlinks=False)
        for name in files
    )


def take(output: int, base: int, identity: str) -> None:
    """Check what the container left, move it up into the folder, and mark that. Continues after a crash.

    Raises Refused where it is not complete; it then stays where it is.
    """
    os.fchdir(output)
    if not os.path.exists(CHECKED):
        made = _made()
        auto_round_resume.remove_duplicate_tensors(made)
        with closing(os.open(made, FOLDER)) as folder:
            _check(folder, base)
            _settle(made, folder, base)
        atomic.write(CHECKED, json.dumps({"folder": made}).encode(), 0o600)
    made = atomic.mapping(CHECKED)["folder"]
    for name in sorted(os.listdir(made)) if os.path.isdir(made) else []:
        os.rename(os.path.join(made, name), name)
    for name in filter(os.path.lexists, _OURS):
        atomic.remove(name)
    atomic.write(MARK, json.dumps({"identity": identity}).encode(), 0o600)


def _made() -> str:
    """Where AutoRound put its files: the given folder, or one below it that it named itself."""
    for folder in (auto_round.OUT, *sorted(os.path.join(auto_round.OUT, name) for name in os.listdir(auto_round.OUT))):
        if os.path.isfile(os.path.join(folder, CONFIG)):
            return folder
    raise Refused.of("quantize-output-missing")


def _check(made: int, base: int) -> None:
    """Index against headers, headers against sizes, and no layer of the base lost."""
    output = Base(made, [], "AutoRound's output")
    tensors, _ = output.tensors()
    if not _quantized(output.json(CONFIG)):
        raise Refused.of("quantize-output-not-quantized")
    known = set()
    for entry in (entry for entries in tensors.values() for entry in entries):
        known.add(entry.name)
        name = entry.name
        while "." in name:
            name = name.rpartition(".")[0]
            known.add(name)
    names = [entry.name for entries in Base(base, []).tensors()[0].values() for entry in entries]
    lost = [name for name in names if name not in known and name.rpartition(".")[0] not in known]
    if lost:
        raise Refused.of("quantize-output-lacks-tensors", count=len(lost), tensors=lost[:NAMED])


def _settle(made: str, folder: int, base: int) -> None:
    """Readable files, and the base's own config.json where AutoRound wrote that of the text model alone.

    transformers loads the language model of a `text_config` alone, by a class with shorter module names; the config
    that is saved then has no `architectures`, so that engines refuse it, and says `model.layers` where the tensors are
    `model.language_model.layers`.
    """
    for where, _, files in os.walk(made):
        for name in files:
            path = os.path.join(where, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                os.chmod(path, 0o644)
    written = Base(folder, []).json(CONFIG)
    if written.get("architectures"):
        return
    scheme = written["quantization_config"]
    assert isinstance(scheme, dict), scheme
    blocks = scheme.get("block_name_to_quantize") or ""
    if "model.language_model.layers" in blocks and isinstance(scheme.get("extra_config"), dict):
        scheme["extra_config"] = {_longer(name): value for name, value in scheme["extra_config"].items()}
    config = {**Base(base, []).json(CONFIG), "quantization_config": scheme}
    atomic.write(os.path.join(made, CONFIG), json.dumps(config, indent=2, sort_keys=True).encode(), 0o644)


def _longer(name: str) -> str:
    """A layer's name, or an expression for one, as the tensors have it."""
    escaped = name.replace(r"model\.layers\.", r"model\.language_model\.layers\.")
    return escaped.replace("model.layers.", "model.language_model.layers.")


def work(spec: dict[str, Any], output: Output) -> Any:
    """`{mode, base, output, identity, options}`, base and output as open folders; by mode what its function returns."""
    mode, identity = spec["mode"], spec.get("identity", "")
    if mode == "survey":
        return survey(spec["base"], spec["options"])
    if mode == "is_complete":
        return is_complete(spec["output"], identity)
    if mode == "prepare":
        return prepare(spec["output"], identity)
    return take(spec["output"], spec["base"], identity)
