"""What is known of a model that a line names: a folder with its `config.json`, or one that the knowledge has.

It must not know rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.models.geometry import Geometry, of_config


@dataclass(frozen=True, slots=True)
class Known:
    """A model's sizes and its checkpoint's `quantization_config`; `geometry` is None where nothing is known."""

    geometry: Geometry | None = None
    quantization: Mapping[str, Any] = field(default_factory=dict)


def known(model: str | None, beside: Path | None = None) -> Known:
    """What is known of a model. Raises InventoryError for a folder whose config.json cannot be read."""
    if not model:
        return Known()
    config = Path(model) / "config.json"
    if config.is_file():
        return of_file(config)
    return Known()


def of_file(path: Path) -> Known:
    """What a config.json says. Raises InventoryError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InventoryError(f"it cannot be read: {error}", where=str(path), hint="give the model's own file") from None
    if not isinstance(content, Mapping):
        raise InventoryError("it is no mapping", where=str(path), hint="give the model's own file")
    return Known(of_config(content, str(path)), quantization(content))


def quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantisation that a config.json declares, wherever the exporter put it."""
    text = config.get("text_config")
    for place in (config, text if isinstance(text, Mapping) else {}):
        for key in ("quantization_config", "compression_config"):
            found = place.get(key)
            if isinstance(found, Mapping):
                return found
    return {}
