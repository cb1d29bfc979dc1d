"""A measurement in the form of a submission to Spark Arena: `recipe.yaml`, `benchmark.csv`, `metadata.json`.

The forms are those of sparkrun 0.2 (`sparkrun arena benchmark`, `generate_metadata`, RECIPES.md) and of the profile
spark-arena-v2 of spark-arena/recipe-registry. Nothing is sent anywhere: that takes an account of the user's.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import yaml

import sparkops
from sparkops.core import named_file
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.secrets import SecretRef
from sparkops.inventory.served import Placed, places
from sparkops.operate.connect import Context
from sparkops.operate.endpoints import accesses
from sparkops.operate.measuring.tools import TOOLS, Target, call, target_of

PROFILE = "@official/spark-arena-v2"
ARGUMENTS: Mapping[str, object] = {
    "pp": [2048],
    "tg": [128],
    "depth": [0, 4096, 8192, 16384, 32768, 65535, 100000],
    "concurrency": [1, 2, 5, 10],
    "runs": 3,
    "enable_prefix_caching": True,
}
"""Of the profile; llama-benchy goes through the combinations in its own order, not in the profile's."""
TOOL = TOOLS["llama-benchy"]


def export(context: Context, service: str, limit: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Measure the first engine of a service by llama-benchy and write the three files. Takes hours.

    Raises SparkopsError, InventoryError for an engine that Spark Arena does not take.
    """
    access = accesses(context.inventory, [service], limit)[0]
    node = access.endpoint.node
    placed = next(each for each in places(context.inventory) if (each.service.name, each.node) == (service, node))
    if len(placed.replica) > 1:
        raise InventoryError.of("bench-arena-several-nodes", service=service, nodes=list(placed.replica))
    target = target_of(context, access, TOOL)
    recipe = recipe_text(placed, target)
    paths = tuple(folder / name for name in ("recipe.yaml", "benchmark.csv", "metadata.json"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        named_file.write(paths[0], recipe)
        began = datetime.now(timezone.utc)
        call([TOOL.program, *words(target, paths[1].absolute())], access, TOOL.key, folder)
        told = metadata(placed, target, recipe, (began, datetime.now(timezone.utc)))
        named_file.write(paths[2], json.dumps(told, indent=2))
    except OSError as error:
        raise SparkopsError.of("report-not-written", where=str(folder), reason=error.strerror or str(error)) from None
    return paths


def words(target: Target, path: Path) -> list[str]:
    """Of llama-benchy, which writes the CSV file itself."""
    found = ["--base-url", target.url, "--model", target.repository, "--served-model-name", target.model]
    for name, value in ARGUMENTS.items():
        found.append("--" + name.replace("_", "-"))
        found += [] if value is True else map(str, value if isinstance(value, list) else [value])
    return [*found, "--format", "csv", "--save-result", str(path)]


def recipe_text(placed: Placed, target: Target) -> str:
    """The service as a recipe of sparkrun; the values of secrets are left out."""
    service = placed.variables["service"]
    model = service["model"] or service["container"]["model_path"]
    line = [("{model}" if word == model else shlex.quote(word)) for word in placed.words or ()]
    secret = {key for key, value in (service["environment"] or {}).items() if isinstance(value, SecretRef)}
    recipe = {
        "recipe_version": "2",
        "model": target.repository,
        "runtime": "vllm",
        "max_nodes": 1,
        "container": _image(placed),
        "env": {key: value for key, value in placed.environment.items() if key not in secret},
        "command": " ".join(line) + "\n",
    }
    return yaml.safe_dump({key: value for key, value in recipe.items() if value}, sort_keys=False, width=1000)


def metadata(placed: Placed, target: Target, recipe: str, times: tuple[datetime, datetime]) -> dict[str, object]:
    """What is known of what sparkrun writes there; hosts are named by digests only."""
    image = _image(placed)
    began, ended = times
    name = f"{placed.service.name}@{placed.node}"
    revision = placed.variables["checkpoint"].get("commit") or placed.variables["checkpoint"].get("revision")
    return {
        "recipe": {
            "name": placed.service.name,
            "qualified_name": placed.service.recipe.name if placed.service.recipe else placed.service.name,
            "type": "sparkrun",
            "model": target.repository,
            "hf_model": target.repository,
            "raw_container": image,
            "container": image,
            "container_pinned": "@sha256:" in image,
            "runtime": "vLLM",
            "runtime_full": "vllm",
            "registry": None,
            "registry_git": "",
            "hash": hashlib.sha256(recipe.encode()).hexdigest(),
        },
        "timing": {
            "start": began.isoformat(),
            "end": ended.isoformat(),
            "duration": (ended - began).total_seconds(),
        },
        "cluster": {"cluster_id": hashlib.sha256(name.encode()).hexdigest()[:12], "node_count": 1},
        "benchmark": {"framework": "llama-benchy", "profile": PROFILE, "args": dict(ARGUMENTS)},
        "model": {"revision": revision} if revision else {},
        "runtime_info": {"vllm": placed.engine.version} if placed.engine else {},
        "sparkops": {"version": sparkops.__version__},
    }


def _image(placed: Placed) -> str:
    image = placed.variables["image"]
    return str((image["build"] or {}).get("tag") or image["pull"] or "")
