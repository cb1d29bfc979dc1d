"""Rules about the words themselves: what the engine's own parser refuses, and what will be refused by its next version.

It must not know a model.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.inventory.faults import nearest
from sparkops.lint.case import Case, Found
from sparkops.lint.spelling import did_you_mean
from sparkops.models import engine as engines

REPLACED = {
    "rope-scaling": "use --hf-overrides with rope_parameters",
    "task": "take it out: the model's own task is served (--runner chooses another)",
    "enable-reasoning": "take it out: --reasoning-parser alone turns it on",
    "guided-decoding-backend": "use --structured-outputs-config with a `backend`",
    "use-v2-block-manager": "take it out: there is only one block manager",
    "swap-space": "take it out: preempted requests are computed again",
    "calculate-kv-scales": "take it out: scales come with the checkpoint",
    "disable-log-requests": "take it out: requests are only logged with --enable-log-requests",
    "max-num-partial-prefills": "take it out",
    "max-long-partial-prefills": "take it out",
}
"""What became of flags that were taken out, by the parsers of vLLM 0.19.1 to 0.33.0."""
TYPOGRAPHIC = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "a typographic dash"),
    **dict.fromkeys("\u00a0\u202f\u2009", "a non-breaking or thin blank"),
    **dict.fromkeys("\u2018\u2019\u201c\u201d\u201e", "a typographic quote"),
}
"""What web pages and word processors put in the place of `-`, a blank and quotes; no shell knows them."""


def unknown_flag(case: Case) -> Iterable[Found]:
    for problem in case.line.problems:
        if problem.kind == "unknown":
            bare = problem.word.lstrip("-").removeprefix("no-").partition("=")[0]
            remedy = _typography(problem.message) or _instead(case, bare)
            yield Found(f"{problem.message}{_known(case, bare)}", problem.flag, remedy=remedy)


def ambiguous_flag(case: Case) -> Iterable[Found]:
    return _refused(case, "ambiguous")


def flag_value(case: Case) -> Iterable[Found]:
    return _refused(case, "value")


def flag_choice(case: Case) -> Iterable[Found]:
    return _refused(case, "choice")


def extra_words(case: Case) -> Iterable[Found]:
    return _refused(case, "words")


def model_not_first(case: Case) -> Iterable[Found]:
    return _refused(case, "place")


def _refused(case: Case, kind: str) -> Iterable[Found]:
    """What the parser refuses for one reason."""
    for problem in case.line.problems:
        if problem.kind == kind:
            known = case.engine.choices.get(problem.flag.lstrip("-"), ()) if problem.word else ()
            yield Found(
                problem.message,
                problem.flag,
                remedy=_typography(problem.message) or did_you_mean(problem.word, known),
            )


def help_asked(case: Case) -> Iterable[Found]:
    if case.line.get("help"):
        yield Found("--help prints the flags and ends: nothing is served", "--help")


def abbreviated_flag(case: Case) -> Iterable[Found]:
    for written, meant in case.line.abbreviated.items():
        yield Found(
            f"{written} is read as {meant} only as long as no other flag begins so", written, remedy=f"write {meant}"
        )


def deprecated_flag(case: Case) -> Iterable[Found]:
    for flag, written in case.line.spelled.items():
        if flag in case.engine.deprecated or written.lstrip("-") in case.engine.deprecated:
            yield Found(f"{written} is deprecated in {case.engine.version}: it will be taken out", written)


def log_outputs_without_requests(case: Case) -> Iterable[Found]:
    if case.line.get("enable-log-outputs") and not case.line.get("enable-log-requests"):
        yield Found("Error: --enable-log-outputs requires --enable-log-requests", "--enable-log-outputs")


def model_not_named(case: Case) -> Iterable[Found]:
    if not case.line.model and case.line.get("config") is None:
        default = case.engine.defaults.get("model", "its default model")
        yield Found(f"the line names no model: the engine would serve {default}")


def config_file_not_read(case: Case) -> Iterable[Found]:
    if case.line.get("config") is not None:
        yield Found(
            f"the flags in {case.line.get('config')} are not checked: only the engine reads the file", "--config"
        )


def _typography(text: str) -> str:
    """The way out where the words came through a web page or a word processor."""
    for character in text:
        if character in TYPOGRAPHIC:
            return (
                f"contains {TYPOGRAPHIC[character]} (U+{ord(character):04X}): type it again, or paste it as plain text"
            )
    return ""


def _known(case: Case, flag: str) -> str:
    """In which other versions a flag is known, as a half sentence."""
    span = engines.spans("flags", flag, case.beside) or engines.spans("inverse", flag, case.beside)
    if span is None:
        return " (no listed version knows it)"
    first, last = span
    newest = engines.versions(case.beside)[-1]
    return f" (known since {first})" if last == newest else f" (known up to {last})"


def _instead(case: Case, flag: str) -> str:
    if flag in REPLACED:
        return REPLACED[flag]
    near = nearest(flag, [*case.engine.flags, *case.engine.inverse])
    return f"did you mean --{near}?" if near else ""
