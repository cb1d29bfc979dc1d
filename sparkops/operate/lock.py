"""What of an inventory moves upstream, what it stands for now, and the lock that keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.lockfile import Lock, lock_path, write_lock
from sparkops.inventory.secrets import Secrets
from sparkops.models.role_variables import checkpoint_key
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import Checkpoint, OfRepository
from sparkops.resources.image import Image
from sparkops.resources.resource import Resource

WORKERS = 8


@dataclass(frozen=True, slots=True)
class Movable:
    """A tag or branch: under which key it is locked, and how upstream is asked for what it stands for."""

    table: str
    key: str
    ask: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that came, moved or went; None where it was or is not there."""

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A lock made anew: what changed in it, and what upstream did not tell (its old entry stays)."""

    lock: Lock
    changes: tuple[Change, ...] = ()
    failed: Mapping[str, SparkopsError] = field(default_factory=dict)


def renew(inventory: Inventory, secrets: Secrets) -> Renewed:
    """Ask upstream for everything that moves; entries that nothing declares any more go. Nothing is written."""
    found = movable(inventory, secrets)
    told, failed = _ask(found)
    old = inventory.lock
    tables: dict[str, dict[str, str]] = {"images": {}, "checkpoints": {}}
    for each in found:
        value = told.get(each.key) or getattr(old, each.table).get(each.key)
        if value is not None:
            tables[each.table][each.key] = value
    lock = Lock(tables["images"], tables["checkpoints"], on_disk=True)
    before, after = {**old.images, **old.checkpoints}, {**lock.images, **lock.checkpoints}
    changes = (Change(key, before.get(key), after.get(key)) for key in sorted({*before, *after}))
    return Renewed(lock, tuple(each for each in changes if each.before != each.after), failed)


def complete(
    inventory: Inventory, secrets: Secrets, *, add: bool, limit: Sequence[str] = ()
) -> tuple[Inventory, tuple[Message, ...]]:
    """The inventory with what its lock lacks, written there too, and what is to be said; entries never move.

    `limit` names the nodes that are looked at, as in `compile`.

    Without `add`, and for a shard (others would write the same file), a lacking entry raises InventoryError. An
    inventory without a lock file gets none.
    """
    known = {**inventory.lock.images, **inventory.lock.checkpoints}
    if add and not inventory.lock.on_disk:
        return inventory, ()
    lacking = [each for each in movable(inventory, secrets, limit) if each.key not in known]
    if lacking and (not add or inventory.shard is not None):
        raise InventoryError.of(
            "lock-file-lacks", where=str(lock_path(inventory.path)), lacking=", ".join(each.key for each in lacking)
        )
    if not lacking:
        return inventory, ()
    told, failed = _ask(lacking)
    tables = {name: dict(getattr(inventory.lock, name)) for name in ("images", "checkpoints")}
    for each in lacking:
        if each.key in told:
            tables[each.table][each.key] = told[each.key]
    lock = Lock(tables["images"], tables["checkpoints"], on_disk=True)
    if told:
        write_lock(inventory.path, lock)
    notices = [Message.of("lock-added", key=key, value=value) for key, value in told.items()]
    notices += [Message.of("lock-not-added", key=key, reason=error.message) for key, error in failed.items()]
    return dataclasses.replace(inventory, lock=lock), tuple(notices)


def upstream(inventory: Inventory, secrets: Secrets) -> tuple[Message, ...]:
    """What moved upstream since it was locked, and what could not be asked, as notices."""
    renewed = renew(inventory, secrets)
    moved = [
        Message.of("lock-moved-upstream", key=each.key, locked=each.before, found=each.after)
        for each in renewed.changes
        if each.before is not None and each.after is not None
    ]
    moved += [
        Message.of("lock-missing", key=each.key, found=each.after) for each in renewed.changes if each.before is None
    ]
    failed = (Message.of("lock-not-compared", key=key, reason=e.message) for key, e in renewed.failed.items())
    return (*moved, *failed)


def movable(inventory: Inventory, secrets: Secrets, limit: Sequence[str] = ()) -> tuple[Movable, ...]:
    """Every tag and branch of services that are not retired, once. Secrets are read: credentials to ask with."""
    bare = dataclasses.replace(inventory, lock=Lock())
    found: dict[str, Movable] = {}
    for resource in compile_inventory(
        bare, limit=limit or None, roles=["image", "checkpoint"], secrets=secrets
    ).resources:
        for each in _of(resource):
            found.setdefault(each.key, each)
    return tuple(sorted(found.values(), key=lambda each: (each.table, each.key)))


def _of(resource: Resource) -> Iterator[Movable]:
    if isinstance(resource, Image):
        image = resource
        if image.movable:
            yield Movable("images", image.name, lambda: _digest(image))
    if isinstance(resource, Checkpoint) and not resource.pinned:
        yield _branch(resource, resource.repository, resource.revision)
    if isinstance(resource, BuiltCheckpoint):
        for donor in resource.moving:
            yield _branch(resource, donor.repository, donor.revision)


def _branch(asked: OfRepository, repository: str, revision: str) -> Movable:
    """A branch or tag at the hub of a checkpoint: its own, or that of a donor."""
    told = {"repository": repository, "revision": revision, "endpoint": asked.endpoint}
    return Movable("checkpoints", checkpoint_key(told), lambda: asked.hub.resolve(repository, revision).commit)


def _digest(image: Image) -> str:
    from sparkops.resources.images import registry  # loads Docker's SDK

    return registry.digest(image.name, image.login(image.reference.repository))


def _ask(found: tuple[Movable, ...] | list[Movable]) -> tuple[dict[str, str], dict[str, SparkopsError]]:
    """The answers by key, and the errors."""

    def one(each: Movable) -> str | SparkopsError:
        try:
            return each.ask()
        except SparkopsError as error:
            return error

    with ThreadPoolExecutor(WORKERS) as pool:
        answers = dict(zip((each.key for each in found), pool.map(one, found), strict=True))
    told = {key: answer for key, answer in answers.items() if isinstance(answer, str)}
    return told, {key: answer for key, answer in answers.items() if isinstance(answer, SparkopsError)}
