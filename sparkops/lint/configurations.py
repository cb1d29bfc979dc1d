"""Rules about the values of flags and of the configurations that are given as JSON: types, bounds, words, combinations.

What a version takes is on its page (`knowledge/engines`); what only it knows of speculation and online quantisation is
checked by their own rules. It must not know a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sparkops.lint.case import Case, Found
from sparkops.lint.spelling import did_you_mean
from sparkops.models import engine as kinds
from sparkops.models.architecture import expressions
from sparkops.models.engine import engine, versions
from sparkops.models.values import Fault, faults, filled

STRUCTURED = (kinds.JSON, kinds.JSON_OR_TEXT)
OWN_RULES: Mapping[str, tuple[str, ...]] = {
    "speculative-config": ("method", "num_speculative_tokens"),
    "structured-outputs-config": ("reasoning_parser",),
    "attention-config": ("backend",),
}
"""Fields whose words have rules of their own."""

COUNTS = ("num_speculative_tokens",)
"""Those of them that are numbers."""

LISTED: Mapping[str, str] = {"config-format": "ConfigFormat"}
"""Flags that take any word in their type, and are looked up in a list of the page later."""

UNDER: Mapping[str, str] = {"max-loras": "enable-lora", "max-lora-cls-labels": "enable-lora"}
"""Flags that are judged only where another turns their configuration on."""


def configuration_key_unknown(case: Case) -> Iterable[Found]:
    for flag, fault in _faults(case):
        if fault.kind == "key" and flag != "speculative-config":
            others = _known_to(case, fault.path[-1])
            since = f"; {others} know it" if others else ""
            remedy = "" if others else did_you_mean(fault.path[-1], fault.known) or f"take {fault.path[-1]} out"
            yield Found(f"{fault.where}: {fault.message}{since}", f"--{flag}", remedy=remedy)


def configuration_value(case: Case) -> Iterable[Found]:
    for flag, fault in _faults(case):
        if fault.kind == "value":
            where = f"{fault.where}: " if fault.path else ""
            yield Found(f"{where}{fault.message}", f"--{flag}", remedy=_near(fault))


def configuration_refused(case: Case) -> Iterable[Found]:
    for flag, fault in _faults(case):
        if fault.kind == "combination":
            yield Found(f"{fault.where}: {fault.message}" if fault.path else fault.message, f"--{flag}")


def flags_refused(case: Case) -> Iterable[Found]:
    """Combinations of flags; a flag whose default the page does not have counts as not given."""
    line, defaults = case.line, case.engine.defaults
    for condition, message in case.engine.refusals.get("serve", {}).items():
        flags = {name: name.replace("_", "-") for name in expressions.names(condition)}
        given = {name: line.get(flag) for name, flag in flags.items()}
        scope = {name: defaults.get(flags[name]) if value is None else value for name, value in given.items()}
        try:
            holds = any(value is not None for value in given.values()) and expressions.value(condition, scope)
        except TypeError:
            continue
        if holds:
            about = min(flag for name, flag in flags.items() if given[name] is not None)
            yield Found(filled(message, scope), f"--{about}")


def connector_unknown(case: Case) -> Iterable[Found]:
    given, known = case.line.get("kv-transfer-config"), case.engine.words.get("KVConnectors", ())
    if not isinstance(given, Mapping):
        return
    name = given.get("kv_connector")
    if name is None:
        yield Found("Connector name is not set in KVTransferConfig", "--kv-transfer-config")
    elif known and name not in known and not given.get("kv_connector_module_path"):
        yield Found(
            f"Unsupported connector type: {name}", "--kv-transfer-config", remedy=did_you_mean(str(name), known)
        )


def number_out_of_range(case: Case) -> Iterable[Found]:
    for flag, value in case.line.arguments.items():
        if not _constructed(case, flag):
            continue
        if case.engine.flags.get(flag) not in STRUCTURED and not isinstance(value, (str, tuple)) and value is not None:
            for fault in faults(case.engine.values.get(flag, "Any"), value, case.engine):
                yield Found(f"{flag.replace('-', '_')} is {value}: {fault.message.partition(', not')[0]}", f"--{flag}")
    tokens, given = case.effective.max_num_batched_tokens, case.line.get("max-num-batched-tokens")
    if tokens < 1 and given is None:
        yield Found(f"max_num_batched_tokens is {tokens}: Input should be greater than or equal to 1", "--max-num-seqs")
    if case.line.get("max-model-len") == 0:
        yield Found("max_model_len is 0: it must be a positive integer", "--max-model-len")
    for flag in ("port", "grpc-port"):
        port = case.line.get(flag)
        if isinstance(port, int) and not 0 <= port <= 65535:
            yield Found(f"{flag} is {port}: a port is from 0 to 65535", f"--{flag}")


def word_unknown(case: Case) -> Iterable[Found]:
    """Words of flags that the parser takes and the configuration then refuses."""
    for flag, value in case.line.arguments.items():
        judged = isinstance(value, str) and case.engine.flags.get(flag) == kinds.TEXT and flag != "attention-backend"
        if not judged or flag in case.engine.choices or not _constructed(case, flag):
            continue
        if value not in case.engine.words.get(LISTED.get(flag, ""), (value,)):
            known = case.engine.words[LISTED[flag]]
            yield Found(f"Unknown config format `{value}`", f"--{flag}", remedy=did_you_mean(value, known))
        for fault in faults(case.engine.values.get(flag, "Any"), value, case.engine):
            yield Found(f"{flag.replace('-', '_')}: {fault.message}", f"--{flag}", remedy=_near(fault))


def _faults(case: Case) -> Iterator[tuple[str, Fault]]:
    """The faults of each configuration of the line, but those of fields with rules of their own."""
    for flag, text in case.engine.values.items():
        value = case.line.get(flag)
        if value is None or case.engine.flags.get(flag) not in STRUCTURED:
            continue
        for fault in faults(text, value, case.engine):
            own = bool(fault.path) and fault.path[0] in OWN_RULES.get(flag, ())
            judged = own and (fault.path[0] in COUNTS or isinstance(value[fault.path[0]], str))
            if fault.kind != "value" or not judged:
                yield flag, fault


def _constructed(case: Case, flag: str) -> bool:
    """Whether the engine makes the configuration of a flag at all: that of LoRA where it is on, that of images and
    video where the model takes them."""
    if flag in UNDER:
        return bool(case.line.get(UNDER[flag]))
    images = flag.startswith(("mm-", "video-"))
    return not images or (case.geometry is not None and case.geometry.multimodal)


def _near(fault: Fault) -> str:
    word = fault.message.rpartition("not ")[2].strip("'\"")
    return did_you_mean(word, fault.known)


def _known_to(case: Case, key: str) -> str:
    """The listed versions whose configurations have a key at that name, like "0.20.2 to 0.26.0"."""
    holding = [each for each in versions(case.beside) if _has(engine(each, case.beside).configurations, key)]
    return f"{holding[0]} to {holding[-1]}" if holding and not _has(case.engine.configurations, key) else ""


def _has(configurations: Mapping[str, Mapping[str, object]], key: str) -> bool:
    return any(key in fields for fields in configurations.values())
