"""The text of a first inventory: commented, valid as it stands, out of what given machines say. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from sparkops.core.wording import size
from sparkops.inventory.recipes import Recipe
from sparkops.inventory.schema import NAME
from sparkops.models import catalogue, platform
from sparkops.operate.recipes import rates

EDITOR_LINE = "# yaml-language-server: $schema=./inventory.schema.json"
GIB = 1 << 30
SHARE = 0.95
"""Of a machine's memory, what a service can have at most while nothing else runs."""
PORT = 8000


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that runs already: a `container` or a `unit`, its port, and the words by which its model is known."""

    kind: str
    name: str
    port: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was seen of one machine: how it is reached, the key that was vouched for, its facts, what runs on it.

    `listening` are the TCP ports that are taken; `unseen` says why engines and ports could not be looked at.
    """

    host: str
    user: str | None = None
    port: int | None = None
    host_key: str = ""
    facts: Mapping[str, object]
    engines: tuple[Engine, ...] = ()
    listening: tuple[int, ...] = ()
    unseen: str = ""

    @property
    def name(self) -> str:
        """The machine's own host name as a name in an inventory, else one made of its address."""
        own = str(_group(self.facts, "os").get("hostname") or "")
        return own if re.match(NAME, own := _label(own)) and own != "localhost" else _label(self.host) or "spark-01"

    @property
    def memory(self) -> float | None:
        """GiB of memory; None where it was not told."""
        total = _group(self.facts, "memory").get("total_bytes")
        return total / GIB if isinstance(total, (int, float)) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A service for one machine: the recipe that fits best, the others that fit, and what runs in its place already.

    `recipe` is None where none fits, or none has the model of what runs.
    """

    recipe: Recipe | None
    others: tuple[Recipe, ...] = ()
    service: str = "qwen"
    port: int = PORT
    instead_of: Engine | None = None


TEMPLATE = """\
{editor}
# One cluster of DGX Spark nodes and the services on them. `sparkops plan` shows what would change.
version: 1
cluster: {cluster}

# How to reach the nodes. ~/.ssh/config is honoured; what stands here wins.
connection:
  user: {user}
  become: true                  # through sudo; a password is asked for once, if one is needed

nodes:
{nodes}{services}"""
SERVICE = """\
services:
  {service}:
    # Image, checkpoint and arguments: `sparkops recipe show {recipe}`. What is set here wins.
    recipe: {recipe}
    nodes: [{node}]
    port: {port}
    # vLLM's own flag names, verbatim: true → --x, false → --no-x, a mapping → JSON.
    serve:
      max-model-len: {length}
      max-num-seqs: {streams}
"""


def propose(found: Found, recipes: Iterable[Recipe]) -> Proposal:
    """The service for a machine: what runs there already if a recipe has its model, else the largest model that fits.

    Of two recipes of a model the one with the faster published speed comes first.
    """
    alone = [each for each in recipes if each.nodes == 1 and not each.document.data.get("needs")]
    fitting = sorted((each for each in alone if _fits(each, found.memory)), key=_rank)
    for engine in found.engines:
        same = [each for each in alone if _repository(each) and _mentions(engine.words, _repository(each))]
        if same or engine is found.engines[-1]:
            return _proposal(same[0] if same else None, fitting, engine.port, engine)
    free = next(port for port in range(PORT, PORT + 1000) if port not in found.listening)
    return _proposal(fitting[0] if fitting else None, fitting, free)


def _proposal(recipe: Recipe | None, fitting: Sequence[Recipe], port: int, engine: Engine | None = None) -> Proposal:
    return Proposal(
        recipe=recipe,
        others=tuple(each for each in fitting if each is not recipe),
        service=re.split(r"[^a-z]", recipe.name.lower())[0] if recipe is not None else "qwen",
        port=port,
        instead_of=engine,
    )


def _fits(recipe: Recipe, memory: float | None) -> bool:
    return memory is None or _needed(recipe) <= memory * SHARE


def _needed(recipe: Recipe) -> float:
    """GiB of free memory that a recipe waits for."""
    limits = recipe.variables.get("service", {}).get("limits") or {}
    return float(limits.get("memory_free_gib") or 0)


def _rank(recipe: Recipe) -> tuple[float, float, str]:
    """The order of preference: the larger model, then the faster of its own published speeds, then the name."""
    model = catalogue.find(recipe.model) if recipe.model else None
    parameters = model.geometry.text_parameters if model is not None else None
    return (-float(parameters or 0), -max(rates(recipe.speeds), default=0.0), recipe.name)


def _repository(recipe: Recipe) -> str:
    return str(recipe.variables.get("checkpoint", {}).get("repository") or "")


def _mentions(words: str, repository: str) -> bool:
    """Whether an engine's words name a repository: itself, its folder in the hub's cache, or its last part."""
    names = (repository, f"models--{repository.replace('/', '--')}", repository.rpartition("/")[2])
    return any(re.search(rf"(?<![\w.-]){re.escape(each)}(?![\w.-])", words, re.IGNORECASE) for each in names)


def inventory(found: Sequence[Found], cluster: str, recipes: Sequence[Recipe]) -> tuple[str, Proposal]:
    """The text of a first inventory for these machines, or for one example node, and the service proposed in it."""
    hosts = found or (Found(host="192.168.1.11", facts={"os": {"hostname": "spark-01"}}),)
    names = node_names(hosts)
    user = next((each.user for each in hosts if each.user), None) or "nvidia"
    best = propose(hosts[0], recipes)
    text = TEMPLATE.format(
        editor=EDITOR_LINE,
        cluster=_scalar(cluster),
        user=_scalar(user),
        nodes="".join(_node(name, each, user) for name, each in zip(names, hosts, strict=True)),
        services="\n".join([*_remarks_on_service(best, hosts[0], names[0]), _service(best, names[0])]),
    )
    return text, best


def cluster_name(found: Sequence[Found], folder: str) -> str:
    """The name to propose: of the first machine without its number, else the folder's that the inventory goes into."""
    text = re.sub(r"[-_.]\d+$", "", found[0].name) if found else _label(folder)
    return text if re.match(NAME, text) else "sparks"


def node_names(found: Sequence[Found]) -> list[str]:
    """The machines' names; where two have one name, the address tells them apart."""
    own = [each.name for each in found]
    return [
        name if own.count(name) == 1 else _label(each.host) or f"{name}-{number}"
        for number, (name, each) in enumerate(zip(own, found, strict=True), 1)
    ]


def _service(best: Proposal, node: str) -> str:
    if best.recipe is None:
        example = SERVICE.format(
            service="qwen", recipe="NAME", node=node, port=best.port, length=32768, streams=4
        ).splitlines()
        return "".join(f"# {line}\n" for line in example)
    serve = best.recipe.variables.get("service", {}).get("serve") or {}
    return SERVICE.format(
        service=best.service,
        recipe=best.recipe.name,
        node=_scalar(node),
        port=best.port,
        length=serve.get("max-model-len", 32768),
        streams=serve.get("max-num-seqs", 4),
    )


def _remarks_on_service(best: Proposal, found: Found, node: str) -> Iterator[str]:
    """Comments above the services: what was chosen and why, what else fits, what is in the way."""
    engine = best.instead_of
    if engine is not None:
        yield f"# The {engine.kind} {engine.name} serves there already, on port {engine.port}:"
        yield f"# `sparkops adopt {node} {best.service}` shows what differs from this, and takes it over."
        if best.recipe is None:
            yield "# No recipe has its model: `sparkops recipe new ORG/NAME` makes one, to be named here first."
        return
    seen = f"the {found.memory:.0f} GiB of memory of {node}" if found.memory is not None else "a DGX Spark"
    if best.recipe is None:
        yield f"# No recipe that comes with sparkops fits {seen}; `sparkops recipe new ORG/NAME` makes one:"
        return
    others = ", ".join(each.name for each in best.others[:4])
    yield f"# Proposed for {seen}." + (f" These fit too: {others} (`sparkops recipe list`)." if others else "")
    if best.port != PORT:
        yield f"# Port {PORT} is taken on {node}."


def _node(name: str, found: Found, user: str) -> str:
    lines = [f"  {_scalar(name)}:", f"    host: {_scalar(found.host)}"]
    more = {"port": found.port, "user": _scalar(found.user) if found.user and found.user != user else None}
    inner = [f"{key}: {value}" for key, value in more.items() if value is not None]
    if found.host_key:
        inner.append(f'host_key: "{found.host_key}"')
    if inner:
        lines += ["    connection:", *(f"      {each}" for each in inner)]
    lines += [f"    # {each}" for each in remarks(found)]
    return "\n".join(lines) + "\n\n"


def remarks(found: Found) -> list[str]:
    """What was seen, in lines: they inform, they declare nothing."""
    seen = []
    system, gpu = (_group(found.facts, name) for name in ("os", "gpu"))
    if system and (system.get("pretty") or system.get("id")):
        seen.append(f"seen: {system.get('pretty') or system.get('id')}, kernel {system.get('kernel')}")
    if gpu.get("name"):
        seen.append(f"seen: {gpu['name']}, driver {gpu.get('driver_version')}, CUDA {gpu.get('cuda_version')}")
        verdict = platform.load().component("driver").judge(str(gpu.get("driver_version")))
        seen += [f"driver {gpu.get('driver_version')}: {verdict.reason}"] if verdict.word != "accept" else []
    elif "gpu" in found.facts:
        seen.append(f"seen: no GPU ({gpu.get('error') or 'it was not told'})")
    if found.memory is not None:
        seen.append(f"seen: {size(found.memory * GIB)} ({found.memory:.1f} GiB) of memory")
    seen += [f"seen: the {each.kind} {each.name} serves on port {each.port}" for each in found.engines]
    seen += [f"not seen: what runs there ({found.unseen})"] if found.unseen else []
    return [re.sub(r"[^\x20-\x7e]", "?", each) for each in seen]


def _scalar(text: str) -> str:
    """A text as YAML has it in one line: in quotes where it would be read as something else."""
    return yaml.safe_dump(text, default_flow_style=True, allow_unicode=True, width=1000).partition("\n")[0]


def _group(facts: Mapping[str, object], name: str) -> Mapping[str, object]:
    group = facts.get(name)
    return group if isinstance(group, Mapping) else {}


def _label(host: str) -> str:
    """A name of a host's: the first label of a DNS name, an address with dashes."""
    text = host if re.fullmatch(r"[\d.:a-fA-F]+", host) and re.search(r"[.:]", host) else host.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "-", text).strip("-_").lower()[:63]
