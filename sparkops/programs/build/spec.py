"""What the build program is given, and what it answers."""

import json
from typing import Literal, TypedDict

from sparkops.programs.checkpoints.folder import Files as Files


class Repository(TypedDict):
    """A repository that is read in parts. `hub` is `{endpoint, token}`."""

    repository: str
    commit: str
    files: Files
    hub: dict[str, str]


class Spec(TypedDict, total=False):
    """What the program is given.

    mode: `build`, or `check`, which needs `base` or `repository`, `staging`, `donors`, `steps`, `fetch` and `folder`.
    base: the base as an open folder; `repository` instead, for a check of one that is not fetched.
    files: the base's manifest, empty where there is none; `known`: oids by identity of files that were verified.
    staging: the open folder to build in; for a check an empty one.
    existing: the published folder, open; None where there is none. `previous`: the paths that its record names.
    published: its files, where it was built from the same inputs: only what is damaged of them is built again.
        `published_known`: oids by identity of those that need no second hashing.
    folder: the path by which a person knows what is built. `record`: its record but for the files.
    donors, steps: the steps name a donor by its number. `fetch`: options of downloads.
    """

    mode: Literal["build", "check"]
    base: int
    repository: Repository
    files: Files
    known: dict[str, str]
    staging: int
    existing: int | None
    previous: list[str]
    published: Files
    published_known: dict[str, str]
    folder: str
    identity: str
    record: dict[str, object]
    donors: list[Repository]
    steps: list[dict[str, object]]
    fetch: dict[str, object]


class Built(TypedDict):
    """`files` of the checkpoint, and their identities in staging; None where the published folder has them all."""

    files: Files
    staged: dict[str, str] | None


class StepCheck(TypedDict, total=False):
    """What a step would do to the tensors; or why it is refused: `error`, a `core.messages.ErrorMessage`.

    `from_donors` are bytes, `notices` [id, args].
    """

    name: str
    changed: int
    added: int
    removed: int
    from_donors: int
    notices: list[tuple[str, dict[str, object]]]
    error: dict[str, object]


class Checked(TypedDict):
    """What a build would make. Bytes: `size` of all weights, `written` of them rather than taken over from the base.

    `needed` is what has to be `free` on the disk of the folder, donors and a base that has to be fetched included.
    """

    steps: list[StepCheck]
    size: int
    files: int
    written: int
    needed: int
    free: int


def record_text(record: dict[str, object], files: Files) -> str:
    """The record of a built folder: `.sparkops/manifest.json`."""
    return json.dumps({**record, "files": files}, sort_keys=True, separators=(",", ":"))
