"""Taking secrets out of texts that leave a machine: known values in every usual form, and what looks like a secret.

Too much is taken rather than too little. A text has to be redacted before it is cut: half a secret matches nothing.
"""

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

MASK = "<removed>"
SHORTEST = 4
"""Characters of a known value below which it is not looked for: it would be found in every number."""
LINE = 8
"""Characters from which on a single line of a secret of several lines is looked for."""

_WORD = r"(?:pass(?:word|wd|phrase)?|secrets?|tokens?|api_?keys?|keys?|credentials?|auth|cookie)"
_KEY = rf"(?<![A-Za-z0-9])(?:[A-Za-z0-9]{{1,40}}[_.-]){{0,8}}{_WORD}(?:[_.-][A-Za-z0-9]{{1,40}}){{0,8}}"
_CAMEL = r"(?<![A-Za-z0-9])[a-z0-9]{1,30}(?:[A-Z][a-z0-9]{0,30}){0,6}(?:Token|Key|Password|Secret|Credential)s?"
_NAME = rf"(?:(?i:{_KEY})|{_CAMEL})"
_HARMLESS = re.compile(r"(?:-?\d{1,6}(?:\.\d+)?|true|false|null|none|\*{3})\Z", re.I)
"""Values that no secret has: sizes and switches under names such as `max_tokens` or `num_key_value_heads`."""
_COUNTS = re.compile(r"(?i)(?:tokens|key_value|kv_|_heads?|token_ids?|_size|tokenizer)")
"""Names that count or describe tokens and keys of a model."""

_IS = r"\s{0,20}[=:]\s{0,20}"
_QUOTE = r"\\{1,8}" + '"'
_ASSIGNED = [
    re.compile(f"(?P<head>{head})(?P<value>{value})(?P<tail>{tail})", re.M)
    for head, value, tail in (
        (rf"{_QUOTE}(?P<name>{_NAME}){_QUOTE}{_IS}{_QUOTE}", r'(?:[^"\\]|\\(?!"))*', _QUOTE),
        (rf'"(?P<name>{_NAME})"{_IS}"', r'(?:[^"\\]|\\.)*', '"'),
        (rf'["\'](?P<name>{_NAME})=', r'(?:[^"\'\\]|\\.)*', r'["\']'),
        (rf'(?P<name>{_NAME}){_IS}["\']', r'(?:[^"\'\\]|\\.)*', r'["\']'),
        (rf"^[ \t]{{0,40}}(?:export |Environment=)?(?P<name>{_NAME})\s{{0,20}}=\s{{0,20}}", r"[^\"'\n]+", ""),
        (rf"(?P<name>{_NAME}){_IS}", r"[^\s\"',;&\]})\\]+", ""),
        (rf"--?(?P<name>{_NAME})(?:[\"']?,?\s{{1,20}}[\"']?|=)", r"[^\s\"',\]-][^\s\"',\]]*", ""),
    )
]
"""An assignment in JSON, in JSON inside of JSON, in a shell's or a unit's words, in a line, and as an option."""
_SHAPES = [
    (
        re.compile(
            r"(?i)((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)(?:(?:bearer|basic|token|digest)\s+)?[^\s\"',]+"
        ),
        1,
    ),
    (re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), 1),
    (re.compile(r"(?i)((?:x-api-key|x-auth-token|set-cookie|cookie)[\"']?\s*[:=]\s*[\"']?)[^\s\"',]+"), 1),
    (re.compile(r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://)[^\s/@\"']*:[^\s/@\"']+(?=@)"), 1),
    (re.compile(r"(?<![A-Za-z0-9])(?:hf_|sk-|nvapi-|gh[pousr]_|github_pat_|glpat-|xox[abp]-)[A-Za-z0-9_-]{8,}"), 0),
    (re.compile(r"(?<![A-Za-z0-9])AKIA[0-9A-Z]{16}"), 0),
    (re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), 0),
]
_BEGIN = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----")
_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY( BLOCK)?-----")
_WHOLE = re.compile(_BEGIN.pattern + r".*?" + _END.pattern, re.S)
KEY_LINES = 200
"""Lines at most that a private key without its other end takes with it."""


class Redaction:
    """What is removed: `values` in every form, and everything of the shape of a secret."""

    def __init__(self, values: Iterable[str]) -> None:
        known = {each for each in values if len(each) >= SHORTEST}
        for value in list(known):
            known |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE}
        forms = sorted({form for value in known for form in _forms(value)}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, forms))) if forms else None

    def text(self, text: str) -> str:
        """The text without them."""
        if self._known is not None:
            text = self._replace(self._known, text, 0)
        text = self._private_keys(text)
        for pattern, group in _SHAPES:
            text = self._replace(pattern, text, group)
        for pattern in _ASSIGNED:
            text = pattern.sub(self._assigned, text)
        return text

    def json(self, value: object, name: str = "") -> Any:
        """A plain value without them: all texts, and whole values of keys, entries and options that name a secret."""
        if isinstance(value, dict):
            entry = str(value.get("name", value.get("Name", "")))
            named = {str(key): entry if str(key).lower() == "value" else str(key) for key in value}
            return {self.text(str(key)): self.json(each, named[str(key)]) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            before = ["", *(each.lstrip("-") if isinstance(each, str) and each[:1] == "-" else "" for each in value)]
            return [self.json(each, option or name) for each, option in zip(value, before, strict=False)]
        if not isinstance(value, str):
            return value
        if name and names_secret(name) and self._secret(name, value):
            return MASK
        return self.text(value)

    def count(self, text: str) -> int:
        """How many values were removed from a text."""
        return text.count(MASK)

    def _replace(self, pattern: "re.Pattern[str]", text: str, group: int) -> str:
        return pattern.sub(lambda match: (match.group(group) if group else "") + MASK, text)

    def _assigned(self, match: "re.Match[str]") -> str:
        if not self._secret(match["name"], match["value"]):
            return match[0]
        return match["head"] + MASK + match["tail"]

    def _secret(self, name: str, value: str) -> bool:
        if not value or value.startswith(MASK):
            return False
        return not (_COUNTS.search(name) and name.upper() != name) and not (
            _HARMLESS.match(value) and name.upper() != name
        )

    def _private_keys(self, text: str) -> str:
        """Also in a journal, where each line has a head of its own, and where one end of the key is cut off."""
        text = self._replace(_WHOLE, text, 0)
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if _END.search(line):
                lines[max(0, number - KEY_LINES) : number + 1] = [MASK] * min(number + 1, KEY_LINES + 1)
            elif _BEGIN.search(line):
                count = len(lines[number : number + KEY_LINES])
                lines[number : number + KEY_LINES] = [MASK] * count
        return "\n".join(lines)


def names_secret(name: str) -> bool:
    """Whether the value of a variable of this name is taken for a secret."""
    return re.fullmatch(_NAME, name) is not None


def _forms(value: str) -> set[str]:
    """How a value stands in files, logs and addresses: itself, escaped, percent-encoded, hexadecimal, in base64."""
    data = value.encode("utf-8", "surrogateescape")
    quoted = {urllib.parse.quote(value, safe=safe, errors="replace") for safe in ("", "/")}
    quoted.add(urllib.parse.quote_plus(value, errors="replace"))
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
    escaped |= {json.dumps(each)[1:-1] for each in list(escaped)}
    hexadecimal = {data.hex(), data.hex().upper()}
    lower = {re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), each) for each in quoted}
    found = {value, value.replace("'", "'\\''"), *quoted, *lower, *escaped, *hexadecimal, *_base64(data)}
    return {form for form in found if len(form) >= SHORTEST}


def _base64(data: bytes) -> set[str]:
    """Its base64 alone, and the part that is the same wherever it stands in a longer text (`user:password`)."""
    found = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found |= {encode(data).decode(), encode(data).decode().rstrip("="), encode(data + b"\n").decode()}
        for before in (1, 2):
            whole = encode(b"\0" * before + data).decode().rstrip("=")
            middle = whole[before + 1 : len(whole) - (1 if (before + len(data)) % 3 else 0)]
            found.add(middle)
        if len(data) % 3:
            found.add(encode(data).decode().rstrip("=")[:-1])
    return {each for each in found if len(each) >= 6}
