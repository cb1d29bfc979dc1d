"""What looks like a secret in another project's file, so that it gets neither into a recipe nor into a message.

It must not know a format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = re.compile(
    r"(?:(?:^|_)(?:TOKENS?|KEYS?(?:_ID)?|SECRETS?|CREDENTIALS?|CREDS?|PASS|PAT|JWT)|(?<=_)(?:PWD|AUTH)|"
    r"PASSWORDS?|PASSWD|PASSPHRASE|APIKEYS?)(?:_?\d+)?$",
    re.IGNORECASE,
)
VALUE = re.compile(
    r"\b(?:sk-|hf_|gh[oprsu]_|github_pat_|glpat-|nvapi-|xox[abp]-)[A-Za-z0-9_-]{6,}|\b(?:Bearer|Basic)\s+\S+|"
    r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}|"
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""Values that are secrets by their form: keys of known services, headers, a password in an address."""
KEY = re.compile(r"password|passwd|passphrase|secret|api_?key|access_?key", re.IGNORECASE)
"""Keys of a configuration that hold one; a `token` there mostly is one of a text."""
COUNT = re.compile(r"\d+(?:\.\d+)?[kKmM]?")
"""A number, which under a name like MAX_TOKENS is one of tokens."""

_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(=|:\s+|:?[-=?+])([^\s'\"`},]+)")
HIDDEN = "***"


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable holds a secret, by its name or by the form of its value."""
    counted = name.upper().endswith("TOKENS") and COUNT.fullmatch(value)
    return bool((NAME.search(name) and not counted) or VALUE.search(value))


def holds_secret(value: object) -> bool:
    """Whether a value holds what looks like a secret, also under a key of a mapping, at any depth."""
    if isinstance(value, Mapping):
        return any(
            holds_secret(each) or (isinstance(each, str) and bool(each) and bool(KEY.search(str(key))))
            for key, each in value.items()
        )
    if isinstance(value, (list, tuple)):
        return any(map(holds_secret, value))
    return isinstance(value, str) and bool(VALUE.search(value))


def concealed(text: str) -> str:
    """The text without what looks like a secret in it: `KEY=…`, `${KEY:-…}`, and values of a known form."""

    def hide(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{HIDDEN}" if is_secret(match[1], match[3]) else match[0]

    return VALUE.sub(HIDDEN, _ASSIGNED.sub(hide, text))
