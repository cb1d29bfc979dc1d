"""The archive of `sparkops diagnose`: every part with the secrets taken out, and an index of what it has and lacks."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sparkops
from sparkops.core import named_file
from sparkops.operate.diagnose import Diagnosis, Part
from sparkops.reports import schemas
from sparkops.reports.json import as_json as report_as_json
from sparkops.reports.text import lines

INDEX = "index.json"


def write(found: Diagnosis, path: Path) -> dict[str, Any]:
    """Write the archive for its owner alone, whole or not at all; returns its index. Raises OSError."""
    parts = [dataclasses.replace(each, text=found.redaction.text(each.text)) for each in (*found.parts, *_plan(found))]
    index = _index(found, parts)
    texts = [
        (INDEX, json.dumps(index, indent=1) + "\n"),
        *((each.file, each.text) for each in parts if each.why is None),
    ]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        _add(archive, path.name.partition(".tar")[0], texts)
    named_file.write(path, content.getvalue(), private=True)
    return {**index, "archive": str(path), "bytes": len(content.getvalue())}


def _plan(found: Diagnosis) -> Iterable[Part]:
    if found.plan is not None:
        yield Part(file="plan.json", text=json.dumps(report_as_json(found.plan), indent=1) + "\n")
        yield Part(file="plan.txt", text="\n".join(lines(found.plan)) + "\n")


def _index(found: Diagnosis, parts: Sequence[Part]) -> dict[str, object]:
    """`sparkops.diagnose/1`; documented in docs/formats.md."""
    clean = found.redaction
    there = [each for each in parts if each.why is None]
    missing = [{"file": each.file, "why": clean.json(each.why.as_json())} for each in parts if each.why is not None]
    return {
        "schema": schemas.DIAGNOSE,
        "cluster": found.cluster,
        "time": time.time(),
        "version": sparkops.__version__,
        "files": [{"file": each.file, "bytes": len(each.text.encode()), "cut": each.cut} for each in there],
        "missing": missing,
        "unreachable": {node: clean.json(why.as_json()) for node, why in found.silent.items()},
        "unread_secrets": [clean.text(each) for each in found.unread],
        "removed": sum(clean.count(each.text) for each in there),
    }


def _add(archive: tarfile.TarFile, folder: str, texts: Iterable[tuple[str, str]]) -> None:
    for name, text in texts:
        data = text.encode("utf-8", "replace")
        entry = tarfile.TarInfo(f"{folder}/{name}")
        entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
        archive.addfile(entry, io.BytesIO(data))
