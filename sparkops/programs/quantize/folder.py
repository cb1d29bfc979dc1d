"""The folders of a quantisation as their owner sees them: what the base holds, and the output from empty to whole.

Runs with the owner's rights. The output folder is the container's while it works; what it made is looked through by
its headers, moved up, and marked last.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from typing import Any

from sparkops.programs import atomic
from sparkops.programs.build.base import CONFIG, Base, some
from sparkops.programs.checkpoints.folder import record_of
from sparkops.programs.quantize import auto_round as words
from sparkops.programs.quantize import resume
from sparkops.worker.calls import Refused

MARK = ".sparkops/quantized.json"
"""Says of what the folder's files were made; there once they are whole."""
STARTED = ".sparkops/quantizing.json"
CHECKED = ".sparkops/checked.json"
WHOLE = ("BF16", "F16", "F32", "F64")
_APART = ("embed_tokens", "lm_head", "conv1d", "visual", "norm", "mlp.gate.", "shared_expert_gate")
"""Parts of names of tensors that AutoRound leaves as they are."""
_OURS = (words.OUT, words.HOME, words.SPACE, words.RESUME)


def survey(base: int, options: dict[str, Any]) -> dict[str, Any]:
    """Of the base behind the descriptor: `identity` of what is made of it, `bytes` of its tensors, `weights` to round.

    Raises Refused for a base that is not at 16 bit, and for calibration data that can't be read.
    """
    found = Base(base, [])
    if _quantized(found.json(CONFIG)):
        raise Refused(
            "the base is quantised already: its config.json has a quantization_config",
            hint="declare the repository of the 16-bit model, or leave out the step quantize",
        )
    size = weights = 0
    for path, entries in found.tensors()[0].items():
        for entry in entries:
            if entry.dtype not in WHOLE and len(entry.shape) > 1:
                raise Refused(
                    f"{entry.name} in {path} of the base is {entry.dtype}", hint="quantize wants 16-bit weights"
                )
            size += entry.size
            if len(entry.shape) > 1 and not any(part in entry.name for part in _APART):
                weights += 0 if words.is_kept(entry.name, options) else _product(entry.shape)
    matter = {key: value for key, value in options.items() if key not in words.NO_MATTER}
    told = json.dumps({"base": record_of(base)[0], "options": matter}, sort_keys=True, separators=(",", ":"))
    _check_data(options)
    return {
        "identity": "quantize:sha256:" + hashlib.sha256(told.encode()).hexdigest(),
        "bytes": size,
        "weights": weights,
    }


def _quantized(config: dict[str, Any]) -> bool:
    text = config.get("text_config")
    return bool(config.get("quantization_config") or (isinstance(text, dict) and text.get("quantization_config")))


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for each in shape:
        product *= each
    return product


def _check_data(options: dict[str, Any]) -> None:
    path = str(options["dataset"])
    if words.plain(options):
        return
    if not path.startswith("/"):
        if not options["network"]:
            raise Refused(
                f"the calibration data {path} is on the hub, and the container has no network",
                hint="set network: true, or name a .json or .jsonl file on the node (a list of texts)",
            )
        return
    if not path.endswith((".json", ".jsonl")):
        raise Refused(f"the calibration data {path} is neither .json nor .jsonl", hint="AutoRound reads only these two")
    if not os.access(path, os.R_OK) or not os.path.isfile(path):
        raise Refused(
            f"the calibration data {path} can't be read on the node", hint="put it there, readable by the owner"
        )


def is_taken(output: int, identity: str) -> bool:
    """Whether the folder already holds, whole, what is to be made."""
    return _said(output, MARK) == identity


def _said(folder: int, path: str) -> str:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(handle, encoding="utf-8") as file:
            return str(json.load(file).get("identity", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def prepare(output: int, identity: str) -> int:
    """The folder ready for the container: empty, unless the same was begun in it. Returns the bytes in it."""
    os.fchdir(output)
    if _said(output, STARTED) != identity:
        for name in os.listdir("."):
            _remove(name)
        os.makedirs(os.path.dirname(STARTED), mode=0o755)
        atomic.write(STARTED, json.dumps({"identity": identity}).encode(), 0o600)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(CHECKED)
    for name in _OURS:
        os.makedirs(name, mode=0o755, exist_ok=True)
    return sum(
        os.stat(name, dir_fd=at, follow_symlinks=False).st_blocks * 512
        for _, _, files, at in os.fwalk(".", follow_symlinks=False)
        for name in files
    )


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def take(output: int, base: int, identity: str) -> dict[str, Any]:
    """Look through what the container left, move it up into the folder, and mark that. Goes on after a crash.

    Raises Refused where it is not whole; it then stays where it is.
    """
    os.fchdir(output)
    if not os.path.exists(CHECKED):
        made = _made()
        resume.mend(made)
        folder = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(folder, base)
            _settle(made, folder, base)
        finally:
            os.close(folder)
        atomic.write(CHECKED, json.dumps({"folder": made}).encode(), 0o600)
    with open(CHECKED, encoding="utf-8") as file:
        made = json.load(file)["folder"]
    for name in sorted(os.listdir(made)) if os.path.isdir(made) else []:
        os.rename(os.path.join(made, name), name)
    for name in filter(os.path.lexists, _OURS):
        _remove(name)
    atomic.write(MARK, json.dumps({"identity": identity}).encode(), 0o600)
    return {"folder": made}


def _made() -> str:
    """Where AutoRound put its files: into the folder it was told, or one below it that it named itself."""
    for folder in (words.OUT, *sorted(os.path.join(words.OUT, name) for name in os.listdir(words.OUT))):
        if os.path.isfile(os.path.join(folder, CONFIG)):
            return folder
    raise Refused("AutoRound ended well and left no config.json", hint="run apply again")


def _check(made: int, base: int) -> None:
    """Index against headers, headers against sizes, and no layer of the base lost."""
    output = Base(made, [])
    try:
        tensors, _ = output.tensors()
        config = output.json(CONFIG)
    except Refused as error:
        what = str(error).replace("the base", "the output")
        raise Refused(f"what AutoRound wrote is not whole: {what}", hint="run apply again") from None
    if not _quantized(config):
        raise Refused("what AutoRound wrote has no quantization_config", hint="look at the scheme: BF16 rounds nothing")
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
        raise Refused(
            f"what AutoRound wrote lacks {len(lost)} tensors of the base: {some(lost)}",
            hint="look for another version of AutoRound and transformers that knows this model",
        )


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
    blocks = scheme.get("block_name_to_quantize") or ""
    if "model.language_model.layers" in blocks and isinstance(scheme.get("extra_config"), dict):
        scheme["extra_config"] = {_longer(name): value for name, value in scheme["extra_config"].items()}
    config = {**Base(base, []).json(CONFIG), "quantization_config": scheme}
    atomic.write(os.path.join(made, CONFIG), json.dumps(config, indent=2, sort_keys=True).encode(), 0o644)


def _longer(name: str) -> str:
    """A layer's name, or an expression for one, as the tensors have it."""
    escaped = name.replace(r"model\.layers\.", r"model\.language_model\.layers\.")
    return escaped.replace("model.layers.", "model.language_model.layers.")
