"""Endpoints as texts for others: LiteLLM's proxy, OpenAI's client, a shell, Prometheus.

A key is written as the reference that it is, in the reader's own words (`os.environ/NAME`, `$(cat FILE)`); only with
`keys` as itself. What a format can't say is left out, and `left_out` tells of it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from sparkops.core.secrets import Secret, SecretRef
from sparkops.core.wording import Message
from sparkops.operate.endpoints import Access
from sparkops.reports import schemas
from sparkops.reports.printer import Printer, table

NO_KEY = "EMPTY"
"""What clients that insist on a key send to an engine that asks for none; vLLM's documentation has it so."""
CLIENTS = ("litellm", "openai", "env")


def render(found: Sequence[Access], printer: Printer, keys: bool) -> None:
    """A table for people."""
    rows = [
        (
            each.endpoint.service,
            each.endpoint.node,
            each.endpoint.url + (" (from the node only)" if each.endpoint.near else ""),
            " ".join(each.models) or "?",
            "" if each.key is None else _revealed(each.key) if keys else _reference(each.key),
        )
        for each in found
    ]
    table(printer, ("service", "node", "url", "model", "key"), rows)


def left_out(found: Sequence[Access], form: str) -> Iterator[tuple[Access, Message]]:
    """What a format for programs can't hold, and why."""
    for each in found:
        if form in (*CLIENTS, "file_sd") and each.endpoint.near:
            yield each, Message.of("endpoint-near", endpoint=each.endpoint.name, node=each.endpoint.node)
        elif form in ("litellm", "openai") and not each.models:
            yield each, Message.of("endpoint-model-unknown", endpoint=each.endpoint.name)


def as_json(cluster: str, found: Sequence[Access], keys: bool) -> str:
    """The documented format. Keys are references; with `keys` also themselves."""
    entries = []
    for each in found:
        place = each.endpoint
        entry: dict[str, object] = {
            "name": place.name,
            "service": place.service,
            "node": place.node,
            "url": place.url,
            "from_node_only": place.near,
            "models": list(each.models),
            "key": None if each.key is None else _reference(each.key),
        }
        if keys:
            entry["api_key"] = each.key.reveal() if isinstance(each.key, Secret) else None
        entries.append(entry)
    return json.dumps({"schema": schemas.ENDPOINTS, "cluster": cluster, "endpoints": entries}, indent=1) + "\n"


def file_sd(cluster: str, found: Sequence[Access], keys: bool) -> str:
    """Targets for Prometheus' `file_sd_configs`; vLLM's /metrics asks for no key."""
    groups = [
        {
            "targets": [each.endpoint.place],
            "labels": {
                "cluster": cluster,
                "service": each.endpoint.service,
                "node": each.endpoint.node,
                "rank": "0",
                "model": each.models[0] if each.models else "",
            },
        }
        for each in found
    ]
    return json.dumps(groups, indent=1) + "\n"


def litellm(cluster: str, found: Sequence[Access], keys: bool) -> str:
    """The configuration of LiteLLM's proxy: a service is one model name, and its engines share the requests."""
    named = _variables(found)
    exports = {named[id(each)]: _shell(each.key, keys) for each in found if id(each) in named}
    models = [
        {
            "model_name": each.endpoint.service,
            "litellm_params": {
                "model": f"hosted_vllm/{each.models[0]}",
                "api_base": each.endpoint.url,
                "api_key": _revealed(each.key) if keys else f"os.environ/{named[id(each)]}" if each.key else NO_KEY,
            },
        }
        for each in found
    ]
    head = f"# Services of the cluster {cluster}, for: litellm --config FILE\n"
    if not keys:
        head += "".join(
            f"# before the start: export {name}={value}\n" if value else f"# before the start: set {name} to the key\n"
            for name, value in exports.items()
            if value != f'"${name}"'
        )
    return head + yaml.safe_dump({"model_list": models}, sort_keys=False, allow_unicode=True, width=1000)


def openai(cluster: str, found: Sequence[Access], keys: bool) -> str:
    """A Python module: a client of OpenAI's package for each endpoint, and the name of its model."""
    named = _variables(found)
    clients, models = "", ""
    for each in found:
        key = repr(_revealed(each.key)) if keys else _python(each.key, named.get(id(each), ""))
        name = repr(each.endpoint.name)
        clients += f"    {name}: OpenAI(base_url={each.endpoint.url!r}, api_key={key}),\n"
        models += f"    {name}: {each.models[0]!r},\n"
    needed = {"os": "os.environ[", "subprocess": "subprocess.run(", "pathlib": "pathlib.Path("}
    imports = "".join(f"import {module}\n" for module, call in sorted(needed.items()) if call in clients)
    about = (
        f'"""Services of the cluster {cluster}: `clients[NAME].chat.completions.create(model=models[NAME], …)`."""\n'
    )
    return f"{about}\n{imports}\nfrom openai import OpenAI\n\nclients = {{\n{clients}}}\nmodels = {{\n{models}}}\n"


def env(cluster: str, found: Sequence[Access], keys: bool) -> str:
    """What OpenAI's clients read from the environment, for `eval`: of one endpoint."""
    (only,) = found
    key = shlex.quote(_revealed(only.key)) if keys else _shell(only.key, keys)
    models = " ".join(only.models) or "unknown"
    head = f"# {only.endpoint.name} of the cluster {cluster}; model: {models}\n"
    last = f"export OPENAI_API_KEY={key}\n" if key else "# set OPENAI_API_KEY to the key that the inventory has\n"
    return f"{head}export OPENAI_BASE_URL={shlex.quote(only.endpoint.url)}\n{last}"


FORMATS: Mapping[str, Callable[[str, Sequence[Access], bool], str]] = {
    "json": as_json,
    "litellm": litellm,
    "openai": openai,
    "env": env,
    "file_sd": file_sd,
}
"""Each format for programs: the cluster's name, its endpoints, and whether keys are shown."""


def _reference(key: SecretRef | Secret) -> str:
    return key.origin if isinstance(key, Secret) else str(key)


def _revealed(key: SecretRef | Secret | None) -> str:
    return key.reveal() if isinstance(key, Secret) else NO_KEY


def _variables(found: Sequence[Access]) -> dict[int, str]:
    """The environment variable of each access' key, by the access' id: its own name, or one of the service's name."""
    by_key: dict[object, str] = {}
    names: dict[int, str] = {}
    for each in found:
        key = each.key
        if key is None:
            continue
        same: object = (key.source, key.argument, key.base) if isinstance(key, SecretRef) else key
        if same not in by_key:
            name = f"SPARKOPS_{re.sub('[^A-Za-z0-9]', '_', each.endpoint.service).upper()}_KEY"
            if isinstance(key, SecretRef) and key.source == "env":
                name = str(key.argument)
            while name in by_key.values():
                name += "_"
            by_key[same] = name
        names[id(each)] = by_key[same]
    return names


def _shell(key: SecretRef | Secret | None, keys: bool) -> str | None:
    """A key as a word of a POSIX shell; None for plain text that is not to be shown."""
    if not isinstance(key, SecretRef):
        return NO_KEY if key is None else shlex.quote(key.reveal()) if keys else None
    if isinstance(key.argument, tuple):
        return f'"$(cd {shlex.quote(_folder(key))} && {shlex.join(key.argument)})"'
    return f'"${key.argument}"' if key.source == "env" else f'"$(cat {shlex.quote(_file(key))})"'


def _python(key: SecretRef | Secret | None, variable: str) -> str:
    """A key as an expression of Python, which reads it as sparkops does: without its last line end."""
    if key is None:
        return repr(NO_KEY)
    if not isinstance(key, SecretRef) or key.source == "env":
        return f"os.environ[{variable!r}]"
    if isinstance(key.argument, tuple):
        run = (
            f"subprocess.run({list(key.argument)!r}, cwd={_folder(key)!r}, check=True, capture_output=True, text=True)"
        )
        return f"{run}.stdout.removesuffix('\\n')"
    return f"pathlib.Path({_file(key)!r}).read_text().removesuffix('\\n')"


def _folder(key: SecretRef) -> str:
    return str(Path(key.base).resolve())


def _file(key: SecretRef) -> str:
    return str(Path(_folder(key)) / Path(str(key.argument)).expanduser())
