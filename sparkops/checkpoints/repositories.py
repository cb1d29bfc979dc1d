"""The models of repositories, as a hub has them: what their small files and tensor headers say, kept by commit.

What a commit holds never changes, so it is read once, a few hundred kB of most; what a branch or tag stands for is
asked for once a day. Nothing is written but the user's cache. It must not know lint, fit or an inventory.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sparkops.checkpoints.hub import Hub, HubError, HubUnreachable, Resolved, keep
from sparkops.checkpoints.manifest import is_commit, is_repository
from sparkops.core import data
from sparkops.core.deadline import DeadlineExceeded, within
from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.secrets import Secret
from sparkops.models.architecture.tensors import Weights
from sparkops.models.catalogue import FromHub, Model, of_files

if TYPE_CHECKING:
    from sparkops.checkpoints.inspect import Inspection

Answer = TypeVar("Answer")
FRESH = 86_400.0
"""Seconds for which a hub's answer about a branch or tag is taken for true without asking again."""
WHOLE = 180.0
"""Seconds for reading all that is needed of one commit."""
VERSION = 1
QUANTISATION = "hf_quant_config.json"
BROKEN = "safetensors-file-"
"""How the faults begin that another answer of the hub may not have: they are not kept."""


@dataclass(frozen=True)
class Record:
    """What is known of one commit. `quantisation` is the content of hf_quant_config.json; `inspection` and `weights`
    are None where there are no tensor files."""

    from_hub: FromHub
    config: Mapping[str, object]
    quantisation: Mapping[str, object] | None
    weights: Weights | None
    inspection: Fields | None = field(repr=False)

    @cached_property
    def model(self) -> Model:
        """The model. Raises HubError without a configuration, InventoryError for one that is none."""
        at = self.from_hub
        where = f"{at.repository}@{at.commit[:12]}"
        if not self.config:
            raise HubError.of("repository-without-config", where=where, front_end="command")
        name = (at.moved_to or at.repository).rpartition("/")[2]
        source = f"config.json of {where}"
        return of_files(name, at.repository, self.config, self.quantisation, self.weights, source=source, from_hub=at)


class Repositories:
    """The hub's repositories by name; `offline` asks nobody. One of them is read, or refused, once in a process."""

    def __init__(
        self,
        *,
        offline: bool = False,
        token: Secret | None = None,
        cache: Path | None = None,
        whole: float = WHOLE,
    ) -> None:
        self._offline = offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        self._token = token
        self._cache = cache if cache is not None else data.cache_folder()
        self._whole = whole
        self._seen: dict[tuple[str, str, str], Record | SparkopsError] = {}
        self._down: dict[str, HubUnreachable] = {}

    def model(self, repository: str, revision: str = "", endpoint: str = "") -> Model | None:
        """The model of a repository; None where this is no name of one.

        The token goes to the usual hub, never to an `endpoint` that somebody declared. Raises HubError, ManifestError,
        InventoryError for a configuration that is none.
        """
        if "/" not in repository or not is_repository(repository):
            return None
        return self.record(repository, revision, endpoint, self._token if not endpoint else None).model

    def record(self, repository: str, revision: str = "", endpoint: str = "", token: Secret | None = None) -> Record:
        """What is known of a revision ("" for main), out of the cache or by asking. Raises HubError, ManifestError."""
        key = (repository, revision or "main", endpoint)
        if key not in self._seen:
            try:
                self._seen[key] = self._record(Hub(endpoint, token, self._cache), repository, revision or "main")
            except SparkopsError as error:
                self._seen[key] = error
        found = self._seen[key]
        if isinstance(found, SparkopsError):
            raise found
        return found

    def _record(self, hub: Hub, repository: str, revision: str) -> Record:
        places = self._cache / "models" / hub.key / repository.replace("/", "--")
        from_hub = self._resolved(hub, repository, revision, places / "revisions")
        path = places / f"{from_hub.commit}.json"
        content = _kept(path)
        if content is None:
            self._may_ask(hub, repository, revision)
            content = self._ask(hub, repository, revision, lambda: _read(hub, repository, from_hub.commit))
            if not any(each["id"].startswith(BROKEN) for each in (content["inspection"] or {}).get("faults", ())):
                keep(path, json.dumps(content))
            from_hub = FromHub(repository, from_hub.commit, from_hub.moved_to, time.time(), cached=False)
        weights = content["weights"]
        return Record(
            from_hub,
            content["config"],
            content["quantisation"],
            Weights(weights["parts"], weights["names"]) if weights else None,
            content["inspection"],
        )

    def _resolved(self, hub: Hub, repository: str, revision: str, folder: Path) -> FromHub:
        """The commit of a revision: itself, as it was answered within a day, as the hub says, else as it last said."""
        path = folder / f"{hashlib.sha256(revision.encode()).hexdigest()[:32]}.json"
        kept = _kept(path)
        last = (
            None if kept is None else FromHub(repository, kept["commit"], kept["moved_to"], kept["asked"], cached=True)
        )
        if last is None and is_commit(revision):
            last = FromHub(repository, revision, "", time.time(), cached=True)
        if last is not None and (self._offline or is_commit(revision) or 0 <= time.time() - last.asked < FRESH):
            return last
        try:
            self._may_ask(hub, repository, revision)
            found: Resolved = self._ask(hub, repository, revision, lambda: hub.resolve(repository, revision))
        except HubUnreachable:
            if last is None:
                raise
            return last
        now = FromHub(repository, found.commit, found.moved_to, time.time(), cached=False)
        answer = {"version": VERSION, "commit": now.commit, "moved_to": now.moved_to, "asked": now.asked}
        keep(path, json.dumps(answer))
        return now

    def _may_ask(self, hub: Hub, repository: str, revision: str) -> None:
        """Raises HubUnreachable where nobody is to be asked, or where this hub has just not answered."""
        if hub.endpoint in self._down:
            raise self._down[hub.endpoint]
        if self._offline:
            where = f"{repository}@{revision}"
            raise HubUnreachable.of("hub-offline-not-cached", where=where, front_end="command", cache=str(self._cache))

    def _ask(self, hub: Hub, repository: str, revision: str, question: Callable[[], Answer]) -> Answer:
        """What a hub answers, within the limit, its refusals in the words for a command."""
        try:
            return within(self._whole, question)
        except DeadlineExceeded as error:
            where = f"{repository}@{revision} at {hub.endpoint}"
            failure: SparkopsError = HubUnreachable.of("hub-too-slow", where=where, seconds=error.seconds)
        except SparkopsError as error:
            failure = type(error)(error.id, error.args_by_name, where=error.where, front_end="command")
        if isinstance(failure, HubUnreachable):
            self._down[hub.endpoint] = failure
        raise failure


def inspection_of(record: Record) -> Inspection:
    """What `checkpoint inspect` tells of a record's commit. Raises InspectError where there are no tensor files."""
    from sparkops.checkpoints.inspect import Fault, InspectError, Inspection, Share

    where = f"{record.from_hub.repository}@{record.from_hub.commit[:12]}"
    if record.inspection is None:
        raise InspectError.of("no-safetensors-file", where=where)
    content = dict(record.inspection)
    shares = tuple(Share(**each) for each in content.pop("shares"))
    faults = tuple(Fault(**each) for each in content.pop("faults"))
    beside = tuple(content.pop("beside", ()))
    return Inspection(
        shares=shares, faults=faults, beside=beside, config=record.config, weights=record.weights, **content
    )


def _read(hub: Hub, repository: str, commit: str) -> dict[str, Any]:
    """Everything of a commit that is kept. Raises HubError, ManifestError."""
    import dataclasses

    from sparkops.checkpoints.inspect import Fault, HubSource, inspect, read_json

    source = HubSource(hub, hub.manifest(repository, commit))
    sizes = source.sizes()
    ignored: list[Fault] = []
    inspection = config = weights = None
    if any(each.endswith(".safetensors") for each in sizes):
        found = inspect(source)
        config, weights = found.config, found.weights
        inspection = dataclasses.asdict(found)
        del inspection["config"], inspection["weights"]
    elif "config.json" in sizes:
        config = read_json(source, sizes, "config.json", ignored)
    return {
        "version": VERSION,
        "config": config or {},
        "quantisation": read_json(source, sizes, QUANTISATION, ignored) if QUANTISATION in sizes else None,
        "weights": None if weights is None else {"parts": weights.parts, "names": weights.names},
        "inspection": inspection,
    }


def _kept(path: Path) -> dict[str, Any] | None:
    """The content of a file of the cache; None where it is lacking, damaged or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("version") == VERSION else None
