"""A `vllm serve …` or `docker run …` line, alone or in a small shell script, and the command of a container.

One module, because each can contain the next: a script runs docker, docker runs a command, and that may be
a shell with a script.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from sparkops.importing import containers, serving
from sparkops.importing.recipe_draft import Choice, Draft, shortened
from sparkops.importing.secrecy import is_secret
from sparkops.models.shell_line import docker_flags, start_of

_STARTS = re.compile(
    r"(?:^|[\s;&|])(?:(?:docker|podman|nerdctl)\s+run\s|(?:\S*/)?vllm\s+serve\s|\S*\s-m\s+vllm\.entrypoints\.)",
    re.MULTILINE,
)
_QUOTED = re.compile(r"[\"'](?:docker|podman|nerdctl|(?:\S*/)?vllm)\s+(?:run|serve|compose)\s")
_YAML = re.compile(r"^(?:[A-Za-z_][\w-]*|\"[^\"]*\"):(?:\s|$)", re.MULTILINE)
_ASSIGNED = re.compile(r"(export\s+|declare\s+-x\s+)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}|\$([A-Za-z_]\w*)")
MODULE = "vllm.entrypoints.openai.api_server"
SHELLS = ("bash", "sh", "/bin/bash", "/bin/sh", "/usr/bin/bash")
STARTERS = ("vllm", "serve", "exec", "env", "nohup", "python", "python3", "-m", MODULE)
SCRIPTS = (".sh", ".bash", ".zsh", ".py", ".pl")
PROGRAMS = (
    *("python", "python3", "env", "exec", "ray", "torchrun", "mpirun", "node", "uvicorn", "sleep", "tail", "make"),
    *("sglang", "sglang.launch_server", "llama-server", "llama-cli", "trtllm-serve", "tritonserver", "ollama"),
    *("lmdeploy", "text-generation-launcher", "tgi", "mlc_llm", "aphrodite", "lms", "exo", "vllm-omni"),
)
"""Programs and other engines that a container may start, none of them a model's name."""
OTHER_IMAGE = re.compile(
    r"(?:^|[/_-])(vllm-omni|llama\.?cpp|ollama|sglang|text-generation-inference|tensorrt-llm|trt-?llm|tritonserver|lmdeploy|"
    r"local-?ai|mlc-?llm|tabbyapi|aphrodite|ktransformers|koboldcpp|exllama\w*)(?![a-z0-9])"
)
"""Other engines, by the names of their images."""

ENDS = ("&", "&&", "||", ";", "|", ">", ">>", "2>", "&>", "2>&1")


def is_one(content: str) -> bool:
    """Whether the text is a command line or shell script that names vLLM, not YAML."""
    script = content.startswith("#!") or not _YAML.search(content)
    return bool(_STARTS.search(f"\n{content}\n") or _QUOTED.search(content)) and script


def is_script(content: str, name: str) -> bool:
    """Whether the text is a shell script, whatever it does."""
    return content.startswith("#!") or name.endswith(SCRIPTS)


def read(content: str, name: str, choice: Choice) -> Draft:
    """The recipe in a text with one such line. Raises InventoryError for none, or more than one."""
    draft = Draft(name, "a command line", choice)
    take_script(draft, content)
    return draft


def take_script(draft: Draft, content: str) -> None:
    """The one line that serves, with the variables that the others set; all else is left, and said."""
    known: dict[str, str] = {}
    exported: list[str] = []
    serving_lines: list[list[str]] = []
    evaluated: list[str] = []
    for line in _lines(draft, content):
        assigned = _ASSIGNED.fullmatch(line)
        if assigned and len(_words(line)) == 1 and _STARTS.search(f" {_unquoted(assigned[3])} "):
            evaluated.append(f"in the variable {assigned[2]}")
        elif (words := _words(line))[:1] == ["eval"] and _STARTS.search(f" {' '.join(words[1:])} "):
            evaluated.append("behind eval")
        elif (text := _of_shell(words)) and not _STARTS.search(f" {line} "):
            take_script(draft, text)
            return
        elif len(words) > 2 and (several := _exported(words)):
            known |= {name: _filled(value, known) for name, value in several}
            exported += [name for name, _ in several]
        elif _STARTS.search(f" {line} "):
            serving_lines.append(_split(draft, _filled(line, known)))
        elif assigned and not re.search(r"\s", _unquoted(assigned[3])):
            known[assigned[2]] = _filled(_unquoted(assigned[3]), known)
            exported += [assigned[2]] if assigned[1] else []
        else:
            draft.leave(f"shell line `{shortened([line])}`", "a recipe has no shell")
    if evaluated and not serving_lines:
        raise draft.fault("import-evaluated", place=evaluated[0])
    if len(serving_lines) != 1:
        count = f"{len(serving_lines)} lines in it start" if serving_lines else "no line in it starts"
        raise draft.fault("import-line-count", count=count)
    (words,) = serving_lines
    run = next(
        (index for index, word in enumerate(words) if word == "run" and index and _docker(words[index - 1])), None
    )
    if run is not None:
        take_docker_run(draft, words[run + 1 :])
        return
    for variable in exported:
        draft.take_environment(variable, known[variable])
    _take_serve(draft, words)


def take_docker_run(draft: Draft, words: Sequence[str]) -> None:
    """The words after `docker run`. Raises InventoryError without an image."""
    flags, rest = docker_flags(words)
    if not rest:
        raise draft.fault("import-without-image")
    draft.image = rest[0]
    entrypoint = None
    ports: list[str] = []
    for flag, value in flags:
        if flag == "entrypoint":
            entrypoint = [value] if value else []
        elif flag == "publish":
            ports.append(value)
        else:
            containers.take_flag(draft, flag, value)
    take_command(draft, entrypoint, rest[1:])
    containers.take_ports(draft, ports)


def take_command(draft: Draft, entrypoint: Sequence[str] | None, given: Sequence[str]) -> None:
    """The words that a container is started with; `entrypoint` None is the image's own."""
    every = [*(entrypoint or ()), *given]
    if any(word in SHELLS for word in every[:1]) and any(re.fullmatch("-[a-z]*c", word) for word in every[1:2]):
        draft.container["entrypoint"] = []
        take_script(draft, every[2] if len(every) > 2 else "")
        return
    start = start_of(every)
    if start is None and entrypoint:
        raise draft.fault("import-entry-point-other", entrypoint=shortened(entrypoint))
    if start is not None and entrypoint:
        draft.container["entrypoint"] = []
    alone = start is None or every[:start] == ["serve"]
    official = draft.official and not entrypoint
    if alone or official:
        draft.service["command"] = [] if start is None or official else ["serve"]
    elif MODULE in every[:start]:
        draft.note("the API server's module is started as `vllm serve`")
    _refuse_other_program(draft, every[start or 0 :])
    if start is None and (other := OTHER_IMAGE.search((draft.image or "").partition("@")[0].lower())):
        raise draft.fault("import-other-engine", value=other[1])
    serving.take_arguments(draft, every[start or 0 :])


def _refuse_other_program(draft: Draft, words: Sequence[str]) -> None:
    """Raises InventoryError where a container is started with a program that is not vLLM."""
    first = words[0] if words else ""
    program = first.rpartition("/")[2]
    if first.endswith(SCRIPTS) or program in PROGRAMS or program.removesuffix(".exe") in SHELLS:
        raise draft.fault("import-command-other", command=shortened(words))


def _take_serve(draft: Draft, words: list[str]) -> None:
    start = start_of(words) or 0
    for word in words[:start]:
        name, sign, value = word.partition("=")
        if sign and re.fullmatch(r"[A-Za-z_]\w*", name):
            draft.take_environment(name, value)
        elif word not in STARTERS and not word.endswith("/vllm"):
            draft.leave(f"`{word}` before the command", "the container starts the engine itself")
    serving.take_arguments(draft, words[start:])


def _lines(draft: Draft, content: str) -> Iterator[str]:
    """Logical lines, continuations and open quotes joined, without comments and what is not worth telling."""
    waiting = ""
    for line in re.sub(r"\\[ \t]*\r?\n", " ", content).splitlines():
        waiting = f"{waiting}\n{line}" if waiting else line
        if _open(waiting.strip()):
            continue
        text, waiting = waiting.strip(), ""
        if text and not text.startswith("#") and not re.fullmatch(r"set\s+[-+]\w+.*|\$+", text):
            yield text.removeprefix("$ ")
    if waiting.strip():
        raise draft.fault("import-quote-open")


def _open(text: str) -> bool:
    """Whether a quote is not closed yet."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def _words(text: str) -> list[str]:
    """The words of a line; the line itself where its quotes do not close."""
    try:
        return shlex.split(text)
    except ValueError:
        return [text]


def _split(draft: Draft, line: str) -> list[str]:
    """The one command of a line that serves, with the variables that those in front of it export; all else is left."""
    commands: list[list[str]] = [[]]
    for word in draft.words(line):
        if word in ENDS:
            commands.append([word])
        else:
            commands[-1].append(word.removesuffix(";"))
            commands += [[";"]] if word.endswith(";") else []
    serving_ones = [index for index, words in enumerate(commands) if _serves(words)]
    if len(serving_ones) > 1:
        raise draft.fault("import-line-count", count=f"{len(serving_ones)} commands in it start")
    chosen = serving_ones[0] if serving_ones else 0
    for words in commands[:chosen]:
        for name, value in _exported(words):
            draft.take_environment(name, value)
    before = [word for words in commands[:chosen] if not _exported(words) for word in words]
    for others in (before, [word for words in commands[chosen + 1 :] for word in words]):
        if others not in ([], [";"]):
            draft.leave(f"`{shortened(others)}`", "a recipe has no shell")
    return commands[chosen][1:] if chosen else commands[chosen]


def _of_shell(words: Sequence[str]) -> str:
    """The script that a line hands to a shell, as `docker exec NAME bash -c` does; "" for none."""
    for index, word in enumerate(words[:-2]):
        if word in SHELLS and re.fullmatch("-[a-z]*c", words[index + 1]) and _STARTS.search(f"\n{words[index + 2]}\n"):
            return words[index + 2]
    return ""


def _serves(words: Sequence[str]) -> bool:
    runs = any(_docker(word) and following == "run" for word, following in pairwise(words))
    return runs or start_of(words) is not None


def _exported(words: Sequence[str]) -> list[tuple[str, str]]:
    """The variables of an `export` with nothing else in it."""
    rest = [word for word in words if word not in ENDS]
    assigned = [word.partition("=") for word in rest[1:]]
    plain = rest[:1] == ["export"] and all(sign and name.isidentifier() for name, sign, _ in assigned)
    return [(name, value) for name, _, value in assigned] if plain else []


def _filled(text: str, known: Mapping[str, str]) -> str:
    """Variables that the script sets, and defaults, put in; what nothing sets stays as it is."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        default = match[2] if match[2] is not None and not is_secret(name, match[2]) else match[0]
        return known.get(name, default)

    return _VARIABLE.sub(value, text)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _docker(word: str) -> bool:
    return word.rpartition("/")[2] in ("docker", "podman", "nerdctl")
