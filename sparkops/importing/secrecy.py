"""What looks like a secret in another project's file, so that it gets neither into a recipe nor into a message.

It must not know a format.
"""

from __future__ import annotations

import re

NAME = re.compile(r"(?:^|_)(?:TOKENS?|KEYS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
VALUE = re.compile(
    r"\b(?:sk-|hf_|gh[opsu]_|github_pat_|glpat-|nvapi-|xox[abp]-)[A-Za-z0-9_-]{6,}|\b(?:Bearer|Basic)\s+\S+|"
    r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
"""Values that are secrets by their form: keys of known services, headers, a password in an address."""

_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(=|:\s+|:?[-=?+])([^\s'\"`},]+)")
HIDDEN = "***"


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable holds a secret, by its name or by the form of its value."""
    return bool(NAME.search(name) or VALUE.search(value))


def concealed(text: str) -> str:
    """The text without what looks like a secret in it: `KEY=…`, `${KEY:-…}`, and values of a known form."""

    def hide(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{HIDDEN}" if NAME.search(match[1]) else match[0]

    return VALUE.sub(HIDDEN, _ASSIGNED.sub(hide, text))
