"""The step `mtp`: complete MTP layers in 16 bit, the base's own where it has them, else a donor's."""

from collections.abc import Mapping

from sparkops.core.messages import Refused
from sparkops.programs.build.autoround_config import UNQUANTISED, bits, config_of, is_autoround, note_step
from sparkops.programs.build.tensor_plan import DonorTensors, PlannedTensor, TensorPlan
from sparkops.safetensors.parts import module_of, mtp_difference, part_of

LARGEST = 4_000_000_000
"""Bytes of tensors in one new file, as other writers have it."""
FLOATING = ("BF16", "F16")
EVERY = r"^mtp\..*"


def apply(plan: TensorPlan, options: Mapping[str, object] | None) -> None:
    """Change the plan. `options`: `donor`, its number in the plan's; without one the base has to be complete."""
    number = (options or {}).get("donor")
    donor = plan.donors[number] if isinstance(number, int) else None
    own = {entry.name: entry for entries in plan.files.values() for entry in entries if part_of(entry.name) == "mtp"}
    fault = _fault("base", own, plan.text_config)
    if fault is None:
        _declare(plan, list(own))
        plan.notice("build-mtp-kept", tensors=len(own))
    elif donor is None:
        raise fault
    else:
        _graft(plan, donor, set(own))


def _fault(checkpoint: str, tensors: dict[str, PlannedTensor], text_config: dict[str, object]) -> Refused | None:
    """Why these are not the complete 16-bit MTP layers of that configuration; None where they are."""
    if not text_config.get("mtp_num_hidden_layers"):
        return Refused.of("mtp-not-in-config", checkpoint=checkpoint)
    if not tensors:
        return Refused.of("mtp-absent", checkpoint=checkpoint)
    if quantised := sorted(name for name, entry in tensors.items() if entry.dtype not in FLOATING):
        return Refused.of("mtp-not-16-bit", checkpoint=checkpoint, count=len(quantised), tensors=quantised)
    missing, unexpected = mtp_difference(tensors, text_config)
    if missing:
        return Refused.of("mtp-tensors-missing", checkpoint=checkpoint, count=len(missing), tensors=missing)
    if unexpected:
        return Refused.of("mtp-tensors-unexpected", checkpoint=checkpoint, count=len(unexpected), tensors=unexpected)
    hidden = text_config.get("hidden_size")
    shape = next((list(entry.shape) for name, entry in tensors.items() if name.endswith("mtp.fc.weight")), [])
    if shape == [hidden, 2 * hidden if isinstance(hidden, int) else 0]:
        return None
    return Refused.of("mtp-fc-shape", checkpoint=checkpoint, shape=shape, hidden_size=hidden)


def _graft(plan: TensorPlan, donor: DonorTensors, own: set[str]) -> None:
    """Take the donor's in place of what the base has, in files of their own."""
    inner = donor.config.get("text_config")
    theirs = inner if isinstance(inner, dict) else donor.config
    text = plan.text_config
    if not text.get("mtp_num_hidden_layers"):
        text["mtp_num_hidden_layers"] = theirs.get("mtp_num_hidden_layers")
    grafts = {name: entry for name, entry in donor.tensors.items() if part_of(name) == "mtp"}
    if fault := _fault(f"donor {donor.label}", grafts, text):
        raise fault
    for file, entries in plan.files.items():
        if any(entry.name in own for entry in entries):
            plan.files[file] = [entry for entry in entries if entry.name not in own]
    groups = _groups(list(grafts.values()))
    for number, group in enumerate(groups, 1):
        file = "model-mtp.safetensors" if len(groups) == 1 else f"model-mtp-{number:05}-of-{len(groups):05}.safetensors"
        if plan.files.get(file):
            raise Refused.of("mtp-file-exists", path=file)
        plan.files[file] = group
    _declare(plan, list(grafts))
    note_step(plan, "mtp", {"donor": donor.label, "tensors": len(grafts), "replaced": len(own)})
    plan.notice("build-mtp-from-donor", tensors=len(grafts), donor=donor.label, replaced=len(own))


def _groups(entries: list[PlannedTensor]) -> list[list[PlannedTensor]]:
    """The entries in files of at most LARGEST bytes, in the order in which the donor has them."""
    groups: list[list[PlannedTensor]] = [[]]
    size = 0
    for entry in entries:
        if size and size + entry.size > LARGEST:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.size
    return groups


def _declare(plan: TensorPlan, names: list[str]) -> None:
    """Declare in quantization_config that the MTP layers are not quantized. Raises Refused where that is unknown."""
    config = config_of(plan)
    modules = {module_of(name) for name in names}
    if is_autoround(config):
        extra = config.get("extra_config")
        extra = dict(extra) if isinstance(extra, dict) else {}
        if any(bits(config, module) < 16 for module in modules):
            others = {key: value for key, value in extra.items() if key not in modules}
            config["extra_config"] = {EVERY: dict(UNQUANTISED), **others}
    elif config.get("quant_method") == "gptq":
        dynamic = config.get("dynamic")
        config["dynamic"] = {**(dynamic if isinstance(dynamic, dict) else {}), f"-:{EVERY}": {}}
    elif config.get("quant_method") == "compressed-tensors":
        ignore = config.get("ignore")
        listed = ignore if isinstance(ignore, list) else []
        config["ignore"] = listed if f"re:{EVERY}" in listed else [*listed, f"re:{EVERY}"]
    elif config:
        raise Refused.of("mtp-method-unknown", method=str(config.get("quant_method")))
