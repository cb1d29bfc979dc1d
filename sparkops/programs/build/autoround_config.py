"""What AutoRound's `quantization_config` says about a module, read as the engine reads it.

Source: vLLM's INCConfig.get_layer_config (0.19 to 0.33): an exact name in `extra_config`, then a pattern in it, then
`block_name_to_quantize`.
"""

import re

from sparkops.core.messages import Refused
from sparkops.programs.build.tensor_plan import TensorPlan

METHODS = ("auto-round", "intel/auto-round", "inc", "auto_round")
_SPECIAL = set(r"*+?^$()[]{}|\\")
UNQUANTISED = {"bits": 16, "data_type": "fp"}


def config_of(plan: TensorPlan) -> dict[str, object]:
    """The plan's quantization_config, {} where there is none."""
    for place in (plan.config, plan.text_config):
        found = place.get("quantization_config")
        if isinstance(found, dict):
            return found
    return {}


def is_autoround(config: dict[str, object]) -> bool:
    """Whether AutoRound wrote it."""
    return config.get("quant_method") in METHODS


def bits(config: dict[str, object], module: str) -> int:
    """Bits of a module's weights as the engine takes them to be. Raises Refused."""
    extra = config.get("extra_config")
    extra = extra if isinstance(extra, dict) else {}
    declared = _bits(config.get("bits"), 16)
    found = extra.get(module)
    if found is None:
        found = next((each for key, each in extra.items() if _matches(key, module)), None)
    if isinstance(found, dict) and found.get("bits") is not None:
        return _bits(found["bits"], declared)
    blocks = config.get("block_name_to_quantize")
    blocks = blocks.split(",") if isinstance(blocks, str) else blocks
    if isinstance(blocks, list) and blocks:
        return declared if any(module.startswith(str(each).strip()) for each in blocks) else 16
    return 16 if module.endswith("lm_head") else declared


def _bits(value: object, default: int) -> int:
    if value is None:
        return default
    if type(value) is not int:
        raise Refused.of("quantization-bits-invalid", bits=repr(value))
    return value


def _matches(pattern: object, module: str) -> bool:
    if not isinstance(pattern, str) or not any(each in _SPECIAL for each in pattern):
        return False
    try:
        return re.search(pattern, module) is not None
    except re.error:
        return False


def note_step(plan: TensorPlan, step: str, what: dict[str, object]) -> None:
    """Write into config.json, under `sparkops`, what a step did; engines ignore keys that they don't know."""
    noted = plan.config.get("sparkops")
    plan.config["sparkops"] = {**(noted if isinstance(noted, dict) else {}), step: what}
