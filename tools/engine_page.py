"""Writes the page of differences of an engine version: `python -m tools.engine_page COMPLETE.yml BASE > PAGE.yml`.

COMPLETE.yml is a complete file of the new version in the shape of knowledge/engine.schema.json, BASE a listed version.
What it prints, composed with BASE, is COMPLETE.yml again: it ends with an error otherwise.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sparkops.models.engine_pages import BASED_ON, alphabetical, composed, engine_content

HEADER = """\
# What vLLM {version} changes against {base}. docs/engines.md explains every key; the composed file has the shape of
# knowledge/engine.schema.json.
"""


def difference(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The shortest changes that make the base the wanted content."""
    changes: dict[str, Any] = {key: None for key in base if key not in wanted}
    for key, value in wanted.items():
        before = base.get(key)
        if key in base and before == value and type(before) is type(value):
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            changes[key] = difference(before, value)
        elif isinstance(before, str) and isinstance(value, str):
            changes[key] = _words(before, value)
        else:
            changes[key] = value
    return changes


def _words(before: str, value: str) -> Any:
    """What is added and removed, or all of it where it is a type, is not alphabetical or mostly changed."""
    old, new = set(before.split()), set(value.split())
    if {"|", "="} & new or value != alphabetical(new) or len(old ^ new) >= len(new):
        return value
    change = {"add": alphabetical(new - old), "remove": alphabetical(old - new)}
    return {name: words for name, words in change.items() if words}


def written(content: Mapping[str, Any], indent: str = "") -> str:
    """The content as YAML, long lists of words folded."""
    lines = []
    for key, value in content.items():
        if not _plain(key) or ": " in key:
            key = json.dumps(key)
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{key}:\n{written(value, indent + '  ')}")
        elif isinstance(value, str) and not _plain(value):
            lines.append(f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}\n")
        elif isinstance(value, str) and " " in value and len(indent) + len(key) + len(value) > 110:
            folded = textwrap.fill(value, 118 - len(indent), break_long_words=False, break_on_hyphens=False)
            lines.append(f"{indent}{key}: >-\n{textwrap.indent(folded, indent + '  ')}\n")
        else:
            lines.append(f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value)}\n")
    return "".join(lines)


def _plain(text: str) -> bool:
    """Whether YAML reads a text as itself, without quotes."""
    try:
        return bool(yaml.safe_load(f"a: {text}") == {"a": text})
    except yaml.YAMLError:
        return False


def page(base: str, wanted: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """The text of the page of `wanted`; `before` is the base's content where it is not the listed one.

    Raises ValueError where the page does not compose to `wanted`.
    """
    before = engine_content(base, None) if before is None else before
    changes = difference(before, wanted)
    if composed(before, changes) != wanted:
        raise ValueError("the page does not compose to the file: is a list of words written twice or out of order?")
    version = str(changes.pop("version"))
    text = HEADER.format(version=version, base=base) + f'version: "{version}"\n{BASED_ON}: "{base}"\n'
    return text + written(changes)


if __name__ == "__main__":
    complete, base_version = sys.argv[1:]
    sys.stdout.write(page(base_version, yaml.safe_load(Path(complete).read_text(encoding="utf-8"))))
