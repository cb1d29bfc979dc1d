"""A pasted shell line taken apart: which words the engine gets, and which variables it sees.

It knows shells and `docker run` as far as lines with `vllm serve` need them: operators and redirections end a command,
`bash -c '…'` contains one, variables come first, in `export` or in `-e`. It must not know the engine's flags.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

OPERATORS = ";&|"
SHELLS = ("sh", "bash", "zsh", "dash")
CONTAINERS = ("docker", "podman", "nerdctl")
SWITCHES = {
    *("d", "detach", "i", "interactive", "t", "tty", "rm", "init", "privileged", "read-only", "no-healthcheck"),
    *("oom-kill-disable", "publish-all", "P", "q", "quiet", "sig-proxy"),
}
"""Docker's flags that take no value."""
SHORT = {"e": "env", "v": "volume", "p": "publish", "m": "memory", "u": "user", "w": "workdir", "h": "hostname"}
CLI = "vllm.entrypoints.cli.main"
"""The module that is the program `vllm`; the others of its package are servers by themselves."""
SERVER = re.compile(rf"(?:^|(?<=\s))vllm\.entrypoints\.(?!{re.escape(CLI.partition('entrypoints.')[2])})")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


def split(text: str) -> tuple[dict[str, str], list[str]]:
    """The variables and the engine's words of a line: quotes, backslashes at line ends, comments as a shell has them.

    Of several commands the one that serves is taken. Raises ValueError for an open quote, and for two that serve.
    """
    environment: dict[str, str] = {}
    commands = _commands(re.sub(r"\\[ \t]*\r?\n", " ", text))
    serving = [words for words in commands if start_of(words) is not None] or commands[:1]
    if len(serving) > 1:
        raise ValueError(f"{len(serving)} commands in it start vLLM; give one")
    for words in commands:
        if words and words[0] in ("export", "declare"):
            environment |= _variables(words[1:])
    found, rest = command(serving[0] if serving else [])
    return {**environment, **found}, rest


def command(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables in front of the engine's words, and those words: behind `serve`, its module, or an image's name."""
    words = list(words)
    if (start := start_of(words)) is not None:
        return _in_front(words[: start - 1]), words[start:]
    for index, word in enumerate(words[1:], 1):
        if word.startswith("-") and word.endswith("c") and _name(words[index - 1]) in SHELLS and index + 1 < len(words):
            environment, rest = split(words[index + 1])
            return {**_in_front(words[: index - 1]), **environment}, rest
    for index, word in enumerate(words):
        if _name(word) in CONTAINERS and words[index + 1 : index + 2] == ["run"]:
            flags, rest = docker_flags(words[index + 2 :])
            environment = _variables([value for flag, value in flags if flag == "env"])
            started = [value for flag, value in flags if flag == "entrypoint" and value][-1:]
            inner, rest = command([*started, *rest[1:]]) if started else ({}, rest[1:])
            return {**environment, **inner}, rest
    return {}, words


def start_of(words: Sequence[str]) -> int | None:
    """Where the engine's own words begin: behind `vllm serve` or the API server's module; None without either."""
    for index, word in enumerate(words):
        if word == "serve" and (index == 0 or _name(words[index - 1]) in ("vllm", CLI)):
            return index + 1
        if SERVER.match(word):
            return index + 1
    return None


def docker_flags(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Docker's own flags of `docker run` with their values, and the words from the image on."""
    found: list[tuple[str, str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, sign, value = rest.pop(0).partition("=")
        short = not name.startswith("--")
        bare = name.lstrip("-")
        if short and len(bare) > 1 and bare[0] in SHORT:
            bare, sign, value = bare[0], "=", bare[1:] + sign + value
        if short and all(letter in SWITCHES for letter in bare):
            found += [(letter, "") for letter in bare]
        elif bare in SWITCHES and not short:
            found.append((bare, value))
        else:
            found.append((SHORT.get(bare, bare), value if sign else rest.pop(0) if rest else ""))
    return found, rest


def _commands(text: str) -> list[list[str]]:
    """The commands of a text, word by word, without redirections."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=OPERATORS + "<>")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    commands: list[list[str]] = [[]]
    redirected = False
    for word in lexer:
        if set(word) <= set(OPERATORS + "<>"):
            redirected = "<" in word or ">" in word
            if redirected and commands[-1] and re.fullmatch(r"[012]", commands[-1][-1]):
                commands[-1].pop()
            if not redirected:
                commands.append([])
        elif redirected:
            redirected = False
        else:
            commands[-1].append(word)
    return [words for words in commands if words]


def _in_front(words: Sequence[str]) -> dict[str, str]:
    """`NAME=value` at the beginning, behind `env` or `sudo`, and what `-e` and `--env` give."""
    found: list[str] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if VARIABLE.fullmatch(word) and (not index or before in ("-e", "--env", "env", "sudo") or before in found):
            found.append(word)
        elif word.startswith("--env="):
            found.append(word.removeprefix("--env="))
        elif re.fullmatch(r"-e[A-Za-z_]\w*=.*", word, re.DOTALL):
            found.append(word[2:])
    return _variables(found)


def _variables(words: Sequence[str]) -> dict[str, str]:
    return {name: value for name, sign, value in (word.partition("=") for word in words) if sign}


def _name(word: str) -> str:
    return word.rpartition("/")[2]
