"""`python -m docs.generate`: the pages that are written from data: inventory, roles, kinds, recipes, rules, errors,
figures.

A test compares them with what this would write, so they can't fall behind.
"""

from __future__ import annotations

import inspect
import json
import re
import string
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from bench import report
from docs.published import points
from sparkops import resources
from sparkops.core import wording
from sparkops.inventory.declarations import Role, find_roles
from sparkops.inventory.recipes import SCHEMA as RECIPE
from sparkops.inventory.recipes import SPEED
from sparkops.inventory.schema import ACCEPT, CONNECTION, CORE, GROUP, NODE, SERVICE
from sparkops.lint.rules import rules
from sparkops.models.engine import versions
from sparkops.operate.recipes import every, fastest
from sparkops.reconcile.plan_file import SCHEMA
from sparkops.resources.resource import Resource

DOCS = Path(__file__).parent
BY_ID = "<!-- Below: written by `make docs` from knowledge/errors; edit that. -->\n\n## Every message by its id"
NOTE = "<!-- Written by `make docs` from the schemas; edit those. -->\n"


def inventory_page() -> str:
    """The reference of the inventory's own keys."""
    parts = [
        NOTE,
        "# Inventory reference\n",
        "One YAML file; `sparkops schema` prints the same as a JSON Schema for your editor. Variables of roles are in "
        "[roles.md](roles.md).\n",
        "Merging, weakest first: role defaults, recipe, `vars`, groups in the order listed, node, service, service on "
        "a node (`per_node`), `-e`. Mappings merge, everything else replaces, `null` unsets (what takes no null "
        "then has its default). "
        "`sparkops inventory show NODE --origin` prints where each value came from.\n",
        "`sparkops lock` writes `inventory.lock.yml` beside the inventory: the digests of image tags and the commits "
        "of branches, as they are upstream now. Where that file exists, it decides: `apply` adds missing entries and "
        "never changes one (`--locked` refuses instead), `drift --upstream` reports what moved since. An entry whose "
        "registry or hub does not answer stays as it is. To lock what runs already interrupts nothing: a service "
        "restarts for another content, not for a digest or commit written down.\n",
        "Values that are used more than once go under a key of yours that begins with `x-`, with a YAML anchor:\n",
        "```yaml\n"
        "version: 1\ncluster: rack\n"
        "x-serve: &serve {max-model-len: 131072, max-num-seqs: 4}\n"
        "nodes: {spark-01: {host: 192.168.1.11}, spark-02: {host: 192.168.1.12}}\n"
        "services:\n"
        "  qwen: {recipe: qwen3.6-35b-a3b, nodes: [spark-01], port: 8000, serve: *serve}\n"
        "  other: {recipe: qwen3.6-35b-a3b, nodes: [spark-02], port: 8000, serve: {<<: *serve, max-num-seqs: 8}}\n"
        "```\n",
        "Secrets are written `!env NAME`, `!file PATH` or `!command [argv, …]`, where the schema has `secret: true`; "
        "they are read only when they are used, never by `schema`, `render` or `inventory show`.\n",
    ]
    sections: list[tuple[str, Mapping[str, Any]]] = [
        ("Top level", CORE),
        ("connection", CONNECTION),
        ("groups.NAME", GROUP),
        ("nodes.NAME", NODE),
        ("services.NAME", SERVICE),
        ("accept[]", ACCEPT),
    ]
    for title, schema in sections:
        parts += [f"## {title}\n", *_table(schema)]
    parts.append(
        "A node or group may also carry a role's variables directly (`fabric: {…}`); in a service a role's name "
        "(`image`, `checkpoint`, `health`) is its namespace, and every other key is a variable of the role `service`.\n"
    )
    return "\n".join(parts)


def roles_page() -> str:
    """Every built-in role with its variables."""
    roles, _ = find_roles(None)
    parts = [
        NOTE,
        "# Roles\n",
        "A role is a folder `roles/NAME/` with one `role.yml`: summary, scope, order, variables as a JSON Schema, and "
        "resources. Your own are beside the inventory, under `roles/`; see [own roles](own-roles.md).\n",
        "## The variables you will set\n",
        "Most inventories need no others. Keys of a service are written in the service itself, those of other roles "
        "under the role's name, in a service, a node, a group or `vars`.\n",
        "| variable | default | meaning |",
        "|---|---|---|",
        *(_variable(roles, *each.partition(".")[::2]) for each in COMMON),
        "",
    ]
    for role in roles.values():
        if role.document is not None:
            parts += _role(role)
    return "\n".join(parts)


COMMON = (
    "service.port",
    "service.serve",
    "service.environment",
    "service.engine",
    "service.command",
    "service.limits.memory_free_gib",
    "service.timeouts.first_boot_seconds",
    "service.container.mounts",
    "image.pull",
    "image.digest",
    "image.registry.username",
    "checkpoint.repository",
    "checkpoint.revision",
    "checkpoint.token",
    "checkpoint.folder",
    "checkpoint.steps",
    "health.prompt",
    "health.expect",
    "fabric.address",
    "driver.accept",
    "host.disk",
    "host.desktop",
    "host.protection.earlyoom.enabled",
)


def _variable(roles: Mapping[str, Role], role: str, path: str) -> str:
    part: Mapping[str, Any] = roles[role].variables
    for name in path.split("."):
        part = part["properties"][name]
    shown = path if role == "service" else f"{role}.{path}"
    return f"| `{shown}` | {_default(part)} | {_cell(part['description'])} |"


def kinds_page() -> str:
    """Every kind of resource with its parameters."""
    parts = [
        NOTE.replace("the schemas", "the kinds' docstrings"),
        "# Resource kinds\n",
        "A role's `resources:` are of these kinds: `KIND: NAME` and parameters ([own roles](own-roles.md)). What is "
        "not declared (`null`) is not compared. Where a kind has `content`, `template: FILE` may stand instead.\n",
    ]
    for name in resources.names():
        parts += _kind(name, resources.kind(name))
    return "\n".join(parts)


def _kind(name: str, found: type[Resource]) -> Iterator[str]:
    base = {each.name for each in fields(Resource)}
    described: dict[str, str] = {}
    prose = ""
    for each in (one for one in reversed(found.__mro__) if issubclass(one, Resource) and one is not Resource):
        text, more = _described(inspect.cleandoc(each.__doc__ or ""), {one.name for one in fields(found)})
        described |= more
        prose = text
    yield f"## {name}\n"
    yield f"{prose}\n"
    yield "| parameter | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields(found):
        if field.compare and field.init and field.name not in base:
            meaning = described.get(field.name, "") or ("present or absent" if field.name == "state" else "")
            needed = field.default is MISSING and field.default_factory is MISSING
            cells = (f"`{field.name}`", _python_type(field), _python_default(field), meaning)
            yield f"| {' | '.join(cells)}{'; required' if needed and meaning else 'required' if needed else ''} |"
    yield ""


def _described(text: str, known: Collection[str]) -> tuple[str, dict[str, str]]:
    """A docstring's prose, and what it says of known parameters in lines such as `name, other: meaning`."""
    found: dict[str, str] = {}
    prose: list[str] = []
    for block in text.split("\n\n"):
        entries = re.findall(r"^(\w+(?:, \w+)*): (.*(?:\n    .*)*)", block, re.M)
        if not any(words.split(", ")[0] in known for words, _ in entries):
            prose.append(block)
            continue
        for words, meaning in entries:
            found |= dict.fromkeys(words.split(", "), _cell(meaning).rstrip("."))
    return "\n\n".join(prose), found


def _python_type(field: Field[Any]) -> str:
    """The type as a role file has it: what is used inside only (texts that may be secret, facts) counts as a string."""
    listed = re.sub(r"\b(?:tuple|Sequence|list)\[.*\]", "list", str(field.type))
    names = re.split(r"\s*\|\s*", re.sub(r"\b(?:Mapping|dict)\[.*\]", "object", listed))
    known = {"str": "string", "Content": "string", "Secret": "string", "int": "integer", "float": "number"}
    known |= {"bool": "boolean", "None": "null", "FromFact": "fact(…)"}
    if choice := re.fullmatch(r"Literal\[(.*)\]", listed):
        return " or ".join(f"`{each}`" for each in re.findall(r"\w+", choice[1]))
    return " or ".join(dict.fromkeys(known.get(each, "string" if each == "Severity" else each) for each in names))


def _python_default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "" if field.default is MISSING else f"`{json.dumps(field.default)}`"


def recipes_page() -> str:
    """What a recipe's file says, and the bundled ones."""
    parts = [
        NOTE,
        "# Recipes\n",
        "A recipe is a file `recipes/NAME.yml`, beside your inventory or bundled: the variables of a service (image, "
        "checkpoint, serve arguments, limits), published speeds, and their sources. A service uses it by "
        "`recipe: NAME`; the inventory's values win. `sparkops recipe list` shows all, `recipe show NAME` one with its "
        "sources, `recipe diff A B` the differences of two (names or files).\n",
        "Where tensor × pipeline parallel size is more than 1 and the service has several nodes, they are one engine: "
        "each gets a rank (`--nnodes`, `--node-rank`, `--master-addr` with the head's `fabric.address`, `--headless` "
        "for all but the first) and its own `VLLM_HOST_IP`. Other services on several nodes are replicas.\n",
        *_table(RECIPE),
        "## speeds[]\n",
        *_table(SPEED),
        "## Bundled\n",
        "| recipe | nodes | vLLM | tokens/s | |",
        "|---|---|---|---|---|",
    ]
    for each in every(None):
        cells = (each.name, str(each.nodes), each.engine or "", fastest(each.speeds), each.summary)
        parts.append(f"| {' | '.join(map(_cell, cells))} |")
    parts += [
        "\nTokens a second are those of one stream, as published; none were measured by sparkops' authors.\n",
        "Official images are named with the digest of the tag's index, where public files agree on one; for vLLM 0.32 "
        "and 0.33 and NVIDIA's own images none was found, and `sparkops lock` pins them.\n",
        "Not among them: **Qwen3.8-Flash-Next on one node**, which needs its table of n-grams (47.7 GiB) read from a "
        "file by a patch; B12X builds of **GLM-5.3-Flash** (eugr's recipe for two nodes: 34 to 48 tokens/s with five "
        "patches), **MiniMax-M3** and the DSpark variants of DeepSeek, for want of an image by digest or version that "
        "is known to serve them. `recipe import` reads their recipes, and `recipe new` says what is known.\n",
        "## A recipe for any model\n",
        "    sparkops recipe new openai/gpt-oss-120b\n    sparkops recipe new ORG/NAME --nodes 2 -o recipes/mine.yml\n",
        "`sparkops recipe new` proposes a complete recipe for any repository of the hub: the newest vLLM that takes "
        "it, its own image, the parsers of the model's family (`knowledge/parsers.yml`), and the longest context of "
        "up to four streams that `fit` counts with a tenth of the pool left. The repository's commit is pinned; what "
        "it has is [read once](own-models.md#any-repository), and `--offline` asks nobody. Warnings of lint and notes "
        "of fit stand in the recipe as comments, and what nobody has verified under `unverified`. The recipe passes "
        "lint and fit; where none can, the exit status is 1 and the reason is told: the nodes that it would need, a "
        "method of quantisation that no version reads, an error of lint. Where `fit` can't count (an architecture "
        "that is not described), the recipe says so. Without `-o` it is printed and nothing is written.\n",
        "## Recipes of other projects\n",
        "`sparkops recipe import FILE -o recipes/NAME.yml` reads recipes of sparkrun and its registries, of "
        "eugr/spark-vllm-docker and of vllm-project/recipes (`--variant`; without it the one made for GB10), compose "
        "files (`--service`), and lines or small scripts with `vllm serve` or `docker run` (`-` reads standard input). "
        "What can't be carried over is reported on standard error, with the reason; what the recipe then lacks is in "
        "its `needs`. Tokens, keys and passwords never get into a recipe: they become references to your environment. "
        "Arguments are read as the image's vLLM reads them; `--engine VERSION` sets it where the image's "
        "name does not.\n",
    ]
    return "\n".join(parts)


def _role(role: Role) -> Iterator[str]:
    yield f"## {role.name}\n"
    yield f"{role.summary.strip()}. Scope: {role.scope}." + (f" After: {', '.join(role.after)}." if role.after else "")
    yield ""
    yield from _table(role.variables)


def _table(schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    rows = list(_rows(schema, prefix))
    if rows:
        yield "| key | type | default | meaning |"
        yield "|---|---|---|---|"
        yield from rows
        yield ""


def _rows(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", ())
    for pattern, part in schema.get("patternProperties", {}).items():
        yield f"| `{pattern.removeprefix('^')}…` | anything |  | {_cell(part.get('description', ''))} |"
    for name, part in schema.get("properties", {}).items():
        words = [_cell(part.get("description", "")), "required" if name in required else ""]
        yield f"| `{prefix}{name}` | {_type(part)} | {_default(part)} | {'; '.join(filter(None, words))} |"
        if part.get("type") == "object" and "properties" in part and part is not CONNECTION:
            yield from _rows(part, f"{prefix}{name}.")
        elif "properties" in part.get("items", {}) and part["items"] not in (ACCEPT, SPEED):
            yield from _rows(part["items"], f"{prefix}{name}[].")


def _default(part: Mapping[str, Any]) -> str:
    return _cell(f"`{json.dumps(part['default'])}`") if "default" in part else ""


def _type(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_type(each) for each in part["anyOf"]))
    found = part.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def rules_page() -> str:
    """Every rule of lint, in the order of its file."""
    listed = versions()
    rows = []
    for rule in rules().values():
        held = rule.versions()
        span = "all" if held == listed else f"{held[0]}–{held[-1]}"
        severity = rule.severity if rule.spark == rule.severity else f"{rule.severity}; on a Spark {rule.spark}"
        rows.append(
            f"| `{rule.id}` | {severity} | {span} | {_cell(rule.summary)} {_cell(rule.why)} | {_cell(rule.remedy)} |"
        )
    head = [
        NOTE,
        "# Lint rules\n",
        f"{len(rows)} rules over the engine versions {listed[0]} to {listed[-1]}. `sparkops explain ID` prints "
        "one with its source; how to use them is in [lint.md](lint.md).\n",
        "| rule | severity | engine | what, and why | way out |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def plan_schema() -> str:
    """The JSON Schema of a saved plan."""
    return json.dumps(SCHEMA, indent=2) + "\n"


def fit_points_page() -> str:
    """Every published point beside what `fit` computes."""
    parts = [
        NOTE.replace("from the schemas; edit those", "from docs/published.py; edit that"),
        "# `fit` against what was published\n",
        "The formulas and the constants are in [fit](../docs/fit.md); none of them differs from row to row.\n",
    ]
    group = ""
    for point in points():
        if point.group != group:
            group = point.group
            parts += [f"\n## {group[0].upper()}{group[1:]}\n", "| of | published | computed | deviation | source |"]
            parts.append("|---|---|---|---|---|")
        published, computed = (f"{each:,.{point.digits}f}" for each in (point.published, point.computed))
        if published == computed:
            deviation = "0"
        elif abs(point.deviation) < 0.01:
            deviation = "< 0.01 %"
        else:
            deviation = f"{point.deviation:+.2f} %"
        parts.append(f"| {point.what} | {published} | {computed} | {deviation} | {point.source} |")
    return "\n".join(parts) + "\n"


def troubleshooting_page() -> str:
    """The hand-written situations above `BY_ID`, then every error, violation and notice by its id."""
    written = (DOCS / "troubleshooting.md").read_text(encoding="utf-8").partition(BY_ID)[0]
    rows = []
    for entry in sorted(wording.entries().values(), key=lambda each: each.id):
        meaning = " ".join(filter(None, (_template(entry.message) + ".", _cell(entry.cause))))
        rows.append(f"| `{entry.id}` | {meaning} | {_template(entry.fix)} |")
    return "\n".join([f"{written}{BY_ID}\n", "| id | message and cause | fix |", "|---|---|---|", *rows, ""])


def _template(text: str) -> str:
    """Words of the catalogue with their arguments as `NAME`."""
    parts = [literal + (name.upper() if name else "") for literal, name, _, _ in string.Formatter().parse(_cell(text))]
    return "".join(parts)


PAGES = {
    "inventory.md": inventory_page,
    "../bench/fit-points.md": fit_points_page,
    "roles.md": roles_page,
    "kinds.md": kinds_page,
    "recipes.md": recipes_page,
    "rules.md": rules_page,
    "troubleshooting.md": troubleshooting_page,
    "plan.schema.json": plan_schema,
    "performance.md": report.summary,
    "../bench/README.md": report.tables,
}


def main() -> int:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
