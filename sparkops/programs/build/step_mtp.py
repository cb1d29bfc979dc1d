"""The step `mtp`: complete MTP layers in 16 bit, the base's own where it has them, else a donor's."""

from typing import Any

from sparkops.programs.build.base import some
from sparkops.programs.build.gptq import UNQUANTISED, bits, config_of, is_autoround, note_step
from sparkops.programs.build.tensor_plan import Donor, Draft, Entry
from sparkops.safetensors.parts import module_of, mtp_difference, part_of
from sparkops.worker.calls import Refused

LARGEST = 4_000_000_000
"""Bytes of tensors in one new file, as other writers have it."""
FLOATING = ("BF16", "F16")
EVERY = r"^mtp\..*"


def apply(draft: Draft, options: dict[str, Any] | None) -> None:
    """Change the draft. `options`: `donor`, its number in the draft's; without one the base has to be complete."""
    number = (options or {}).get("donor")
    donor = draft.donors[number] if number is not None else None
    own = {entry.name: entry for entries in draft.files.values() for entry in entries if part_of(entry.name) == "mtp"}
    fault = _fault(own, draft.text_config)
    if not fault:
        _declare(draft, list(own))
        draft.notes.append(f"mtp: the base's own {len(own)} tensors are complete and kept")
        return
    if donor is None:
        raise Refused(f"mtp: the base's MTP weights can't serve: {fault}", hint="declare a `donor` in 16 bit")
    _graft(draft, donor, set(own))


def _fault(tensors: dict[str, Entry], text_config: dict[str, Any]) -> str:
    """Why these are not the complete 16-bit MTP layers of that configuration; empty where they are."""
    if not text_config.get("mtp_num_hidden_layers"):
        return "config.json has no mtp_num_hidden_layers"
    if not tensors:
        return "there are none"
    if quantised := sorted(name for name, entry in tensors.items() if entry.dtype not in FLOATING):
        return f"{len(quantised)} are not in 16 bit: {some(quantised)}"
    missing, unexpected = mtp_difference(tensors, text_config)
    if missing:
        return f"{len(missing)} are missing: {some(missing)}"
    if unexpected:
        return f"{len(unexpected)} are more than config.json promises: {some(unexpected)}"
    hidden = text_config.get("hidden_size")
    shape = next((list(entry.shape) for name, entry in tensors.items() if name.endswith("mtp.fc.weight")), [])
    return "" if shape == [hidden, 2 * int(hidden or 0)] else f"mtp.fc is {shape} for a hidden size of {hidden}"


def _graft(draft: Draft, donor: Donor, own: set[str]) -> None:
    """Take the donor's in place of what the base has, in files of their own."""
    inner = donor.config.get("text_config")
    theirs = inner if isinstance(inner, dict) else donor.config
    text = draft.text_config
    if not text.get("mtp_num_hidden_layers"):
        text["mtp_num_hidden_layers"] = theirs.get("mtp_num_hidden_layers")
    grafts = {name: entry for name, entry in donor.tensors.items() if part_of(name) == "mtp"}
    if fault := _fault(grafts, text):
        raise Refused(
            f"mtp: the MTP weights of {donor.label} don't fit: {fault}",
            hint="declare the 16-bit repository of the same model as the donor",
        )
    for file, entries in draft.files.items():
        if any(entry.name in own for entry in entries):
            draft.files[file] = [entry for entry in entries if entry.name not in own]
    groups = _groups(list(grafts.values()))
    for number, group in enumerate(groups, 1):
        file = "model-mtp.safetensors" if len(groups) == 1 else f"model-mtp-{number:05}-of-{len(groups):05}.safetensors"
        if draft.files.get(file):
            raise Refused(f"mtp: the base has a {file} with other tensors", hint="declare another revision of it")
        draft.files[file] = group
    _declare(draft, list(grafts))
    note_step(draft, "mtp", {"donor": donor.label, "tensors": len(grafts), "replaced": len(own)})
    draft.notes.append(f"mtp: {len(grafts)} tensors from {donor.label}, in place of {len(own)}")


def _groups(entries: list[Entry]) -> list[list[Entry]]:
    """The entries in files of at most LARGEST bytes, in the order in which the donor has them."""
    groups: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if size and size + entry.size > LARGEST:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.size
    return groups


def _declare(draft: Draft, names: list[str]) -> None:
    """Have quantization_config say that the MTP layers are not quantised. Raises Refused where it can't be said."""
    config = config_of(draft)
    modules = {module_of(name) for name in names}
    if is_autoround(config):
        extra = config.get("extra_config")
        extra = dict(extra) if isinstance(extra, dict) else {}
        if any(bits(config, module) < 16 for module in modules):
            kept = {key: value for key, value in extra.items() if key not in modules}
            config["extra_config"] = {EVERY: dict(UNQUANTISED), **kept}
    elif config.get("quant_method") == "gptq":
        dynamic = config.get("dynamic")
        config["dynamic"] = {**(dynamic if isinstance(dynamic, dict) else {}), f"-:{EVERY}": {}}
    elif config.get("quant_method") == "compressed-tensors":
        ignore = config.get("ignore")
        listed = ignore if isinstance(ignore, list) else []
        config["ignore"] = listed if f"re:{EVERY}" in listed else [*listed, f"re:{EVERY}"]
    elif config:
        raise Refused(
            f"mtp: how to leave MTP out of a {config.get('quant_method')!r} quantisation is not known",
            hint="leave the step out, or declare a base in 16 bit, AutoRound, GPTQ or compressed-tensors",
        )
